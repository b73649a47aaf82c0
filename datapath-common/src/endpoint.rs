//! Endpoints: who lives at an address, and who stands behind a veth.

use crate::{Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address, plain_old_data};

/// How many endpoints a host can have: the size of `GENERATIONS`. Number 0 is nobody (the host or the world).
pub const MAX_ENDPOINTS: u32 = 65_536;

/// An address in a network.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EndpointKey<F: Family> {
    /// The network's number.
    pub network: u32,
    /// The endpoint's address.
    pub address: F::Address,
}

/// Who lives at an address of this host's networks.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Endpoint {
    /// The endpoint's number, an index of `GENERATIONS`.
    pub endpoint: u32,
    /// The host's end of its veth.
    pub ifindex: u32,
    /// The MAC of the device in the container.
    pub mac: [u8; 6],
    /// Always zero.
    pub padding: [u8; 2],
}

/// What the host's end of a veth is allowed to say: found by the device a packet came in on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Attachment {
    /// The endpoint's number, an index of `GENERATIONS`.
    pub endpoint: u32,
    /// Counts the lives of the number: a flow made in an earlier life is dead.
    pub generation: u32,
    /// The number of its network.
    pub network: u32,
    /// Its IPv4 address; zero: none.
    pub address4: Ipv4Address,
    /// Its IPv6 address; zero: none. The link-local address of `mac` is its own too, for neighbour discovery and multicast listening alone.
    pub address6: Ipv6Address,
    /// The MAC of the device in the container.
    pub mac: [u8; 6],
    /// Always zero.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<EndpointKey<Ipv4>>() == 8 && size_of::<EndpointKey<Ipv6>>() == 20);
const _: () = assert!(size_of::<Endpoint>() == 16 && size_of::<Attachment>() == 40);

plain_old_data!(EndpointKey<Ipv4>, EndpointKey<Ipv6>, Endpoint, Attachment);
