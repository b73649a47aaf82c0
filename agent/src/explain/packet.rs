//! A packet that nobody has sent: the first one of a conversation.

use std::net::IpAddr;

/// What it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// MAC addresses: of who takes it, and of who sends it.
    pub receiver: [u8; 6],
    /// As above.
    pub sender: [u8; 6],
    /// Addresses, of one family.
    pub source: IpAddr,
    /// As above.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The sender's port, or of ICMP the identifier. Host byte order.
    pub source_port: u16,
    /// The receiver's port, or of ICMP the type. Host byte order.
    pub port: u16,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// How many hops it has left.
const HOPS: u8 = 64;

impl Packet {
    /// The frame, from its Ethernet header on.
    pub fn frame(&self) -> Vec<u8> {
        let above = self.above();
        let mut frame = Vec::new();
        frame.extend(self.receiver);
        frame.extend(self.sender);
        match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((above.len() as u16).to_be_bytes());
                frame.extend([self.protocol, HOPS]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (source, destination) => {
                let mut header = vec![0x45, 0];
                header.extend((above.len() as u16 + 20).to_be_bytes());
                // No identification; not to be cut up.
                header.extend([0, 0, 0x40, 0, HOPS, self.protocol, 0, 0]);
                header.extend(octets(source));
                header.extend(octets(destination));
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend([0x08, 0x00]);
                frame.extend(header);
            }
        }
        frame.extend(above);
        frame
    }

    /// The header above IP, which opens a conversation.
    fn above(&self) -> Vec<u8> {
        let mut header = Vec::new();
        let ports = [self.source_port.to_be_bytes(), self.port.to_be_bytes()].concat();
        // Where the checksum stands, and whether it covers the addresses.
        let (place, with_addresses) = match self.protocol {
            TCP => {
                header.extend(ports);
                // Sequence 1; five words, SYN; a window.
                header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
                (16, true)
            }
            UDP => {
                header.extend(ports);
                header.extend([0, 8, 0, 0]);
                (6, true)
            }
            SCTP => {
                // No tag; an INIT chunk, whose CRC nobody looks at.
                header.extend(ports);
                header.extend([0; 8]);
                header.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
                return header;
            }
            ICMP | ICMP6 => {
                header.extend([self.port as u8, 0, 0, 0]);
                header.extend(self.source_port.to_be_bytes());
                header.extend([0, 1]);
                (2, self.protocol == ICMP6)
            }
            _ => return vec![0; 8],
        };
        let mut summed = Vec::new();
        if with_addresses {
            summed.extend(octets(self.source));
            summed.extend(octets(self.destination));
            summed.extend((header.len() as u32).to_be_bytes());
            summed.extend([0, 0, 0, self.protocol]);
        }
        summed.extend(&header);
        let sum = checksum(&summed);
        header[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// May it open a conversation? Else why not.
    pub fn is_opening(&self) -> Result<(), String> {
        match (self.protocol, self.port) {
            // Echo, timestamp.
            (ICMP, 8 | 13) | (ICMP6, 128) => Ok(()),
            (ICMP | ICMP6, kind) => Err(format!(
                "ICMP messages of type {kind} open no conversation: those of echo (8, of IPv6 128) and timestamp (13) do"
            )),
            (TCP | UDP | SCTP, 0) => Err("the port is to be said, as in 80/tcp".to_owned()),
            _ => Ok(()),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, port: u16, ends: (&str, &str)) -> Packet {
        Packet {
            receiver: [2, 0, 0, 0, 0, 1],
            sender: [2, 0, 0, 0, 0, 2],
            source: ends.0.parse().unwrap(),
            destination: ends.1.parse().unwrap(),
            protocol,
            source_port: 40_000,
            port,
        }
    }

    const FOUR: (&str, &str) = ("172.17.0.2", "192.0.2.9");
    const SIX: (&str, &str) = ("fd00::2", "2001:db8::9");

    #[test]
    fn checksums_are_right_in_both_families() {
        for protocol in [TCP, UDP, ICMP, ICMP6] {
            for (ends, header) in [(FOUR, 20), (SIX, 40)] {
                let packet = packet(protocol, 8, ends);
                let frame = packet.frame();
                if header == 20 {
                    assert_eq!(checksum(&frame[14..34]), 0);
                }
                let above = &frame[14 + header..];
                let mut summed = Vec::new();
                if protocol != ICMP {
                    summed.extend(octets(packet.source));
                    summed.extend(octets(packet.destination));
                    summed.extend((above.len() as u32).to_be_bytes());
                    summed.extend([0, 0, 0, protocol]);
                }
                summed.extend(above);
                assert_eq!(checksum(&summed), 0, "{protocol} {ends:?}");
            }
        }
    }

    #[test]
    fn only_what_opens_a_conversation_is_made() {
        for (protocol, port) in [(TCP, 80), (UDP, 53), (ICMP, 8), (ICMP6, 128), (47, 0)] {
            assert_eq!(packet(protocol, port, FOUR).is_opening(), Ok(()));
        }
        for (protocol, port) in [(TCP, 0), (ICMP, 3), (ICMP6, 135)] {
            assert!(packet(protocol, port, FOUR).is_opening().is_err(), "{protocol} {port}");
        }
    }
}
