//! Endpoints and the sandboxes they stand in.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Id, MacAddress, PublishedPort};

/// A network namespace of a container, kept by a file that it is mounted on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its id (the container's).
    pub id: Id,
    /// The file (`<exec-root>/netns/<id>`).
    pub path: PathBuf,
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
}
