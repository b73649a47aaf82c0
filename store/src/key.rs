//! What a key looks like. Nobody else knows.

use sluice_model::Id;

/// Everything of ours.
pub const ROOT: &str = "/sluice/v1/";
/// Networks.
pub const NETWORKS: &str = "/sluice/v1/networks/";
/// Names of networks that users made, each holding the id of its bearer.
pub const NETWORK_NAMES: &str = "/sluice/v1/network-names/";
/// Endpoints.
pub const ENDPOINTS: &str = "/sluice/v1/endpoints/";
/// Sandboxes.
pub const SANDBOXES: &str = "/sluice/v1/sandboxes/";
/// Containers.
pub const CONTAINERS: &str = "/sluice/v1/containers/";
/// Names of containers, each holding the id of its bearer.
pub const NAMES: &str = "/sluice/v1/names/";
/// Volumes.
pub const VOLUMES: &str = "/sluice/v1/volumes/";
/// Addresses in use, each holding the id of its endpoint.
pub const ADDRESSES: &str = "/sluice/v1/addresses/";

/// A network's record.
pub fn network(id: &Id) -> String {
    format!("{NETWORKS}{id}")
}

/// A network's name.
pub fn network_name(name: &str) -> String {
    format!("{NETWORK_NAMES}{name}")
}

/// An endpoint's record.
pub fn endpoint(id: &Id) -> String {
    format!("{ENDPOINTS}{id}")
}

/// A sandbox's record.
pub fn sandbox(id: &Id) -> String {
    format!("{SANDBOXES}{id}")
}

/// A container's record.
pub fn container(id: &Id) -> String {
    format!("{CONTAINERS}{id}")
}

/// A container's name.
pub fn name(name: &str) -> String {
    format!("{NAMES}{name}")
}

/// A volume's record.
pub fn volume(name: &str) -> String {
    format!("{VOLUMES}{name}")
}

/// An address in a network.
pub fn address(network: &Id, address: std::net::IpAddr) -> String {
    format!("{ADDRESSES}{network}/{address}")
}
