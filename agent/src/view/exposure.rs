//! What of this host's containers is reached from where, and what the host's firewall believes of it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::firewall::Belief;

/// What is open.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exposure {
    /// The firewalls of the host that judge what comes in.
    pub firewalls: Vec<String>,
    /// Rules of theirs that could not be read, a sentence each.
    pub unread: Vec<String>,
    /// Every way in.
    pub openings: Vec<Opening>,
    /// Where a firewall believes something else, a sentence each.
    pub warnings: Vec<String>,
}

/// A way in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// The container's name.
    pub container: String,
    /// Its id.
    pub container_id: String,
    /// The name of its network.
    pub network: String,
    /// The name of the other host that it is on; none: it is on this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Is it reached so at every host of the cluster (`sluice.publish=mesh`)?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_host: bool,
    /// Where it is reached; unspecified (0.0.0.0, ::): at all addresses of the host.
    pub address: IpAddr,
    /// `tcp`, `udp` or `sctp`; none: every protocol.
    pub protocol: Option<String>,
    /// The port there; none: every port.
    pub port: Option<u16>,
    /// How many consecutive ports.
    pub count: u16,
    /// The container's port; none: the same one.
    pub container_port: Option<u16>,
    /// Who gets through.
    pub clients: Clients,
    /// Is this way past a firewall of the host, which may believe otherwise?
    pub passes_firewall: bool,
    /// Where a firewall believes otherwise.
    pub beliefs: Vec<Disbelief>,
}

/// Who gets through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clients {
    /// Processes of this host.
    Host,
    /// Whoever reaches the address.
    Everybody,
    /// Those of them with these addresses, and processes of this host.
    Sources(Vec<IpNet>),
    /// Whoever has a route to the container's own address.
    Routed,
    /// Of those with a route, those with these addresses.
    RoutedSources(Vec<IpNet>),
    /// Whoever is on the wire of this device.
    Wire(String),
    /// Whomever the host's firewall lets in: the container is on the host's own network.
    Firewall,
}

/// A firewall that would not let everybody through who gets through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disbelief {
    /// Which.
    pub firewall: String,
    /// What it would do.
    pub belief: Belief,
    /// With what comes in by this device.
    pub device: String,
}
