//! What a network brings to the host: the gateway addresses it bears, and its entry in the tables.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_datapath_common::network::{
    self, FIRST_NETWORK, MAX_NETWORKS, NETWORK_BRIDGED, NETWORK_DIRECT, NETWORK_ENCRYPTED, NETWORK_EXISTS, NETWORK_ICC,
    NETWORK_INTERNAL, NETWORK_MASQUERADES, NETWORK_MASQUERADES6, NETWORK_MULTICAST, NETWORK_NO_HOST,
    NETWORK_ONLY_GATEWAY, NETWORK_ROUTED, NETWORK_ROUTED6, NETWORK_UNPROTECTED, NETWORK_UNPROTECTED6,
};
use sluice_model::{
    Network,
    network::{self as model, GatewayMode, HostAccess},
};

use super::{Troubles, tables::prefix};
use crate::{
    actual::Actual,
    desired::Desired,
    link::host_leg::gateway_of,
    map::contents::{ByBytes, Tables},
    names::Names,
};

/// Has it a place in the datapath?
pub fn is_placed(network: &Network) -> bool {
    network.is_placed() && (FIRST_NETWORK..MAX_NETWORKS).contains(&network.number)
}

/// Do its endpoints hang on a parent of the host, where the datapath does not see them?
pub fn hangs_beside(network: &Network) -> bool {
    network.is_beside() && network.parent.is_some()
}

/// The gateway addresses that the host's leg bears, and the numbers of their networks. On a bridge the bridge bears its own.
pub fn gateways(desired: &Desired) -> impl Iterator<Item = (IpNet, u32)> {
    desired
        .networks
        .values()
        .filter(|network| is_placed(network) && !network.is_on_bridge())
        .flat_map(|network| gateways_of(network).map(|gateway| (gateway, network.number)))
}

/// The gateway addresses of a network that the host bears.
pub fn gateways_of(network: &Network) -> impl Iterator<Item = IpNet> {
    network
        .subnets
        .iter()
        .filter(|subnet| network.gateway_mode(model::Family::of(subnet.gateway)) != GatewayMode::Isolated)
        .filter_map(|subnet| gateway_of(subnet.gateway, subnet.subnet))
}

/// Enters a network and its subnets.
pub fn add_network(tables: &mut Tables, troubles: &mut Troubles, network: &Network, actual: &Actual, names: &Names) {
    let bridge = network
        .parent
        .as_ref()
        .and_then(|parent| actual.bridges.get(&parent.device));
    let mut entry = network::Network {
        flags: flags(network),
        mtu: actual.mtu_of(network),
        vni: network.vni,
        // on a bridge the host is found at the bridge's
        gateway_mac: bridge.map_or(names.gateway_mac().0, |bridge| bridge.mac),
        ..Default::default()
    };
    for subnet in &network.subnets {
        let bears_gateway = network.gateway_mode(model::Family::of(subnet.gateway)) != GatewayMode::Isolated;
        match subnet.gateway {
            IpAddr::V4(gateway) if bears_gateway => entry.gateway4 = gateway.into(),
            IpAddr::V6(gateway) if bears_gateway => entry.gateway6 = gateway.into(),
            _ => {}
        }
        // nobody else has the gateway's address, also where the host does not bear it
        match subnet.gateway {
            IpAddr::V4(gateway) if network.has_names() => entry.resolver4 = gateway.into(),
            IpAddr::V6(gateway) if network.has_names() => entry.resolver6 = gateway.into(),
            _ => {}
        }
        if let IpNet::V4(net) = subnet.subnet {
            entry.broadcast4 = net.broadcast().into();
        }
        // what is in the subnet of a bridge are others' machines; of ours each is entered by itself
        if network.is_on_bridge() {
            continue;
        }
        let other = match subnet.subnet {
            IpNet::V4(net) => tables
                .subnets4
                .insert(ByBytes(prefix(net.prefix_len(), net.network().into())), network.number),
            IpNet::V6(net) => tables
                .subnets6
                .insert(ByBytes(prefix(net.prefix_len(), net.network().into())), network.number),
        };
        if let Some(other) = other {
            let trouble = format!(
                "network {} has the subnet {} of network number {other}",
                network.name, subnet.subnet
            );
            troubles.insert(network.id.to_string(), trouble);
        }
    }
    if tables.networks.insert(ByBytes(network.number), entry).is_some() {
        let trouble = format!(
            "network {} has the number {} of another network",
            network.name, network.number
        );
        troubles.insert(network.id.to_string(), trouble);
    }
}

fn flags(network: &Network) -> u32 {
    let translates = |mode| matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
    let (mode4, mode6) = (network.gateway_mode4, network.gateway_mode6);
    [
        (true, NETWORK_EXISTS),
        (network.icc, NETWORK_ICC),
        (network.internal, NETWORK_INTERNAL),
        (network.masquerade && translates(mode4), NETWORK_MASQUERADES),
        (network.masquerade && translates(mode6), NETWORK_MASQUERADES6),
        (mode4 == GatewayMode::Routed, NETWORK_ROUTED),
        (mode6 == GatewayMode::Routed, NETWORK_ROUTED6),
        (network.is_on_bridge(), NETWORK_BRIDGED),
        (mode4 == GatewayMode::NatUnprotected, NETWORK_UNPROTECTED),
        (mode6 == GatewayMode::NatUnprotected, NETWORK_UNPROTECTED6),
        (network.host_access() == HostAccess::None, NETWORK_NO_HOST),
        (network.host_access() == HostAccess::Gateway, NETWORK_ONLY_GATEWAY),
        (network.multicast, NETWORK_MULTICAST),
        (network.direct_routing && !network.encrypted, NETWORK_DIRECT),
        (network.encrypted, NETWORK_ENCRYPTED),
    ]
    .into_iter()
    .filter_map(|(wanted, flag)| wanted.then_some(flag))
    .fold(0, |flags, flag| flags | flag)
}
