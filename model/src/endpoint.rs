//! Endpoints and the sandboxes they stand in.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Id, MacAddress, PortSpec, PublishedPort, port::runs_of_ports};

/// A network namespace of a container, kept by a file that it is mounted on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its id (the container's).
    pub id: Id,
    /// The file (`<exec-root>/netns/<id>`).
    pub path: PathBuf,
    /// What its processes want of the resolver.
    #[serde(default)]
    pub resolver: ResolverWish,
}

/// What a container wants of the resolver that answers it (`--dns`, `--dns-option`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolverWish {
    /// Who is asked what the resolver does not know; empty: those whom the host asks.
    pub servers: Vec<IpAddr>,
    /// Names without a dot are never asked outside (the user has set `ndots`, so they come again with a domain).
    pub keeps_single_labels: bool,
}

/// A container's place in a network, as desired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: Id,
    /// Its number in the datapath, 1 to 65535, an index of the generations.
    pub number: u32,
    /// Counts the lives of the number; a flow of an earlier life is dead.
    pub generation: u32,
    /// The network.
    pub network: Id,
    /// The container.
    pub container: Id,
    /// The container's name, for those who look at flows and drops.
    pub name: String,
    /// The namespace its device is in.
    pub sandbox: Id,
    /// The device's name in the container.
    pub interface: String,
    /// Its addresses with the network's prefix (at most one of each family).
    pub addresses: Vec<IpNet>,
    /// The MAC of the device.
    pub mac: MacAddress,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
    /// The gateways of its network that lead everywhere else from its sandbox: of a sandbox's endpoints one leads by each family.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Settings of its device, as `net.ipv4.conf.IFNAME.log_martians` with their values: `IFNAME` stands for the device's name.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The container's labels: what documents on who may speak to whom select it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The container's names in the network besides its own (`--network-alias`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Who is called by another name from here, and may be spoken to where the network's endpoints may not speak to each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<EndpointLink>,
    /// The container's exposed ports: what a link to it opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "runs_of_ports")]
    pub exposed: Vec<PortSpec>,
    /// Who may use its published ports; empty: everybody. A family that is not among them may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish_from: Vec<IpNet>,
    /// Do all hosts that share its network take packets for its published ports, and hand them on to it?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub publish_mesh: bool,
}

/// A link from an endpoint to another of the same network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointLink {
    /// Who is meant: a container's id, or whoever bears this name in the network when it is asked for.
    pub target: String,
    /// What it is called from here.
    pub alias: String,
}

// === impl EndpointLink ===

impl EndpointLink {
    /// Does it lead to this endpoint of the same network?
    pub fn leads_to(&self, endpoint: &Endpoint) -> bool {
        let id = endpoint.container.as_str();
        self.target == id
            || self.target == endpoint.name
            || endpoint.aliases.contains(&self.target)
            || self.target == endpoint.container.short()
    }
}
