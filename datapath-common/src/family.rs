//! The two families of addresses, as one trait: every table and every step of the packet path is written once over it.

use crate::plain_old_data;

/// An IPv4 address as it stands in the packet: network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Hash)]
pub struct Ipv4Address(pub u32);

/// An IPv6 address as it stands in the packet: four words in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Hash)]
pub struct Ipv6Address(pub [u32; 4]);

/// What IPv4 and IPv6 do not share.
pub trait Family: Copy + Eq + Default + 'static {
    /// An address of the family, network byte order.
    type Address: Copy + Eq + Default + 'static;
    /// The Ethernet type, host byte order (IEEE 802: 0x0800, 0x86dd).
    const ETHER_TYPE: u16;
    /// `AF_INET` or `AF_INET6`.
    const AF: u8;
    /// The ICMP of the family as an IP protocol number (1 or 58).
    const ICMP: u8;
    /// The address that means "any".
    const ANY: Self::Address;
    /// What fills three addresses and a `u32` up to a multiple of eight bytes, always zero: padding is a field, never hidden.
    type Filler: Copy + Eq + Default + 'static;
}

/// IPv4, RFC 791.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ipv4;

/// IPv6, RFC 8200.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ipv6;

// === impl Ipv4 ===

impl Family for Ipv4 {
    type Address = Ipv4Address;
    const ETHER_TYPE: u16 = 0x0800;
    const AF: u8 = 2;
    const ICMP: u8 = 1;
    const ANY: Ipv4Address = Ipv4Address(0);
    type Filler = [u8; 0];
}

impl Ipv4Address {
    /// From the four bytes as they are written, most significant first.
    #[inline(always)]
    pub const fn new(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// The four bytes as they are written, most significant first.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl From<core::net::Ipv4Addr> for Ipv4Address {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<Ipv4Address> for core::net::Ipv4Addr {
    fn from(address: Ipv4Address) -> Self {
        Self::from(address.octets())
    }
}

// === impl Ipv6 ===

impl Family for Ipv6 {
    type Address = Ipv6Address;
    const ETHER_TYPE: u16 = 0x86dd;
    const AF: u8 = 10;
    const ICMP: u8 = 58;
    const ANY: Ipv6Address = Ipv6Address([0; 4]);
    type Filler = [u8; 4];
}

plain_old_data!(Ipv4Address, Ipv6Address);
