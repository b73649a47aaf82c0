//! Uplinks and the host's own addresses: where the world begins.

use crate::{Family, Ipv4, Ipv6, plain_old_data};

/// A device of the host that leads to the world, by ifindex.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Uplink<F: Family> {
    /// The address that masqueraded flows leave with: the device's primary one.
    pub address: F::Address,
    /// The device's MTU, bytes.
    pub mtu: u32,
}

/// An address that the host itself answers to (gateways included, loopback not).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LocalAddress {
    /// The device that bears it.
    pub ifindex: u32,
    /// The number of the network whose gateway it is, else 0.
    pub gateway_of: u32,
}

const _: () = assert!(size_of::<Uplink<Ipv4>>() == 8 && size_of::<Uplink<Ipv6>>() == 20);

plain_old_data!(Uplink<Ipv4>, Uplink<Ipv6>, LocalAddress);
