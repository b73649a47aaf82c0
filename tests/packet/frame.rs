//! Frames built field by field, taken apart again, and summed by rules of their own.

use std::net::Ipv4Addr;

/// A MAC address.
pub type Mac = [u8; 6];

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const GRE: u8 = 47;
pub const SCTP: u8 = 132;
pub const UDP_LITE: u8 = 136;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

pub const ECHO_REPLY: u8 = 0;
pub const UNREACHABLE: u8 = 3;
pub const ECHO_REQUEST: u8 = 8;
pub const TIME_EXCEEDED: u8 = 11;

/// A frame on its way from one station to another.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

/// An IPv4 packet that is being built. Start with one of the functions, then say what is special.
#[derive(Clone)]
pub struct Packet {
    pub from_mac: Mac,
    pub to_mac: Mac,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub ttl: u8,
    pub identification: u16,
    /// Flags and offset, host byte order.
    pub fragment: u16,
    pub options: usize,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    pub tcp_flags: u8,
    pub icmp_kind: u8,
    pub icmp_code: u8,
    pub udp_checksum: bool,
    pub payload: Vec<u8>,
}

pub const MORE_FRAGMENTS: u16 = 0x2000;

impl Packet {
    fn of(protocol: u8, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self {
            from_mac: [0; 6],
            to_mac: [0; 6],
            source: source.0,
            destination: destination.0,
            ttl: 64,
            identification: 0x1234,
            fragment: 0,
            options: 0,
            protocol,
            source_port: source.1,
            destination_port: destination.1,
            tcp_flags: 0,
            icmp_kind: 0,
            icmp_code: 0,
            udp_checksum: true,
            payload: b"a payload of odd length".to_vec(),
        }
    }

    pub fn tcp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), flags: u8) -> Self {
        Self {
            tcp_flags: flags,
            ..Self::of(TCP, source, destination)
        }
    }

    pub fn udp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self::of(UDP, source, destination)
    }

    /// Its checksum covers the header only.
    pub fn udp_lite(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self::of(UDP_LITE, source, destination)
    }

    /// With one chunk: the TCP flags say which.
    pub fn sctp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self::of(SCTP, source, destination)
    }

    /// An echo request or reply with this identifier.
    pub fn echo(source: Ipv4Addr, destination: Ipv4Addr, kind: u8, identifier: u16) -> Self {
        Self {
            icmp_kind: kind,
            ..Self::of(ICMP, (source, identifier), (destination, 0))
        }
    }

    /// An ICMP error that quotes the first `quoted` bytes of the IP packet in `about`.
    pub fn error(source: Ipv4Addr, destination: Ipv4Addr, kind: u8, about: &Frame, quoted: usize) -> Self {
        let quote = &about.0[14..];
        let payload = quote[..quoted.min(quote.len())].to_vec();
        Self {
            icmp_kind: kind,
            payload,
            ..Self::of(ICMP, (source, 0), (destination, 0))
        }
    }

    /// Some protocol without ports.
    pub fn other(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self::of(protocol, (source, 0), (destination, 0))
    }

    pub fn macs(mut self, from: Mac, to: Mac) -> Self {
        (self.from_mac, self.to_mac) = (from, to);
        self
    }

    /// Of an ICMP message.
    pub fn code(mut self, code: u8) -> Self {
        self.icmp_code = code;
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// A piece of a datagram: offset in bytes, and whether more follow.
    pub fn fragment(mut self, identification: u16, offset: u16, more: bool) -> Self {
        self.identification = identification;
        self.fragment = (offset / 8) | if more { MORE_FRAGMENTS } else { 0 };
        self
    }

    /// Puts no-operation options into the IP header, in words of four bytes.
    pub fn options(mut self, words: usize) -> Self {
        self.options = words;
        self
    }

    pub fn without_udp_checksum(mut self) -> Self {
        self.udp_checksum = false;
        self
    }

    /// The chunk that says what the TCP flags say: INIT, INIT ACK, ABORT, SHUTDOWN, or data.
    fn sctp_chunk(&self) -> u8 {
        match self.tcp_flags {
            flags if flags & RST != 0 => 6,
            SYN => 1,
            flags if flags & SYN != 0 => 2,
            flags if flags & FIN != 0 => 7,
            _ => 0,
        }
    }

    /// The frame with all its checksums.
    pub fn build(&self) -> Frame {
        let mut above = self.above();
        let length = 20 + 4 * self.options;
        let mut ip = vec![0x40 | (length / 4) as u8, 0];
        ip.extend(((length + above.len()) as u16).to_be_bytes());
        ip.extend(self.identification.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol, 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(self.destination.octets());
        ip.extend(std::iter::repeat_n(1, 4 * self.options));
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [&self.to_mac[..], &self.from_mac[..], &[8, 0][..]].concat();
        frame.append(&mut ip);
        frame.append(&mut above);
        Frame(frame)
    }

    fn above(&self) -> Vec<u8> {
        if self.fragment & 0x1fff != 0 {
            return self.payload.clone();
        }
        let mut header = Vec::new();
        match self.protocol {
            TCP => {
                header.extend(self.source_port.to_be_bytes());
                header.extend(self.destination_port.to_be_bytes());
                header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, self.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            UDP => {
                header.extend(self.source_port.to_be_bytes());
                header.extend(self.destination_port.to_be_bytes());
                header.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                header.extend([0, 0]);
            }
            UDP_LITE => {
                header.extend(self.source_port.to_be_bytes());
                header.extend(self.destination_port.to_be_bytes());
                header.extend([0, 8, 0, 0]);
            }
            SCTP => {
                header.extend(self.source_port.to_be_bytes());
                header.extend(self.destination_port.to_be_bytes());
                header.extend([0, 0, 0, 9, 0, 0, 0, 0]);
                header.extend([self.sctp_chunk(), 0]);
                header.extend(((4 + self.payload.len()) as u16).to_be_bytes());
            }
            ICMP => {
                header.extend([self.icmp_kind, self.icmp_code, 0, 0]);
                header.extend(self.source_port.to_be_bytes());
                header.extend([0, 7]);
            }
            _ => {}
        }
        header.extend(&self.payload);
        if self.protocol == SCTP {
            let sum = crc32c(&header);
            header[8..12].copy_from_slice(&sum.to_le_bytes());
            return header;
        }
        let Some(at) = checksum_at(self.protocol) else {
            return header;
        };
        if self.protocol == UDP && !self.udp_checksum {
            return header;
        }
        let covered = covered(self.protocol, &header);
        let pseudo = pseudo(self.protocol, self.source, self.destination, header.len());
        let sum = checksum(&[&pseudo[..], covered].concat());
        let sum = if self.protocol != TCP && self.protocol != ICMP && sum == 0 {
            0xffff
        } else {
            sum
        };
        header[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

impl Frame {
    /// A question, an answer or whatever `operation` says.
    pub fn arp(from: Mac, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        let mut frame = [&[0xff; 6][..], &from[..], &[8, 6, 0, 1, 8, 0, 6, 4][..]].concat();
        frame.extend(operation.to_be_bytes());
        frame.extend(sender.0);
        frame.extend(sender.1.octets());
        frame.extend(target.0);
        frame.extend(target.1.octets());
        Self(frame)
    }

    /// Somebody asks who has an address.
    pub fn who_has(asker: (Mac, Ipv4Addr), address: Ipv4Addr) -> Self {
        Self::arp(asker.0, 1, asker, ([0; 6], address))
    }

    /// Says another length in the IP header, whose checksum stays right; the frame stays as long as it is.
    pub fn set_ip_length(&mut self, length: u16) {
        self.0[16..18].copy_from_slice(&length.to_be_bytes());
        self.0[24..26].fill(0);
        let sum = checksum(&self.0[14..self.above()]);
        self.0[24..26].copy_from_slice(&sum.to_be_bytes());
    }

    pub fn receiver_mac(&self) -> Mac {
        self.bytes(0)
    }

    pub fn sender_mac(&self) -> Mac {
        self.bytes(6)
    }

    pub fn source(&self) -> Ipv4Addr {
        self.bytes::<4>(26).into()
    }

    pub fn destination(&self) -> Ipv4Addr {
        self.bytes::<4>(30).into()
    }

    pub fn ttl(&self) -> u8 {
        self.0[22]
    }

    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes(self.bytes(self.above()))
    }

    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes(self.bytes(self.above() + 2))
    }

    /// Type and code of an ICMP message.
    pub fn icmp_kind_and_code(&self) -> (u8, u8) {
        (self.0[self.above()], self.0[self.above() + 1])
    }

    /// Of an ICMP echo.
    pub fn identifier(&self) -> u16 {
        u16::from_be_bytes(self.bytes(self.above() + 4))
    }

    /// The packet that an ICMP error quotes, as a frame.
    pub fn quoted(&self) -> Self {
        Self([&[0; 12][..], &[8, 0][..], &self.0[self.above() + 8..]].concat())
    }

    /// Are all checksums right? Says which is not.
    pub fn sums(&self) -> Result<(), String> {
        self.ip_sum()?;
        self.sum_above()
    }

    /// Is the IP header's checksum right?
    pub fn ip_sum(&self) -> Result<(), String> {
        match checksum(&self.0[14..self.above()]) {
            0 => Ok(()),
            _ => Err("the IP header's checksum is wrong".into()),
        }
    }

    /// A piece of a datagram cannot be summed.
    fn sum_above(&self) -> Result<(), String> {
        if u16::from_be_bytes(self.bytes(20)) & 0x3fff != 0 {
            return Ok(());
        }
        let (above, protocol) = (self.above(), self.0[23]);
        if protocol == SCTP {
            return match crc32c(&self.0[above..]) == u32::from_le_bytes(self.bytes(above + 8)) {
                true => Ok(()),
                false => Err("the CRC of SCTP is wrong".into()),
            };
        }
        let Some(at) = checksum_at(protocol) else { return Ok(()) };
        let segment = &self.0[above..];
        if protocol == UDP && segment[at..at + 2] == [0, 0] {
            return Ok(());
        }
        let pseudo = pseudo(protocol, self.source(), self.destination(), segment.len());
        match checksum(&[&pseudo[..], covered(protocol, segment)].concat()) {
            0 => Ok(()),
            _ => Err(format!("the checksum of protocol {protocol} is wrong")),
        }
    }

    fn above(&self) -> usize {
        14 + usize::from(self.0[14] & 0xf) * 4
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().unwrap()
    }
}

/// RFC 1071, written down a second time on purpose: nothing of the datapath's arithmetic is used here.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The pseudo header; ICMP has none.
fn pseudo(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Vec<u8> {
    if protocol == ICMP {
        return Vec::new();
    }
    let mut header = [source.octets(), destination.octets()].concat();
    header.extend([0, protocol]);
    header.extend((length as u16).to_be_bytes());
    header
}

/// What the checksum covers: of UDP-Lite as much as it says (RFC 3828), of all others everything.
fn covered(protocol: u8, segment: &[u8]) -> &[u8] {
    match (protocol, u16::from_be_bytes([segment[4], segment[5]])) {
        (UDP_LITE, length) if length != 0 => &segment[..usize::from(length).min(segment.len())],
        _ => segment,
    }
}

/// RFC 9260, appendix A, bit by bit. Its own place counts as zero.
fn crc32c(packet: &[u8]) -> u32 {
    let mut crc = !0u32;
    for (at, byte) in packet.iter().enumerate() {
        crc ^= if (8..12).contains(&at) { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP | UDP_LITE => Some(6),
        ICMP => Some(2),
        _ => None,
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.0.chunks(16) {
            writeln!(f)?;
            for byte in line {
                write!(f, "{byte:02x} ")?;
            }
        }
        Ok(())
    }
}
