//! Where fragments wait that have overtaken their first one.
//!
//! No program can keep a packet, so its bytes are copied, and another packet is made of them: when the first fragment is there, each copy is
//! written into the first one's frame in its turn, a clone of the frame is received once more by the device it came in on, and at last the frame
//! gets its own bytes back. The clones then go the ordinary way, on which their ports are known now. Nothing else knows of all this.
//!
//! The memory is fixed and divided into rings, in which the oldest gives way. A sender has one of them for all it sends: endpoints by their number,
//! the world by its addresses. So one that floods us with lone fragments pushes out its own, and those of the few that share its ring.
//!
//! A piece belongs to whoever has made it busy, and nobody waits for a busy one. The ring's lock is held for the few instructions that this takes:
//! a program may call nothing while it holds one.

use aya_ebpf::{
    bindings::{BPF_CSUM_LEVEL_RESET, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM, bpf_spin_lock as Lock},
    helpers::{
        bpf_clone_redirect, bpf_csum_level, bpf_ktime_get_coarse_ns, bpf_loop, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes, bpf_spin_lock, bpf_spin_unlock,
    },
};
use sluice_datapath_common::{
    DropReason,
    drop::Direction,
    fragment::{ENDPOINT_RINGS, FragmentKey, HOST_RING, KEY_WORDS, PATIENCE, PIECE, PIECES, RING, RINGS, WORLD_RINGS},
};

use crate::{
    family::Tables,
    maps::{ASIDE, HELD, HELD_RINGS},
    outline,
    packet::{ETHERNET, Frame},
    verdict,
};

/// A ring.
#[repr(C)]
pub struct Ring {
    /// Guards the count, and the state of every piece.
    lock: Lock,
    padding: u32,
    /// How many pieces were ever put in.
    count: u64,
    /// When the last one was, ns.
    last: u64,
}

/// A later fragment that came before the first one, or a part of it.
#[repr(C)]
pub struct Piece {
    /// [`FREE`], [`BUSY`] or [`WAITING`]. All else belongs to whoever has made it busy.
    state: u32,
    /// Where the fragment begins in the ring's count: the same in all its parts.
    ticket: u32,
    /// When it came, ns.
    came: u64,
    /// The bytes of its [`FragmentKey`], zero beyond them.
    key: [u32; KEY_WORDS],
    /// How long the fragment is, bytes from its IP header on, all parts together.
    length: u32,
    /// Which part of it this is.
    part: u32,
    /// See [`Sender`].
    endpoint: u32,
    /// See [`Sender`].
    direction: u32,
    bytes: [u8; PIECE],
}

/// [`Piece::state`]: nothing is here, as in a new map.
const FREE: u32 = 0;
/// [`Piece::state`]: somebody reads or writes it.
const BUSY: u32 = 1;
/// [`Piece::state`]: a part of a fragment waits here.
const WAITING: u32 = 2;

/// What one CPU puts aside for a fragment: too much for the stack.
#[repr(C)]
pub struct Aside {
    /// The bytes of the [`FragmentKey`] at hand, zero beyond them.
    key: [u32; KEY_WORDS],
    /// The bytes of the first fragment, from the IP header on, while its frame is lent to others.
    bytes: [u8; PIECE * PIECES as usize],
}

/// Whose fragment it is.
#[derive(Clone, Copy)]
pub struct Sender {
    /// The ring where its fragments wait.
    pub ring: u32,
    /// The endpoint's number; 0: host or world.
    pub endpoint: u32,
    /// A number of [`Direction`], [`SHARED`] or [`OF_THE_HOST`].
    pub direction: u32,
}

/// [`Sender::direction`] of a fragment that the host's stack was given too: its end here is not a drop.
pub const SHARED: u32 = u32::MAX;
/// [`Sender::direction`] of a datagram that is the host's own affair.
pub const OF_THE_HOST: u32 = u32::MAX - 1;

/// A fragment that is being put into a ring.
struct Incoming {
    frame: Frame,
    sender: Sender,
    came: u64,
    length: u32,
    ticket: u32,
    /// How many parts of it are in.
    written: u32,
}

/// A search for those that wait for a first fragment.
struct Search {
    frame: Frame,
    ring: u32,
    now: u64,
    /// The oldest piece of the ring, in its count.
    oldest: u32,
    /// How many bytes of the first fragment were put aside. 0: none, the frame is still as it came.
    saved: u32,
    /// The fragment whose bytes are being written into the frame, and how many of its parts are.
    ticket: u32,
    pasted: u32,
}

/// What a function out of line answers.
const DONE: i64 = 0;
const FAILED: i64 = -1;
/// What a function answers that has no ticket to give: one with this bit.
const NO_TICKET: u32 = u32::MAX;
const NOT_OF_TICKET: u32 = 1 << 31;

// === impl Sender ===

impl Sender {
    /// An endpoint.
    #[inline(always)]
    pub fn endpoint(number: u32) -> Self {
        Self {
            ring: ENDPOINT_RINGS + number % (WORLD_RINGS - ENDPOINT_RINGS),
            endpoint: number,
            direction: Direction::FromContainer as u32,
        }
    }

    /// The host's stack.
    #[inline(always)]
    pub fn host() -> Self {
        Self {
            ring: HOST_RING,
            endpoint: 0,
            direction: Direction::FromHost as u32,
        }
    }

    /// Whoever sends what can wait nowhere.
    #[inline(always)]
    pub fn passing() -> Self {
        Self {
            ring: RINGS,
            endpoint: 0,
            direction: SHARED,
        }
    }

    /// Whoever sends the host what is its own affair.
    #[inline(always)]
    pub fn to_host() -> Self {
        Self {
            direction: OF_THE_HOST,
            ..Self::passing()
        }
    }

    /// Somebody out there. With `is_shared` the host's stack gets each fragment too.
    #[inline(always)]
    pub fn world<F: Tables>(address: F::Address, is_shared: bool) -> Self {
        /// Knuth's multiplier, 2^32 divided by the golden ratio.
        const SPREAD: u32 = 0x9e37_79b1;
        let spread = F::difference(F::ANY, address).wrapping_mul(SPREAD);
        Self {
            ring: WORLD_RINGS + (spread >> 16) % (RINGS - WORLD_RINGS),
            endpoint: 0,
            direction: if is_shared { SHARED } else { Direction::FromNic as u32 },
        }
    }
}

/// Puts the key of the fragment aside that all the others here speak of.
#[inline(always)]
pub fn at_hand<F: Tables>(key: FragmentKey<F>) -> Option<&'static FragmentKey<F>> {
    const { assert!(size_of::<FragmentKey<F>>() <= size_of::<[u32; KEY_WORDS]>() && align_of::<FragmentKey<F>>() == 4) }
    let aside = ASIDE.get_ptr_mut(0)?;
    // SAFETY: it is this CPU's own, and a program is done with one fragment before it begins another. The key fits, and consists of integers.
    unsafe {
        (*aside).key = [0; KEY_WORDS];
        let at = (&raw mut (*aside).key).cast::<FragmentKey<F>>();
        at.write(key);
        Some(&*at)
    }
}

/// Copies a fragment into its sender's ring. The answer is its ticket.
#[inline(always)]
pub fn put(frame: Frame, sender: Sender) -> Result<u32, DropReason> {
    match outline::hold_fragment(frame, sender) {
        NO_TICKET => Err(DropReason::FragmentAlone),
        ticket => Ok(ticket),
    }
}

/// The same out of line: a ticket or [`NO_TICKET`].
#[inline(always)]
pub fn put_by_number(frame: Frame, ring: u32, endpoint: u32, direction: u32) -> u32 {
    let mut incoming = Incoming {
        frame,
        sender: Sender {
            ring,
            endpoint,
            direction,
        },
        // SAFETY: no arguments.
        came: unsafe { bpf_ktime_get_coarse_ns() },
        length: frame.len().saturating_sub(ETHERNET),
        ticket: 0,
        written: 0,
    };
    match put_all(&mut incoming) {
        DONE => incoming.ticket,
        _ => NO_TICKET,
    }
}

#[inline(always)]
fn put_all(incoming: &mut Incoming) -> i64 {
    let pieces = incoming.length.div_ceil(PIECE as u32);
    if pieces == 0 || pieces > PIECES {
        return FAILED;
    }
    let Some(ring) = HELD_RINGS.get_ptr_mut(incoming.sender.ring) else {
        return FAILED;
    };
    // SAFETY: the lock is the ring's own.
    incoming.ticket = unsafe {
        bpf_spin_lock(&raw mut (*ring).lock);
        let count = (*ring).count;
        (*ring).count = count + u64::from(pieces);
        (*ring).last = incoming.came;
        bpf_spin_unlock(&raw mut (*ring).lock);
        count as u32 & !NOT_OF_TICKET
    };
    let write: extern "C" fn(u32, *mut Incoming) -> i64 = write_piece;
    // SAFETY: the callback takes what it is given here, and `incoming` outlives the loop.
    unsafe { bpf_loop(pieces, write as *mut core::ffi::c_void, (&raw mut *incoming).cast(), 0) };
    if incoming.written == pieces { DONE } else { FAILED }
}

/// Copies one part of a fragment into its place in the ring. 0: on with the next.
extern "C" fn write_piece(part: u32, incoming: *mut Incoming) -> i64 {
    // SAFETY: `put_all` hands over its `incoming`, which nobody else touches meanwhile.
    let incoming = unsafe { &mut *incoming };
    let offset = part * PIECE as u32;
    let Some(length) = length_of_part(incoming.length, offset) else {
        return 1;
    };
    let Some(piece) = piece(incoming.sender.ring, incoming.ticket.wrapping_add(part)) else {
        return 1;
    };
    let Some(aside) = ASIDE.get_ptr(0) else { return 1 };
    match claim(incoming.sender.ring, piece) {
        Some(WAITING) => give_up(piece),
        Some(_) => {}
        None => return 1,
    }
    // SAFETY: the piece is ours; the frame is the program's context, and the kernel checks that it has these bytes.
    let copied = unsafe {
        (*piece).came = incoming.came;
        (*piece).key = (*aside).key;
        (*piece).length = incoming.length;
        (*piece).ticket = incoming.ticket;
        (*piece).part = part;
        (*piece).endpoint = incoming.sender.endpoint;
        (*piece).direction = incoming.sender.direction;
        bpf_skb_load_bytes(
            incoming.frame.context(),
            ETHERNET + offset,
            (&raw mut (*piece).bytes).cast(),
            length,
        )
    };
    leave(incoming.sender.ring, piece, if copied == 0 { WAITING } else { FREE });
    incoming.written += (copied == 0) as u32;
    (copied != 0) as i64
}

/// Takes a fragment back that was put in a moment ago. False: somebody else has it already.
#[inline(always)]
pub fn take_back(sender: Sender, ticket: u32) -> bool {
    let Some(piece) = piece(sender.ring, ticket) else {
        return false;
    };
    if !claim_waiting(sender.ring, piece) {
        return false;
    }
    // SAFETY: the piece is ours.
    let is_ours = unsafe { (*piece).ticket == ticket && (*piece).part == 0 };
    // What follows a first part that is gone is never looked at again.
    leave(sender.ring, piece, if is_ours { FREE } else { WAITING });
    is_ours
}

/// Lets those go that wait for this frame, a first fragment. The frame is as before afterwards, unless it is an error.
#[inline(always)]
pub fn release(frame: Frame, sender: Sender) -> Result<(), DropReason> {
    let Some(ring) = HELD_RINGS.get(sender.ring) else {
        return Ok(());
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if ring.last == 0 || now.wrapping_sub(ring.last) > PATIENCE {
        return Ok(());
    }
    match outline::release_fragments(frame, sender) {
        0 => Ok(()),
        _ => Err(DropReason::RewriteFailed),
    }
}

/// The same out of line, where there may be some. 0: it is as before.
#[inline(always)]
pub fn release_by_number(frame: Frame, ring: u32) -> u32 {
    let Some(counted) = HELD_RINGS.get(ring) else { return 0 };
    let mut search = Search {
        frame,
        ring,
        // SAFETY: no arguments.
        now: unsafe { bpf_ktime_get_coarse_ns() },
        oldest: counted.count as u32,
        saved: 0,
        ticket: 0,
        pasted: 0,
    };
    (release_all(&mut search) != DONE) as u32
}

#[inline(always)]
fn release_all(search: &mut Search) -> i64 {
    let look: extern "C" fn(u32, *mut Search) -> i64 = look;
    // SAFETY: the callback takes what it is given here, and `search` outlives the loop.
    unsafe { bpf_loop(RING, look as *mut core::ffi::c_void, (&raw mut *search).cast(), 0) };
    match search.saved {
        0 => DONE,
        _ => restore(search),
    }
}

/// Lets one go, if it waits for this first fragment. 0: on with the next.
extern "C" fn look(round: u32, search: *mut Search) -> i64 {
    // SAFETY: `release_all` hands over its `search`, which nobody else touches meanwhile.
    let search = unsafe { &mut *search };
    let Some(piece) = piece(search.ring, search.oldest.wrapping_add(round)) else {
        return 0;
    };
    // Looked at before it is claimed, since most are not; and again afterwards, since it may have become another.
    if !is_head(piece) || !claim_waiting(search.ring, piece) {
        return 0;
    }
    let is_one = is_head(piece);
    if is_one {
        let_go(search, piece);
    }
    leave(search.ring, piece, if is_one { FREE } else { WAITING });
    0
}

/// Sends a clone of the frame back to where it came from, with the bytes of the fragment whose first part this is.
#[inline(never)]
fn let_go(search: &mut Search, head: *mut Piece) {
    // SAFETY: the piece is ours.
    let (length, ticket, came) = unsafe { ((*head).length, (*head).ticket, (*head).came) };
    if search.now.wrapping_sub(came) > PATIENCE || (search.saved == 0 && save(search) != DONE) {
        return give_up(head);
    }
    // SAFETY: the frame is the program's context. The kernel checks the length.
    if unsafe { bpf_skb_change_tail(search.frame.skb(), ETHERNET + length, 0) } != 0
        || paste(search.frame, head, 0) != DONE
    {
        return give_up(head);
    }
    search.ticket = ticket;
    search.pasted = 1;
    let parts = length.div_ceil(PIECE as u32);
    if parts > 1 {
        let paste: extern "C" fn(u32, *mut Search) -> i64 = paste_next;
        // SAFETY: the callback takes what it is given here, and `search` outlives the loop.
        unsafe { bpf_loop(parts - 1, paste as *mut core::ffi::c_void, (&raw mut *search).cast(), 0) };
    }
    if search.pasted != parts {
        return give_up(head);
    }
    let device = search.frame.ifindex();
    // SAFETY: as above. Where it is not taken (the device goes down) it is lost, as any packet there is.
    if unsafe { bpf_clone_redirect(search.frame.skb(), device, u64::from(BPF_F_INGRESS)) } != 0 {
        give_up(head);
    }
}

/// Writes a further part of the fragment into the frame. 0: on with the next.
extern "C" fn paste_next(round: u32, search: *mut Search) -> i64 {
    // SAFETY: `let_go` hands over its `search`, which nobody else touches meanwhile.
    let search = unsafe { &mut *search };
    let part = round + 1;
    let Some(piece) = piece(search.ring, search.ticket.wrapping_add(part)) else {
        return 1;
    };
    if !claim_waiting(search.ring, piece) {
        return 1;
    }
    // SAFETY: the piece is ours.
    let is_part = unsafe { (*piece).ticket == search.ticket && (*piece).part == part };
    let is_pasted = is_part && paste(search.frame, piece, part) == DONE;
    leave(search.ring, piece, if is_part { FREE } else { WAITING });
    search.pasted += is_pasted as u32;
    !is_pasted as i64
}

/// Writes the bytes of a piece that is ours to their place in the frame.
#[inline(never)]
fn paste(frame: Frame, piece: *mut Piece, part: u32) -> i64 {
    let offset = part * PIECE as u32;
    // SAFETY: the piece is ours.
    let Some(length) = length_of_part(unsafe { (*piece).length }, offset) else {
        return FAILED;
    };
    // SAFETY: the frame is the program's context; the kernel checks its bounds, and the verifier those of the bytes.
    unsafe {
        bpf_skb_store_bytes(
            frame.skb(),
            ETHERNET + offset,
            (&raw const (*piece).bytes).cast(),
            length,
            u64::from(BPF_F_RECOMPUTE_CSUM),
        )
    }
}

/// Puts the bytes of the first fragment aside.
#[inline(never)]
fn save(search: &mut Search) -> i64 {
    let Some(aside) = ASIDE.get_ptr_mut(0) else {
        return FAILED;
    };
    let length = search.frame.len().saturating_sub(ETHERNET);
    let Some(length) = known_to_verifier(length, (PIECE as u32) * PIECES) else {
        return FAILED;
    };
    // SAFETY: the frame is the program's context; what was put aside belongs to this CPU. That a NIC has found a checksum right says nothing of
    // bytes that it has not seen: let the receiver find out.
    unsafe {
        bpf_csum_level(search.frame.skb(), u64::from(BPF_CSUM_LEVEL_RESET));
        if bpf_skb_load_bytes(
            search.frame.context(),
            ETHERNET,
            (&raw mut (*aside).bytes).cast(),
            length,
        ) != 0
        {
            return FAILED;
        }
    }
    search.saved = length;
    DONE
}

/// Gives the frame its own bytes back.
#[inline(never)]
fn restore(search: &Search) -> i64 {
    let Some(aside) = ASIDE.get_ptr_mut(0) else {
        return FAILED;
    };
    let Some(length) = known_to_verifier(search.saved, (PIECE as u32) * PIECES) else {
        return FAILED;
    };
    // SAFETY: as in `save`.
    unsafe {
        match bpf_skb_change_tail(search.frame.skb(), ETHERNET + length, 0) {
            0 => bpf_skb_store_bytes(
                search.frame.skb(),
                ETHERNET,
                (&raw mut (*aside).bytes).cast(),
                length,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ),
            error => error,
        }
    }
}

/// Sees to the end of a fragment whose first part this is, if it is one.
#[inline(never)]
fn give_up(piece: *mut Piece) {
    // SAFETY: the piece is ours.
    let (part, direction, endpoint, length) =
        unsafe { ((*piece).part, (*piece).direction, (*piece).endpoint, (*piece).length) };
    if part == 0 && direction != SHARED {
        // SAFETY: see above; a piece is longer than that.
        let copy = unsafe { (&raw const (*piece).bytes).cast::<[u32; 11]>() };
        verdict::end_copy(
            copy,
            endpoint,
            direction as u8,
            DropReason::FragmentAlone as u8,
            ETHERNET + length,
        );
    }
}

/// Is this the first part of a fragment of the datagram at hand? An answer without claiming the piece is a guess.
#[inline(always)]
fn is_head(piece: *mut Piece) -> bool {
    let Some(aside) = ASIDE.get_ptr(0) else { return false };
    // SAFETY: whatever others write to the piece meanwhile, these are numbers; what was put aside is this CPU's own.
    unsafe {
        let mut differs = (*piece).part;
        for word in 0..KEY_WORDS {
            differs |= (*piece).key[word] ^ (*aside).key[word];
        }
        differs == 0
    }
}

/// The piece at this place of a ring's count.
#[inline(always)]
fn piece(ring: u32, ticket: u32) -> Option<*mut Piece> {
    HELD.get_ptr_mut(ring * RING + ticket % RING)
}

/// Makes the piece ours, if a part of a fragment waits in it.
#[inline(always)]
fn claim_waiting(ring: u32, piece: *mut Piece) -> bool {
    match claim(ring, piece) {
        Some(WAITING) => true,
        Some(_) => {
            leave(ring, piece, FREE);
            false
        }
        None => false,
    }
}

/// Makes the piece ours unless it is somebody's. The answer is the state it was in.
#[inline(always)]
fn claim(ring: u32, piece: *mut Piece) -> Option<u32> {
    let ring = HELD_RINGS.get_ptr_mut(ring)?;
    // SAFETY: the lock guards the state of the ring's pieces.
    let state = unsafe {
        bpf_spin_lock(&raw mut (*ring).lock);
        let state = (*piece).state;
        (*piece).state = BUSY;
        bpf_spin_unlock(&raw mut (*ring).lock);
        state
    };
    (state != BUSY).then_some(state)
}

/// Leaves a piece that is ours.
#[inline(always)]
fn leave(ring: u32, piece: *mut Piece, state: u32) {
    let Some(ring) = HELD_RINGS.get_ptr_mut(ring) else {
        return;
    };
    // SAFETY: see `claim`.
    unsafe {
        bpf_spin_lock(&raw mut (*ring).lock);
        (*piece).state = state;
        bpf_spin_unlock(&raw mut (*ring).lock);
    }
}

/// How many bytes the part at `offset` has, of a fragment of `length` bytes.
#[inline(always)]
fn length_of_part(length: u32, offset: u32) -> Option<u32> {
    let left = length.saturating_sub(offset);
    known_to_verifier(left.min(PIECE as u32), PIECE as u32)
}

/// The number, if it is from 1 to `most`. Compared less one, as the compiler would do anyhow: made by adding one, it is not zero to the verifier
/// either. And the compiler is made to forget what it knows of it (volatile), or it would leave the comparison away.
#[inline(always)]
pub fn known_to_verifier(number: u32, most: u32) -> Option<u32> {
    let less_one = number.wrapping_sub(1);
    // SAFETY: a read of a value on the stack.
    let less_one = unsafe { core::ptr::read_volatile(&raw const less_one) };
    (less_one < most).then(|| less_one + 1)
}
