//! The programs and their tables as the tests of IPv4 know them, with IPv6 behind.

use std::any::Any;
use std::ops::{Deref, DerefMut};

use aya::Pod;
use sluice_datapath_common::config::Config;
use sluice_datapath_common::endpoint::{Attachment, EndpointKey};
use sluice_datapath_common::event::DropEvent;
use sluice_datapath_common::flow::{Flow, FlowKey};
use sluice_datapath_common::fragment::FragmentKey;
use sluice_datapath_common::network::{
    NETWORK_MASQUERADES, NETWORK_MASQUERADES6, NETWORK_ROUTED, NETWORK_ROUTED6, NETWORK_UNPROTECTED,
    NETWORK_UNPROTECTED6, Network,
};
use sluice_datapath_common::publish::{Publication, PublishKey, RangeKey, SourceKey};
use sluice_datapath_common::uplink::Uplink;
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6, Ipv6Address};

use crate::frame::Frame;
pub use crate::programs::{Outcome, ToldFlow, Verdict};
use crate::{programs, translate, twin};

/// The prefix of a twin is longer by so many bits.
const PREFIX_BITS: u32 = 96;

/// The codes of "unreachable" when nobody is at a port, and when an administrator is against it (RFC 4443, 3.1).
pub const NO_PORT: u8 = 4;
/// As above.
pub const PROHIBITED: u8 = 1;

pub struct Datapath(programs::Datapath);

impl Datapath {
    pub fn load(config: &Config) -> Self {
        Self(programs::Datapath::load(config))
    }

    pub fn load_with(config: &Config, sizes: &[(&str, u32)]) -> Self {
        Self(programs::Datapath::load_with(config, sizes))
    }

    pub fn insert_range(&mut self, key: RangeKey<Ipv4>, bits: u32, publication: Publication<Ipv4>) {
        let key = RangeKey::<Ipv6> {
            address: address(key.address),
            protocol: key.protocol,
            port: key.port,
        };
        self.0
            .insert_prefix("RANGES6", PREFIX_BITS + bits, key, self::publication(publication));
    }

    pub fn run(&self, program: &str, ifindex: u32, frame: &Frame) -> Outcome {
        self.run_after(program, ifindex, 0, frame)
    }

    pub fn run_after(&self, program: &str, ifindex: u32, first: u32, frame: &Frame) -> Outcome {
        let sent = Frame(translate::to_six(&frame.0));
        let outcome = self.0.run_after(program, ifindex, first, &sent);
        let frame = match outcome.frame == sent {
            true => frame.clone(),
            false => Frame(translate::to_four(&outcome.frame.0, &frame.0)),
        };
        Outcome { frame, ..outcome }
    }

    /// The same for a frame that is of IPv6 already.
    pub fn run_six(&self, program: &str, ifindex: u32, frame: &Frame) -> Outcome {
        self.0.run(program, ifindex, frame)
    }

    /// What was told, as it would have been of IPv4.
    pub fn told(&mut self) -> Vec<DropEvent> {
        self.0.told().into_iter().map(event).collect()
    }

    pub fn insert<K: Pod, V: Pod>(&mut self, map: &str, key: K, value: V) {
        match map {
            "ENDPOINTS4" => self.0.insert("ENDPOINTS6", endpoint_key(cast(key)), value),
            "LOCAL4" => self.0.insert("LOCAL6", address(cast(key)), value),
            "UPLINKS4" => self.0.insert("UPLINKS6", key, uplink(cast(value))),
            "PUBLISHED4" => self
                .0
                .insert("PUBLISHED6", publish_key(cast(key)), publication(cast(value))),
            "FRAGMENTS4" => self.0.insert("FRAGMENTS6", fragment_key(cast(key)), value),
            "ATTACHMENTS" => self.0.insert(map, key, attachment(cast(value))),
            _ => self.0.insert(map, key, value),
        }
    }

    pub fn remove<K: Pod, V: Pod>(&mut self, map: &str, key: K) {
        match map {
            "ENDPOINTS4" => self.0.remove::<_, V>("ENDPOINTS6", endpoint_key(cast(key))),
            "LOCAL4" => self.0.remove::<_, V>("LOCAL6", address(cast(key))),
            "UPLINKS4" => self.0.remove::<_, Uplink<Ipv6>>("UPLINKS6", key),
            "PUBLISHED4" => self
                .0
                .remove::<_, Publication<Ipv6>>("PUBLISHED6", publish_key(cast(key))),
            "FLOWS4" => self.0.remove::<_, Flow<Ipv6>>("FLOWS6", flow_key(cast(key))),
            "OPENING4" => self.0.remove::<_, Flow<Ipv6>>("OPENING6", flow_key(cast(key))),
            _ => self.0.remove::<K, V>(map, key),
        }
    }

    pub fn set<V: Pod>(&mut self, map: &str, index: u32, value: V) {
        match map {
            "NETWORKS" => self.0.set(map, index, network(cast(value))),
            _ => self.0.set(map, index, value),
        }
    }

    pub fn reserve(&mut self, port: u16, protocol: u8) {
        self.0.reserve_for(libc::AF_INET6 as u8, port, protocol);
    }

    pub fn insert_subnet(&mut self, prefix: Ipv4Address, bits: u32, network: u32) {
        self.0.insert_subnet6(address(prefix), PREFIX_BITS + bits, network);
    }

    pub fn insert_source(&mut self, endpoint: u32, prefix: Ipv4Address, bits: u32) {
        let key = SourceKey::<Ipv6> {
            endpoint,
            address: address(prefix),
        };
        self.0.insert_prefix("SOURCES6", 32 + PREFIX_BITS + bits, key, 1u32);
    }

    pub fn entries<K: Pod, V: Pod>(&mut self, map: &str) -> Vec<(K, V)> {
        match map {
            "FRAGMENTS4" => {
                let entries = self.0.entries::<FragmentKey<Ipv6>, V>("FRAGMENTS6");
                entries
                    .into_iter()
                    .map(|(key, value)| (cast(fragment_key_of(key)), value))
                    .collect()
            }
            _ => self.0.entries(map),
        }
    }

    pub fn flows(&mut self, map: &str) -> Vec<(FlowKey<Ipv4>, Flow<Ipv4>)> {
        let twin = map.replace('4', "6");
        let flows: Vec<(FlowKey<Ipv6>, Flow<Ipv6>)> = self.0.entries(&twin);
        flows
            .into_iter()
            .map(|(key, flow)| (key_of(&key), flow_of(&flow)))
            .collect()
    }
}

/// A value of a type that the caller knows, though the compiler does not.
fn cast<T: Any, U: Any + Copy>(value: T) -> U {
    *(&value as &dyn Any)
        .downcast_ref::<U>()
        .unwrap_or_else(|| panic!("{} is no {}", std::any::type_name::<T>(), std::any::type_name::<U>()))
}

fn address(address: Ipv4Address) -> Ipv6Address {
    twin::of(address.into()).into()
}

fn address_of(address: Ipv6Address) -> Ipv4Address {
    translate::untwin(address.into()).into()
}

/// 58 for 1, and back.
fn protocol(protocol: u8) -> u8 {
    match protocol {
        1 => 58,
        58 => 1,
        other => other,
    }
}

fn endpoint_key(key: EndpointKey<Ipv4>) -> EndpointKey<Ipv6> {
    EndpointKey {
        network: key.network,
        address: address(key.address),
    }
}

/// The 16 bits of IPv4 are the last of IPv6's 32, all as they lie in the packet.
fn fragment_key(key: FragmentKey<Ipv4>) -> FragmentKey<Ipv6> {
    FragmentKey {
        source: address(key.source),
        destination: address(key.destination),
        identification: key.identification << 16,
        scope: key.scope,
        protocol: protocol(key.protocol),
        padding: [0; 3],
    }
}

fn fragment_key_of(key: FragmentKey<Ipv6>) -> FragmentKey<Ipv4> {
    FragmentKey {
        source: address_of(key.source),
        destination: address_of(key.destination),
        identification: key.identification >> 16,
        scope: key.scope,
        protocol: protocol(key.protocol),
        padding: [0; 3],
    }
}

fn uplink(uplink: Uplink<Ipv4>) -> Uplink<Ipv6> {
    Uplink {
        address: address(uplink.address),
        mtu: uplink.mtu,
    }
}

fn publish_key(key: PublishKey<Ipv4>) -> PublishKey<Ipv6> {
    PublishKey {
        address: address(key.address),
        port: key.port,
        protocol: protocol(key.protocol),
        padding: 0,
    }
}

fn publication(publication: Publication<Ipv4>) -> Publication<Ipv6> {
    Publication {
        network: publication.network,
        endpoint: publication.endpoint,
        address: address(publication.address),
        port: publication.port,
        first: publication.first,
        limited: publication.limited,
    }
}

fn attachment(attachment: Attachment) -> Attachment {
    Attachment {
        address4: Ipv4Address::default(),
        address6: address(attachment.address4),
        ..attachment
    }
}

fn event(event: DropEvent) -> DropEvent {
    /// IPv6's header is longer than IPv4's by so many bytes.
    const LONGER: u32 = 20;
    let is_ping = event.protocol == 58;
    let four = |words: [u32; 4]| [address_of(Ipv6Address(words)).0, 0, 0, 0];
    assert_eq!((event.family, event.ether_type), (libc::AF_INET6 as u8, 0x86dd));
    DropEvent {
        source: four(event.source),
        destination: four(event.destination),
        length: event.length - LONGER,
        ether_type: 0x0800,
        family: libc::AF_INET as u8,
        protocol: if is_ping { 1 } else { event.protocol },
        // A ping is another type.
        source_port: if is_ping && event.source_port == u16::from_ne_bytes([128, 0]) {
            u16::from_ne_bytes([8, 0])
        } else {
            event.source_port
        },
        ..event
    }
}

fn network(network: Network) -> Network {
    let mut flags = network.flags & !(NETWORK_MASQUERADES | NETWORK_ROUTED | NETWORK_UNPROTECTED);
    for (flag, twin) in [
        (NETWORK_MASQUERADES, NETWORK_MASQUERADES6),
        (NETWORK_ROUTED, NETWORK_ROUTED6),
        (NETWORK_UNPROTECTED, NETWORK_UNPROTECTED6),
    ] {
        flags |= if network.flags & flag != 0 { twin } else { 0 };
    }
    Network {
        flags,
        broadcast4: Ipv4Address::default(),
        gateway4: Ipv4Address::default(),
        gateway6: address(network.gateway4),
        resolver4: Ipv4Address::default(),
        resolver6: address(network.resolver4),
        ..network
    }
}

fn flow_key(key: FlowKey<Ipv4>) -> FlowKey<Ipv6> {
    FlowKey {
        source: address(key.source),
        destination: address(key.destination),
        source_port: key.source_port,
        destination_port: key.destination_port,
        scope: key.scope,
        protocol: protocol(key.protocol),
        padding: [0; 3],
    }
}

fn key_of(key: &FlowKey<Ipv6>) -> FlowKey<Ipv4> {
    FlowKey {
        source: address_of(key.source),
        destination: address_of(key.destination),
        source_port: key.source_port,
        destination_port: key.destination_port,
        scope: key.scope,
        protocol: protocol(key.protocol),
        padding: [0; 3],
    }
}

fn flow_of(flow: &Flow<Ipv6>) -> Flow<Ipv4> {
    Flow {
        packets: flow.packets,
        // An IPv4 header is shorter.
        bytes: flow.bytes - 20 * flow.packets,
        last_seen: flow.last_seen,
        opened: flow.opened,
        source: address_of(flow.source),
        destination: address_of(flow.destination),
        next_hop: address_of(flow.next_hop),
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        address_difference: flow.address_difference,
        port_difference: flow.port_difference,
        ifindex: flow.ifindex,
        epoch: flow.epoch,
        source_endpoint: flow.source_endpoint,
        source_generation: flow.source_generation,
        destination_endpoint: flow.destination_endpoint,
        destination_generation: flow.destination_generation,
        reverse_scope: flow.reverse_scope,
        destination_mac: flow.destination_mac,
        source_mac: flow.source_mac,
        action: flow.action,
        flags: flow.flags,
        state: flow.state,
        class: flow.class,
        filler: [],
    }
}

impl Deref for Datapath {
    type Target = programs::Datapath;

    fn deref(&self) -> &programs::Datapath {
        &self.0
    }
}

impl DerefMut for Datapath {
    fn deref_mut(&mut self) -> &mut programs::Datapath {
        &mut self.0
    }
}
