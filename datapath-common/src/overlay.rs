//! Overlays: networks that reach over several hosts. What their endpoints say to each other crosses the underlay in VXLAN (RFC 7348).
//!
//! Nothing is learned from the wire: who lives where, and which hosts there are, stands in tables. Underlay addresses are IPv6 everywhere here; one of
//! IPv4 is written as an IPv4-mapped one (`::ffff:a.b.c.d`).

use crate::{Ipv4Address, Ipv6Address, network::MAX_NETWORKS, plain_old_data};

/// How many other hosts there can be: the size of `HOSTS`. Number 0 is nobody.
pub const MAX_HOSTS: u32 = 4_096;
/// How many underlay addresses they have together: the size of `SENDERS`.
pub const MAX_SENDERS: u32 = 16_384;

/// Set in a value of `VNIS`: the network is encrypted. Set in one of `SENDERS`: the address is that of the encrypted way from that host. The one is for
/// the other alone.
pub const SEALED: u32 = 1 << 31;

/// What encapsulation adds to an IPv4 underlay's packet, bytes: IPv4, UDP, VXLAN, Ethernet.
pub const OVERHEAD4: u32 = 20 + OVERHEAD;
/// The same for an IPv6 underlay.
pub const OVERHEAD6: u32 = 40 + OVERHEAD;
const OVERHEAD: u32 = 8 + 8 + 14;
/// What encryption adds to a packet on an IPv4 underlay besides, bytes: IPv4, UDP, and WireGuard's header and seal.
pub const SEAL4: u32 = 20 + 8 + 32;
/// The same for an IPv6 underlay.
pub const SEAL6: u32 = 40 + 8 + 32;

/// The UDP port that VXLAN has (IANA).
pub const PORT: u16 = 4_789;

/// The scope of packets that another host has sent by an overlay begins with this bit, which no network's number has.
pub const SCOPE_OVERLAY: u32 = 1 << 31;
const NETWORK_BITS: u32 = MAX_NETWORKS.trailing_zeros();

/// The scope of what a host has sent, by its number, in a network. So a flow that one host has opened is never another's.
#[inline(always)]
pub const fn scope_of(host: u32, network: u32) -> u32 {
    SCOPE_OVERLAY | host << NETWORK_BITS | network
}

/// Is it the scope of an overlay's packets?
#[inline(always)]
pub const fn is_overlay(scope: u32) -> bool {
    scope & SCOPE_OVERLAY != 0
}

/// The number of the host in an overlay's scope.
#[inline(always)]
pub const fn host_of(scope: u32) -> u32 {
    (scope & !SCOPE_OVERLAY) >> NETWORK_BITS
}

/// The number of the network in an overlay's scope.
#[inline(always)]
pub const fn network_of(scope: u32) -> u32 {
    scope & (MAX_NETWORKS - 1)
}

/// Another host of the cluster, and how it is reached.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Host {
    /// Its underlay address. All zero: there is no such host.
    pub address: Ipv6Address,
    /// The address that we send to it from, of the same family.
    pub source: Ipv6Address,
    /// The router or neighbour that takes what is sent to it, of the same family; zero: the routes are asked for each packet.
    pub next_hop: Ipv6Address,
    /// Its IPv6 address on a link that it shares with us by the same device, for packets that are not encapsulated; zero: it has none.
    pub neighbour6: Ipv6Address,
    /// The same for IPv4.
    pub neighbour4: Ipv4Address,
    /// The device that leads there; 0: no way is known.
    pub ifindex: u32,
    /// The longest packet that fits into the underlay's when it is encapsulated, bytes.
    pub mtu: u32,
    /// The UDP port that it listens at, network byte order.
    pub port: u16,
    /// 1: the address is that of the encrypted way to it, which the VXLAN device takes; for encrypted networks only, as the others are not for it.
    pub sealed: u16,
}

/// Who lives at an address of a network, on another host.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Remote {
    /// The number of the host it lives on.
    pub host: u32,
    /// What links know it by; 0: no link speaks of it. Not among the numbers of this host's endpoints.
    pub endpoint: u32,
    /// The MAC of the device in the container.
    pub mac: [u8; 6],
    /// Always zero.
    pub padding: [u8; 2],
}

const _: () = assert!(MAX_NETWORKS.is_power_of_two() && (MAX_HOSTS - 1) << NETWORK_BITS < SCOPE_OVERLAY);
const _: () = assert!(MAX_NETWORKS <= SEALED && MAX_HOSTS <= SEALED);
const _: () = assert!(size_of::<Host>() == 80 && size_of::<Remote>() == 16);

plain_old_data!(Host, Remote);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{SCOPE_HOST, SCOPE_WORLD};

    #[test]
    fn a_scope_tells_the_host_and_the_network_it_was_made_of() {
        for host in [1, 2, 1_000, MAX_HOSTS - 1] {
            for network in [2, 77, MAX_NETWORKS - 1] {
                let scope = scope_of(host, network);
                assert!(is_overlay(scope));
                assert_eq!((host_of(scope), network_of(scope)), (host, network));
            }
        }
    }

    #[test]
    fn no_other_scope_is_taken_for_an_overlays() {
        for scope in [SCOPE_WORLD, SCOPE_HOST, 2, MAX_NETWORKS - 1] {
            assert!(!is_overlay(scope));
        }
    }
}
