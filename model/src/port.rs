//! Ports: what an image exposes, what a user asks to publish, and what is published.

use std::{collections::HashMap, fmt, hash::Hash, net::IpAddr, str::FromStr};

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

/// Consecutive ports of the host that stand for consecutive ports of a container.
trait Run: Sized {
    /// What all of its ports have in common.
    type Common: Eq + Hash;

    /// None: it stands alone, whatever follows it.
    fn common(&self) -> Option<Self::Common>;
    /// The first port at the host, and that of the container.
    fn first(&self) -> (u16, u16);
    fn count(&mut self) -> &mut u16;
}

/// The same ports with each run of consecutive ones as one, in the order of their first ports.
fn runs<R: Run>(ports: impl IntoIterator<Item = R>) -> Vec<R> {
    let mut runs: Vec<R> = Vec::new();
    // By what the next port of a run would be.
    let mut open = HashMap::new();
    for mut port in ports {
        let Some(common) = port.common() else {
            runs.push(port);
            continue;
        };
        let (host, container) = port.first();
        let (host, container, count) = (u32::from(host), u32::from(container), *port.count());
        let key = (common, host, container);
        let place = match open.remove(&key) {
            Some(place) => {
                let run: &mut R = &mut runs[place];
                *run.count() += count;
                place
            }
            None => {
                runs.push(port);
                runs.len() - 1
            }
        };
        let (common, ..) = key;
        open.insert((common, host + u32::from(count), container + u32::from(count)), place);
    }
    runs
}

impl PublishedPort {
    /// Each port of a range by itself.
    pub fn singles(self) -> impl Iterator<Item = Self> {
        (0..self.count).map(move |offset| Self {
            container: self.container.after(offset),
            host_port: self.host_port.saturating_add(offset),
            count: 1,
            ..self
        })
    }

    /// The same ports with each run of consecutive ones as a range, in the order of their first ports.
    pub fn ranges(ports: impl IntoIterator<Item = Self>) -> Vec<Self> {
        runs(ports)
    }
}

impl Run for PublishedPort {
    type Common = (Protocol, IpAddr);

    fn common(&self) -> Option<Self::Common> {
        Some((self.container.protocol, self.host_address))
    }

    fn first(&self) -> (u16, u16) {
        (self.host_port, self.container.port)
    }

    fn count(&mut self) -> &mut u16 {
        &mut self.count
    }
}

impl PortBinding {
    /// Each port of a range by itself.
    pub fn singles(&self) -> impl Iterator<Item = Self> + use<> {
        let first = self.clone();
        (0..self.count).map(move |offset| {
            let after = |port: u16| if port == 0 { 0 } else { port.saturating_add(offset) };
            Self {
                container: first.container.after(offset),
                host_ports: (after(first.host_ports.0), after(first.host_ports.1)),
                count: 1,
                ..first
            }
        })
    }

    /// The same bindings with each run of consecutive ports as one, in the order of their first ports. One that may choose its port stays alone.
    pub fn ranges(bindings: impl IntoIterator<Item = Self>) -> Vec<Self> {
        runs(bindings)
    }
}

impl Run for PortBinding {
    type Common = (Protocol, Option<IpAddr>);

    fn common(&self) -> Option<Self::Common> {
        let (first, last) = self.host_ports;
        (first == last && first != 0).then_some((self.container.protocol, self.host_address))
    }

    fn first(&self) -> (u16, u16) {
        (self.host_ports.0, self.container.port)
    }

    fn count(&mut self) -> &mut u16 {
        &mut self.count
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

impl PortSpec {
    /// The port so many further on.
    pub fn after(self, offset: u16) -> Self {
        Self {
            port: self.port.saturating_add(offset),
            ..self
        }
    }
}

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

/// A list of ports in a record: consecutive ones as one word, `1-10000/tcp`. Read, they stand in order.
pub mod runs_of_ports {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::{InvalidPort, PortSpec};

    /// Writes them.
    pub fn serialize<S: Serializer>(ports: &[PortSpec], to: S) -> Result<S::Ok, S::Error> {
        let mut sorted = ports.to_vec();
        sorted.sort_unstable_by_key(|port| (port.protocol, port.port));
        let mut runs: Vec<(PortSpec, u16)> = Vec::new();
        for port in sorted {
            match runs.last_mut() {
                Some((first, last)) if first.protocol == port.protocol && last.checked_add(1) == Some(port.port) => {
                    *last = port.port;
                }
                _ => runs.push((port, port.port)),
            }
        }
        let words = runs.into_iter().map(|(first, last)| match first.port == last {
            true => first.to_string(),
            false => format!("{}-{last}/{}", first.port, first.protocol),
        });
        words.collect::<Vec<String>>().serialize(to)
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PortSpec>, D::Error> {
        let mut ports = Vec::new();
        for word in Vec::<String>::deserialize(from)? {
            ports.extend(run(&word).map_err(D::Error::custom)?);
        }
        ports.sort_unstable();
        Ok(ports)
    }

    fn run(word: &str) -> Result<impl Iterator<Item = PortSpec> + use<>, InvalidPort> {
        let invalid = || InvalidPort(word.to_owned());
        let (first, last): (PortSpec, PortSpec) = match word.split_once('-') {
            None => (word.parse()?, word.parse()?),
            Some((first, last)) => {
                let last: PortSpec = last.parse().map_err(|_| invalid())?;
                (
                    format!("{first}/{}", last.protocol).parse().map_err(|_| invalid())?,
                    last,
                )
            }
        };
        match first.port <= last.port {
            true => Ok((first.port..=last.port).map(move |port| PortSpec { port, ..first })),
            false => Err(invalid()),
        }
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
    fn bindings_to_consecutive_ports_are_one_and_those_that_may_choose_stay_alone() {
        let binding = |host_ports: (u16, u16), container: u16, address: Option<&str>| PortBinding {
            container: PortSpec {
                port: container,
                protocol: Protocol::Udp,
            },
            host_address: address.map(|address| address.parse().unwrap()),
            host_ports,
            count: 1,
        };
        let same = |port: u16| (port, port);
        let mut bindings: Vec<_> = (0..10_000)
            .map(|offset| binding(same(20_000 + offset), 1 + offset, None))
            .collect();
        bindings.push(binding(same(30_000), 10_001, Some("127.0.0.1")));
        bindings.push(binding((0, 0), 10_002, None));
        bindings.push(binding((0, 0), 10_003, None));
        bindings.push(binding((40_000, 40_010), 10_004, None));
        let ranges = PortBinding::ranges(bindings.clone());
        let told: Vec<_> = ranges.iter().map(|range| (range.host_ports, range.count)).collect();
        assert_eq!(
            told,
            [
                (same(20_000), 10_000),
                (same(30_000), 1),
                ((0, 0), 1),
                ((0, 0), 1),
                ((40_000, 40_010), 1)
            ]
        );
        let singles: Vec<_> = ranges.iter().flat_map(PortBinding::singles).collect();
        assert_eq!(singles, bindings);
    }

    #[test]
    fn exposed_ports_are_written_as_runs_and_read_one_by_one() {
        #[derive(Serialize, Deserialize)]
        struct Record {
            #[serde(with = "runs_of_ports")]
            exposed: Vec<PortSpec>,
        }
        let written = |exposed: &[PortSpec]| {
            let exposed = exposed.to_vec();
            serde_json::to_string(&Record { exposed }).unwrap()
        };
        let read = |text: &str| serde_json::from_str::<Record>(text).map(|record| record.exposed);
        let mut exposed: Vec<PortSpec> = (1..=10_000)
            .map(|port| format!("{port}/tcp").parse().unwrap())
            .collect();
        exposed.extend(["53/udp", "65535/udp"].map(|port| port.parse::<PortSpec>().unwrap()));
        exposed.sort_unstable();
        let text = written(&exposed);
        assert_eq!(text, r#"{"exposed":["1-10000/tcp","53/udp","65535/udp"]}"#);
        assert_eq!(read(&text).unwrap(), exposed);
        // as an earlier version has written them
        let before = r#"{"exposed":["80/tcp","443/tcp"]}"#;
        assert_eq!(
            read(before).unwrap(),
            ["80/tcp", "443/tcp"].map(|port| port.parse().unwrap())
        );
        for nonsense in ["80-79/tcp", "0-5/tcp", "1-70000/tcp", "1-2-3/tcp", "-5/tcp"] {
            assert!(read(&format!(r#"{{"exposed":["{nonsense}"]}}"#)).is_err(), "{nonsense}");
        }
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
