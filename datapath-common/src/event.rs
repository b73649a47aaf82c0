//! Drops as they happen, and conversations as they open and close, for whoever listens; what is too much to be told is counted.
//!
//! A record is one of four, known by its length: a [`DropEvent`], the same with the beginning of the frame behind it, and a [`FlowEvent`] of either
//! family.

use crate::{
    DropReason, Family, Ipv4, Ipv6,
    flow::{Flow, FlowKey},
    plain_old_data,
};

/// Of `LISTENERS`: somebody wants to hear of drops.
pub const LISTEN_DROPS: u32 = 1 << 0;
/// Somebody wants to hear of conversations.
pub const LISTEN_FLOWS: u32 = 1 << 1;
/// Somebody wants to see how the frames of drops begin.
pub const LISTEN_FRAMES: u32 = 1 << 2;

/// How many drops of one reason are told of per CPU and second. `DROPS` counts them all.
pub const EVENTS_PER_SECOND: u32 = 64;

/// A second on the clock of events, ns.
pub const SECOND: u64 = 1_000_000_000;

/// How many conversations are told of as they open, and as many as they close, per CPU and second.
pub const FLOWS_PER_SECOND: u32 = 2_048;

/// The slots of `EVENT_PACE`, one for each number of a reason. The last two are those of conversations.
pub const REASONS: usize = 64;
/// The slot of conversations that opened.
pub const OPENED: u8 = 62;
/// The slot of conversations that closed.
pub const CLOSED: u8 = 63;

/// How much of a frame is shown, bytes.
pub const FRAME_BYTES: usize = 192;

/// A packet that died, as far as its headers can be read; addresses and ports as they stood in it. Bytes of an address beyond those of its family,
/// and whatever could not be read, are zero.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DropEvent {
    /// When, CLOCK_MONOTONIC (up to one tick behind), ns.
    pub time: u64,
    /// Network byte order; an IPv4 address is in the first four bytes. ARP: who speaks.
    pub source: [u32; 4],
    /// As `source`. ARP: whom it is about.
    pub destination: [u32; 4],
    /// The endpoint's number at whose veth it happened; 0: none.
    pub endpoint: u32,
    /// The device's ifindex; 0: of a fragment that waited in vain it is not known any more.
    pub ifindex: u32,
    /// The length of the frame, bytes.
    pub length: u32,
    /// Network byte order; 0: the protocol has none, or they could not be read. ICMP: its type and code, in this order.
    pub source_port: u16,
    /// As `source_port`. ICMP: the identifier of an echo or timestamp, else 0.
    pub destination_port: u16,
    /// Host byte order.
    pub ether_type: u16,
    /// IP protocol number of the layer above, behind any extension headers.
    pub protocol: u8,
    /// `AF_INET` (ARP, too), `AF_INET6`, or 0: there are no addresses.
    pub family: u8,
    /// A [`DropReason`].
    pub reason: u8,
    /// A [`Direction`](crate::drop::Direction).
    pub direction: u8,
    /// Always zero.
    pub padding: [u8; 2],
    /// The number of the rule that refused it; 0: none did, or nobody knows any more.
    pub rule: u64,
}

/// A conversation that has just opened or closed.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowEvent<F: Family> {
    /// When, same clock as drops, ns.
    pub time: u64,
    /// The packets that were answered; of one that opened, none.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// The number of the rule that allowed it; 0: no document spoke of it, or it closed.
    pub rule: u64,
    /// The entry of the opener's packets.
    pub flow: Flow<F>,
    /// Its key.
    pub key: FlowKey<F>,
    /// [`OPENED`] or [`CLOSED`].
    pub kind: u32,
}

/// What one CPU has told of one reason.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EventPace {
    /// When the present second began, same clock as events, ns.
    pub since: u64,
    /// Drops not told of because there were too many of their reason, ever.
    pub too_many: u64,
    /// Drops not told of because those before had not been read yet and the ring was full, ever.
    pub lost: u64,
    /// Events in the present second.
    pub told: u32,
    /// Always zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<DropEvent>() == 72 && size_of::<EventPace>() == 32);
const _: () = assert!(size_of::<FlowEvent<Ipv4>>() == 160 && size_of::<FlowEvent<Ipv6>>() == 224);
const _: () = assert!(DropReason::ALL.len() < OPENED as usize);

plain_old_data!(DropEvent, EventPace, FlowEvent<Ipv4>, FlowEvent<Ipv6>);
