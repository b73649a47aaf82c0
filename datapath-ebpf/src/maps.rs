//! Every map of `datapath-common/src/maps.rs`, and a typed handle to look into them.

use core::{ffi::c_void, marker::PhantomData, ptr::NonNull};

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps,
    helpers::{bpf_map_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem},
    macros::btf_map,
};
use sluice_datapath_common::{
    Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address,
    config::Config,
    counter::Counter,
    drop::DropKey,
    endpoint::{Attachment, Endpoint, EndpointKey},
    event::{DropEvent, EventPace, FlowEvent},
    flow::{Flow, FlowKey},
    for_each_map,
    fragment::{FragmentKey, FragmentPorts, RING, RINGS},
    lifetime::LONGEST_OPENING,
    network::{NETWORK_EXISTS, Network},
    overlay::{Host, Remote},
    policy::{Cell, CellKey, Groups, Judgement, LinkKey, ListKey, MemberKey, Subject, VerdictKey},
    publish::{Publication, PublishKey, RangeKey, SourceKey, reserved_at},
    resolver::{Asking, Resolver},
    settings::{Settings, Tally},
    socket::{SocketPeer, SocketPeerKey},
    uplink::{LocalAddress, Uplink},
};

use crate::{
    packet::Facts,
    stage::{
        admit::Plan,
        hold::{Aside, Piece, Ring},
        weigh::Said,
    },
    verdict::event::Telling,
};

/// The facts of this host. Set by the loader.
#[unsafe(no_mangle)]
pub static CONFIG: Global<Config> = Global::new(Config {
    netns_cookie: 0,
    host_leg_ifindex: 0,
    host_ifindex: 0,
    host_mac: [0; 6],
    ephemeral_first: 0,
    ephemeral_last: 0,
    padding: [0; 6],
});

macro_rules! declare {
    ($($name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal, $sentence:literal;)+) => {
        $(declare!(@$kind $name, $key, $value, $capacity, $sentence);)+
    };
    (@Array $name:ident, $key:ty, $value:ty, $capacity:literal, $sentence:literal) => {
        #[doc = $sentence]
        #[btf_map]
        pub static $name: btf_maps::Array<$value, $capacity> = btf_maps::Array::new();
    };
    (@PerCpuArray $name:ident, $key:ty, $value:ty, $capacity:literal, $sentence:literal) => {
        #[doc = $sentence]
        #[btf_map]
        pub static $name: btf_maps::PerCpuArray<$value, $capacity> = btf_maps::PerCpuArray::new();
    };
    (@RingBuf $name:ident, $key:ty, $value:ty, $capacity:literal, $sentence:literal) => {
        #[doc = $sentence]
        #[btf_map]
        pub static $name: btf_maps::RingBuf<$value, $capacity> = btf_maps::RingBuf::new();
    };
    (@SparseHashMap $name:ident, $key:ty, $value:ty, $capacity:literal, $sentence:literal) => {
        #[doc = $sentence]
        #[btf_map]
        pub static $name: btf_maps::HashMap<$key, $value, $capacity, { BPF_F_NO_PREALLOC as usize }> =
            btf_maps::HashMap::new();
    };
    (@$kind:ident $name:ident, $key:ty, $value:ty, $capacity:literal, $sentence:literal) => {
        #[doc = $sentence]
        #[btf_map]
        pub static $name: btf_maps::$kind<$key, $value, $capacity> = btf_maps::$kind::new();
    };
}

for_each_map!(declare);

/// Where one CPU writes down a plan and an entry: they are too large for the stack. Not in the table of maps, since nobody else ever looks at it. A
/// program is not interrupted by another of ours on its CPU.
#[btf_map]
pub static DESK4: btf_maps::PerCpuArray<Desk<Ipv4>, 1> = btf_maps::PerCpuArray::new();

/// The same for IPv6.
#[btf_map]
pub static DESK6: btf_maps::PerCpuArray<Desk<Ipv6>, 1> = btf_maps::PerCpuArray::new();

/// Where one CPU notes what it has read of a packet (0) and of the one that it quotes (1). Not on the stack: the verifier knows every byte that it
/// has seen written there, and would walk the whole path once for each kind of packet. Of a map it knows nothing.
#[btf_map]
pub static FACTS4: btf_maps::PerCpuArray<Facts<Ipv4>, 2> = btf_maps::PerCpuArray::new();

/// The same for IPv6.
#[btf_map]
pub static FACTS6: btf_maps::PerCpuArray<Facts<Ipv6>, 2> = btf_maps::PerCpuArray::new();

/// Where one CPU writes a report on an IPv6 packet: the ICMP header, and as much of the packet as is quoted.
#[btf_map]
pub static REPORT: btf_maps::PerCpuArray<[u32; REPORT_WORDS], 1> = btf_maps::PerCpuArray::new();

/// The ICMP header and 252 bytes.
pub const REPORT_WORDS: usize = 2 + 63;

/// The rings of fragments that wait for their first one. These three are not in the table of maps either: a copy of a packet is nobody else's
/// business, and is not missed when the programs are replaced.
#[btf_map]
pub static HELD_RINGS: btf_maps::Array<Ring, { RINGS as usize }> = btf_maps::Array::new();

/// The pieces of all rings, one ring after the other.
#[btf_map]
pub static HELD: btf_maps::Array<Piece, { (RINGS * RING) as usize }> = btf_maps::Array::new();

/// Where one CPU writes the event of a drop. On the stack there is no room for one.
#[btf_map]
pub static TOLD: btf_maps::PerCpuArray<Telling, 1> = btf_maps::PerCpuArray::new();

/// The same for a conversation that opens or closes.
#[btf_map]
pub static TOLD_FLOW4: btf_maps::PerCpuArray<FlowEvent<Ipv4>, 1> = btf_maps::PerCpuArray::new();

/// As above, for IPv6.
#[btf_map]
pub static TOLD_FLOW6: btf_maps::PerCpuArray<FlowEvent<Ipv6>, 1> = btf_maps::PerCpuArray::new();

/// What one CPU puts aside for the fragment at hand.
#[btf_map]
pub static ASIDE: btf_maps::PerCpuArray<Aside, 1> = btf_maps::PerCpuArray::new();

/// How many keys lie on a desk.
pub const ROOM: u32 = 128;

/// What lies on a CPU's desk, from the last packet or from never: all zero. The parts of the path (`outline`) hand it on from one to the next.
#[repr(C)]
pub struct Desk<F: Family> {
    /// The entry that is being made of a conversation. At the very beginning: its address is handed on, and the compiler would add a distance before
    /// it has asked whether there is a desk, which the verifier of 6.1 refuses.
    pub flow: Flow<F>,
    /// What the opener says: the conversation that is judged and opened.
    pub key: FlowKey<F>,
    /// What is answered.
    pub back: FlowKey<F>,
    /// How a conversation is to be carried.
    pub plan: Plan<F>,
    /// Who has published the port that is spoken to.
    pub publication: Publication<F>,
    /// The key of the other direction of an entry that is looked at.
    pub reverse: FlowKey<F>,
    /// Not 0: the conversation is to begin in the table that never evicts.
    pub kept: u32,
    /// Not 0: every port is asked after before it is entered.
    pub careful: u32,
    /// Where in the range of ports a search in order begins.
    pub first_place: u32,
    /// Not 0: the port of a connection that is closed is as good as a free one.
    pub takes_closed: u16,
    /// What documents say of the conversation.
    pub said: Said<F>,
    /// The number of the rule that has decided about it; 0: no document speaks of it.
    pub rule: u64,
    /// What that rule says; 0: nothing.
    pub strictest: u32,
    /// Conversations that are to be ended, so many of `keys`.
    pub doomed: u32,
    /// Their keys.
    pub keys: [FlowKey<F>; ROOM as usize],
}

/// A hash map or trie, whatever its capacity and kind: what the kernel's helpers need to know of one.
pub struct Table<K, V> {
    map: *const c_void,
    entries: PhantomData<(K, V)>,
}

/// The key of a longest prefix match.
#[repr(C)]
pub struct Prefix<A> {
    bits: u32,
    address: A,
}

/// The network with this number.
#[inline(always)]
pub fn network(number: u32) -> Option<&'static Network> {
    NETWORKS
        .get(number)
        .filter(|network| network.flags & NETWORK_EXISTS != 0)
}

/// Another host by its number.
#[inline(always)]
pub fn host(number: u32) -> Option<&'static Host> {
    HOSTS.get(number).filter(|host| host.address.0[3] != 0)
}

/// The current generation of an endpoint number.
#[inline(always)]
pub fn generation(endpoint: u32) -> u32 {
    GENERATIONS.get(endpoint).copied().unwrap_or(0)
}

/// The current epoch.
#[inline(always)]
pub fn epoch() -> u32 {
    EPOCH.get(0).copied().unwrap_or(0)
}

/// What the agent has set.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// What an endpoint holds.
#[inline(always)]
pub fn tally_of(endpoint: u32) -> Tally {
    TALLIES.get(endpoint).copied().unwrap_or_default()
}

/// Counts flows of an endpoint that came or went, and those that are half open no more, or again.
#[inline(always)]
pub fn tally(endpoint: u32, flows: i64, half_open: i64) {
    let Some(tally) = TALLIES.get_ptr_mut(endpoint) else {
        return;
    };
    // SAFETY: a slot of an array.
    unsafe {
        if flows != 0 {
            add(&raw mut (*tally).flows, flows);
        }
        if half_open != 0 {
            add(&raw mut (*tally).half_open, half_open);
        }
    }
}

/// Adds to a word that other CPUs add to at the same time. `core`'s atomics have no such thing for this target, whose first version knew but this one.
///
/// # Safety
/// `word` is aligned and lies in a map.
#[inline(always)]
unsafe fn add(word: *mut i64, by: i64) {
    // SAFETY: the caller's promise; nothing but the word is touched.
    unsafe {
        core::arch::asm!("lock *(u64 *)({word} + 0) += {by}", word = in(reg) word, by = in(reg) by, options(nostack))
    };
}

/// Adds to a word of a counter that other CPUs add to at the same time.
///
/// # Safety
/// `word` is aligned and lies in a map.
#[inline(always)]
pub unsafe fn add_word(word: *mut u64, by: u64) {
    // SAFETY: the caller's promise; a sum is the same whether there are signs or not.
    unsafe { add(word.cast(), by as i64) };
}

/// When the agent last walked the flows, by their clock.
#[inline(always)]
pub fn swept() -> u64 {
    SWEPT.get(0).copied().unwrap_or(0)
}

/// May there be flows in the tables of those that nobody has answered yet? On most hosts there are none, and two look-ups are saved for each packet
/// that opens a conversation.
#[inline(always)]
pub fn has_opening(now: u64) -> bool {
    OPENED
        .get(0)
        .is_some_and(|last| now.wrapping_sub(*last) <= LONGEST_OPENING)
}

/// A flow was put there, or had a packet.
#[inline(always)]
pub fn note_opening(now: u64) {
    let Some(last) = OPENED.get_ptr_mut(0) else { return };
    // SAFETY: a slot of an array. Written once per tick of the clock: all CPUs read it.
    unsafe {
        if *last != now {
            *last = now;
        }
    }
}

/// Is a port (network byte order) of the host published at any of its addresses?
#[inline(always)]
pub fn is_reserved(family: u8, protocol: u8, port: u16) -> bool {
    let Some((slot, bit)) = reserved_at(family, protocol, u16::from_be(port)) else {
        return false;
    };
    RESERVED.get(slot).is_some_and(|ports| ports & bit != 0)
}

// === impl Desk ===

impl<F: Family> Desk<F> {
    /// The endpoint that answers for the conversation: whoever opens it, or is spoken to from outside. 0: none.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        match self.plan.back.endpoint {
            0 => self.plan.there.endpoint,
            opener => opener,
        }
    }
}

// === impl Table ===

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Table<K, V> {}

impl<K, V> Table<K, V> {
    /// The handle of a map that [`declare!`] made. Its key and value must be `K` and `V`.
    pub const fn of<M>(map: *const M) -> Self {
        Self {
            map: map.cast(),
            entries: PhantomData,
        }
    }

    /// The value as it lies in the map, where other CPUs and the agent may change it at any time.
    #[inline(always)]
    pub fn find(self, key: &K) -> Option<NonNull<V>> {
        // SAFETY: `map` is a map with keys of type `K`, and the helper only reads the key.
        NonNull::new(unsafe { bpf_map_lookup_elem(self.map.cast_mut(), (&raw const *key).cast()) }.cast())
    }

    /// A copy of the value.
    #[inline(always)]
    pub fn get(self, key: &K) -> Option<V>
    where
        V: Copy,
    {
        // SAFETY: the kernel keeps the slot of an entry readable until the program ends, even when the entry is removed meanwhile.
        self.find(key).map(|value| unsafe { value.read() })
    }

    /// Writes an entry; an error is a negative errno.
    #[inline(always)]
    pub fn insert(self, key: &K, value: *const V, flags: u32) -> Result<(), i64> {
        // SAFETY: `map` has keys of type `K` and values of type `V`; the helper reads both and keeps neither pointer.
        match unsafe {
            bpf_map_update_elem(
                self.map.cast_mut(),
                (&raw const *key).cast(),
                value.cast(),
                u64::from(flags),
            )
        } {
            0 => Ok(()),
            // Below Linux 6.4 the call goes straight to a function that returns an `int`: the upper half is not part of the answer.
            errno => Err(i64::from(errno as i32)),
        }
    }

    /// Removes an entry; false when it is not there.
    #[inline(always)]
    pub fn remove(self, key: &K) -> bool {
        // SAFETY: `map` has keys of type `K`; the helper only reads the key.
        unsafe { bpf_map_delete_elem(self.map.cast_mut(), (&raw const *key).cast()) == 0 }
    }

    /// The map, for helpers that walk one.
    #[inline(always)]
    pub const fn map(self) -> *const c_void {
        self.map
    }
}

// === impl Prefix ===

impl<A> Prefix<A> {
    /// A whole address: the longest prefix that holds it is found.
    #[inline(always)]
    pub const fn whole(address: A) -> Self {
        Self {
            bits: 8 * size_of::<A>() as u32,
            address,
        }
    }

    /// What is looked for.
    #[inline(always)]
    pub const fn of_mut(&mut self) -> &mut A {
        &mut self.address
    }
}
