//! Overlays: the other hosts, the way to each, and who lives there.
//!
//! A host has a number here that no other knows; it keeps it as long as it keeps its underlay address, since flows speak of it. What has no way yet is left
//! out: the routes may come later, and a packet without a way is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluice_datapath_common::{
    Ipv6Address,
    overlay::{Host, MAX_HOSTS, MAX_SENDERS, OVERHEAD4, OVERHEAD6, SEAL4, SEAL6, SEALED},
    policy::{LinkKey, MAX_LINKS},
};
use sluice_model::{self as model, Network, PortSpec, RemoteEndpoint};

use super::{Place, Troubles, endpoint::endpoint_key, network::is_placed, publish};
use crate::{
    actual::Actual,
    desired::{Desired, RemoteId},
    link::{
        seal::{Key, Peer, key_of},
        uplink::{Route, World},
    },
    map::contents::{ByBytes, Tables},
};

/// The numbers that links know endpoints of other hosts by begin behind those of this host's.
const FIRST_IN_LINKS: u32 = sluice_datapath_common::endpoint::MAX_ENDPOINTS;

/// What the entries of endpoints on other hosts are made by, besides their records.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ground {
    /// The networks that several hosts share, by id.
    pub networks: BTreeMap<String, SharedNetwork>,
    /// The numbers of the other hosts.
    pub hosts: HostNumbers,
    /// The numbers that links know endpoints of other hosts by.
    pub in_links: BTreeMap<RemoteId, u32>,
}

/// The numbers of the other hosts, by id: a host that is reached by an encrypted way too has one for that besides.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct HostNumbers {
    open: BTreeMap<String, u32>,
    sealed: BTreeMap<String, u32>,
}

impl HostNumbers {
    /// By what number a host is reached for a network that is encrypted, or is not.
    pub fn get(&self, host: &str, encrypted: bool) -> Option<u32> {
        let numbers = if encrypted { &self.sealed } else { &self.open };
        numbers.get(host).copied()
    }
}

/// What a network that several hosts share is to the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedNetwork {
    /// Its number.
    pub number: u32,
    /// May its endpoints speak to each other without a link?
    pub icc: bool,
    /// Does it go by the encrypted ways?
    pub encrypted: bool,
}

/// Enters all of it but the endpoints on other hosts and what links open to them.
pub fn add(tables: &mut Tables, troubles: &mut Troubles, desired: &Desired, actual: &Actual) -> Ground {
    let Some(this_host) = &desired.this_host else {
        return Ground::default();
    };
    let networks: BTreeMap<&str, &Network> = desired
        .networks
        .iter()
        .filter(|(_, network)| is_placed(network) && network.is_shared() && network.vni != 0)
        .map(|(id, network)| (id.as_str(), network))
        .collect();
    for network in networks.values() {
        let seal = if network.encrypted { SEALED } else { 0 };
        if let Some(other) = tables.vnis.insert(ByBytes(network.vni), network.number | seal) {
            let trouble = format!(
                "network {} has the VNI {} of network number {}",
                network.name,
                network.vni,
                other & !SEALED
            );
            troubles.insert(network.id.to_string(), trouble);
        }
    }
    let hosts = add_hosts(tables, troubles, desired, this_host, actual);
    for (_, remote) in desired.remotes.whole() {
        if let Some(network) = networks.get(remote.network.as_str())
            && hosts.get(&remote.host, network.encrypted).is_some()
        {
            publish::publish_remote(tables, troubles, remote, network);
        }
    }
    Ground {
        in_links: numbers_in_links(desired, &networks, &hosts, actual),
        networks: networks
            .into_iter()
            .map(|(id, network)| {
                let Network {
                    number, icc, encrypted, ..
                } = *network;
                let shared = SharedNetwork { number, icc, encrypted };
                (id.to_owned(), shared)
            })
            .collect(),
        hosts,
    }
}

/// Enters what links open between endpoints of this host and of others, where the endpoints of a network may not speak to each other anyway.
pub fn add_links(tables: &mut Tables, desired: &Desired, places: &BTreeMap<&str, Place<'_>>, ground: &Ground) {
    for (id, number) in &ground.in_links {
        let Some(remote) = desired.remotes.get(id).and_then(|remote| remote.whole.as_deref()) else {
            continue;
        };
        for place in places.values().filter(|place| place.endpoint.network == remote.network) {
            let (ours, theirs) = (place.endpoint, *number);
            if ours.links.iter().any(|link| link.leads_to_remote(remote)) {
                open(tables, ours.number, theirs, &remote.exposed);
            }
            if remote.links.iter().any(|link| link.leads_to(ours)) {
                open(tables, theirs, ours.number, &ours.exposed);
            }
        }
    }
}

fn open(tables: &mut Tables, from: u32, to: u32, ports: &[PortSpec]) {
    for port in ports {
        let key = LinkKey {
            from,
            to,
            port: port.port.to_be(),
            protocol: port.protocol.number(),
            padding: 0,
        };
        if tables.links.len() < MAX_LINKS {
            tables.links.insert(ByBytes(key), 1);
        }
    }
}

/// The longest packet that fits through every underlay of this host when it is wrapped up; none: the host has no underlay address.
pub fn mtu(this_host: &model::Host, world: &World) -> Option<u32> {
    least(this_host, world, overhead)
}

/// What the smallest underlay of this host leaves of its MTU when so much is added.
fn least(this_host: &model::Host, world: &World, added: impl Fn(IpAddr) -> u32) -> Option<u32> {
    this_host
        .addresses
        .iter()
        .filter_map(|address| {
            let (_, ifindex) = world.addresses.iter().find(|(own, _)| own == address)?;
            let uplink = world.uplinks.iter().find(|uplink| uplink.ifindex == *ifindex)?;
            Some(uplink.mtu.saturating_sub(added(*address)))
        })
        .min()
}

fn overhead(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => OVERHEAD4,
        IpAddr::V6(_) => OVERHEAD6,
    }
}

/// As the tables have addresses of the underlay.
fn mapped(address: IpAddr) -> Ipv6Address {
    match address {
        IpAddr::V4(address) => Ipv6Address::mapped(address.into()),
        IpAddr::V6(address) => address.into(),
    }
}

/// Enters the other hosts, and answers their numbers. Encrypted ways are entered where a network wants them.
fn add_hosts(
    tables: &mut Tables,
    troubles: &mut Troubles,
    desired: &Desired,
    this_host: &model::Host,
    actual: &Actual,
) -> HostNumbers {
    let known: BTreeMap<[u32; 4], u32> = actual
        .tables
        .hosts
        .iter()
        .map(|(number, host)| (host.address.0, number.0))
        .collect();
    let mut taken: BTreeSet<u32> = known.values().copied().collect();
    let mut numbers = HostNumbers::default();
    let wants_seals = desired.networks.values().any(|network| network.encrypted);
    for (id, host) in &desired.hosts {
        let open = way_to(host, this_host, actual).map(|way| {
            let senders: Vec<Ipv6Address> = host.addresses.iter().copied().map(mapped).collect();
            (way, senders)
        });
        let sealed = sealed_way_to(host, this_host, actual).filter(|_| wants_seals);
        let sealed = sealed.map(|way| (way, vec![way.address]));
        if wants_seals && host.seal.is_some() && host.vxlan_port != this_host.vxlan_port {
            let trouble = format!(
                "host {} takes packets at UDP port {} and this one at {}: encrypted networks want the same port on all hosts",
                host.name, host.vxlan_port, this_host.vxlan_port
            );
            troubles.insert(id.clone(), trouble);
        }
        for (entry, senders) in open.into_iter().chain(sealed) {
            let number = known
                .get(&entry.address.0)
                .copied()
                .or_else(|| (1..MAX_HOSTS).find(|number| !taken.contains(number)));
            let Some(number) = number.filter(|_| tables.senders.len() + senders.len() <= MAX_SENDERS as usize) else {
                let trouble = format!(
                    "host {} is one too many: a host knows {} ways to others",
                    host.name,
                    MAX_HOSTS - 1
                );
                troubles.insert(id.clone(), trouble);
                continue;
            };
            taken.insert(number);
            if tables.hosts.insert(ByBytes(number), entry).is_some() {
                let trouble = format!("host {} has the underlay address of another host", host.name);
                troubles.insert(id.clone(), trouble);
                continue;
            }
            let (seal, of_kind) = match entry.sealed {
                0 => (0, &mut numbers.open),
                _ => (SEALED, &mut numbers.sealed),
            };
            of_kind.insert(id.clone(), number);
            for address in senders {
                tables.senders.insert(ByBytes(address), number | seal);
            }
        }
    }
    numbers
}

/// The encrypted way to another host, if there is one from here: by the VXLAN device, and behind that by the device that encrypts.
fn sealed_way_to(host: &model::Host, this_host: &model::Host, actual: &Actual) -> Option<Host> {
    let (theirs, ours) = (host.seal.as_ref()?, this_host.seal.as_ref()?);
    let device = actual.seal_device.as_ref()?;
    // the VXLAN device sends to the port that it hears at
    if host.vxlan_port != this_host.vxlan_port {
        return None;
    }
    Some(Host {
        address: theirs.address.into(),
        source: ours.address.into(),
        ifindex: device.ifindex,
        mtu: device.mtu.saturating_sub(OVERHEAD6),
        port: host.vxlan_port.to_be(),
        sealed: 1,
        ..Host::default()
    })
}

/// Whom the device that encrypts is to know: who has a key, and is reached from here.
pub fn seals(desired: &Desired, actual: &Actual) -> BTreeMap<Key, Peer> {
    let Some(this_host) = desired.this_host.as_ref().filter(|host| host.seal.is_some()) else {
        return BTreeMap::new();
    };
    let peer = |host: &model::Host| {
        let seal = host.seal.as_ref()?;
        let way = way_to(host, this_host, actual)?;
        let address = way
            .address
            .to_mapped()
            .map_or_else(|| IpAddr::V6(way.address.into()), |v4| IpAddr::V4(v4.into()));
        let peer = Peer {
            endpoint: (address, seal.port).into(),
            address: seal.address,
        };
        Some((key_of(&seal.key)?, peer))
    };
    desired.hosts.values().filter_map(peer).collect()
}

/// The MTU of the device that encrypts: what fits through every underlay of this host when it is encrypted. None: the host has no underlay address.
pub fn sealed_mtu(this_host: &model::Host, world: &World) -> Option<u32> {
    least(this_host, world, |address| match address {
        IpAddr::V4(_) => SEAL4,
        IpAddr::V6(_) => SEAL6,
    })
}

/// How another host is reached: at the first of its addresses to which a route leads, from one of ours. Its device is 0 while none does: who it is must be
/// known all the same, for what it sends.
fn way_to(host: &model::Host, this_host: &model::Host, actual: &Actual) -> Option<Host> {
    let address = host
        .addresses
        .iter()
        .find(|address| route_to(**address, actual).is_some() && own_address(this_host, **address, actual).is_some())
        .or(host.addresses.first())?;
    let mut entry = Host {
        address: mapped(*address),
        port: host.vxlan_port.to_be(),
        ..Host::default()
    };
    let (Some(route), Some(source)) = (route_to(*address, actual), own_address(this_host, *address, actual)) else {
        return Some(entry);
    };
    entry.ifindex = route.ifindex;
    entry.source = mapped(source);
    entry.next_hop = mapped(
        route
            .gateway
            .filter(|gateway| gateway.is_ipv4() == address.is_ipv4())
            .unwrap_or(*address),
    );
    let device = actual
        .world
        .uplinks
        .iter()
        .find(|uplink| uplink.ifindex == route.ifindex);
    let mtu = device.map_or(1500, |uplink| uplink.mtu);
    let mtu = if route.mtu == 0 { mtu } else { mtu.min(route.mtu) };
    entry.mtu = mtu.saturating_sub(overhead(*address));
    for neighbour in &host.addresses {
        let shares_link =
            route_to(*neighbour, actual).is_some_and(|own| own.ifindex == route.ifindex && own.gateway.is_none());
        match neighbour {
            IpAddr::V4(neighbour) if shares_link => entry.neighbour4 = (*neighbour).into(),
            IpAddr::V6(neighbour) if shares_link => entry.neighbour6 = (*neighbour).into(),
            _ => {}
        }
    }
    Some(entry)
}

/// The host's route to an address: the longest prefix, of several the preferred one.
fn route_to(address: IpAddr, actual: &Actual) -> Option<&Route> {
    actual
        .routes
        .iter()
        .filter(|route| route.ifindex != 0 && route.ifindex != actual.leg.host && route.destination.contains(&address))
        .max_by_key(|route| (route.destination.prefix_len(), std::cmp::Reverse(route.priority)))
}

/// The address that we send from: of those that we are known by in the cluster, the one on the device that leads there, else the first of the family.
fn own_address(this_host: &model::Host, to: IpAddr, actual: &Actual) -> Option<IpAddr> {
    let of_family = || {
        this_host
            .addresses
            .iter()
            .filter(|address| address.is_ipv4() == to.is_ipv4())
    };
    let ifindex = route_to(to, actual).map_or(0, |route| route.ifindex);
    of_family()
        .find(|address| actual.world.addresses.contains(&(**address, ifindex)))
        .or_else(|| of_family().next())
        .copied()
}

/// Who of the other hosts' endpoints links lead from or to, where the endpoints of a network may not speak to each other anyway: each keeps its number.
fn numbers_in_links(
    desired: &Desired,
    networks: &BTreeMap<&str, &Network>,
    hosts: &HostNumbers,
    actual: &Actual,
) -> BTreeMap<RemoteId, u32> {
    let linked: Vec<(&RemoteId, Option<u32>)> = desired
        .remotes
        .whole()
        .filter_map(|(id, remote)| {
            let network = networks.get(remote.network.as_str()).filter(|network| !network.icc)?;
            let is_reached = hosts.get(&remote.host, network.encrypted).is_some();
            (is_reached && is_in_links(remote, desired)).then(|| (id, known_in_links(remote, network, &actual.tables)))
        })
        .collect();
    let greatest = linked.iter().filter_map(|(_, number)| *number).max();
    let mut next = greatest.map_or(FIRST_IN_LINKS, |greatest| greatest + 1);
    let mut numbers = BTreeMap::new();
    for (id, known) in linked {
        let number = known.unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        numbers.insert(*id, number);
    }
    numbers
}

/// Does a link lead from or to it?
fn is_in_links(remote: &RemoteEndpoint, desired: &Desired) -> bool {
    let here = || {
        desired
            .endpoints
            .values()
            .filter(|endpoint| endpoint.network == remote.network)
    };
    !remote.links.is_empty() && here().next().is_some()
        || here().any(|endpoint| endpoint.links.iter().any(|link| link.leads_to_remote(remote)))
}

/// What links know it by already.
fn known_in_links(remote: &RemoteEndpoint, network: &Network, tables: &Tables) -> Option<u32> {
    remote
        .addresses
        .iter()
        .filter_map(|address| match address.addr() {
            IpAddr::V4(address) => tables.remotes4.get(&ByBytes(endpoint_key(network, address.into()))),
            IpAddr::V6(address) => tables.remotes6.get(&ByBytes(endpoint_key(network, address.into()))),
        })
        .map(|known| known.endpoint)
        .find(|number| *number != 0)
}
