//! Networks.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Id;

/// What stands behind a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Our eBPF network on one host, under the name Docker's users know.
    Bridge,
    /// The host's own namespace.
    Host,
    /// Only loopback.
    Null,
}

/// A subnet of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet {
    /// The addresses.
    pub subnet: IpNet,
    /// The gateway's, which the host bears.
    pub gateway: IpAddr,
    /// Where endpoints' addresses are taken from, when not the whole subnet.
    pub range: Option<IpNet>,
}

/// A network, as desired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: Id,
    /// Its name, unique.
    pub name: String,
    /// What stands behind it.
    pub driver: Driver,
    /// Its number in the datapath, 2 to 4095; 0 for drivers without one.
    pub number: u32,
    /// Its subnets (at most one of each family).
    pub subnets: Vec<Subnet>,
    /// May its containers talk to each other without a link?
    pub icc: bool,
    /// Does traffic that leaves the host get an address of the host?
    pub masquerade: bool,
    /// No way in or out.
    pub internal: bool,
    /// The MTU of its devices, bytes.
    pub mtu: u32,
    /// Published ports are bound here when the user names no address.
    pub default_binding: IpAddr,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options (`com.docker.network.…`).
    pub options: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
}
