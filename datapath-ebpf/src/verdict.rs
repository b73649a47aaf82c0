//! The only way out of a program: a packet goes on, or its death is counted, and told to those who listen.

pub mod event;

use aya_ebpf::bindings::{BPF_NOEXIST, TC_ACT_SHOT, TC_ACT_UNSPEC};
use sluice_datapath_common::{
    DropReason,
    counter::Counter,
    drop::{Direction, DropKey},
};

use crate::{
    maps::{ATTACHMENTS, DROPS, Table},
    outline,
    packet::Frame,
    stage::refuse,
};

/// What becomes of a packet that is not dropped.
#[must_use]
pub enum Verdict {
    /// It goes on where it is: to the programs after ours, then to the host's stack or out of the NIC.
    Stack,
    /// It was sent elsewhere: the answer of a redirect helper.
    Sent(i32),
    /// It was heard, and nobody has anything to say to it: the right end of an ARP announcement or probe. Not a drop.
    Heard,
    /// A copy of it waits for the first fragment of its datagram. If none comes that is a drop, and counted then.
    Held,
}

/// A verdict as a number: a function out of line can return nothing else. Reasons are below [`NUMBERS_OF_VERDICTS`].
pub type Number = u32;

const NUMBERS_OF_VERDICTS: Number = 0x100;
const STACK: Number = 0x100;
const HEARD: Number = 0x101;
const HELD: Number = 0x102;
/// And the helper's answer above it.
const SENT: Number = 0x200;

/// The number of what becomes of a packet.
#[inline(always)]
pub fn number(path: Result<Verdict, DropReason>) -> Number {
    match path {
        Ok(Verdict::Stack) => STACK,
        Ok(Verdict::Heard) => HEARD,
        Ok(Verdict::Held) => HELD,
        Ok(Verdict::Sent(code)) => SENT + (code as u32 & 0xff),
        Err(reason) => reason as u32,
    }
}

/// What becomes of a packet by its number, which [`number`] made.
#[inline(always)]
pub fn of_number(number: Number) -> Result<Verdict, DropReason> {
    match number {
        STACK => Ok(Verdict::Stack),
        HEARD => Ok(Verdict::Heard),
        HELD => Ok(Verdict::Held),
        // SAFETY: every number below was made from a reason.
        number if number < NUMBERS_OF_VERDICTS => Err(unsafe { core::mem::transmute::<u8, DropReason>(number as u8) }),
        number => Ok(Verdict::Sent((number - SENT) as i32)),
    }
}

/// Lets the packet go, or counts its death.
#[inline(always)]
pub fn act(frame: Frame, direction: Direction, path: Result<Verdict, DropReason>) -> i32 {
    match path {
        // Not TC_ACT_OK: programs after ours (a user's own) still have their say.
        Ok(Verdict::Stack) => TC_ACT_UNSPEC,
        Ok(Verdict::Sent(code)) => code,
        Ok(Verdict::Heard | Verdict::Held) => TC_ACT_SHOT as i32,
        Err(reason) => {
            // The reason itself is not looked at here: the compiler would leave registers undefined that the verifier then sees read.
            match outline::end_packet(frame, direction as u32, reason as u32) {
                0 => TC_ACT_SHOT as i32,
                _ => refuse::by_family(frame, direction),
            }
        }
    }
}

/// The end of a packet, by the numbers of its direction and reason. Not 0: its sender is to be told.
#[inline(always)]
pub fn end_by_number(frame: Frame, direction: u32, reason: u32) -> u32 {
    let endpoint = if direction == Direction::FromContainer as u32 {
        endpoint_behind(frame.ifindex())
    } else {
        0
    };
    let is_told = (reason == DropReason::PolicyRejected as u32 && direction != Direction::ToNic as u32) as u32;
    let (direction, reason) = (direction as u8, reason as u8);
    count(endpoint, direction, reason, frame.len());
    event::of_packet(frame, endpoint, direction, reason);
    is_told
}

/// The end of a packet of which there is but a copy, from its IP header on; `length` is that of its frame.
#[inline(always)]
pub fn end_copy(copy: *const [u32; 11], endpoint: u32, direction: u8, reason: u8, length: u32) {
    count(endpoint, direction, reason, length);
    event::of_copy(copy, endpoint, direction, reason, length);
}

/// Counts a drop.
#[cold]
#[inline(never)]
fn count(endpoint: u32, direction: u8, reason: u8, bytes: u32) {
    const TABLE: Table<DropKey, Counter> = Table::of(&raw const DROPS);
    let key = DropKey {
        endpoint,
        reason,
        direction,
        padding: [0; 2],
    };
    let bytes = u64::from(bytes);
    if let Some(counter) = TABLE.find(&key) {
        // SAFETY: the slot of this CPU: nobody else writes to it while the program runs.
        unsafe {
            (*counter.as_ptr()).packets += 1;
            (*counter.as_ptr()).bytes += bytes;
        }
    } else {
        // When the table is full the oldest counter gives way; there is nobody to tell if even that fails.
        let _ = TABLE.insert(&key, &raw const *&Counter { packets: 1, bytes }, BPF_NOEXIST);
    }
}

/// The number of the endpoint whose veth has its host end here, 0 if none.
#[cold]
#[inline(never)]
fn endpoint_behind(ifindex: u32) -> u32 {
    Table::of(&raw const ATTACHMENTS)
        .get(&ifindex)
        .map_or(0, |attachment: sluice_datapath_common::endpoint::Attachment| {
            attachment.endpoint
        })
}
