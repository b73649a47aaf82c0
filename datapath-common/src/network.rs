//! Networks as the datapath sees them: a number, a gateway and a few rules.

use crate::{Ipv4Address, Ipv6Address, plain_old_data};

/// The size of `NETWORKS`. Numbers 0 and 1 are the scopes of the world and of the host.
pub const MAX_NETWORKS: u32 = 4096;
/// The number of the first network.
pub const FIRST_NETWORK: u32 = 2;

/// The slot holds a network (an array has no absent entries).
pub const NETWORK_EXISTS: u32 = 1 << 0;
/// Endpoints of the network may talk to each other (`icc`).
pub const NETWORK_ICC: u32 = 1 << 1;
/// What leaves the host from this network by IPv4 gets an address of the host.
pub const NETWORK_MASQUERADES: u32 = 1 << 2;
/// No way out of the network and none in (`--internal`).
pub const NETWORK_INTERNAL: u32 = 1 << 3;
/// What leaves the host from this network by IPv6 gets an address of the host (NAT66, for unique local addresses).
pub const NETWORK_MASQUERADES6: u32 = 1 << 4;
/// IPv4 packets leave the host as they are, and published ports are reached at the endpoint's own address. Goes before masquerading.
pub const NETWORK_ROUTED: u32 = 1 << 5;
/// The same for IPv6 (global addresses).
pub const NETWORK_ROUTED6: u32 = 1 << 6;
/// The network is on a Linux bridge of the host: endpoints of ours go the datapath's ways, everybody else on the wire is the bridge's affair.
pub const NETWORK_BRIDGED: u32 = 1 << 12;
/// Packets to endpoints on other hosts of the same link go there as they are, not encapsulated.
pub const NETWORK_DIRECT: u32 = 1 << 13;
/// Between hosts its packets go by the encrypted way or not at all.
pub const NETWORK_ENCRYPTED: u32 = 1 << 14;

/// As [`NETWORK_MASQUERADES`], and who has a route reaches every IPv4 port of an endpoint at its own address.
pub const NETWORK_UNPROTECTED: u32 = 1 << 7;
/// The same for IPv6.
pub const NETWORK_UNPROTECTED6: u32 = 1 << 8;
/// Endpoints do not reach the host itself, at none of its addresses.
pub const NETWORK_NO_HOST: u32 = 1 << 9;
/// Endpoints reach the host itself at the gateway's address alone.
pub const NETWORK_ONLY_GATEWAY: u32 = 1 << 10;
/// What an endpoint says to many reaches all endpoints of the network.
pub const NETWORK_MULTICAST: u32 = 1 << 11;

/// One network.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Network {
    /// `NETWORK_*` bits.
    pub flags: u32,
    /// The MTU of its devices, bytes.
    pub mtu: u32,
    /// The address of all of its IPv4 endpoints at once (directed broadcast); zero: none.
    pub broadcast4: Ipv4Address,
    /// The gateway's IPv4 address; zero: none.
    pub gateway4: Ipv4Address,
    /// The gateway's IPv6 address; zero: none. The gateway is found at the link-local address of `gateway_mac` too
    /// ([`Ipv6Address::link_local`]).
    pub gateway6: Ipv6Address,
    /// What its packets are known by between hosts (24 bits); 0: it is on this host alone.
    pub vni: u32,
    /// Where its endpoints' questions for names go by IPv4; zero: they may not ask.
    pub resolver4: Ipv4Address,
    /// The same by IPv6.
    pub resolver6: Ipv6Address,
    /// The gateway's MAC: that of the host's end of every veth of the network.
    pub gateway_mac: [u8; 6],
    /// Always zero.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<Network>() == 64);

plain_old_data!(Network);
