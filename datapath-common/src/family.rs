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
    /// What fills an odd number of addresses and a `u32` up to a multiple of eight bytes, always zero: padding is a field, never hidden.
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

impl Ipv6Address {
    /// The host itself (`::1`).
    pub const LOOPBACK: Self = Self::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// All nodes of a link (`ff02::1`).
    pub const ALL_NODES: Self = Self::new([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// The third word of an IPv4-mapped address (`::ffff:0:0/96`, RFC 4291 2.5.5.2).
    const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    /// From the bytes as they are written, most significant first.
    #[inline(always)]
    pub const fn new(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The bytes as they are written, most significant first.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let ([a, b, c, d], [e, f, g, h]) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        let ([i, j, k, l], [m, n, o, p]) = (self.0[2].to_ne_bytes(), self.0[3].to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The link-local address that a device with this MAC gives itself (`fe80::/64` and the modified EUI-64, RFC 4291 appendix A).
    #[inline(always)]
    pub const fn link_local(mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self::new([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// How an IPv4 address looks to a socket of AF_INET6 (`::ffff:a.b.c.d`).
    #[inline(always)]
    pub const fn mapped(address: Ipv4Address) -> Self {
        Self([0, 0, Self::MAPPED, address.0])
    }

    /// The IPv4 address that this one stands for, if it is an IPv4-mapped one.
    #[inline(always)]
    pub const fn to_mapped(self) -> Option<Ipv4Address> {
        match self.0[0] == 0 && self.0[1] == 0 && self.0[2] == Self::MAPPED {
            true => Some(Ipv4Address(self.0[3])),
            false => None,
        }
    }

    /// Is it good on one link only (`fe80::/10`)?
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }

    /// Is it for many (`ff00::/8`)?
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        u32::from_be(self.0[0]) >> 24 == 0xff
    }
}

impl From<core::net::Ipv6Addr> for Ipv6Address {
    fn from(address: core::net::Ipv6Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<Ipv6Address> for core::net::Ipv6Addr {
    fn from(address: Ipv6Address) -> Self {
        Self::from(address.octets())
    }
}

plain_old_data!(Ipv4Address, Ipv6Address);

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn address(text: &str) -> Ipv6Address {
        text.parse::<Ipv6Addr>().unwrap().into()
    }

    #[test]
    fn addresses_stand_for_what_the_standard_library_takes_them_for() {
        for text in [
            "fe80::1",
            "febf:ffff::1",
            "fec0::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.9.0.2",
            "::1",
            "::",
            "2001:db8::fe80",
        ] {
            let (ours, theirs) = (address(text), text.parse::<Ipv6Addr>().unwrap());
            assert_eq!(Ipv6Addr::from(ours), theirs);
            assert_eq!(ours.is_link_local(), theirs.is_unicast_link_local(), "{text}");
            assert_eq!(ours.is_multicast(), theirs.is_multicast(), "{text}");
            assert_eq!(ours.to_mapped().map(Into::into), theirs.to_ipv4_mapped(), "{text}");
        }
        assert_eq!(address("::1"), Ipv6Address::LOOPBACK);
        assert_eq!(address("ff02::1"), Ipv6Address::ALL_NODES);
        assert_eq!(
            Ipv6Address::mapped(Ipv4Address::new([10, 9, 0, 2])),
            address("::ffff:10.9.0.2")
        );
    }

    #[test]
    fn a_devices_link_local_address_comes_of_its_mac() {
        // RFC 4291, appendix A, with the bit inverted as it says.
        assert_eq!(
            Ipv6Address::link_local([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]),
            address("fe80::3656:78ff:fe9a:bcde")
        );
    }
}
