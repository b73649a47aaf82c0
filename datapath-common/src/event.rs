//! Drops as they happen, for whoever listens; what is too much to be told is counted.

use crate::{DropReason, plain_old_data};

/// How many drops of one reason are told of per CPU and second. `DROPS` counts them all.
pub const EVENTS_PER_SECOND: u32 = 64;

/// A second on the clock of events, ns.
pub const SECOND: u64 = 1_000_000_000;

/// The slots of `EVENT_PACE`, one for each number of a reason.
pub const REASONS: usize = 64;

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

const _: () = assert!(size_of::<DropEvent>() == 64 && size_of::<EventPace>() == 32);
const _: () = assert!(DropReason::ALL.len() < REASONS);

plain_old_data!(DropEvent, EventPace);
