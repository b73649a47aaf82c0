//! Desired minus actual: what is to be done. Pure, so that it is tested with tables.
//!
//! It is found in two halves, because the tables speak of devices by numbers that the kernel gives: [`devices`] says which devices, sandboxes
//! and addresses go and come; [`tables`] says what the tables must hold for the devices that are there.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use aya::Pod;
use ipnet::{IpNet, Ipv4Net};
use sluice_datapath_common::{
    Family, Ipv4, Ipv4Address, Ipv6Address,
    endpoint::{self, Attachment, EndpointKey, MAX_ENDPOINTS},
    network::{self, FIRST_NETWORK, MAX_NETWORKS, NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES},
    publish::{Publication, PublishKey, RangeKey, blocks, reserved_at},
    settings::Settings,
    uplink::{LocalAddress, Uplink},
};
use sluice_model::{Endpoint, Network, PublishedPort, network::Driver};

use crate::{
    actual::Actual,
    desired::Desired,
    link::{host_leg::gateway_of, uplink::World, veth::Wish},
    map::{
        contents::{ByBytes, Changes, Entries, Tables},
        handle::Prefix,
    },
    names::{Fingerprint, Names, host_end},
};

/// What cannot be made, by the id of what it was for.
pub type Troubles = BTreeMap<String, String>;

/// An endpoint that can be made, and the device it is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Its network.
    pub network: &'a Network,
    /// Its veth.
    pub wish: Wish,
    /// Of what the veth is made from.
    pub fingerprint: u64,
}

/// What is to be done about devices, sandboxes and addresses, in this order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Devices {
    /// Veths to remove, by the index of their host end.
    pub remove_veths: Vec<u32>,
    /// Sandboxes to remove.
    pub remove_sandboxes: Vec<PathBuf>,
    /// Addresses to take from the host's leg.
    pub remove_gateways: Vec<Ipv4Net>,
    /// The MTU that the host's leg gets.
    pub leg_mtu: Option<u32>,
    /// Addresses to give to the host's leg.
    pub add_gateways: Vec<Ipv4Net>,
    /// Sandboxes to make: id and file.
    pub make_sandboxes: Vec<(String, PathBuf)>,
    /// Veths to make.
    pub make_veths: Vec<Wish>,
    /// Host ends that somebody has set down.
    pub lift: Vec<u32>,
}

/// What is to be done to the tables.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Steps {
    /// `NETWORKS`.
    pub networks: Changes<u32, network::Network>,
    /// `SUBNETS4`.
    pub subnets4: Changes<Prefix<Ipv4Address>, u32>,
    /// `GENERATIONS`.
    pub generations: Changes<u32, u32>,
    /// `ATTACHMENTS`.
    pub attachments: Changes<u32, Attachment>,
    /// `ENDPOINTS4`.
    pub endpoints4: Changes<EndpointKey<Ipv4>, endpoint::Endpoint>,
    /// `PUBLISHED4`.
    pub published4: Changes<PublishKey<Ipv4>, Publication<Ipv4>>,
    /// `RANGES4`.
    pub ranges4: Changes<Prefix<RangeKey<Ipv4>>, Publication<Ipv4>>,
    /// `RESERVED`.
    pub reserved: Changes<u32, u64>,
    /// `SETTINGS`.
    pub settings: Changes<u32, Settings>,
    /// `LOCAL4`.
    pub local4: Changes<Ipv4Address, LocalAddress>,
    /// `UPLINKS4`.
    pub uplinks4: Changes<u32, Uplink<Ipv4>>,
    /// Some flow that was judged before would be judged otherwise now.
    pub moves_epoch: bool,
}

/// The endpoints that can be made, by id, and why others cannot.
pub fn places<'a>(desired: &'a Desired, names: &Names) -> (BTreeMap<&'a str, Place<'a>>, Troubles) {
    let (mut places, mut troubles) = (BTreeMap::new(), Troubles::new());
    let mut numbers: BTreeMap<u32, &str> = BTreeMap::new();
    for (id, endpoint) in &desired.endpoints {
        match place(endpoint, desired, names) {
            Ok(place) => match numbers.get(&endpoint.number) {
                None => {
                    numbers.insert(endpoint.number, id);
                    places.insert(id.as_str(), place);
                }
                Some(other) => {
                    let trouble = format!("endpoint {id} has the number {} of endpoint {other}", endpoint.number);
                    troubles.insert(id.clone(), trouble);
                }
            },
            Err(trouble) => drop(troubles.insert(id.clone(), trouble)),
        }
    }
    (places, troubles)
}

fn place<'a>(endpoint: &'a Endpoint, desired: &'a Desired, names: &Names) -> Result<Place<'a>, String> {
    let id = &endpoint.id;
    let network = desired
        .networks
        .get(endpoint.network.as_str())
        .ok_or_else(|| format!("endpoint {id} is in no known network"))?;
    if !is_placed(network) {
        return Err(format!(
            "endpoint {id} is in the network {}, which has no place in the datapath",
            network.name
        ));
    }
    let sandbox = desired
        .sandboxes
        .get(endpoint.sandbox.as_str())
        .ok_or_else(|| format!("endpoint {id} is in no known sandbox"))?;
    if endpoint.number == 0 || endpoint.number >= MAX_ENDPOINTS {
        return Err(format!(
            "endpoint {id} has the number {}; 1 to {} are wanted",
            endpoint.number,
            MAX_ENDPOINTS - 1
        ));
    }
    if endpoint.generation == 0 {
        return Err(format!(
            "endpoint {id} has the generation 0, which means that it is gone"
        ));
    }
    if endpoint.interface.is_empty() || endpoint.interface.len() > 15 || endpoint.interface.contains(['/', ' ', '\0']) {
        return Err(format!(
            "endpoint {id} wants a device called {:?}, which no device can be",
            endpoint.interface
        ));
    }
    let (wish, fingerprint) = wish(endpoint, network, sandbox.path.clone(), names);
    Ok(Place {
        endpoint,
        network,
        wish,
        fingerprint,
    })
}

fn is_placed(network: &Network) -> bool {
    network.driver == Driver::Bridge && (FIRST_NETWORK..MAX_NETWORKS).contains(&network.number)
}

fn wish(endpoint: &Endpoint, network: &Network, sandbox: PathBuf, names: &Names) -> (Wish, u64) {
    let has = |family_of: IpAddr| {
        endpoint
            .addresses
            .iter()
            .any(|address| address.addr().is_ipv4() == family_of.is_ipv4())
    };
    let gateways: Vec<IpAddr> = match network.internal {
        true => Vec::new(),
        false => network
            .subnets
            .iter()
            .map(|subnet| subnet.gateway)
            .filter(|gateway| has(*gateway))
            .collect(),
    };
    let mut wish = Wish {
        endpoint: endpoint.id.to_string(),
        host_end: host_end(&endpoint.id),
        draft_alias: names.alias(&endpoint.id, 0),
        alias: String::new(),
        gateway_mac: names.gateway_mac().0,
        sandbox,
        interface: endpoint.interface.clone(),
        mac: endpoint.mac.0,
        addresses: endpoint.addresses.clone(),
        gateways,
        mtu: network.mtu,
    };
    let mut fingerprint = Fingerprint::EMPTY;
    fingerprint.add_part(wish.sandbox.display());
    fingerprint.add_part(&wish.interface);
    fingerprint.add_part(endpoint.mac);
    fingerprint.add_part(wish.mtu);
    wish.addresses.iter().for_each(|address| fingerprint.add_part(address));
    wish.gateways.iter().for_each(|gateway| fingerprint.add_part(gateway));
    // 0 is the draft's.
    let fingerprint = fingerprint.value().max(1);
    wish.alias = names.alias(&endpoint.id, fingerprint);
    (wish, fingerprint)
}

/// Which devices, sandboxes and addresses go and come.
pub fn devices(desired: &Desired, places: &BTreeMap<&str, Place<'_>>, actual: &Actual) -> Devices {
    let mut plan = Devices::default();
    let mut standing = BTreeSet::new();
    for (ifindex, veth) in &actual.veths {
        let place = places
            .get(veth.endpoint.as_str())
            .filter(|place| place.fingerprint == veth.fingerprint);
        let unreadable = desired.unreadable.contains_key(&veth.endpoint);
        let in_its_sandbox = |place: &&Place<'_>| actual.sandboxes.get(&place.wish.sandbox) != Some(&false);
        if (place.filter(in_its_sandbox).is_some() || unreadable) && standing.insert(veth.endpoint.as_str()) {
            if !veth.up {
                plan.lift.push(*ifindex);
            }
        } else {
            plan.remove_veths.push(*ifindex);
        }
    }
    plan.make_veths = places
        .iter()
        .filter(|(id, _)| !standing.contains(**id))
        .map(|(_, place)| place.wish.clone())
        .collect();

    let sandboxes: BTreeMap<&PathBuf, &String> = desired
        .sandboxes
        .iter()
        .map(|(id, sandbox)| (&sandbox.path, id))
        .collect();
    let spoken_for = |path: &PathBuf| {
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        sandboxes.contains_key(path) || desired.unreadable.contains_key(id)
    };
    plan.remove_sandboxes = actual
        .sandboxes
        .keys()
        .filter(|path| !spoken_for(path))
        .cloned()
        .collect();
    plan.make_sandboxes = sandboxes
        .iter()
        .filter(|(path, _)| actual.sandboxes.get(**path) != Some(&true))
        .map(|(path, id)| ((*id).clone(), (*path).clone()))
        .collect();

    let gateways: BTreeSet<Ipv4Net> = gateways(desired).map(|(gateway, _)| gateway).collect();
    plan.remove_gateways = actual.gateways.difference(&gateways).copied().collect();
    plan.add_gateways = gateways.difference(&actual.gateways).copied().collect();
    // As large as the largest network's, else what containers send to the host would be too large for it.
    let mtu = desired
        .networks
        .values()
        .filter(|network| is_placed(network))
        .map(|network| network.mtu)
        .max();
    plan.leg_mtu = mtu.filter(|mtu| *mtu != actual.leg_mtu);
    plan
}

fn gateways(desired: &Desired) -> impl Iterator<Item = (Ipv4Net, u32)> {
    desired
        .networks
        .values()
        .filter(|network| is_placed(network))
        .flat_map(|network| {
            network
                .subnets
                .iter()
                .filter_map(|subnet| Some((gateway_of(subnet.gateway, subnet.subnet)?, network.number)))
        })
}

/// What the tables must hold, when `veth_of` answers the index of an endpoint's veth (none: it has none and is left out).
pub fn tables(
    desired: &Desired,
    places: &BTreeMap<&str, Place<'_>>,
    actual: &Actual,
    names: &Names,
    veth_of: impl Fn(&str) -> Option<u32>,
) -> (Tables, Troubles) {
    let (mut tables, mut troubles) = (Tables::default(), Troubles::new());
    for network in desired.networks.values().filter(|network| is_placed(network)) {
        add_network(&mut tables, &mut troubles, network, names);
    }
    add_world(&mut tables, &actual.world);
    for (gateway, number) in gateways(desired) {
        let local = LocalAddress {
            ifindex: actual.leg.host,
            gateway_of: number,
        };
        tables.local4.insert(ByBytes(gateway.addr().into()), local);
    }
    for (id, place) in places {
        if let Some(ifindex) = veth_of(id) {
            add_endpoint(&mut tables, &mut troubles, place, ifindex);
        }
    }
    (tables, troubles)
}

fn add_network(tables: &mut Tables, troubles: &mut Troubles, network: &Network, names: &Names) {
    let mut entry = network::Network {
        flags: NETWORK_EXISTS,
        mtu: network.mtu,
        gateway_mac: names.gateway_mac().0,
        ..Default::default()
    };
    for (wanted, flag) in [
        (network.icc, NETWORK_ICC),
        (network.masquerade, NETWORK_MASQUERADES),
        (network.internal, NETWORK_INTERNAL),
    ] {
        entry.flags |= if wanted { flag } else { 0 };
    }
    for subnet in &network.subnets {
        match subnet.gateway {
            IpAddr::V4(gateway) => entry.gateway4 = gateway.into(),
            IpAddr::V6(gateway) => entry.gateway6 = ipv6(gateway),
        }
        if let IpNet::V4(subnet) = subnet.subnet {
            let prefix = Prefix {
                length: u32::from(subnet.prefix_len()),
                address: subnet.network().into(),
            };
            if let Some(other) = tables.subnets4.insert(ByBytes(prefix), network.number) {
                let trouble = format!(
                    "network {} has the subnet {subnet} of network number {other}",
                    network.name
                );
                troubles.insert(network.id.to_string(), trouble);
            }
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

fn add_world(tables: &mut Tables, world: &World) {
    for (address, ifindex) in &world.addresses {
        tables.local4.insert(
            ByBytes((*address).into()),
            LocalAddress {
                ifindex: *ifindex,
                gateway_of: 0,
            },
        );
    }
    for uplink in &world.uplinks {
        tables.uplinks4.insert(
            ByBytes(uplink.ifindex),
            Uplink {
                address: uplink.address.into(),
                mtu: uplink.mtu,
            },
        );
    }
}

fn add_endpoint(tables: &mut Tables, troubles: &mut Troubles, place: &Place<'_>, ifindex: u32) {
    let Place { endpoint, network, .. } = place;
    let mut attachment = Attachment {
        endpoint: endpoint.number,
        generation: endpoint.generation,
        network: network.number,
        mac: endpoint.mac.0,
        ..Default::default()
    };
    let mut address4 = None;
    for address in &endpoint.addresses {
        match address.addr() {
            IpAddr::V4(address) => address4 = Some(address),
            IpAddr::V6(address) => attachment.address6 = ipv6(address),
        }
    }
    tables.generations.insert(ByBytes(endpoint.number), endpoint.generation);
    if let Some(address) = address4 {
        attachment.address4 = address.into();
        let key = EndpointKey {
            network: network.number,
            address: address.into(),
        };
        let entry = endpoint::Endpoint {
            endpoint: endpoint.number,
            ifindex,
            mac: endpoint.mac.0,
            padding: [0; 2],
        };
        if tables.endpoints4.insert(ByBytes(key), entry).is_some() {
            let trouble = format!(
                "endpoint {} has the address {address} of another endpoint of network {}",
                endpoint.id, network.name
            );
            troubles.insert(endpoint.id.to_string(), trouble);
        }
        publish(tables, troubles, place, address);
    }
    tables.attachments.insert(ByBytes(ifindex), attachment);
}

fn publish(tables: &mut Tables, troubles: &mut Troubles, place: &Place<'_>, address: Ipv4Addr) {
    for port in &place.endpoint.ports {
        // A port at an IPv6 address of the host has no table yet.
        let IpAddr::V4(host_address) = port.host_address else {
            continue;
        };
        publish_at(tables, troubles, place, address, port, host_address);
    }
}

/// A port, or a range by the blocks it consists of: those of one port are single ports to the datapath.
fn publish_at(
    tables: &mut Tables,
    troubles: &mut Troubles,
    place: &Place<'_>,
    address: Ipv4Addr,
    port: &PublishedPort,
    host_address: Ipv4Addr,
) {
    /// The bits of a port.
    const WHOLE: u32 = 16;
    let protocol = port.container.protocol.number();
    let last = port.host_port.saturating_add(port.count.saturating_sub(1));
    for (first, bits) in blocks(port.host_port, last) {
        let mut publication = Publication {
            network: place.network.number,
            endpoint: place.endpoint.number,
            address: address.into(),
            port: port.container.port.saturating_add(first - port.host_port).to_be(),
            first: 0,
        };
        let taken = if bits == WHOLE {
            let key = PublishKey {
                address: host_address.into(),
                port: first.to_be(),
                protocol,
                padding: 0,
            };
            enter(&mut tables.published4, key, publication)
        } else {
            publication.first = first.to_be();
            let address: Ipv4Address = host_address.into();
            let key = Prefix {
                length: 8 * size_of_val(&address) as u32 + 16 + bits,
                address: RangeKey {
                    address,
                    protocol: u16::from(protocol),
                    port: first.to_be(),
                },
            };
            enter(&mut tables.ranges4, key, publication)
        };
        if taken {
            let trouble = format!(
                "endpoint {} publishes {host_address}:{first}/{}, which another endpoint does",
                place.endpoint.id, port.container.protocol
            );
            troubles.insert(place.endpoint.id.to_string(), trouble);
            continue;
        }
        for port in first..=first.saturating_add(((1u32 << (WHOLE - bits)) - 1) as u16) {
            if let Some((slot, bit)) = reserved_at(Ipv4::AF, protocol, port) {
                *tables.reserved.entry(ByBytes(slot)).or_default() |= bit;
            }
        }
    }
}

/// Enters what is not there yet; true when something is.
fn enter<K: Pod, V>(entries: &mut Entries<K, V>, key: K, value: V) -> bool {
    match entries.entry(ByBytes(key)) {
        Entry::Occupied(_) => true,
        Entry::Vacant(place) => {
            place.insert(value);
            false
        }
    }
}

fn ipv6(address: std::net::Ipv6Addr) -> Ipv6Address {
    let octets = address.octets();
    let word =
        |index: usize| u32::from_ne_bytes([octets[index], octets[index + 1], octets[index + 2], octets[index + 3]]);
    Ipv6Address([word(0), word(4), word(8), word(12)])
}

/// What makes the tables as they are into the tables as they must be.
pub fn steps(actual: &Tables, desired: &Tables) -> Steps {
    let mut steps = Steps {
        networks: Changes::between(&actual.networks, &desired.networks),
        subnets4: Changes::between(&actual.subnets4, &desired.subnets4),
        generations: Changes::between(&actual.generations, &desired.generations),
        attachments: Changes::between(&actual.attachments, &desired.attachments),
        endpoints4: Changes::between(&actual.endpoints4, &desired.endpoints4),
        published4: Changes::between(&actual.published4, &desired.published4),
        ranges4: Changes::between(&actual.ranges4, &desired.ranges4),
        reserved: Changes::between(&actual.reserved, &desired.reserved),
        settings: Changes::between(&actual.settings, &desired.settings),
        local4: Changes::between(&actual.local4, &desired.local4),
        uplinks4: Changes::between(&actual.uplinks4, &desired.uplinks4),
        moves_epoch: false,
    };
    // An endpoint that comes or goes alone moves nothing: no flow was judged against the first, the second's die by their generation.
    steps.moves_epoch = !steps.subnets4.is_empty()
        || !steps.networks.is_empty()
        || !steps.published4.is_empty()
        || !steps.ranges4.is_empty()
        || !steps.local4.is_empty()
        || !steps.uplinks4.is_empty()
        || steps.endpoints4.replaces(&actual.endpoints4)
        || steps.attachments.replaces(&actual.attachments);
    steps
}

impl Steps {
    /// Nothing is to be done.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests;
