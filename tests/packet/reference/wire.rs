//! Packets as they stand on the wire: what can be read of them, and how they are changed.

use std::net::IpAddr;
use std::ops::Range;

use sluice_datapath_common::DropReason;

use super::world::{Family, Mac, family, octets};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP6: u8 = 58;
pub const SCTP: u8 = 132;
pub const UDP_LITE: u8 = 136;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// The length of an Ethernet header.
pub const ETHERNET: usize = 14;

/// What has been read of a packet.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Where the IP header starts.
    pub header: usize,
    /// Where the header of the layer above starts.
    pub above: usize,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Source and destination port; an ICMP identifier stands for both; 0 where there is neither.
    pub ports: (u16, u16),
    pub kind: Kind,
    pub tcp_flags: u8,
    /// How many hops it may still take.
    pub hops: u8,
    pub piece: Piece,
    pub identification: u32,
    /// How long the layer above is as the IP header says.
    pub length: usize,
}

/// The layer above IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Tcp,
    Udp,
    /// Ports, and a CRC without the addresses.
    Sctp,
    /// An ICMP question or answer with an identifier.
    Echo,
    /// An ICMP error, which quotes a packet.
    Error,
    /// What neighbours tell each other on a link (ICMPv6).
    Discovery,
    /// Nothing to tell two conversations apart by.
    Portless,
    /// What follows the IP header is the middle of a datagram.
    Continuation,
}

/// A packet's place in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    Whole,
    First,
    Later,
}

/// What a packet is to look like. `None`: as it is.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ports: Option<(u16, u16)>,
    /// Hops to take off.
    pub hops: u8,
}

pub fn ether_type(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

pub fn receiver(frame: &[u8]) -> Mac {
    frame[..6].try_into().expect("six bytes")
}

pub fn sender(frame: &[u8]) -> Mac {
    frame[6..12].try_into().expect("six bytes")
}

/// Gives the frame its MACs, unless it is addressed to its receiver already.
pub fn address(frame: &mut [u8], receiver: Mac, sender: Mac) {
    if self::receiver(frame) != receiver {
        frame[..6].copy_from_slice(&receiver);
        frame[6..12].copy_from_slice(&sender);
    }
}

/// Reads the packet whose IP header starts at `header`, unless it ends before its headers do. Of a quoted one eight bytes above IP must be there.
pub fn read(frame: &[u8], family: Family, header: usize, quoted: bool) -> Result<Reading, DropReason> {
    let reading = match family {
        Family::V4 => read4(frame, header, quoted),
        Family::V6 => read6(frame, header, quoted),
    };
    reading.unwrap_or(Err(DropReason::Truncated))
}

fn read4(frame: &[u8], header: usize, quoted: bool) -> Option<Result<Reading, DropReason>> {
    let ip = frame.get(header..header + 20)?;
    let length = usize::from(ip[0] & 0xf) * 4;
    if ip[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let place = u16::from_be_bytes([ip[6], ip[7]]);
    let piece = match (place & 0x1fff, place & 0x2000) {
        (0, 0) => Piece::Whole,
        (0, _) => Piece::First,
        _ => Piece::Later,
    };
    let above = header + length;
    let protocol = ip[9];
    let declared = usize::from(u16::from_be_bytes([ip[2], ip[3]])).saturating_sub(length);
    if is_tiny(piece, protocol, declared, usize::from(place & 0x1fff) * 8) && !quoted {
        return Some(Err(DropReason::TinyFragment));
    }
    let (kind, ports, tcp_flags) = read_above(frame, above, Family::V4, protocol, piece, quoted)?;
    Some(Ok(Reading {
        header,
        above,
        source: IpAddr::from(<[u8; 4]>::try_from(&ip[12..16]).ok()?),
        destination: IpAddr::from(<[u8; 4]>::try_from(&ip[16..20]).ok()?),
        protocol,
        ports,
        kind,
        tcp_flags,
        hops: ip[8],
        piece,
        identification: u32::from(u16::from_be_bytes([ip[4], ip[5]])),
        length: declared,
    }))
}

/// The header above must come in the first fragment, and no other may lie over it (RFC 1858, RFC 3128).
fn is_tiny(piece: Piece, protocol: u8, length: usize, offset: usize) -> bool {
    let least = match protocol {
        TCP => 20,
        SCTP => 16,
        _ => 8,
    };
    match piece {
        Piece::Whole => false,
        Piece::First => length < least,
        Piece::Later => offset < least,
    }
}

/// RFC 8200. At most six extension headers of at most 256 bytes are read; what is encrypted or signed is the layer above.
fn read6(frame: &[u8], header: usize, quoted: bool) -> Option<Result<Reading, DropReason>> {
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    let ip = frame.get(header..header + 40)?;
    if ip[0] >> 4 != 6 {
        return None;
    }
    let (mut protocol, mut chain, mut headers) = (ip[6], 0, 0);
    let (mut piece, mut identification, mut offset) = (Piece::Whole, 0, 0);
    // Hop-by-hop options, routing, fragment, destination options.
    while matches!(protocol, 0 | ROUTING | FRAGMENT | 60) {
        let start = header + 40 + chain;
        if headers == 6 {
            return Some(Err(DropReason::ExtensionHeaders));
        }
        let extension = frame.get(start..start + 8)?;
        let at = protocol;
        protocol = extension[0];
        headers += 1;
        if at == FRAGMENT {
            let place = u16::from_be_bytes([extension[2], extension[3]]);
            identification = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
            offset = usize::from(place & 0xfff8);
            piece = match (offset, place & 1) {
                (0, 0) => Piece::Whole,
                (0, _) => Piece::First,
                _ => Piece::Later,
            };
            chain += 8;
            if piece == Piece::Later {
                break;
            }
        } else {
            if at == ROUTING && extension[3] != 0 {
                return Some(Err(DropReason::SourceRouted));
            }
            chain += 8 + 8 * usize::from(extension[1]);
        }
        if chain > 256 {
            return Some(Err(DropReason::ExtensionHeaders));
        }
    }
    if headers == 6 && piece != Piece::Later {
        return Some(Err(DropReason::ExtensionHeaders));
    }
    let length = usize::from(u16::from_be_bytes([ip[4], ip[5]])).saturating_sub(chain);
    if is_tiny(piece, protocol, length, offset) && !quoted {
        return Some(Err(DropReason::TinyFragment));
    }
    let above = header + 40 + chain;
    let (kind, ports, tcp_flags) = read_above(frame, above, Family::V6, protocol, piece, quoted)?;
    Some(Ok(Reading {
        header,
        above,
        source: IpAddr::from(<[u8; 16]>::try_from(&ip[8..24]).ok()?),
        destination: IpAddr::from(<[u8; 16]>::try_from(&ip[24..40]).ok()?),
        protocol,
        ports,
        kind,
        tcp_flags,
        hops: ip[7],
        piece,
        identification,
        length,
    }))
}

/// The layer above: its kind, ports and TCP flags.
fn read_above(
    frame: &[u8],
    above: usize,
    family: Family,
    protocol: u8,
    piece: Piece,
    quoted: bool,
) -> Option<(Kind, (u16, u16), u8)> {
    if piece == Piece::Later {
        return Some((Kind::Continuation, (0, 0), 0));
    }
    let word = |at: usize| u16::from_be_bytes([frame[above + at], frame[above + at + 1]]);
    let has = |length: usize| (frame.len() >= above + length).then_some(());
    match protocol {
        TCP => {
            has(if quoted { 8 } else { 20 })?;
            let flags = if quoted { 0 } else { frame[above + 13] };
            Some((Kind::Tcp, (word(0), word(2)), flags))
        }
        UDP | UDP_LITE => {
            has(8)?;
            Some((Kind::Udp, (word(0), word(2)), 0))
        }
        SCTP => {
            has(if quoted { 8 } else { 16 })?;
            let flags = match frame.get(above + 12) {
                // INIT, INIT ACK, ABORT, SHUTDOWN COMPLETE
                Some(1) if !quoted => SYN,
                Some(2) if !quoted => SYN | ACK,
                Some(6 | 14) if !quoted => RST,
                _ => 0,
            };
            Some((Kind::Sctp, (word(0), word(2)), flags))
        }
        protocol if protocol == icmp(family) => {
            has(8)?;
            let kind = icmp_kind(family, frame[above]);
            let identifier = if kind == Kind::Echo { word(4) } else { 0 };
            Some((kind, (identifier, identifier), 0))
        }
        _ => Some((Kind::Portless, (0, 0), 0)),
    }
}

/// The ICMP of a family as an IP protocol number.
pub fn icmp(family: Family) -> u8 {
    match family {
        Family::V4 => ICMP,
        Family::V6 => ICMP6,
    }
}

/// RFC 792, RFC 4443.
fn icmp_kind(family: Family, kind: u8) -> Kind {
    match (family, kind) {
        (Family::V4, 0 | 8 | 13 | 14) | (Family::V6, 128 | 129) => Kind::Echo,
        (Family::V4, 3 | 4 | 11 | 12) | (Family::V6, 1..=4) => Kind::Error,
        (Family::V6, 130..=137 | 143) => Kind::Discovery,
        _ => Kind::Portless,
    }
}

/// Changes a packet. Every checksum stays as right, or as wrong, as it was.
pub fn change(frame: &mut [u8], reading: &Reading, change: &Change) {
    let (crc, seals) = (Crc::of(frame, reading), seals(frame, reading));
    write(frame, reading, change);
    crc.iter().for_each(|crc| crc.renew(frame));
    seals.iter().for_each(|seal| seal.renew(frame));
}

/// Changes an ICMP error and the packet in it.
pub fn change_error(frame: &mut [u8], outer: &Reading, change: &Change, quoted: &Reading, inner: &Change) {
    // From the inside out: the message's checksum covers those of the packet in it.
    let crc = Crc::of(frame, quoted);
    let mut seals = seals(frame, quoted);
    seals.extend(self::seals(frame, outer));
    write(frame, quoted, inner);
    write(frame, outer, change);
    crc.iter().for_each(|crc| crc.renew(frame));
    seals.iter().for_each(|seal| seal.renew(frame));
}

fn write(frame: &mut [u8], reading: &Reading, change: &Change) {
    let (source, destination) = (octets(change.source), octets(change.destination));
    let (addresses, hops) = match family(reading.source) {
        Family::V4 => (reading.header + 12, reading.header + 8),
        Family::V6 => (reading.header + 8, reading.header + 7),
    };
    frame[addresses..addresses + source.len()].copy_from_slice(&source);
    frame[addresses + source.len()..addresses + 2 * source.len()].copy_from_slice(&destination);
    frame[hops] -= change.hops;
    let Some((source, destination)) = change.ports else {
        return;
    };
    match reading.kind {
        Kind::Tcp | Kind::Udp | Kind::Sctp => {
            frame[reading.above..reading.above + 2].copy_from_slice(&source.to_be_bytes());
            frame[reading.above + 2..reading.above + 4].copy_from_slice(&destination.to_be_bytes());
        }
        Kind::Echo => frame[reading.above + 4..reading.above + 6].copy_from_slice(&source.to_be_bytes()),
        Kind::Error | Kind::Discovery | Kind::Portless | Kind::Continuation => {}
    }
}

/// A checksum (RFC 1071), and how far it was from right.
struct Seal {
    at: usize,
    covers: [Range<usize>; 2],
    /// A sum of zero means that there is none, so one that comes out as zero is written as its other form.
    is_udp: bool,
    /// The sum of all it covers, itself included, modulo 0xffff. Nothing but zero when it is right.
    remainder: u32,
}

fn seals(frame: &[u8], reading: &Reading) -> Vec<Seal> {
    let above = reading.above.min(frame.len());
    let mut seals = Vec::new();
    let is_icmp = reading.protocol == icmp(family(reading.source));
    let at = match reading.kind {
        Kind::Continuation => None,
        Kind::Tcp => Some(16),
        Kind::Udp => Some(6),
        _ if is_icmp => Some(2),
        _ => None,
    };
    let addresses = match family(reading.source) {
        Family::V4 => reading.header + 12..reading.header + 20,
        Family::V6 => reading.header + 8..reading.header + 40,
    };
    if let Some(at) = at.map(|at| above + at).filter(|at| at + 2 <= frame.len()) {
        let is_udp = reading.kind == Kind::Udp;
        let is_absent = is_udp && frame[at..at + 2] == [0, 0];
        // All but the ICMP of IPv4 cover the addresses too.
        let pseudo = if is_icmp && addresses.len() == 8 {
            0..0
        } else {
            addresses
        };
        let covers = [above..frame.len(), pseudo];
        if !is_absent {
            seals.push(Seal::of(frame, at, covers, is_udp));
        }
    }
    if family(reading.source) == Family::V4 {
        seals.push(Seal::of(
            frame,
            reading.header + 10,
            [reading.header..above, 0..0],
            false,
        ));
    }
    seals
}

impl Seal {
    fn of(frame: &[u8], at: usize, covers: [Range<usize>; 2], is_udp: bool) -> Self {
        let mut seal = Self {
            at,
            covers,
            is_udp,
            remainder: 0,
        };
        seal.remainder = seal.sum(frame);
        seal
    }

    fn sum(&self, frame: &[u8]) -> u32 {
        let words = self.covers.iter().flat_map(|range| frame[range.clone()].chunks(2));
        let sum: u64 = words
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
            .sum();
        (sum % 0xffff) as u32
    }

    /// Writes the checksum with which the remainder is what it was.
    fn renew(&self, frame: &mut [u8]) {
        let off = (0xffff + self.remainder - self.sum(frame)) % 0xffff;
        if off == 0 {
            return;
        }
        let old = u32::from(u16::from_be_bytes([frame[self.at], frame[self.at + 1]]));
        let new = match (old + off) % 0xffff {
            0 if self.is_udp => 0xffff,
            new => new,
        };
        frame[self.at..self.at + 2].copy_from_slice(&(new as u16).to_be_bytes());
    }
}

/// The CRC32c of an SCTP packet (RFC 9260), and how far it was from right. One of zero is not there yet.
struct Crc {
    above: usize,
    length: usize,
    remainder: u32,
}

impl Crc {
    fn of(frame: &[u8], reading: &Reading) -> Option<Self> {
        let (above, length) = (reading.above, reading.length);
        let is_whole = reading.kind == Kind::Sctp && reading.piece == Piece::Whole && length >= 12;
        let found = frame.get(above + 8..above + 12).filter(|found| *found != [0; 4])?;
        let found = u32::from_le_bytes(found.try_into().ok()?);
        is_whole.then(|| Self {
            above,
            length,
            remainder: found ^ Self::sum(frame, above, length),
        })
    }

    /// Over what the IP header says is there; what was cut off counts as zeros.
    fn sum(frame: &[u8], above: usize, length: usize) -> u32 {
        let mut crc = !0u32;
        for at in 0..length {
            let byte = match at {
                8..12 => 0,
                _ => frame.get(above + at).copied().unwrap_or(0),
            };
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            }
        }
        !crc
    }

    /// Writes the checksum that is as far from right as it was.
    fn renew(&self, frame: &mut [u8]) {
        let sum = self.remainder ^ Self::sum(frame, self.above, self.length);
        frame[self.above + 8..self.above + 12].copy_from_slice(&sum.to_le_bytes());
    }
}
