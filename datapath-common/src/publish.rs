//! Published ports: an address, port and protocol of the host that belong to an endpoint.

use crate::{Family, Ipv4, Ipv6, plain_old_data};

/// What a client asks for.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PublishKey<F: Family> {
    /// An address of the host, or "any"; in a routed network an endpoint's own address.
    pub address: F::Address,
    /// The port, network byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub padding: u8,
}

/// Who answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Publication<F: Family> {
    /// The number of the endpoint's network.
    pub network: u32,
    /// The endpoint's number.
    pub endpoint: u32,
    /// The endpoint's address. In IPv6 an IPv4-mapped one (`::ffff:a.b.c.d`) names an endpoint that has IPv4 only: sockets of host processes are
    /// sent there, packets are not.
    pub address: F::Address,
    /// The port at the endpoint, network byte order.
    pub port: u16,
    /// Always zero.
    pub padding: [u8; 2],
}

/// A port that `bind` of host processes is refused, found without an address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReservationKey {
    /// The port, network byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
}

/// How many publications hold the port (so that a wildcard `bind` meets one at a single address too).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reservation {
    /// Never zero: an entry without publications is removed.
    pub publications: u32,
}

const _: () = assert!(size_of::<PublishKey<Ipv4>>() == 8 && size_of::<PublishKey<Ipv6>>() == 20);
const _: () = assert!(size_of::<Publication<Ipv4>>() == 16 && size_of::<Publication<Ipv6>>() == 28);
const _: () = assert!(size_of::<ReservationKey>() == 4);

plain_old_data!(
    PublishKey<Ipv4>,
    PublishKey<Ipv6>,
    Publication<Ipv4>,
    Publication<Ipv6>,
    ReservationKey,
    Reservation
);
