//! Every IPv4 address of the scene has a twin in IPv6, of the same kind: what is said of one is said of the other.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Where the twins of ordinary addresses are. Each of the twelve bytes is another, so that none can be forgotten.
const PREFIX: [u8; 12] = [0xfd, 0x51, 0x1c, 0xe0, 0x5a, 0xfe, 0x00, 0x01, 0xbe, 0xef, 0xca, 0x02];

/// The twin of an IPv4 address.
pub fn of(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    let with = |head: [u8; 12]| {
        let mut octets = [0; 16];
        octets[..12].copy_from_slice(&head);
        octets[12..].copy_from_slice(&[a, b, c, d]);
        Ipv6Addr::from(octets)
    };
    match address {
        Ipv4Addr::LOCALHOST => Ipv6Addr::LOCALHOST,
        Ipv4Addr::BROADCAST => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        _ if address.is_multicast() => with([0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        _ if a == 0 || a == 127 => with([0; 12]),
        _ if a >= 240 => with([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        _ => with(PREFIX),
    }
}
