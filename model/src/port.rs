//! Ports: what an image exposes, what a user asks to publish, and what is published.

use std::{collections::HashMap, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A protocol with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// A port of a container: `80/tcp`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortSpec {
    /// Its number, 1 to 65535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// What a user asked for: `-p 127.0.0.1:8080:80`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortBinding {
    /// The container's port.
    pub container: PortSpec,
    /// The host's address; none: the default binding (0.0.0.0 or `--ip`).
    pub host_address: Option<IpAddr>,
    /// The host's ports to choose from, both ends included; (0, 0): any ephemeral one.
    pub host_ports: (u16, u16),
    /// How many consecutive ports of the container are meant, from `container` on; when more than one, each has its counterpart from the first of
    /// `host_ports` on.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u16,
}

/// A port that is published, or a range of them, as it stands in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The container's port.
    pub container: PortSpec,
    /// The host's address; unspecified (0.0.0.0, ::) for all.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// How many consecutive ports are published, on both sides.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u16,
}

/// Text that is no port.
#[derive(Debug, thiserror::Error)]
#[error("invalid port specification: {0:?}")]
pub struct InvalidPort(pub String);

impl PublishedPort {
    /// Each port of a range by itself.
    pub fn singles(self) -> impl Iterator<Item = Self> {
        (0..self.count).map(move |offset| Self {
            container: PortSpec {
                port: self.container.port.saturating_add(offset),
                ..self.container
            },
            host_port: self.host_port.saturating_add(offset),
            count: 1,
            ..self
        })
    }

    /// The same ports with each run of consecutive ones as a range, in the order of their first ports.
    pub fn ranges(ports: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut ranges: Vec<Self> = Vec::new();
        // By what the next port of a range would be.
        let mut open = HashMap::new();
        for port in ports {
            let next = |port: &Self| {
                let host = u32::from(port.host_port) + u32::from(port.count);
                let container = u32::from(port.container.port) + u32::from(port.count);
                (port.container.protocol, port.host_address, host, container)
            };
            let here = (
                port.container.protocol,
                port.host_address,
                u32::from(port.host_port),
                u32::from(port.container.port),
            );
            let place = match open.remove(&here) {
                Some(place) => {
                    let range: &mut Self = &mut ranges[place];
                    range.count += port.count;
                    place
                }
                None => {
                    ranges.push(port);
                    ranges.len() - 1
                }
            };
            open.insert(next(&ranges[place]), place);
        }
        ranges
    }
}

fn one() -> u16 {
    1
}

fn is_one(count: &u16) -> bool {
    *count == 1
}

// === impl Protocol ===

impl Protocol {
    /// The IP protocol number (IANA).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" | "" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(InvalidPort(text.to_owned())),
        }
    }
}

// === impl PortSpec ===

impl FromStr for PortSpec {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        // the parser of numbers takes a sign
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port
            .parse()
            .ok()
            .filter(|port| is_number && *port != 0)
            .ok_or_else(|| InvalidPort(text.to_owned()))?;
        Ok(Self {
            port,
            protocol: protocol.parse().map_err(|_| InvalidPort(text.to_owned()))?,
        })
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl TryFrom<String> for PortSpec {
    type Error = InvalidPort;

    fn try_from(text: String) -> Result<Self, InvalidPort> {
        text.parse()
    }
}

impl From<PortSpec> for String {
    fn from(port: PortSpec) -> Self {
        port.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_written_with_and_without_its_protocol() {
        let port: PortSpec = "80".parse().unwrap();
        assert_eq!(
            (port.port, port.protocol, port.to_string().as_str()),
            (80, Protocol::Tcp, "80/tcp")
        );
        assert_eq!("53/UDP".parse::<PortSpec>().unwrap().to_string(), "53/udp");
    }

    #[test]
    fn ten_thousand_ports_are_one_range_and_can_be_told_one_by_one() {
        let port = |host_port: u16, container: u16, address: &str| PublishedPort {
            container: PortSpec {
                port: container,
                protocol: Protocol::Tcp,
            },
            host_address: address.parse().unwrap(),
            host_port,
            count: 1,
        };
        // As they come: each at both addresses, and one that has nothing to do with them.
        let mut ports = vec![port(80, 8080, "0.0.0.0")];
        for offset in 0..10_000 {
            ports.push(port(20_000 + offset, 5000 + offset, "0.0.0.0"));
            ports.push(port(20_000 + offset, 5000 + offset, "::"));
        }
        ports.push(port(30_000, 1, "0.0.0.0"));
        let ranges = PublishedPort::ranges(ports.clone());
        let told: Vec<_> = ranges.iter().map(|range| (range.host_port, range.count)).collect();
        assert_eq!(told, [(80, 1), (20_000, 10_000), (20_000, 10_000), (30_000, 1)]);
        let mut singles: Vec<_> = ranges.into_iter().flat_map(PublishedPort::singles).collect();
        let by = |port: &PublishedPort| (port.host_port, port.host_address);
        singles.sort_by_key(by);
        ports.sort_by_key(by);
        assert_eq!(singles, ports);
        // The last port is the end, and a range is a range already.
        let end = PublishedPort::ranges([port(65_534, 1, "::"), port(65_535, 2, "::")]);
        assert_eq!(PublishedPort::ranges(end.clone()), end);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "", "0", "65536", "-1", "http", "80/", "80/icmp", "80/tcp/x", "8 0", "+80",
        ] {
            let result = text.parse::<PortSpec>();
            // an empty protocol means TCP, as in Docker
            assert_eq!(result.is_ok(), text == "80/", "{text:?}");
        }
    }
}
