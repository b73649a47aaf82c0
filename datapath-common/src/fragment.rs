//! Fragments follow their first fragment, the only one that bears ports.

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
    /// Network byte order.
    pub source_port: u16,
    /// Network byte order.
    pub destination_port: u16,
}

const _: () = assert!(size_of::<FragmentKey<Ipv4>>() == 20 && size_of::<FragmentKey<Ipv6>>() == 44);

plain_old_data!(FragmentKey<Ipv4>, FragmentKey<Ipv6>, FragmentPorts);
