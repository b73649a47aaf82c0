//! Frames from IPv4 to IPv6 and back, for tests. Everything has its counterpart: a header's options become a hop-by-hop header, fragments get their
//! header, ICMP's messages their other numbers, and what an ICMP error quotes is translated like the rest.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::twin;

const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
/// An option to be skipped by whoever does not know it. Its one byte says how many words of options the IPv4 header had.
const OPTION: u8 = 0x1e;

/// The frame in IPv6.
pub fn to_six(frame: &[u8]) -> Vec<u8> {
    match frame.get(12..14) {
        Some([8, 0]) => [&frame[..12], &[0x86, 0xdd], &packet_to_six(&frame[14..])[..]].concat(),
        _ => frame.to_vec(),
    }
}

/// The frame in IPv4. What IPv6 does not have (an identification in every packet) is taken from `like`.
pub fn to_four(frame: &[u8], like: &[u8]) -> Vec<u8> {
    match frame.get(12..14) {
        Some([0x86, 0xdd]) => [
            &frame[..12],
            &[8, 0],
            &packet_to_four(&frame[14..], like.get(14..).unwrap_or(&[]))[..],
        ]
        .concat(),
        _ => frame.to_vec(),
    }
}

fn packet_to_six(ip: &[u8]) -> Vec<u8> {
    let header = usize::from(ip.first().copied().unwrap_or(0) & 0xf) * 4;
    if ip.len() < 20 || ip[0] >> 4 != 4 || header < 20 || header > ip.len() {
        // As wrong in the other family.
        let mut broken = ip.to_vec();
        broken.resize(ip.len() + 20, 0);
        broken[0] = 0x50;
        return broken;
    }
    let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    let (source, destination) = (address4(&ip[12..16]), address4(&ip[16..20]));
    let (source6, destination6) = (twin::of(source), twin::of(destination));
    let fragment = word(6);
    let protocol = if ip[9] == ICMP { ICMP6 } else { ip[9] };
    let mut above = ip[header..].to_vec();
    if fragment & 0x1fff == 0 {
        above = above_to_six(ip[9], above, (source, destination), (source6, destination6));
    }
    let mut chain = Vec::new();
    let mut next = protocol;
    if fragment & 0x3fff != 0 {
        let place = (fragment & 0x1fff) << 3 | (fragment >> 13 & 1);
        chain = [&[next, 0][..], &place.to_be_bytes(), &[0, 0], &ip[4..6]].concat();
        next = FRAGMENT;
    }
    if header > 20 {
        let words = (header - 20) / 4;
        let mut options = vec![next, 0, OPTION, 1, words as u8];
        let length = (2 + 4 * words).next_multiple_of(8).max(8);
        options[1] = (length / 8 - 1) as u8;
        // PadN over the rest.
        let rest = length - options.len();
        options.extend([1, rest as u8 - 2]);
        options.resize(length, 0);
        chain = [options, chain].concat();
        next = HOP_BY_HOP;
    }
    let grown = above.len() as isize - (ip.len() - header) as isize;
    let length = (isize::from(word(2) as i16 & 0x7fff) - header as isize + grown + chain.len() as isize).max(0) as u16;
    let mut packet = vec![0x60 | ip[1] >> 4, ip[1] << 4, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, ip[8]]);
    packet.extend(source6.octets());
    packet.extend(destination6.octets());
    packet.extend(chain);
    packet.extend(above);
    packet
}

fn packet_to_four(ip: &[u8], like: &[u8]) -> Vec<u8> {
    assert!(ip.len() >= 40 && ip[0] >> 4 == 6, "not an IPv6 packet: {ip:02x?}");
    let (source6, destination6) = (address6(&ip[8..24]), address6(&ip[24..40]));
    let (source, destination) = (untwin(source6), untwin(destination6));
    let (mut next, mut at, mut words) = (ip[6], 40, 0);
    let mut identification = like.get(4..6).unwrap_or(&[0x12, 0x34]).to_vec();
    let mut fragment = 0;
    if next == HOP_BY_HOP {
        words = usize::from(ip[at + 4]);
        (next, at) = (ip[at], at + 8 * (1 + usize::from(ip[at + 1])));
    }
    if next == FRAGMENT {
        let place = u16::from_be_bytes([ip[at + 2], ip[at + 3]]);
        fragment = place >> 3 | (place & 1) << 13;
        identification = ip[at + 6..at + 8].to_vec();
        (next, at) = (ip[at], at + 8);
    }
    let protocol = if next == ICMP6 { ICMP } else { next };
    let mut above = ip[at..].to_vec();
    if fragment & 0x1fff == 0 {
        above = above_to_four(next, above, (source6, destination6), (source, destination), like);
    }
    let header = 20 + 4 * words;
    let grown = above.len() as isize - (ip.len() - at) as isize;
    let length = isize::from(u16::from_be_bytes([ip[4], ip[5]]) as i16) - (at - 40) as isize + grown + header as isize;
    let mut packet = vec![0x40 | (header / 4) as u8, ip[0] << 4 | ip[1] >> 4];
    packet.extend((length as u16).to_be_bytes());
    packet.extend(identification);
    packet.extend(fragment.to_be_bytes());
    packet.extend([ip[7], protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.resize(header, 1);
    let sum = !fold(sum(&packet));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(above);
    packet
}

fn above_to_six(protocol: u8, mut above: Vec<u8>, four: (Ipv4Addr, Ipv4Addr), six: (Ipv6Addr, Ipv6Addr)) -> Vec<u8> {
    let (old, new) = (addresses4(four), addresses6(six));
    match protocol {
        TCP => correct(&mut above, 16, &old, &new),
        UDP => correct(&mut above, 6, &old, &new),
        ICMP if above.len() >= 8 => {
            let is_right = fold(sum(&above)) == 0xffff;
            let kind = match above[0] {
                8 => 128,
                0 => 129,
                3 if above[1] == 4 => 2,
                3 => 1,
                11 => 3,
                12 => 4,
                other => return [&[200 + other % 50][..], &above[1..]].concat(),
            };
            above[0] = kind;
            if kind < 128 {
                above = [&above[..8], &packet_to_six(&above[8..])[..]].concat();
            }
            let pseudo = [&new[..], &pseudo(above.len())].concat();
            finish(&mut above, is_right, &pseudo);
        }
        _ => {}
    }
    above
}

fn above_to_four(
    protocol: u8,
    mut above: Vec<u8>,
    six: (Ipv6Addr, Ipv6Addr),
    four: (Ipv4Addr, Ipv4Addr),
    like: &[u8],
) -> Vec<u8> {
    let (old, new) = (addresses6(six), addresses4(four));
    match protocol {
        TCP => correct(&mut above, 16, &old, &new),
        UDP => correct(&mut above, 6, &old, &new),
        ICMP6 if above.len() >= 8 => {
            let is_right = fold(sum(&[&old[..], &pseudo(above.len()), &above].concat())) == 0xffff;
            let kind = match above[0] {
                128 => 8,
                129 => 0,
                1 | 2 => 3,
                3 => 11,
                4 => 12,
                other => return [&[other - 200][..], &above[1..]].concat(),
            };
            if above[0] == 2 {
                above[1] = 4;
            }
            above[0] = kind;
            if matches!(kind, 3 | 11 | 12) {
                let header = like.first().map_or(20, |first| usize::from(first & 0xf) * 4);
                let quoted = like.get(header + 8..).unwrap_or(&[]);
                above = [&above[..8], &packet_to_four(&above[8..], quoted)[..]].concat();
            }
            finish(&mut above, is_right, &[]);
        }
        _ => {}
    }
    above
}

/// Carries a checksum over from one pseudo header to another. None stays none, and what is wrong stays wrong.
fn correct(above: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let Some(field) = above.get_mut(at..at + 2) else { return };
    let before = u16::from_be_bytes([field[0], field[1]]);
    if before == 0 && at == 6 {
        return;
    }
    let after = !fold(u64::from(!before) + u64::from(!fold(sum(old))) + sum(new));
    let after = if after == 0 && at == 6 { 0xffff } else { after };
    field.copy_from_slice(&after.to_be_bytes());
}

/// Sums an ICMP message anew, rightly or wrongly as it was.
fn finish(message: &mut [u8], is_right: bool, pseudo: &[u8]) {
    message[2..4].fill(0);
    let right = !fold(sum(&[pseudo, message].concat()));
    let sum = if is_right { right } else { right ^ 0x5555 };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

fn pseudo(length: usize) -> [u8; 8] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [a, b, c, d, 0, 0, 0, ICMP6]
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn addresses4((source, destination): (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    [source.octets(), destination.octets()].concat()
}

fn addresses6((source, destination): (Ipv6Addr, Ipv6Addr)) -> Vec<u8> {
    [source.octets(), destination.octets()].concat()
}

fn address4(bytes: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(bytes).unwrap().into()
}

fn address6(bytes: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(bytes).unwrap().into()
}

/// Whose twin is it?
pub fn untwin(address: Ipv6Addr) -> Ipv4Addr {
    let octets = address.octets();
    let tail = address4(&octets[12..]);
    [tail, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST]
        .into_iter()
        .find(|candidate| twin::of(*candidate) == address)
        .unwrap_or_else(|| panic!("{address} is nobody's twin"))
}
