//! Fragments follow their first fragment, the only one that bears ports. Those that overtake it wait for it.

use crate::{Family, Ipv4, Ipv6, plain_old_data};

/// What all fragments of a datagram share.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FragmentKey<F: Family> {
    /// Source address.
    pub source: F::Address,
    /// Destination address.
    pub destination: F::Address,
    /// The datagram's identification (IPv4: the 16 bits in network byte order; IPv6: all 32).
    pub identification: u32,
    /// The scope, as in a flow's key.
    pub scope: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub padding: [u8; 3],
}

/// What only the first bears.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FragmentPorts {
    /// When the last fragment of the datagram passed, `bpf_ktime_get_coarse_ns`, ns.
    pub seen: u64,
    /// Network byte order.
    pub source_port: u16,
    /// Network byte order.
    pub destination_port: u16,
    /// `FRAGMENT_*` bits.
    pub flags: u32,
}

/// The datagram is the host's own affair: its fragments go to the host's stack.
pub const FRAGMENT_OF_HOST: u32 = 1 << 0;

/// How long a datagram may take between two of its fragments, ns. RFC 791 proposes 15 seconds for reassembly; a number that is used again after
/// that belongs to another datagram.
pub const PATIENCE: u64 = 15_000_000_000;

/// How many bytes of a fragment one piece holds: one of an ordinary network (1500) fits into a single one.
pub const PIECE: usize = 1_504;
/// The pieces that the longest fragment may take: one of a network of jumbo frames (9000).
pub const PIECES: u32 = 6;
/// The pieces of one sender: a whole datagram of 64 KiB that comes in the reverse order, its first fragment last.
pub const RING: u32 = 64;
/// The rings. A sender has one of them and shares it with few others, and only what is in it can be pushed out by it.
pub const RINGS: u32 = 64;
/// The ring of the host's stack.
pub const HOST_RING: u32 = 0;
/// The first of the endpoints' rings, by their number.
pub const ENDPOINT_RINGS: u32 = 1;
/// The first of the world's rings, by source address.
pub const WORLD_RINGS: u32 = 32;

/// The words of the longer [`FragmentKey`].
pub const KEY_WORDS: usize = size_of::<FragmentKey<Ipv6>>() / 4;

const _: () = assert!(size_of::<FragmentKey<Ipv4>>() == 20 && size_of::<FragmentKey<Ipv6>>() == 44);
const _: () = assert!(size_of::<FragmentPorts>() == 16);
const _: () = assert!(RING.is_power_of_two() && PIECES * PIECE as u32 >= 9_000);

plain_old_data!(FragmentKey<Ipv4>, FragmentKey<Ipv6>, FragmentPorts);
