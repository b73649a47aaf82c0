//! Ports: what an image exposes, what a user asks to publish, and what is published.

use std::{fmt, net::IpAddr, str::FromStr};

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
