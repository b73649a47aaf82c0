//! Hosts that share networks, and what each tells the others of its endpoints.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Endpoint, EndpointLink, Id, MacAddress, PortSpec, PublishedPort, network::Family};

/// The port that VXLAN has (RFC 7348, 5), of UDP.
pub const VXLAN_PORT: u16 = 4789;

/// The UDP port at which hosts take what others send them encrypted.
pub const SEAL_PORT: u16 = 51_820;

/// The encrypted way to a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seal {
    /// Its public key (Curve25519), as 64 hexadecimal digits.
    pub key: String,
    /// The address that it has behind the key, and nowhere else.
    pub address: Ipv6Addr,
    /// The UDP port at which it hears.
    pub port: u16,
}

/// A host of the cluster, as it tells the others of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Its daemon's id.
    pub id: String,
    /// What it is called, for people.
    pub name: String,
    /// Where it takes what is sent to its endpoints: the address it likes best goes first. At most some of each family.
    pub addresses: Vec<IpAddr>,
    /// The UDP port at which it takes it.
    pub vxlan_port: u16,
    /// The version of its daemon. (Every record has a `version` of its own.)
    #[serde(rename = "daemon_version")]
    pub version: String,
    /// Since when it is there.
    pub since: Timestamp,
    /// The encrypted way to it; none: its kernel has no WireGuard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

/// An endpoint of a shared network on another host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteEndpoint {
    /// Its id.
    pub id: Id,
    /// The id of its host's daemon.
    pub host: String,
    /// The network.
    pub network: Id,
    /// The container.
    pub container: Id,
    /// The container's name.
    pub name: String,
    /// The container's labels: what documents on who may speak to whom select it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The container's names in the network besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Its addresses with the network's prefix (at most one of each family).
    pub addresses: Vec<IpNet>,
    /// The MAC of its device.
    pub mac: MacAddress,
    /// Whom it may speak to where the network's endpoints may not speak to each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<EndpointLink>,
    /// The container's exposed ports: what a link to it opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<PortSpec>,
    /// Those of its published ports that every host takes packets for and hands them on to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
    /// Who may use them; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish_from: Vec<IpNet>,
}

// === impl Host ===

impl Host {
    /// Where it takes what is sent by a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }
}

// === impl RemoteEndpoint ===

impl RemoteEndpoint {
    /// What the others are told of an endpoint of this host.
    pub fn of(endpoint: &Endpoint, host: &str) -> Self {
        let meshed = endpoint.publish_mesh;
        Self {
            id: endpoint.id.clone(),
            host: host.to_owned(),
            network: endpoint.network.clone(),
            container: endpoint.container.clone(),
            name: endpoint.name.clone(),
            labels: endpoint.labels.clone(),
            aliases: endpoint.aliases.clone(),
            addresses: endpoint.addresses.clone(),
            mac: endpoint.mac,
            links: endpoint.links.clone(),
            exposed: endpoint.exposed.clone(),
            ports: if meshed { endpoint.ports.clone() } else { vec![] },
            publish_from: if meshed { endpoint.publish_from.clone() } else { vec![] },
        }
    }
}

impl EndpointLink {
    /// Does it lead to this endpoint of the same network, on another host?
    pub fn leads_to_remote(&self, endpoint: &RemoteEndpoint) -> bool {
        let id = endpoint.container.as_str();
        self.target == id
            || self.target == endpoint.name
            || endpoint.aliases.contains(&self.target)
            || self.target == endpoint.container.short()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_first_of_its_addresses_of_each_family() {
        let host = Host {
            id: "a".to_owned(),
            name: "a".to_owned(),
            addresses: ["10.0.0.1", "fd00::1", "10.0.1.1"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            vxlan_port: VXLAN_PORT,
            version: String::new(),
            since: Timestamp::UNIX_EPOCH,
            seal: None,
        };
        assert_eq!(host.address(Family::V4).unwrap().to_string(), "10.0.0.1");
        assert_eq!(host.address(Family::V6).unwrap().to_string(), "fd00::1");
    }
}
