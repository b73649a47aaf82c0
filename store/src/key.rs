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
/// Documents on who may speak to whom, by name.
pub const POLICIES: &str = "/sluice/v1/policies/";

/// This host, as it tells the others of itself.
pub const THIS_HOST: &str = "/sluice/v1/this-host";
/// The other hosts of the cluster that are there.
pub const HOSTS: &str = "/sluice/v1/hosts/";
/// Endpoints on other hosts, by network.
pub const REMOTE_ENDPOINTS: &str = "/sluice/v1/remote-endpoints/";

/// In the store of a cluster: what its hosts tell each other.
pub mod shared {
    use std::net::IpAddr;

    use sluice_model::{Id, PortSpec};

    /// All that every host follows.
    pub const ALL: &str = "/sluice/v1/shared/";
    /// Hosts.
    pub const HOSTS: &str = "/sluice/v1/shared/hosts/";
    /// Networks.
    pub const NETWORKS: &str = "/sluice/v1/shared/networks/";
    /// Documents on who may speak to whom, by name.
    pub const POLICIES: &str = "/sluice/v1/shared/policies/";
    /// Endpoints, by network.
    pub const ENDPOINTS: &str = "/sluice/v1/shared/endpoints/";
    /// How far each host has come.
    pub const REACHED: &str = "/sluice/v1/reached/";
    /// Written by whoever makes a network, so that of two who make one at the same time one begins again.
    pub const LAST_NETWORK: &str = "/sluice/v1/taken/last-network";
    /// Names that networks have, each holding the network's id.
    pub const NETWORK_NAMES: &str = "/sluice/v1/taken/network-names/";

    /// A document on who may speak to whom.
    pub fn policy(name: &str) -> String {
        format!("{POLICIES}{name}")
    }

    /// A host's record.
    pub fn host(id: &str) -> String {
        format!("{HOSTS}{id}")
    }

    /// How far a host has come.
    pub fn reached(id: &str) -> String {
        format!("{REACHED}{id}")
    }

    /// A network's record.
    pub fn network(id: &Id) -> String {
        format!("{NETWORKS}{id}")
    }

    /// A network's name.
    pub fn network_name(name: &str) -> String {
        format!("{NETWORK_NAMES}{name}")
    }

    /// A network's number on the wire, holding the network's id.
    pub fn vni(vni: u32) -> String {
        format!("/sluice/v1/taken/vnis/{vni}")
    }

    /// The endpoints of a network.
    pub fn endpoints(network: &Id) -> String {
        format!("{ENDPOINTS}{network}/")
    }

    /// An endpoint's record.
    pub fn endpoint(network: &Id, id: &Id) -> String {
        format!("{ENDPOINTS}{network}/{id}")
    }

    /// The addresses that endpoints of a network have.
    pub fn addresses(network: &Id) -> String {
        format!("/sluice/v1/taken/addresses/{network}/")
    }

    /// An address in a network, holding the id of its endpoint.
    pub fn address(network: &Id, address: IpAddr) -> String {
        format!("/sluice/v1/taken/addresses/{network}/{address}")
    }

    /// The names that containers have in a network.
    pub fn names(network: &Id) -> String {
        format!("/sluice/v1/taken/names/{network}/")
    }

    /// What hosts have for themselves, by host.
    pub const PREFIXES: &str = "/sluice/v1/prefixes/";

    /// What a host has for itself.
    pub fn prefixes(host: &str) -> String {
        format!("{PREFIXES}{host}")
    }

    /// A port that is published on all hosts, holding the ids of the network and the endpoint.
    pub fn port(port: PortSpec) -> String {
        format!("/sluice/v1/taken/ports/{}/{}", port.protocol, port.port)
    }

    /// A container's name in a network, holding the id of its endpoint.
    pub fn name(network: &Id, name: &str) -> String {
        format!("/sluice/v1/taken/names/{network}/{name}")
    }
}

/// Another host's record.
pub fn host(id: &str) -> String {
    format!("{HOSTS}{id}")
}

/// The endpoints of a network on other hosts.
pub fn remote_endpoints(network: &Id) -> String {
    format!("{REMOTE_ENDPOINTS}{network}/")
}

/// The record of an endpoint on another host.
pub fn remote_endpoint(network: &Id, id: &Id) -> String {
    format!("{REMOTE_ENDPOINTS}{network}/{id}")
}

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

/// A document on who may speak to whom.
pub fn policy(name: &str) -> String {
    format!("{POLICIES}{name}")
}

/// An address in a network.
pub fn address(network: &Id, address: std::net::IpAddr) -> String {
    format!("{ADDRESSES}{network}/{address}")
}
