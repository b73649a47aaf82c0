//! Drops as they happen, for whoever listens; what is too much to be told is counted.

use crate::plain_old_data;

/// How many drops of one reason are told of per CPU and second. The counters count them all.
pub const EVENTS_PER_SECOND: u32 = 64;

/// A packet that died, as far as its headers can be read. Addresses as they stood in it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DropEvent {
    /// When, CLOCK_MONOTONIC (up to one tick behind), ns.
    pub time: u64,
    /// Network byte order; an IPv4 address is in the first four bytes, the others are zero.
    pub source: [u8; 16],
    /// As `source`.
    pub destination: [u8; 16],
    /// The endpoint's number at whose veth it happened; 0: none.
    pub endpoint: u32,
    /// The device.
    pub ifindex: u32,
    /// The length of the frame, bytes.
    pub length: u32,
    /// How many drops of this reason this CPU has not told of since the last that it did.
    pub untold: u32,
    /// Network byte order; 0: the protocol has none, or they could not be read. ICMP: type and code.
    pub source_port: u16,
    /// As `source_port`. ICMP: the identifier.
    pub destination_port: u16,
    /// Host byte order.
    pub ether_type: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// `AF_INET`, `AF_INET6`, or 0: neither, so there are no addresses.
    pub family: u8,
    /// A `DropReason`.
    pub reason: u8,
    /// A `Direction`.
    pub direction: u8,
    /// Always zero.
    pub padding: [u8; 6],
}

/// What one CPU has told of one reason.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EventPace {
    /// When the present second began, same clock as events, ns.
    pub since: u64,
    /// Events not told because there were too many of them, ever.
    pub too_many: u64,
    /// Events lost because nobody had read those before, ever.
    pub lost: u64,
    /// Events in the present second.
    pub told: u32,
    /// Events not told since the last that was.
    pub untold: u32,
}

const _: () = assert!(size_of::<DropEvent>() == 72 && size_of::<EventPace>() == 32);

plain_old_data!(DropEvent, EventPace);
