//! The kernel's tables, written as a world says and read back in the words of the reference.

mod overlay;

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Pod;
use sluice_datapath_common::endpoint::{self, Attachment, EndpointKey};
use sluice_datapath_common::flow::{Flow, FlowKey};
use sluice_datapath_common::fragment::{FRAGMENT_OF_HOST, FragmentKey, FragmentPorts};
use sluice_datapath_common::network::{
    NETWORK_DIRECT, NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES, NETWORK_MASQUERADES6,
    NETWORK_MULTICAST, NETWORK_NO_HOST, NETWORK_ONLY_GATEWAY, NETWORK_ROUTED6, NETWORK_UNPROTECTED,
    NETWORK_UNPROTECTED6, Network as NetworkEntry,
};
use sluice_datapath_common::policy::{LinkKey, MemberKey};
use sluice_datapath_common::publish::{Publication, PublishKey, RangeKey, SourceKey, blocks, reserved_at};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::uplink::{LocalAddress, Uplink};
use sluice_datapath_common::{Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address};

use crate::datapath::Datapath;
use crate::reference::Datagram;
use crate::reference::conversation::Key;
use crate::reference::world::{self, Endpoint, HostAccess, Network, World};
use crate::scene::{HOST_IFINDEX, VM_BRIDGE};

/// What lies in the tables that a world is written to.
#[derive(Default)]
pub struct Tables {
    epoch: Option<u32>,
    generations: Vec<(u32, u32)>,
    networks: Vec<(u32, NetworkEntry)>,
    links: Vec<(LinkKey, u32)>,
    members: Vec<(MemberKey, u32)>,
    attachments: Vec<(u32, Attachment)>,
    reserved: BTreeMap<u32, u64>,
    settings: Option<Settings>,
    overlay: overlay::Overlay,
    v4: OfFamily<Ipv4>,
    v6: OfFamily<Ipv6>,
}

/// The tables that each family has for itself.
struct OfFamily<F: Family> {
    subnets: Vec<((u8, F::Address), u32)>,
    endpoints: Vec<(EndpointKey<F>, endpoint::Endpoint)>,
    local: Vec<(F::Address, LocalAddress)>,
    uplinks: Vec<(u32, Uplink<F>)>,
    published: Vec<(PublishKey<F>, Publication<F>)>,
    /// Length in bits, and the key that it is a part of.
    ranges: Vec<(Block<F>, Publication<F>)>,
    sources: Vec<(u32, SourceKey<F>)>,
}

type Block<F> = (u32, RangeKey<F>);

/// An entry of a flow table in the words of the reference; ports in host byte order.
#[derive(Clone, Debug)]
pub struct Entry {
    /// It lies where nobody pushes it out.
    pub kept: bool,
    pub packets: u64,
    pub bytes: u64,
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub next_hop: IpAddr,
    pub ifindex: u32,
    pub epoch: u32,
    pub source_endpoint: (u32, u32),
    pub destination_endpoint: (u32, u32),
    pub reverse_scope: u32,
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub action: u8,
    pub flags: u8,
    pub state: u8,
}

/// How a family's tables are called, and its addresses told.
pub trait Carried: Family {
    const IS: world::Family;
    const FLOWS: [(bool, &'static str); 2];
    const FRAGMENTS: &'static str;
    const SUBNETS: &'static str;
    const ENDPOINTS: &'static str;
    const LOCAL: &'static str;
    const UPLINKS: &'static str;
    const PUBLISHED: &'static str;
    const RANGES: &'static str;
    const SOURCES: &'static str;
    /// Bits of an address.
    const BITS: u32;

    fn address(ip: IpAddr) -> Option<Self::Address>;
    fn ip(address: Self::Address) -> IpAddr;
    /// A datagram's number as the reference reads it.
    fn identification(raw: u32) -> u32;
}

macro_rules! carried {
    ($family:ident, $is:ident, $digit:literal, $bits:literal, $address:ident, $identification:expr) => {
        impl Carried for $family {
            const IS: world::Family = world::Family::$is;
            const FLOWS: [(bool, &'static str); 2] = [
                (true, concat!("FLOWS", $digit)),
                (false, concat!("OPENING", $digit)),
            ];
            const FRAGMENTS: &'static str = concat!("FRAGMENTS", $digit);
            const SUBNETS: &'static str = concat!("SUBNETS", $digit);
            const ENDPOINTS: &'static str = concat!("ENDPOINTS", $digit);
            const LOCAL: &'static str = concat!("LOCAL", $digit);
            const UPLINKS: &'static str = concat!("UPLINKS", $digit);
            const PUBLISHED: &'static str = concat!("PUBLISHED", $digit);
            const RANGES: &'static str = concat!("RANGES", $digit);
            const SOURCES: &'static str = concat!("SOURCES", $digit);
            const BITS: u32 = $bits;

            fn address(ip: IpAddr) -> Option<$address> {
                match ip {
                    IpAddr::$is(address) => Some(address.into()),
                    _ => None,
                }
            }

            fn ip(address: $address) -> IpAddr {
                IpAddr::$is(address.into())
            }

            fn identification(raw: u32) -> u32 {
                $identification(raw)
            }
        }
    };
}

carried!(Ipv4, V4, 4, 32, Ipv4Address, |raw| u32::from(u16::from_be(raw as u16)));
carried!(Ipv6, V6, 6, 128, Ipv6Address, u32::from_be);

// === reading ===

/// The entry that packets with this key take.
pub fn flow<F: Carried>(datapath: &mut Datapath, key: &Key) -> Option<Entry>
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
{
    let key = flow_key::<F>(key)?;
    F::FLOWS.into_iter().find_map(|(kept, map)| {
        let flow: Flow<F> = datapath.lookup(map, key)?;
        Some(entry(kept, &flow))
    })
}

/// All entries.
pub fn flows<F: Carried>(datapath: &mut Datapath) -> Vec<(Key, Entry)>
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
{
    let mut all = Vec::new();
    for (kept, map) in F::FLOWS {
        let entries: Vec<(FlowKey<F>, Flow<F>)> = datapath.entries(map);
        all.extend(entries.iter().map(|(key, flow)| (key_of(key), entry(kept, flow))));
    }
    all
}

pub fn remove_flow<F: Carried>(datapath: &mut Datapath, key: &Key)
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
{
    if let Some(key) = flow_key::<F>(key) {
        F::FLOWS
            .iter()
            .for_each(|(_, map)| datapath.remove::<_, Flow<F>>(map, key));
    }
}

/// The entry under this key was last used so many seconds earlier.
pub fn age<F: Carried>(datapath: &mut Datapath, key: &Key, seconds: u64)
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
{
    let Some(key) = flow_key::<F>(key) else { return };
    for (_, map) in F::FLOWS {
        if let Some(mut flow) = datapath.lookup::<FlowKey<F>, Flow<F>>(map, key) {
            // The clock may not have been running for so long: then it goes round, as it does for the programs.
            flow.last_seen = flow.last_seen.wrapping_sub(seconds * 1_000_000_000);
            datapath.insert(map, key, flow);
        }
    }
}

/// The ports of datagrams; none when the datagram is the host's own.
pub fn fragments<F: Carried>(datapath: &mut Datapath) -> Vec<(Datagram, Option<(u16, u16)>)>
where
    FragmentKey<F>: Pod,
{
    let entries: Vec<(FragmentKey<F>, FragmentPorts)> = datapath.entries(F::FRAGMENTS);
    let each = entries.into_iter().map(|(key, ports)| {
        let datagram = Datagram {
            source: F::ip(key.source),
            destination: F::ip(key.destination),
            identification: F::identification(key.identification),
            scope: key.scope,
            protocol: key.protocol,
        };
        let is_of_host = ports.flags & FRAGMENT_OF_HOST != 0;
        let ports = (u16::from_be(ports.source_port), u16::from_be(ports.destination_port));
        (datagram, (!is_of_host).then_some(ports))
    });
    each.collect()
}

pub fn forget_fragments<F: Carried>(datapath: &mut Datapath)
where
    FragmentKey<F>: Pod,
{
    let entries: Vec<(FragmentKey<F>, FragmentPorts)> = datapath.entries(F::FRAGMENTS);
    for (key, _) in entries {
        datapath.remove::<_, FragmentPorts>(F::FRAGMENTS, key);
    }
}

fn entry<F: Carried>(kept: bool, flow: &Flow<F>) -> Entry {
    Entry {
        kept,
        packets: flow.packets,
        bytes: flow.bytes,
        source: (F::ip(flow.source), u16::from_be(flow.source_port)),
        destination: (F::ip(flow.destination), u16::from_be(flow.destination_port)),
        next_hop: F::ip(flow.next_hop),
        ifindex: flow.ifindex,
        epoch: flow.epoch,
        source_endpoint: (flow.source_endpoint, flow.source_generation),
        destination_endpoint: (flow.destination_endpoint, flow.destination_generation),
        reverse_scope: flow.reverse_scope,
        destination_mac: flow.destination_mac,
        source_mac: flow.source_mac,
        action: flow.action,
        flags: flow.flags,
        state: flow.state,
    }
}

fn flow_key<F: Carried>(key: &Key) -> Option<FlowKey<F>> {
    Some(FlowKey {
        source: F::address(key.source)?,
        destination: F::address(key.destination)?,
        source_port: key.source_port.to_be(),
        destination_port: key.destination_port.to_be(),
        scope: key.scope,
        protocol: key.protocol,
        padding: [0; 3],
    })
}

fn key_of<F: Carried>(key: &FlowKey<F>) -> Key {
    Key {
        source: F::ip(key.source),
        source_port: u16::from_be(key.source_port),
        destination: F::ip(key.destination),
        destination_port: u16::from_be(key.destination_port),
        scope: key.scope,
        protocol: key.protocol,
    }
}

// === writing ===

impl Tables {
    /// Writes what differs from the world written last.
    pub fn write(&mut self, datapath: &mut Datapath, world: &World) {
        if self.epoch != Some(world.epoch) {
            datapath.set("EPOCH", 0, world.epoch);
            self.epoch = Some(world.epoch);
        }
        let generations = world.generations.iter().map(|(number, life)| (*number, *life));
        write_array(datapath, "GENERATIONS", &mut self.generations, generations.collect());
        let networks = world
            .networks
            .iter()
            .map(|(number, network)| (*number, network_entry(network)));
        write_array(datapath, "NETWORKS", &mut self.networks, networks.collect());
        let attachments = world.attachments.iter().map(|(device, endpoint)| {
            let generation = world.generation(endpoint.number);
            (*device, attachment(endpoint, generation))
        });
        write(datapath, "ATTACHMENTS", &mut self.attachments, attachments.collect());
        let links = world.links.iter().map(|(from, to, port, protocol)| {
            let key = LinkKey {
                from: *from,
                to: *to,
                port: port.to_be(),
                protocol: *protocol,
                padding: 0,
            };
            (key, 1)
        });
        write(datapath, "LINKS", &mut self.links, links.collect());
        write(datapath, "MEMBERS", &mut self.members, members(world));
        self.write_reserved(datapath, world);
        self.overlay.write(datapath, world);
        self.v4.write(datapath, world);
        self.v6.write(datapath, world);
        let settings = Settings {
            flows_per_endpoint: world.limits.conversations,
            half_open_per_endpoint: world.limits.half_open,
            published_ranges: (self.v4.ranges.len() + self.v6.ranges.len()) as u32,
            overlay_ifindex: world.overlay_port.map_or(0, |_| VM_BRIDGE),
            overlay_port: world.overlay_port.unwrap_or(0).to_be(),
            ..Settings::default()
        };
        if self.settings != Some(settings) {
            datapath.set("SETTINGS", 0, settings);
            self.settings = Some(settings);
        }
    }

    /// The bits that say that a port is taken.
    fn write_reserved(&mut self, datapath: &mut Datapath, world: &World) {
        let mut reserved = BTreeMap::new();
        for (&(address, first, protocol), publication) in &world.published {
            let af = if address.is_ipv4() { Ipv4::AF } else { Ipv6::AF };
            for port in first..=first.saturating_add(publication.count - 1) {
                if let Some((slot, bit)) = reserved_at(af, protocol, port) {
                    *reserved.entry(slot).or_default() |= bit;
                }
            }
        }
        for slot in self.reserved.keys().filter(|slot| !reserved.contains_key(slot)) {
            datapath.set("RESERVED", *slot, 0u64);
        }
        for (slot, bits) in &reserved {
            if self.reserved.get(slot) != Some(bits) {
                datapath.set("RESERVED", *slot, *bits);
            }
        }
        self.reserved = reserved;
    }
}

impl<F: Family> Default for OfFamily<F> {
    fn default() -> Self {
        Self {
            subnets: Vec::new(),
            endpoints: Vec::new(),
            local: Vec::new(),
            uplinks: Vec::new(),
            published: Vec::new(),
            ranges: Vec::new(),
            sources: Vec::new(),
        }
    }
}

impl<F: Carried> OfFamily<F>
where
    F::Address: Pod,
    EndpointKey<F>: Pod,
    Uplink<F>: Pod,
    PublishKey<F>: Pod,
    RangeKey<F>: Pod,
    Publication<F>: Pod,
    SourceKey<F>: Pod,
{
    fn write(&mut self, datapath: &mut Datapath, world: &World) {
        // Subnets never go.
        for (&(prefix, bits), &network) in &world.subnets {
            if let Some(prefix) = F::address(prefix)
                && !self.subnets.contains(&((bits, prefix), network))
            {
                datapath.insert_prefix(F::SUBNETS, u32::from(bits), prefix, network);
                self.subnets.push(((bits, prefix), network));
            }
        }
        let endpoints = world.endpoints.iter().filter_map(|((network, address), endpoint)| {
            let address = F::address(*address)?;
            let key = EndpointKey {
                network: *network,
                address,
            };
            Some((key, endpoint_entry(endpoint)))
        });
        write(datapath, F::ENDPOINTS, &mut self.endpoints, endpoints.collect());
        let local = world.local.iter().filter_map(|(address, gateway_of)| {
            let entry = LocalAddress {
                ifindex: HOST_IFINDEX,
                gateway_of: *gateway_of,
            };
            Some((F::address(*address)?, entry))
        });
        write(datapath, F::LOCAL, &mut self.local, local.collect());
        let uplinks = world.uplinks.iter().filter(|((_, family), _)| *family == F::IS);
        let uplinks = uplinks.map(|((device, _), uplink)| {
            let entry = Uplink {
                address: uplink.address.and_then(F::address).unwrap_or(F::ANY),
                mtu: uplink.mtu,
            };
            (*device, entry)
        });
        write(datapath, F::UPLINKS, &mut self.uplinks, uplinks.collect());
        self.write_published(datapath, world);
        self.write_sources(datapath, world);
    }

    /// Who may use published ports.
    fn write_sources(&mut self, datapath: &mut Datapath, world: &World) {
        let each = world.sources.iter().flat_map(|(endpoint, prefixes)| {
            let key = |(prefix, bits): &(IpAddr, u8)| {
                let address = F::address(*prefix)?;
                let endpoint = *endpoint;
                Some((32 + u32::from(*bits), SourceKey { endpoint, address }))
            };
            prefixes.iter().filter_map(key)
        });
        let sources: Vec<(u32, SourceKey<F>)> = each.collect();
        for (bits, key) in self.sources.iter().filter(|source| !sources.contains(source)) {
            datapath.remove_prefix::<SourceKey<F>, u32>(F::SOURCES, *bits, *key);
        }
        for (bits, key) in sources.iter().filter(|source| !self.sources.contains(source)) {
            datapath.insert_prefix(F::SOURCES, *bits, *key, 1u32);
        }
        self.sources = sources;
    }

    /// Single ports, and ranges.
    fn write_published(&mut self, datapath: &mut Datapath, world: &World) {
        let (mut published, mut ranges) = (Vec::new(), Vec::new());
        for (&(address, port, protocol), publication) in &world.published {
            let (Some(address), Some(inside)) = (F::address(address), F::address(publication.address)) else {
                continue;
            };
            let mut entry = Publication {
                network: publication.network as u16,
                endpoint: publication.endpoint,
                address: inside,
                port: publication.port.to_be(),
                first: 0,
                limited: u16::from(world.sources.contains_key(&publication.endpoint)),
            };
            if publication.count == 1 {
                let key = PublishKey {
                    address,
                    port: port.to_be(),
                    protocol,
                    padding: 0,
                };
                published.push((key, entry));
                continue;
            }
            entry.first = port.to_be();
            let last = port.saturating_add(publication.count - 1);
            // The address and the protocol stand before the port.
            ranges.extend(blocks(port, last).map(|(first, bits)| {
                let key = RangeKey {
                    address,
                    protocol: u16::from(protocol),
                    port: first.to_be(),
                };
                ((F::BITS + 16 + bits, key), entry)
            }));
        }
        write(datapath, F::PUBLISHED, &mut self.published, published);
        for (key, _) in &self.ranges {
            if !ranges.iter().any(|(other, _)| other == key) {
                datapath.remove_prefix::<RangeKey<F>, Publication<F>>(F::RANGES, key.0, key.1);
            }
        }
        for ((bits, key), entry) in ranges.iter().filter(|entry| !self.ranges.contains(entry)) {
            datapath.insert_prefix(F::RANGES, *bits, *key, *entry);
        }
        self.ranges = ranges;
    }
}

fn write<K: Pod + PartialEq, V: Pod + PartialEq>(
    datapath: &mut Datapath,
    map: &str,
    there: &mut Vec<(K, V)>,
    wanted: Vec<(K, V)>,
) {
    for (key, _) in there.iter() {
        if !wanted.iter().any(|(other, _)| other == key) {
            datapath.remove::<K, V>(map, *key);
        }
    }
    for entry in &wanted {
        if !there.contains(entry) {
            datapath.insert(map, entry.0, entry.1);
        }
    }
    *there = wanted;
}

fn write_array<V: Pod + PartialEq>(
    datapath: &mut Datapath,
    name: &str,
    there: &mut Vec<(u32, V)>,
    wanted: Vec<(u32, V)>,
) {
    for entry in &wanted {
        if !there.contains(entry) {
            datapath.set(name, entry.0, entry.1);
        }
    }
    *there = wanted;
}

/// Who hears what is said to many, one place after the other.
fn members(world: &World) -> Vec<(MemberKey, u32)> {
    let mut members = Vec::new();
    for (&network, _) in world.networks.iter().filter(|(_, rules)| rules.multicast) {
        let devices = world
            .attachments
            .iter()
            .filter(|(_, endpoint)| endpoint.network == network);
        members.extend(
            (0..)
                .zip(devices)
                .map(|(place, (device, _))| (MemberKey { network, place }, *device)),
        );
    }
    members
}

fn network_entry(network: &Network) -> NetworkEntry {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    NetworkEntry {
        flags: NETWORK_EXISTS
            | bit(network.icc, NETWORK_ICC)
            | bit(network.masquerades, NETWORK_MASQUERADES | NETWORK_MASQUERADES6)
            | bit(network.routed6, NETWORK_ROUTED6)
            | bit(network.internal, NETWORK_INTERNAL)
            | bit(network.unprotected, NETWORK_UNPROTECTED | NETWORK_UNPROTECTED6)
            | bit(network.multicast, NETWORK_MULTICAST)
            | bit(network.direct, NETWORK_DIRECT)
            | bit(network.host_access == HostAccess::None, NETWORK_NO_HOST)
            | bit(network.host_access == HostAccess::Gateway, NETWORK_ONLY_GATEWAY),
        mtu: network.mtu,
        broadcast4: network.broadcast.and_then(Ipv4::address).unwrap_or_default(),
        gateway4: network.gateway4.and_then(Ipv4::address).unwrap_or_default(),
        gateway6: network.gateway6.and_then(Ipv6::address).unwrap_or_default(),
        gateway_mac: network.gateway_mac,
        vni: network.vni,
        ..NetworkEntry::default()
    }
}

fn attachment(endpoint: &Endpoint, generation: u32) -> Attachment {
    Attachment {
        endpoint: endpoint.number,
        generation,
        network: endpoint.network,
        address4: endpoint.address4.and_then(Ipv4::address).unwrap_or_default(),
        address6: endpoint.address6.and_then(Ipv6::address).unwrap_or_default(),
        mac: endpoint.mac,
        padding: [0; 2],
    }
}

fn endpoint_entry(endpoint: &Endpoint) -> endpoint::Endpoint {
    endpoint::Endpoint {
        endpoint: endpoint.number,
        ifindex: endpoint.device,
        mac: endpoint.mac,
        padding: [0; 2],
    }
}
