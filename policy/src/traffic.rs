//! What of a conversation a rule speaks of besides who has it: protocol, ports, ICMP types.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// IP protocol numbers.
pub const TCP: u8 = 6;
/// IP protocol numbers.
pub const UDP: u8 = 17;
/// IP protocol numbers.
pub const ICMP6: u8 = 58;
/// IP protocol numbers.
pub const SCTP: u8 = 132;

/// The types of an echo request (RFC 792, RFC 4443).
const ECHO: u8 = 8;
const ECHO6: u8 = 128;

/// Traffic of one kind, as `80/tcp`, `8000-8010/udp`, `tcp`, `icmp`, `icmp/echo`, `icmp4/13`, `icmp6/128` or `proto/47`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Traffic {
    /// Ports from the first to the last, host byte order.
    Ports {
        /// The protocol: one that has ports.
        protocol: u8,
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// All of a protocol.
    Protocol(u8),
    /// All of ICMP, of both families.
    Icmp,
    /// Echo requests, of both families.
    Echo,
    /// ICMP messages of one type.
    IcmpType {
        /// [`ICMP`] or [`ICMP6`].
        protocol: u8,
        /// The type of the question; answers follow it.
        kind: u8,
    },
}

/// A piece of traffic that one entry of a trie stands for: a protocol, and a number of leading bits of the port (or, of ICMP, of the type).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block {
    /// IP protocol number.
    pub protocol: u8,
    /// Host byte order; bits beyond `bits` are zero.
    pub port: u16,
    /// 0 to 16.
    pub bits: u8,
}

/// Text that is no traffic.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no traffic ({1}); write PORT, PORT/tcp, FIRST-LAST/udp, tcp, udp, sctp, icmp, icmp/echo, icmp4/TYPE, icmp6/TYPE or proto/NUMBER"
)]
pub struct NotTraffic(String, &'static str);

// === impl Traffic ===

impl Traffic {
    /// Is it this? Of ICMP the port is the type of the question.
    pub fn covers(&self, protocol: u8, port: u16) -> bool {
        match *self {
            Self::Ports {
                protocol: own,
                first,
                last,
            } => own == protocol && (first..=last).contains(&port),
            Self::Protocol(own) => own == protocol,
            Self::Icmp => protocol == ICMP || protocol == ICMP6,
            Self::Echo => (protocol, port) == (ICMP, ECHO.into()) || (protocol, port) == (ICMP6, ECHO6.into()),
            Self::IcmpType { protocol: own, kind } => own == protocol && port == u16::from(kind),
        }
    }

    /// The blocks it consists of.
    pub fn blocks(&self) -> Vec<Block> {
        let whole = |protocol| Block {
            protocol,
            port: 0,
            bits: 0,
        };
        let exact = |protocol, port: u8| Block {
            protocol,
            port: port.into(),
            bits: 16,
        };
        match *self {
            Self::Ports { protocol, first, last } => blocks(protocol, first, last),
            Self::Protocol(protocol) => vec![whole(protocol)],
            Self::Icmp => vec![whole(ICMP), whole(ICMP6)],
            Self::Echo => vec![exact(ICMP, ECHO), exact(ICMP6, ECHO6)],
            Self::IcmpType { protocol, kind } => vec![exact(protocol, kind)],
        }
    }
}

/// The fewest blocks that make up a range of ports.
fn blocks(protocol: u8, first: u16, last: u16) -> Vec<Block> {
    let (mut blocks, mut at, end) = (Vec::new(), u32::from(first), u32::from(last) + 1);
    while at < end {
        let aligned = if at == 0 { 16 } else { at.trailing_zeros().min(16) };
        let fits = (end - at).ilog2();
        let free = aligned.min(fits);
        blocks.push(Block {
            protocol,
            port: at as u16,
            bits: (16 - free) as u8,
        });
        at += 1 << free;
    }
    blocks
}

impl FromStr for Traffic {
    type Err = NotTraffic;

    fn from_str(text: &str) -> Result<Self, NotTraffic> {
        let wrong = |why| NotTraffic(text.to_owned(), why);
        let number = |part: &str, why| part.parse::<u8>().map_err(|_| wrong(why));
        let with_ports = |name: &str| match name {
            "tcp" => Some(TCP),
            "udp" => Some(UDP),
            "sctp" => Some(SCTP),
            _ => None,
        };
        let Some((before, behind)) = text.split_once('/') else {
            return match (text, with_ports(text)) {
                (_, Some(protocol)) => Ok(Self::Protocol(protocol)),
                ("icmp", _) => Ok(Self::Icmp),
                ("icmp4", _) => Ok(Self::Protocol(ICMP)),
                ("icmp6", _) => Ok(Self::Protocol(ICMP6)),
                _ => range(text, TCP).map_err(wrong),
            };
        };
        match before {
            "icmp" if behind == "echo" => return Ok(Self::Echo),
            "icmp" => {
                return Err(wrong(
                    "of both families there is echo alone; types are those of icmp4 or icmp6",
                ));
            }
            "icmp4" | "icmp6" => {
                return Ok(Self::IcmpType {
                    protocol: if before == "icmp4" { ICMP } else { ICMP6 },
                    kind: number(behind, "a type is 0 to 255")?,
                });
            }
            "proto" => return Ok(Self::Protocol(number(behind, "a protocol is 0 to 255")?)),
            _ => {}
        }
        match with_ports(behind) {
            Some(protocol) => range(before, protocol).map_err(wrong),
            None => Err(wrong("only tcp, udp and sctp have ports")),
        }
    }
}

fn range(text: &str, protocol: u8) -> Result<Traffic, &'static str> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Traffic::Ports { protocol, first, last }),
        (Some(_), Some(_)) => Err("the range ends before it begins"),
        _ => Err("a port is 1 to 65535"),
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |protocol| match protocol {
            TCP => "tcp",
            UDP => "udp",
            _ => "sctp",
        };
        match *self {
            Self::Ports { protocol, first, last } if first == last => write!(out, "{first}/{}", name(protocol)),
            Self::Ports { protocol, first, last } => write!(out, "{first}-{last}/{}", name(protocol)),
            Self::Protocol(protocol @ (TCP | UDP | SCTP)) => out.write_str(name(protocol)),
            Self::Protocol(ICMP) => out.write_str("icmp4"),
            Self::Protocol(ICMP6) => out.write_str("icmp6"),
            Self::Protocol(protocol) => write!(out, "proto/{protocol}"),
            Self::Icmp => out.write_str("icmp"),
            Self::Echo => out.write_str("icmp/echo"),
            Self::IcmpType { protocol: ICMP, kind } => write!(out, "icmp4/{kind}"),
            Self::IcmpType { kind, .. } => write!(out, "icmp6/{kind}"),
        }
    }
}

impl Serialize for Traffic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Traffic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl de::Visitor<'_> for Words {
            type Value = Traffic;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a port, or ports and protocol as 80/tcp")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Traffic, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Traffic, E> {
                self.visit_str(&port.to_string())
            }

            fn visit_i64<E: de::Error>(self, port: i64) -> Result<Traffic, E> {
                self.visit_str(&port.to_string())
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_written_as_it_is_read() {
        for text in [
            "80/tcp",
            "8000-8010/udp",
            "1-65535/sctp",
            "tcp",
            "udp",
            "sctp",
            "icmp",
            "icmp4",
            "icmp6",
            "icmp/echo",
            "icmp4/13",
            "icmp6/128",
            "proto/47",
        ] {
            assert_eq!(text.parse::<Traffic>().unwrap().to_string(), text);
        }
        assert_eq!("80".parse::<Traffic>().unwrap().to_string(), "80/tcp");
    }

    #[test]
    fn what_is_no_traffic_is_refused_with_a_reason() {
        for (text, reason) in [
            ("0/tcp", "1 to 65535"),
            ("65536/tcp", "1 to 65535"),
            ("9-8/tcp", "ends before it begins"),
            ("80/icmp", "have ports"),
            ("icmp/8", "echo alone"),
            ("icmp4/256", "0 to 255"),
            ("http", "1 to 65535"),
            ("", "1 to 65535"),
        ] {
            let error = text.parse::<Traffic>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn blocks_cover_what_they_are_made_of_and_nothing_else() {
        for (first, last) in [
            (1, 1),
            (1, 65535),
            (0, 65535),
            (8000, 8010),
            (32767, 32768),
            (65535, 65535),
            (1, 2),
            (1023, 1025),
        ] {
            let traffic = Traffic::Ports {
                protocol: TCP,
                first,
                last,
            };
            let blocks = traffic.blocks();
            for port in 0..=u16::MAX {
                let in_blocks = blocks
                    .iter()
                    .filter(|block| block.bits == 0 || (port ^ block.port) >> (16 - block.bits) == 0)
                    .count();
                assert_eq!(
                    in_blocks,
                    usize::from(traffic.covers(TCP, port)),
                    "{first}-{last}: {port}"
                );
            }
        }
    }
}
