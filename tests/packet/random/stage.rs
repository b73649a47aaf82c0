//! The programs with their tables on a host of their own, and a world put into these tables.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use aya::Pod;
use nix::sched::{CloneFlags, setns};
use sluice_datapath_common::drop::DropKey;
use sluice_datapath_common::endpoint::{Attachment, EndpointKey};
use sluice_datapath_common::flow::{Flow, FlowKey};
use sluice_datapath_common::fragment::{FragmentKey, FragmentPorts};
use sluice_datapath_common::network::{
    NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES, Network as NetworkEntry,
};
use sluice_datapath_common::publish::{Publication, PublishKey, RangeKey, blocks, reserved_at};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::uplink::{LocalAddress, Uplink};
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6Address, counter::Counter, endpoint, programs};

use super::place::{NETWORKS, Place, TENANTS, Tenant};
use crate::datapath::{Datapath, Outcome};
use crate::frame::Frame;
use crate::reference::Hook;
use crate::reference::conversation::Key;
use crate::reference::wire::{TCP, UDP};
use crate::reference::world::{Destination, Device, Endpoint, Family, Host, Network, Route, World};
use crate::scene::{
    self, GATEWAY_MAC, HOST_IFINDEX, HOST_LEG, HOST_MAC, LEG_MAC, NIC, NIC_MAC, SECOND_NIC, SECOND_NIC_MAC, VM_BRIDGE,
    VM_BRIDGE_MAC,
};

/// Room for so many entries of answered flows: little enough to be used up now and then.
pub const CAPACITY: usize = 10;

/// Ports of the host with a socket: of UDP at the first NIC, of UDP everywhere, of TCP everywhere (listening).
pub const SOCKETS: [u16; 3] = [20_001, 20_002, 20_003];

pub struct Stage {
    pub datapath: Datapath,
    tables: Tables,
    /// What the drop counters showed when the last case ended.
    drops: BTreeMap<(u32, u8, u8), (u64, u64)>,
    namespace: File,
    _sockets: (UdpSocket, UdpSocket, TcpListener),
}

/// What lies in the tables that the world is written to.
struct Tables {
    epoch: Option<u32>,
    generations: Vec<(u32, u32)>,
    networks: Vec<(u32, NetworkEntry)>,
    subnets: Vec<(Ipv4Address, u8, u32)>,
    attachments: Table<u32, Attachment>,
    endpoints: Table<EndpointKey<Ipv4>, endpoint::Endpoint>,
    local: Table<Ipv4Address, LocalAddress>,
    uplinks: Table<u32, Uplink<Ipv4>>,
    published: Table<PublishKey<Ipv4>, Publication<Ipv4>>,
    ranges: Vec<(Prefix, Publication<Ipv4>)>,
    reserved: BTreeMap<u32, u64>,
    settings: Option<Settings>,
}

/// Length in bits, and the key that it is a part of.
type Prefix = (u32, RangeKey<Ipv4>);

struct Table<K, V> {
    name: &'static str,
    entries: Vec<(K, V)>,
}

impl Stage {
    /// Makes a host and loads the programs.
    pub fn set() -> Self {
        let namespace = scene::furnish();
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace of the stage");
        let nic = Ipv4Addr::new(192, 0, 2, 1);
        let [at_nic, udp, tcp] = SOCKETS;
        let sockets = (
            UdpSocket::bind((nic, at_nic)).unwrap(),
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, udp)).unwrap(),
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, tcp)).unwrap(),
        );
        let sizes = [("FLOWS4", CAPACITY as u32), ("OPENING4", 4096), ("FRAGMENTS4", 4096)];
        let mut stage = Self {
            datapath: Datapath::load_with(&scene::config(), &sizes),
            tables: Tables::empty(),
            drops: BTreeMap::new(),
            namespace,
            _sockets: sockets,
        };
        stage.clear();
        stage
    }

    /// Moves the thread to where the stage is.
    pub fn enter(&self) {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace of the stage");
    }

    /// Writes what differs from the world written last.
    pub fn write(&mut self, world: &World) {
        self.tables.write(&mut self.datapath, world);
    }

    pub fn run(&mut self, hook: Hook, device: u32, frame: &[u8]) -> Outcome {
        let program = match hook {
            Hook::FromContainer => programs::FROM_CONTAINER,
            Hook::FromHost => programs::FROM_HOST,
            Hook::FromNic => programs::FROM_NIC,
            Hook::ToNic => programs::TO_NIC,
        };
        self.datapath.run(program, device, &Frame(frame.to_vec()))
    }

    /// The entry that packets with this key take, and whether it is among the answered ones.
    pub fn flow(&mut self, key: &Key) -> Option<(bool, Flow<Ipv4>)> {
        let key = flow_key(key)?;
        [(true, "FLOWS4"), (false, "OPENING4")]
            .into_iter()
            .find_map(|(answered, map)| Some((answered, self.datapath.lookup(map, key)?)))
    }

    /// All entries.
    pub fn flows(&mut self) -> Vec<(Key, bool, Flow<Ipv4>)> {
        let mut all = Vec::new();
        for (answered, map) in [(true, "FLOWS4"), (false, "OPENING4")] {
            let entries = self.datapath.flows(map);
            all.extend(entries.into_iter().map(|(key, flow)| (key_of(&key), answered, flow)));
        }
        all
    }

    pub fn remove_flow(&mut self, key: &Key) {
        if let Some(key) = flow_key(key) {
            self.datapath.remove::<_, Flow<Ipv4>>("FLOWS4", key);
            self.datapath.remove::<_, Flow<Ipv4>>("OPENING4", key);
        }
    }

    pub fn fragments(&mut self) -> Vec<(FragmentKey<Ipv4>, FragmentPorts)> {
        self.datapath.entries("FRAGMENTS4")
    }

    /// What has been dropped since the last case.
    pub fn drops(&mut self) -> BTreeMap<(u32, u8, u8), (u64, u64)> {
        let mut all = self.all_drops();
        all.retain(|key, counter| {
            let before = self.drops.get(key).copied().unwrap_or_default();
            *counter = (counter.0 - before.0, counter.1 - before.1);
            *counter != (0, 0)
        });
        all
    }

    /// Forgets what the last case left.
    pub fn clear(&mut self) {
        for (key, _, _) in self.flows() {
            self.remove_flow(&key);
        }
        for (key, _) in self.fragments() {
            self.datapath.remove::<_, FragmentPorts>("FRAGMENTS4", key);
        }
        self.datapath.clear_held();
        self.drops = self.all_drops();
    }

    fn all_drops(&mut self) -> BTreeMap<(u32, u8, u8), (u64, u64)> {
        let counters: Vec<(DropKey, Counter)> = self.datapath.counters();
        let each = counters.into_iter().map(|(key, counter)| {
            (
                (key.endpoint, key.reason, key.direction),
                (counter.packets, counter.bytes),
            )
        });
        each.collect()
    }
}

/// The world as each case finds it.
pub fn world() -> World {
    let mut world = World {
        epoch: 1,
        networks: BTreeMap::new(),
        subnets: BTreeMap::new(),
        attachments: BTreeMap::new(),
        endpoints: BTreeMap::new(),
        generations: TENANTS.iter().map(|tenant| (tenant.number, 1)).collect(),
        local: BTreeMap::new(),
        uplinks: BTreeMap::new(),
        published: BTreeMap::new(),
        host: Host {
            leg: HOST_LEG,
            mac: HOST_MAC,
            ephemeral: (32_768, 60_999),
        },
        devices: BTreeMap::new(),
        routes: Vec::new(),
        sockets: Default::default(),
    };
    let at = |place: Place| place.address(Family::V4);
    for (number, gateway) in NETWORKS {
        world.networks.insert(
            number,
            Network {
                icc: true,
                masquerades: true,
                internal: false,
                mtu: 1500,
                gateway4: Some(at(gateway)),
                gateway6: None,
                gateway_mac: GATEWAY_MAC,
            },
        );
        world.subnets.insert((network_of(at(gateway)), 24), number);
        world.local.insert(at(gateway), number);
    }
    for place in [Place::Nic, Place::SecondNic, Place::VmBridge] {
        world.local.insert(at(place), 0);
    }
    for (device, place) in [(NIC, Place::Nic), (SECOND_NIC, Place::SecondNic)] {
        let uplink = crate::reference::world::Uplink {
            address: Some(at(place)),
            mtu: 1500,
        };
        world.uplinks.insert((device, Family::V4), uplink);
    }
    TENANTS[..5].iter().for_each(|tenant| move_in(&mut world, tenant));
    for (device, mac) in [
        (HOST_LEG, LEG_MAC),
        (NIC, NIC_MAC),
        (SECOND_NIC, SECOND_NIC_MAC),
        (VM_BRIDGE, VM_BRIDGE_MAC),
    ] {
        world.devices.insert(device, Device { mac, mtu: 1500 });
    }
    let route = |prefix: [u8; 4], bits: u8, to: Destination| Route {
        prefix: IpAddr::from(prefix),
        bits,
        to,
    };
    // As `scene::furnish` makes them.
    world.routes = vec![
        route([192, 0, 2, 1], 32, Destination::None),
        route([198, 51, 100, 1], 32, Destination::None),
        route([172, 30, 0, 1], 32, Destination::None),
        route([192, 0, 2, 0], 24, Destination::Link(NIC)),
        route([198, 51, 100, 0], 24, Destination::Link(SECOND_NIC)),
        route([172, 30, 0, 0], 24, Destination::Link(VM_BRIDGE)),
        route([192, 0, 2, 255], 32, Destination::None),
        route([10, 9, 0, 0], 24, Destination::Link(HOST_IFINDEX)),
        route([10, 8, 0, 0], 24, Destination::Link(HOST_IFINDEX)),
        route([100, 64, 0, 0], 10, Destination::None),
        route([0; 4], 0, Destination::Router(NIC, IpAddr::from([192, 0, 2, 254]))),
    ];
    let [at_nic, udp, tcp] = SOCKETS;
    world.sockets.insert((UDP, at(Place::Nic), at_nic));
    world.sockets.insert((UDP, at(Place::Nobody), udp));
    world.sockets.insert((TCP, at(Place::Nobody), tcp));
    world
}

/// The endpoint begins to live at its address.
pub fn move_in(world: &mut World, tenant: &Tenant) {
    let address = tenant.place.address(Family::V4);
    let endpoint = Endpoint {
        number: tenant.number,
        network: tenant.network,
        device: tenant.device,
        address4: Some(address),
        address6: None,
        mac: tenant.mac,
    };
    world.endpoints.insert((tenant.network, address), endpoint);
    world.attachments.insert(tenant.device, endpoint);
}

/// It ends, and with it all that it said.
pub fn move_out(world: &mut World, tenant: &Tenant) {
    *world.generations.entry(tenant.number).or_default() += 1;
    let address = tenant.place.address(Family::V4);
    let is_its = |endpoint: &Endpoint| endpoint.number == tenant.number;
    if world.endpoints.get(&(tenant.network, address)).is_some_and(is_its) {
        world.endpoints.remove(&(tenant.network, address));
    }
    if world.attachments.get(&tenant.device).is_some_and(is_its) {
        world.attachments.remove(&tenant.device);
    }
}

fn network_of(gateway: IpAddr) -> IpAddr {
    match gateway {
        IpAddr::V4(gateway) => {
            let [a, b, c, _] = gateway.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(gateway) => {
            let mut segments = gateway.segments();
            segments[4..].fill(0);
            IpAddr::from(segments)
        }
    }
}

// === impl Tables ===

impl Tables {
    fn empty() -> Self {
        Self {
            epoch: None,
            generations: Vec::new(),
            networks: Vec::new(),
            subnets: Vec::new(),
            attachments: Table::named("ATTACHMENTS"),
            endpoints: Table::named("ENDPOINTS4"),
            local: Table::named("LOCAL4"),
            uplinks: Table::named("UPLINKS4"),
            published: Table::named("PUBLISHED4"),
            ranges: Vec::new(),
            reserved: BTreeMap::new(),
            settings: None,
        }
    }

    fn write(&mut self, datapath: &mut Datapath, world: &World) {
        if self.epoch != Some(world.epoch) {
            datapath.set("EPOCH", 0, world.epoch);
            self.epoch = Some(world.epoch);
        }
        let generations = world
            .generations
            .iter()
            .map(|(number, generation)| (*number, *generation));
        write_array(datapath, "GENERATIONS", &mut self.generations, generations.collect());
        let networks = world
            .networks
            .iter()
            .map(|(number, network)| (*number, network_entry(network)));
        write_array(datapath, "NETWORKS", &mut self.networks, networks.collect());
        for (&(prefix, bits), &network) in &world.subnets {
            if let Some(prefix) = v4(prefix)
                && !self.subnets.contains(&(prefix, bits, network))
            {
                datapath.insert_subnet(prefix, u32::from(bits), network);
                self.subnets.push((prefix, bits, network));
            }
        }
        let attachments = world.attachments.iter().map(|(device, endpoint)| {
            let generation = world.generation(endpoint.number);
            (*device, attachment(endpoint, generation))
        });
        self.attachments.write(datapath, attachments.collect());
        let endpoints = world.endpoints.iter().filter_map(|((network, address), endpoint)| {
            let key = EndpointKey {
                network: *network,
                address: v4(*address)?,
            };
            Some((key, endpoint_entry(endpoint)))
        });
        self.endpoints.write(datapath, endpoints.collect());
        let local = world.local.iter().filter_map(|(address, gateway_of)| {
            let entry = LocalAddress {
                ifindex: HOST_IFINDEX,
                gateway_of: *gateway_of,
            };
            Some((v4(*address)?, entry))
        });
        self.local.write(datapath, local.collect());
        let uplinks = world.uplinks.iter().filter(|((_, family), _)| *family == Family::V4);
        let uplinks = uplinks.map(|((device, _), uplink)| {
            let entry = Uplink {
                address: uplink.address.and_then(v4).unwrap_or_default(),
                mtu: uplink.mtu,
            };
            (*device, entry)
        });
        self.uplinks.write(datapath, uplinks.collect());
        self.write_published(datapath, world);
    }

    /// Single ports, ranges, and the bits that say that a port is taken.
    fn write_published(&mut self, datapath: &mut Datapath, world: &World) {
        let (mut published, mut ranges, mut reserved) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (&(address, port, protocol), publication) in &world.published {
            let (Some(address), Some(inside)) = (v4(address), v4(publication.address)) else {
                continue;
            };
            let last = port.saturating_add(publication.count - 1);
            for port in port..=last {
                if let Some((slot, bit)) = reserved_at(libc::AF_INET as u8, protocol, port) {
                    *reserved.entry(slot).or_default() |= bit;
                }
            }
            let mut entry = Publication {
                network: publication.network,
                endpoint: publication.endpoint,
                address: inside,
                port: publication.port.to_be(),
                first: 0,
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
            // The address and the protocol stand before the port.
            ranges.extend(blocks(port, last).map(|(first, bits)| {
                let key = RangeKey {
                    address,
                    protocol: u16::from(protocol),
                    port: first.to_be(),
                };
                ((48 + bits, key), entry)
            }));
        }
        self.published.write(datapath, published);
        for (key, _) in self
            .ranges
            .iter()
            .filter(|(key, _)| !ranges.iter().any(|(other, _)| other == key))
        {
            datapath.remove_prefix::<RangeKey<Ipv4>, Publication<Ipv4>>("RANGES4", key.0, key.1);
        }
        for ((bits, key), entry) in ranges.iter().filter(|entry| !self.ranges.contains(entry)) {
            datapath.insert_prefix("RANGES4", *bits, *key, *entry);
        }
        for (slot, _) in self.reserved.iter().filter(|(slot, _)| !reserved.contains_key(slot)) {
            datapath.set("RESERVED", *slot, 0u64);
        }
        for (slot, bits) in &reserved {
            if self.reserved.get(slot) != Some(bits) {
                datapath.set("RESERVED", *slot, *bits);
            }
        }
        let settings = Settings {
            published_ranges: ranges.len() as u32,
            ..Settings::default()
        };
        if self.settings != Some(settings) {
            datapath.set("SETTINGS", 0, settings);
        }
        (self.ranges, self.reserved, self.settings) = (ranges, reserved, Some(settings));
    }
}

impl<K: Pod + PartialEq, V: Pod + PartialEq> Table<K, V> {
    fn named(name: &'static str) -> Self {
        Self {
            name,
            entries: Vec::new(),
        }
    }

    fn write(&mut self, datapath: &mut Datapath, wanted: Vec<(K, V)>) {
        for (key, _) in &self.entries {
            if !wanted.iter().any(|(other, _)| other == key) {
                datapath.remove::<K, V>(self.name, *key);
            }
        }
        for entry in &wanted {
            if !self.entries.contains(entry) {
                datapath.insert(self.name, entry.0, entry.1);
            }
        }
        self.entries = wanted;
    }
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

fn network_entry(network: &Network) -> NetworkEntry {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    NetworkEntry {
        flags: NETWORK_EXISTS
            | bit(network.icc, NETWORK_ICC)
            | bit(network.masquerades, NETWORK_MASQUERADES)
            | bit(network.internal, NETWORK_INTERNAL),
        mtu: network.mtu,
        gateway4: network.gateway4.and_then(v4).unwrap_or_default(),
        gateway6: Ipv6Address::default(),
        gateway_mac: network.gateway_mac,
        padding: [0; 2],
    }
}

fn attachment(endpoint: &Endpoint, generation: u32) -> Attachment {
    Attachment {
        endpoint: endpoint.number,
        generation,
        network: endpoint.network,
        address4: endpoint.address4.and_then(v4).unwrap_or_default(),
        address6: Ipv6Address::default(),
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

/// As it stands in the tables.
fn v4(address: IpAddr) -> Option<Ipv4Address> {
    match address {
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(_) => None,
    }
}

pub fn ip(address: Ipv4Address) -> IpAddr {
    IpAddr::V4(address.into())
}

fn flow_key(key: &Key) -> Option<FlowKey<Ipv4>> {
    Some(FlowKey {
        source: v4(key.source)?,
        destination: v4(key.destination)?,
        source_port: key.source_port.to_be(),
        destination_port: key.destination_port.to_be(),
        scope: key.scope,
        protocol: key.protocol,
        padding: [0; 3],
    })
}

fn key_of(key: &FlowKey<Ipv4>) -> Key {
    Key {
        source: ip(key.source),
        source_port: u16::from_be(key.source_port),
        destination: ip(key.destination),
        destination_port: u16::from_be(key.destination_port),
        scope: key.scope,
        protocol: key.protocol,
    }
}
