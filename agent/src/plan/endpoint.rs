//! What an endpoint brings to the tables: where it lives, what it publishes, and how its sandbox asks for names.

use std::net::IpAddr;

use sluice_datapath_common::{
    Family, Ipv4Address,
    endpoint::{self, Attachment, EndpointKey},
    resolver::{ASKED4, Resolver},
};
use sluice_model::{Network, network as model};

use super::{
    Place, Troubles,
    network::hangs_beside,
    publish,
    tables::{enter, prefix},
};
use crate::map::contents::{ByBytes, Tables};

/// Enters an endpoint whose veth has this index.
pub fn add_endpoint(tables: &mut Tables, troubles: &mut Troubles, place: &Place<'_>, ifindex: u32) {
    let Place { endpoint, network, .. } = place;
    let mut attachment = Attachment {
        endpoint: endpoint.number,
        generation: endpoint.generation,
        network: network.number,
        mac: endpoint.mac.0,
        ..Default::default()
    };
    tables.generations.insert(ByBytes(endpoint.number), endpoint.generation);
    let entry = endpoint::Endpoint {
        endpoint: endpoint.number,
        ifindex,
        mac: endpoint.mac.0,
        padding: [0; 2],
    };
    for address in &endpoint.addresses {
        let taken = match address.addr() {
            IpAddr::V4(address) => {
                attachment.address4 = address.into();
                if network.is_on_bridge() {
                    let key = ByBytes(prefix(32, attachment.address4));
                    tables.subnets4.insert(key, network.number);
                }
                enter(
                    &mut tables.endpoints4,
                    endpoint_key(network, attachment.address4),
                    entry,
                )
            }
            IpAddr::V6(address) => {
                attachment.address6 = address.into();
                enter(
                    &mut tables.endpoints6,
                    endpoint_key(network, attachment.address6),
                    entry,
                )
            }
        };
        if taken {
            let trouble = format!(
                "endpoint {} has the address {} of another endpoint of network {}",
                endpoint.id,
                address.addr(),
                network.name
            );
            troubles.insert(endpoint.id.to_string(), trouble);
        }
    }
    tables.attachments.insert(ByBytes(ifindex), attachment);
    publish::publish(tables, troubles, place);
}

/// How a sandbox with these endpoints asks for names: by its first device of each family in a network that has some. That stays the same while others
/// come and go. One that has names on devices of the host alone asks a socket of ours in itself.
pub fn resolver(places: &[&Place<'_>]) -> Option<Resolver> {
    let mut resolver = Resolver::default();
    let mut named: Vec<_> = places.iter().filter(|place| place.network.has_names()).collect();
    named.sort_by_key(|place| std::cmp::Reverse(&place.endpoint.interface));
    // the last to be entered is the first
    let is_beside = named.iter().any(|place| hangs_beside(place.network));
    for place in named.into_iter().filter(|place| !hangs_beside(place.network)) {
        for address in &place.endpoint.addresses {
            match place
                .network
                .subnet(model::Family::of(address.addr()))
                .map(|subnet| subnet.gateway)
            {
                Some(IpAddr::V4(gateway)) => resolver.address4 = gateway.into(),
                Some(IpAddr::V6(gateway)) => resolver.address6 = gateway.into(),
                None => {}
            }
        }
    }
    if is_beside && resolver.address4 == Ipv4Address::default() {
        resolver.address4 = ASKED4;
    }
    (resolver != Resolver::default()).then_some(resolver)
}

/// Where an address of a network is found.
pub fn endpoint_key<F: Family>(network: &Network, address: F::Address) -> EndpointKey<F> {
    EndpointKey {
        network: network.number,
        address,
    }
}
