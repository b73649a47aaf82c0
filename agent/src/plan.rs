//! Desired minus actual: what is to be done. Pure, so that it is tested with tables.
//!
//! It is found in two halves, because the tables speak of devices by numbers that the kernel gives: [`devices`] says which devices, sandboxes
//! and addresses go and come; [`tables`] says what the tables must hold for the devices that are there.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

use aya::Pod;
use ipnet::IpNet;
use sluice_datapath_common::{
    Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address,
    endpoint::{self, Attachment, EndpointKey, MAX_ENDPOINTS},
    network::{
        self, FIRST_NETWORK, MAX_NETWORKS, NETWORK_BRIDGED, NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL,
        NETWORK_MASQUERADES, NETWORK_MASQUERADES6, NETWORK_MULTICAST, NETWORK_NO_HOST, NETWORK_ONLY_GATEWAY,
        NETWORK_ROUTED, NETWORK_ROUTED6, NETWORK_UNPROTECTED, NETWORK_UNPROTECTED6,
    },
    policy::{LinkKey, MemberKey},
    publish::{Publication, PublishKey, RangeKey, SourceKey},
    resolver::Resolver,
    settings::Settings,
    uplink::{LocalAddress, Uplink},
};
use sluice_model::{
    Endpoint, Network,
    network::{self as model, Driver, GatewayMode, Hold, HostAccess},
};

use crate::{
    actual::{Actual, Veth},
    desired::Desired,
    link::{
        host_leg::gateway_of,
        uplink::World,
        veth::{Hang, Wish},
    },
    map::{
        contents::{ByBytes, Changes, Entries, Tables},
        handle::Prefix,
    },
    names::{Fingerprint, MadeOf, Names, host_end},
};

pub use beside::Beside;

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
    /// What the veth is made from.
    pub made_of: MadeOf,
}

/// What is to be done about devices, sandboxes and addresses, in this order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Devices {
    /// Veths to remove, by the index of their host end.
    pub remove_veths: Vec<u32>,
    /// Sandboxes to remove.
    pub remove_sandboxes: Vec<PathBuf>,
    /// Addresses to take from the host's leg.
    pub remove_gateways: Vec<IpNet>,
    /// The MTU that the host's leg gets.
    pub leg_mtu: Option<u32>,
    /// Addresses to give to the host's leg.
    pub add_gateways: Vec<IpNet>,
    /// Sandboxes to make: id and file.
    pub make_sandboxes: Vec<(String, PathBuf)>,
    /// Veths to make.
    pub make_veths: Vec<Wish>,
    /// Host ends that somebody has set down.
    pub lift: Vec<u32>,
    /// Veths that stay and lead elsewhere from their sandboxes by other ways than before, by the index of their host end.
    pub turn: Vec<(u32, Wish)>,
    /// Veths that stay and get another MTU, by the index of their host end.
    pub resize: Vec<(u32, Wish)>,
    /// Host ends that are no port of their bridge, and the bridge.
    pub attach: Vec<(u32, u32)>,
    /// What stands beside the datapath.
    pub beside: Beside,
}

/// What is to be done to the tables.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Steps {
    /// `NETWORKS`.
    pub networks: Changes<u32, network::Network>,
    /// `SUBNETS4`.
    pub subnets4: Changes<Prefix<Ipv4Address>, u32>,
    /// `SUBNETS6`.
    pub subnets6: Changes<Prefix<Ipv6Address>, u32>,
    /// `GENERATIONS`.
    pub generations: Changes<u32, u32>,
    /// `ATTACHMENTS`.
    pub attachments: Changes<u32, Attachment>,
    /// `RESOLVERS`.
    pub resolvers: Changes<u64, Resolver>,
    /// `ENDPOINTS4`.
    pub endpoints4: Changes<EndpointKey<Ipv4>, endpoint::Endpoint>,
    /// `ENDPOINTS6`.
    pub endpoints6: Changes<EndpointKey<Ipv6>, endpoint::Endpoint>,
    /// `PUBLISHED4`.
    pub published4: Changes<PublishKey<Ipv4>, Publication<Ipv4>>,
    /// `PUBLISHED6`.
    pub published6: Changes<PublishKey<Ipv6>, Publication<Ipv6>>,
    /// `RANGES4`.
    pub ranges4: Changes<Prefix<RangeKey<Ipv4>>, Publication<Ipv4>>,
    /// `RANGES6`.
    pub ranges6: Changes<Prefix<RangeKey<Ipv6>>, Publication<Ipv6>>,
    /// `SOURCES4`.
    pub sources4: Changes<Prefix<SourceKey<Ipv4>>, u32>,
    /// `SOURCES6`.
    pub sources6: Changes<Prefix<SourceKey<Ipv6>>, u32>,
    /// `LINKS`.
    pub links: Changes<LinkKey, u32>,
    /// `MEMBERS`.
    pub members: Changes<MemberKey, u32>,
    /// `RESERVED`.
    pub reserved: Changes<u32, u64>,
    /// `SETTINGS`.
    pub settings: Changes<u32, Settings>,
    /// `LOCAL4`.
    pub local4: Changes<Ipv4Address, LocalAddress>,
    /// `LOCAL6`.
    pub local6: Changes<Ipv6Address, LocalAddress>,
    /// `UPLINKS4`.
    pub uplinks4: Changes<u32, Uplink<Ipv4>>,
    /// `UPLINKS6`.
    pub uplinks6: Changes<u32, Uplink<Ipv6>>,
    /// Some flow that was judged before would be judged otherwise now.
    pub moves_epoch: bool,
}

/// The endpoints that can be made, by id, and why others cannot.
pub fn places<'a>(desired: &'a Desired, actual: &Actual, names: &Names) -> (BTreeMap<&'a str, Place<'a>>, Troubles) {
    let (mut places, mut troubles) = (BTreeMap::new(), Troubles::new());
    let mut numbers: BTreeMap<u32, &str> = BTreeMap::new();
    for (id, endpoint) in &desired.endpoints {
        match place(endpoint, desired, actual, names) {
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

fn place<'a>(
    endpoint: &'a Endpoint,
    desired: &'a Desired,
    actual: &Actual,
    names: &Names,
) -> Result<Place<'a>, String> {
    let id = &endpoint.id;
    let network = desired
        .networks
        .get(endpoint.network.as_str())
        .ok_or_else(|| format!("endpoint {id} is in no known network"))?;
    if !is_placed(network) && !hangs_beside(network) {
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
    let (mut wish, made_of) = wish(endpoint, network, sandbox.path.clone(), names);
    wish.mtu = actual.mtu_of(network);
    Ok(Place {
        endpoint,
        network,
        wish,
        made_of,
    })
}

fn is_placed(network: &Network) -> bool {
    network.is_placed() && (FIRST_NETWORK..MAX_NETWORKS).contains(&network.number)
}

/// Do its endpoints hang on a parent of the host, where the datapath does not see them?
fn hangs_beside(network: &Network) -> bool {
    matches!(network.driver, Driver::Macvlan | Driver::Ipvlan) && network.parent.is_some()
}

/// Where devices of its endpoints hang.
fn hang(network: &Network) -> Hang {
    match &network.parent {
        None => Hang::Datapath,
        Some(parent) if parent.hold == Hold::Port => Hang::Port(parent.device.clone()),
        Some(parent) => Hang::Child(parent.clone()),
    }
}

/// The MAC of a host end that is a port of a bridge. A bridge that nobody gave a MAC takes the least of its ports': it shall not be ours.
fn mac_of_port(gateway_mac: [u8; 6]) -> [u8; 6] {
    let [_, rest @ ..] = gateway_mac;
    let mut mac = [0xfe; 6];
    mac[1..].copy_from_slice(&rest);
    mac
}

fn wish(endpoint: &Endpoint, network: &Network, sandbox: PathBuf, names: &Names) -> (Wish, MadeOf) {
    let mut wish = Wish {
        endpoint: endpoint.id.to_string(),
        host_end: host_end(&endpoint.id),
        draft_alias: names.alias(&endpoint.id, MadeOf::default()),
        alias: String::new(),
        gateway_mac: match network.is_on_bridge() {
            true => mac_of_port(names.gateway_mac().0),
            false => names.gateway_mac().0,
        },
        sandbox,
        interface: endpoint.interface.clone(),
        mac: endpoint.mac.0,
        addresses: endpoint.addresses.clone(),
        gateways: endpoint.gateways.clone(),
        mtu: 0,
        hang: hang(network),
        sysctls: endpoint
            .sysctls
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    };
    let mut fingerprint = Fingerprint::EMPTY;
    fingerprint.add_part(wish.sandbox.display());
    fingerprint.add_part(&wish.interface);
    fingerprint.add_part(endpoint.mac);
    wish.addresses.iter().for_each(|address| fingerprint.add_part(address));
    if wish.hang != Hang::Datapath {
        fingerprint.add_part(format_args!("{:?}", wish.hang));
    }
    for (name, value) in &wish.sysctls {
        fingerprint.add_part(format_args!("{name}={value}"));
    }
    let mut ways = Fingerprint::EMPTY;
    wish.gateways.iter().for_each(|gateway| ways.add_part(gateway));
    let made_of = MadeOf {
        // 0 is the draft's.
        device: fingerprint.value().max(1),
        ways: ways.value(),
    };
    wish.alias = names.alias(&endpoint.id, made_of);
    (wish, made_of)
}

/// Which devices, sandboxes and addresses go and come.
pub fn devices(desired: &Desired, places: &BTreeMap<&str, Place<'_>>, actual: &Actual, names: &Names) -> Devices {
    let mut plan = Devices {
        beside: Beside::of(desired, places.values(), actual, names),
        ..Devices::default()
    };
    let mut standing = BTreeSet::new();
    for (ifindex, veth) in &actual.veths {
        let place = places
            .get(veth.endpoint.as_str())
            .filter(|place| place.made_of.device == veth.made_of.device);
        let unreadable = desired.unreadable.contains_key(&veth.endpoint);
        let in_its_sandbox = |place: &&Place<'_>| actual.sandboxes.get(&place.wish.sandbox) != Some(&false);
        if (place.filter(in_its_sandbox).is_some() || unreadable) && standing.insert(veth.endpoint.as_str()) {
            if !veth.up {
                plan.lift.push(*ifindex);
            }
            if let Some(place) = place {
                plan.mend(*ifindex, veth, place, actual);
            }
        } else {
            plan.remove_veths.push(*ifindex);
        }
    }
    plan.make_veths = places
        .iter()
        .filter(|(id, place)| !standing.contains(**id) && !matches!(place.wish.hang, Hang::Child(_)))
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

    let gateways: BTreeSet<IpNet> = gateways(desired).map(|(gateway, _)| gateway).collect();
    plan.remove_gateways = actual.gateways.difference(&gateways).copied().collect();
    plan.add_gateways = gateways.difference(&actual.gateways).copied().collect();
    // As large as the largest network's, else what containers send to the host would be too large for it.
    let mtu = desired
        .networks
        .values()
        .filter(|network| is_placed(network))
        .map(|network| actual.mtu_of(network))
        .max();
    plan.leg_mtu = mtu.filter(|mtu| *mtu != actual.leg_mtu);
    plan
}

/// The gateway addresses that the host's leg bears, and the numbers of their networks. On a bridge the bridge bears its own.
fn gateways(desired: &Desired) -> impl Iterator<Item = (IpNet, u32)> {
    desired
        .networks
        .values()
        .filter(|network| is_placed(network) && !network.is_on_bridge())
        .flat_map(|network| gateways_of(network).map(|gateway| (gateway, network.number)))
}

/// The gateway addresses of a network that the host bears.
fn gateways_of(network: &Network) -> impl Iterator<Item = IpNet> {
    network
        .subnets
        .iter()
        .filter(|subnet| network.gateway_mode(model::Family::of(subnet.gateway)) != GatewayMode::Isolated)
        .filter_map(|subnet| gateway_of(subnet.gateway, subnet.subnet))
}

impl Devices {
    /// What is to be done about a veth that stays.
    fn mend(&mut self, ifindex: u32, veth: &Veth, place: &Place<'_>, actual: &Actual) {
        if place.made_of.ways != veth.made_of.ways {
            self.turn.push((ifindex, place.wish.clone()));
        }
        if place.wish.mtu != veth.mtu {
            self.resize.push((ifindex, place.wish.clone()));
        }
        if let Hang::Port(bridge) = &place.wish.hang
            && let Some(bridge) = actual.bridges.get(bridge)
            && bridge.ifindex != veth.controller
        {
            self.attach.push((ifindex, bridge.ifindex));
        }
    }
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
        add_network(&mut tables, &mut troubles, network, actual, names);
    }
    add_world(&mut tables, &actual.world);
    for (gateway, number) in gateways(desired) {
        let local = LocalAddress {
            ifindex: actual.leg.host,
            gateway_of: number,
        };
        add_local(&mut tables, gateway.addr(), local);
    }
    let mut asking: BTreeMap<u64, Vec<&Place<'_>>> = BTreeMap::new();
    for (id, place) in places {
        if let Some(ifindex) = veth_of(id) {
            add_endpoint(&mut tables, &mut troubles, place, ifindex);
            if let Some(cookie) = actual.cookies.get(&place.wish.sandbox) {
                asking.entry(*cookie).or_default().push(place);
            }
        }
    }
    for (cookie, places) in asking {
        tables
            .resolvers
            .extend(resolver(&places).map(|resolver| (ByBytes(cookie), resolver)));
    }
    policy::add_links(&mut tables, &mut troubles, places);
    policy::add_members(&mut tables, places, veth_of);
    (tables, troubles)
}

fn add_network(tables: &mut Tables, troubles: &mut Troubles, network: &Network, actual: &Actual, names: &Names) {
    let bridge = network
        .parent
        .as_ref()
        .and_then(|parent| actual.bridges.get(&parent.device));
    let mut entry = network::Network {
        flags: flags(network),
        mtu: actual.mtu_of(network),
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

fn prefix<A>(length: u8, address: A) -> Prefix<A> {
    Prefix {
        length: u32::from(length),
        address,
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
    ]
    .into_iter()
    .filter_map(|(wanted, flag)| wanted.then_some(flag))
    .fold(0, |flags, flag| flags | flag)
}

fn add_local(tables: &mut Tables, address: IpAddr, local: LocalAddress) {
    match address {
        IpAddr::V4(address) => drop(tables.local4.insert(ByBytes(address.into()), local)),
        IpAddr::V6(address) => drop(tables.local6.insert(ByBytes(address.into()), local)),
    }
}

fn add_world(tables: &mut Tables, world: &World) {
    for (address, ifindex) in &world.addresses {
        let local = LocalAddress {
            ifindex: *ifindex,
            gateway_of: 0,
        };
        add_local(tables, *address, local);
    }
    for uplink in &world.uplinks {
        let (key, mtu) = (ByBytes(uplink.ifindex), uplink.mtu);
        if let Some(address) = uplink.ipv4 {
            let address = address.into();
            tables.uplinks4.insert(key, Uplink { address, mtu });
        }
        // One without an address of its own leads there all the same: what is routed needs none.
        let address = uplink.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
        tables.uplinks6.insert(key, Uplink { address, mtu });
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
/// come and go.
fn resolver(places: &[&Place<'_>]) -> Option<Resolver> {
    let mut resolver = Resolver::default();
    let mut named: Vec<_> = places.iter().filter(|place| place.network.has_names()).collect();
    named.sort_by_key(|place| std::cmp::Reverse(&place.endpoint.interface));
    // the last to be entered is the first
    for place in named {
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
    (resolver != Resolver::default()).then_some(resolver)
}

fn endpoint_key<F: Family>(network: &Network, address: F::Address) -> EndpointKey<F> {
    EndpointKey {
        network: network.number,
        address,
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

/// What makes the tables as they are into the tables as they must be.
pub fn steps(actual: &Tables, desired: &Tables) -> Steps {
    let mut steps = Steps {
        networks: Changes::between(&actual.networks, &desired.networks),
        subnets4: Changes::between(&actual.subnets4, &desired.subnets4),
        subnets6: Changes::between(&actual.subnets6, &desired.subnets6),
        generations: Changes::between(&actual.generations, &desired.generations),
        attachments: Changes::between(&actual.attachments, &desired.attachments),
        resolvers: Changes::between(&actual.resolvers, &desired.resolvers),
        endpoints4: Changes::between(&actual.endpoints4, &desired.endpoints4),
        endpoints6: Changes::between(&actual.endpoints6, &desired.endpoints6),
        published4: Changes::between(&actual.published4, &desired.published4),
        published6: Changes::between(&actual.published6, &desired.published6),
        ranges4: Changes::between(&actual.ranges4, &desired.ranges4),
        ranges6: Changes::between(&actual.ranges6, &desired.ranges6),
        sources4: Changes::between(&actual.sources4, &desired.sources4),
        sources6: Changes::between(&actual.sources6, &desired.sources6),
        links: Changes::between(&actual.links, &desired.links),
        members: Changes::between(&actual.members, &desired.members),
        reserved: Changes::between(&actual.reserved, &desired.reserved),
        settings: Changes::between(&actual.settings, &desired.settings),
        local4: Changes::between(&actual.local4, &desired.local4),
        local6: Changes::between(&actual.local6, &desired.local6),
        uplinks4: Changes::between(&actual.uplinks4, &desired.uplinks4),
        uplinks6: Changes::between(&actual.uplinks6, &desired.uplinks6),
        moves_epoch: false,
    };
    // An endpoint that comes or goes alone moves nothing: no flow was judged against the first, the second's die by their generation.
    steps.moves_epoch = !steps.subnets4.is_empty()
        || !steps.subnets6.is_empty()
        || !steps.networks.is_empty()
        || !steps.published4.is_empty()
        || !steps.published6.is_empty()
        || !steps.ranges4.is_empty()
        || !steps.ranges6.is_empty()
        // What may be from now on has no flow yet, and what is said to many never has one.
        || !steps.sources4.remove.is_empty()
        || !steps.sources6.remove.is_empty()
        || !steps.links.remove.is_empty()
        || !steps.local4.is_empty()
        || !steps.local6.is_empty()
        || !steps.uplinks4.is_empty()
        || !steps.uplinks6.is_empty()
        || steps.endpoints4.replaces(&actual.endpoints4)
        || steps.endpoints6.replaces(&actual.endpoints6)
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

mod beside;
mod policy;
mod publish;
#[cfg(test)]
mod tests;
