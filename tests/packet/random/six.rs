//! Packets of IPv6, made of what an IPv4 packet carries.

use std::net::{IpAddr, Ipv6Addr};

use crate::frame::{Frame, Mac, Packet};
use crate::reference::wire::{ICMP, ICMP6, TCP, UDP, UDP_LITE};
use crate::reference::world::octets;

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;

/// Extension headers that may stand before what is above, by their numbers: eight bytes each.
pub const CHAINS: [&[u8]; 7] = [
    &[],
    &[DESTINATION_OPTIONS],
    &[ROUTING],
    &[DESTINATION_OPTIONS, ROUTING, DESTINATION_OPTIONS],
    // One too many.
    &[DESTINATION_OPTIONS; 7],
    // Mobility (RFC 6275): nobody looks behind it.
    &[135],
    // A routing header with a stop left.
    &[ROUTING_ON],
];
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
/// Stands for a routing header that is not done.
const ROUTING_ON: u8 = 255;

/// The packet between these addresses. Options become a hop-by-hop header, and a fragment's place a header of its own, behind this chain of others.
pub fn build(packet: &Packet, chain: &[u8], source: IpAddr, destination: IpAddr) -> Frame {
    let (offset, more) = (packet.fragment & 0x1fff, packet.fragment & 0x2000 != 0);
    let ipv4 = packet.build().0;
    let mut above = ipv4[14 + 20 + 4 * packet.options..].to_vec();
    let protocol = if packet.protocol == ICMP {
        ICMP6
    } else {
        packet.protocol
    };
    if offset == 0 {
        if protocol == ICMP6 {
            above[0] = icmp_kind(above[0]);
        }
        if let Some(at) = checksum_at(protocol).filter(|_| packet.udp_checksum || protocol != UDP) {
            above[at..at + 2].fill(0);
            let sum = match checksum(source, destination, protocol, &above) {
                0 if protocol == UDP => 0xffff,
                sum => sum,
            };
            above[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
    }
    let mut next = protocol;
    let mut rest = Vec::new();
    if packet.fragment != 0 {
        let place = offset << 3 | u16::from(more);
        rest.extend([next, 0]);
        rest.extend(place.to_be_bytes());
        rest.extend([0, 0]);
        rest.extend(packet.identification.to_be_bytes());
        next = FRAGMENT;
    }
    for header in chain.iter().rev() {
        let (number, left) = if *header == ROUTING_ON {
            (ROUTING, 1)
        } else {
            (*header, 0)
        };
        // Padding, or a routing header of type 4 without addresses.
        let second = if number == ROUTING { [4, left] } else { [1, 4] };
        rest = [&[next, 0][..], &second, &[0; 4], &rest].concat();
        next = number;
    }
    if packet.options != 0 {
        // Padding (RFC 8200, 4.2).
        let length = 8 * packet.options;
        let mut header = vec![next, packet.options as u8 - 1, 1, length as u8 - 4];
        header.resize(length, 0);
        rest = [header, rest].concat();
        next = HOP_BY_HOP;
    }
    rest.extend(above);
    frame(
        (packet.from_mac, packet.to_mac),
        source,
        destination,
        next,
        packet.ttl,
        &rest,
    )
}

/// A message between neighbours about `target`, whose sender says that it has a MAC.
pub fn discovery(macs: (Mac, Mac), kind: u8, source: IpAddr, target: IpAddr, tells: Mac) -> Frame {
    let all = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &octets(target), &[1, 1], &tells].concat();
    let sum = checksum(source, all, ICMP6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame(macs, source, all, ICMP6, 255, &message)
}

fn frame((from, to): (Mac, Mac), source: IpAddr, destination: IpAddr, next: u8, hops: u8, rest: &[u8]) -> Frame {
    let mut frame = [&to[..], &from, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend((rest.len() as u16).to_be_bytes());
    frame.extend([next, hops]);
    frame.extend(octets(source));
    frame.extend(octets(destination));
    frame.extend(rest);
    Frame(frame)
}

/// The message that says in ICMPv6 what this one says in ICMP.
fn icmp_kind(kind: u8) -> u8 {
    match kind {
        0 => 129,
        8 => 128,
        13 => 128,
        14 => 129,
        3 => 1,
        4 => 2,
        11 => 3,
        12 => 4,
        // Redirect, router advertisement; something unknown.
        5 => 137,
        9 => 134,
        other => 150 + other,
    }
}

fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP | UDP_LITE => Some(6),
        ICMP6 => Some(2),
        _ => None,
    }
}

/// RFC 8200, 8.1.
fn checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let head = [
        octets(source),
        octets(destination),
        (segment.len() as u32).to_be_bytes().to_vec(),
    ]
    .concat();
    let bytes = [&head[..], &[0, 0, 0, protocol], segment].concat();
    let words = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
