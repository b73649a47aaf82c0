//! Packets that only IPv6 has, built byte by byte.

use std::net::Ipv6Addr;

use crate::frame::{Frame, Mac};

pub const ICMP: u8 = 58;

/// A frame with an IPv6 packet: `next` says what `rest` begins with.
pub fn packet(macs: (Mac, Mac), source: Ipv6Addr, destination: Ipv6Addr, next: u8, hops: u8, rest: &[u8]) -> Frame {
    let mut frame = [&macs.1[..], &macs.0[..], &[0x86, 0xdd, 0x60, 0, 0, 0][..]].concat();
    frame.extend((rest.len() as u16).to_be_bytes());
    frame.extend([next, hops]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(rest);
    Frame(frame)
}

/// The message with its checksum.
pub fn icmp(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum(source, destination, ICMP, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The checksum over pseudo header and segment (RFC 8200, 8.1).
pub fn checksum(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend((segment.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(segment);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The link-local address that comes of a MAC.
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}
