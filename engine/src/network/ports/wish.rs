//! What a container wants to publish, and at which addresses of the host.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sluice_model::{Network, PortBinding, PortSpec};

/// What `-P` adds: every exposed port that has no binding of its own, at any port of the host.
pub(crate) fn wishes(bindings: &[PortBinding], exposed: &[PortSpec], publish_all: bool) -> Vec<PortBinding> {
    let mut all = bindings.to_vec();
    if publish_all {
        let bound: HashSet<PortSpec> = bindings
            .iter()
            .flat_map(PortBinding::singles)
            .map(|binding| binding.container)
            .collect();
        for port in exposed {
            if !bound.contains(port) {
                all.push(PortBinding {
                    container: *port,
                    host_address: None,
                    host_ports: (0, 0),
                    count: 1,
                });
            }
        }
    }
    // what can be only one port goes first, so that a search does not take it away
    all.sort_by_key(|wish| wish.host_ports.0 != wish.host_ports.1 || wish.host_ports.0 == 0);
    all
}

/// Where a container's ports are bound when its user names no address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    /// The network's address for it.
    pub address: IpAddr,
    /// Every IPv6 address, too, when that means every IPv4 address?
    pub with_ipv6: bool,
}

impl Binding {
    /// Of a network, on a host that has IPv6 or not.
    pub fn of(network: &Network) -> Self {
        Self {
            address: network.default_binding,
            with_ipv6: std::path::Path::new("/proc/net/if_inet6").exists(),
        }
    }
}

/// The host's addresses that a wish means.
pub(crate) fn addresses(wish: &PortBinding, binding: Binding) -> Vec<IpAddr> {
    let every_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match wish.host_address {
        Some(address) => vec![address],
        None if binding.address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && binding.with_ipv6 => {
            vec![binding.address, every_ipv6]
        }
        None => vec![binding.address],
    }
}
