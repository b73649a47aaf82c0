//! Between hosts: a scene with two others, and with endpoints on them.
//!
//! ```text
//!   network 5: 10.7.0.0/24, VNI 0xabcdef, near 10.7.0.2 here, far 10.7.0.9 on host 1 (192.0.2.60), farther 10.7.0.10 on host 2 (2001:db8:ff::2)
//! ```

mod carrying;
mod rules;
mod ways;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::endpoint::{Attachment, Endpoint, EndpointKey};
use sluice_datapath_common::flow::Action;
use sluice_datapath_common::network::{
    NETWORK_DIRECT, NETWORK_ENCRYPTED, NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES, Network,
};
use sluice_datapath_common::overlay::{Host, PORT, Remote, SEALED, scope_of};
use sluice_datapath_common::policy::LinkKey;
use sluice_datapath_common::publish::{Publication, PublishKey};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::uplink::LocalAddress;
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6, Ipv6Address, programs};

use crate::datapath::{Outcome, Verdict};
use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, Frame, Packet, SYN, TCP, TIME_EXCEEDED, UNREACHABLE, checksum};
use crate::scene::{
    self, CLIENT, Container, GATEWAY_MAC, HOST_IFINDEX, HOST_LEG, HOST_MAC, LEG_MAC, NIC, NIC_ADDRESS, NIC_MAC,
    ROUTER_MAC, Scene,
};
use crate::wrapping::{self, Unwrapped, Wrapping};

const NUMBER: u32 = 5;
/// All of the 24 bits are used.
const VNI: u32 = 0x00ab_cdef;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const MTU: u32 = 1450;

pub const NEAR: Container = Container {
    number: 4,
    network: NUMBER,
    ifindex: 14,
    address: Ipv4Addr::new(10, 7, 0, 2),
    mac: [0x02, 0x42, 10, 7, 0, 2],
};
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 9);
pub const FAR_MAC: [u8; 6] = [0x02, 0x42, 10, 7, 0, 9];
const FARTHER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 10);
const FARTHER_MAC: [u8; 6] = [0x02, 0x42, 10, 7, 0, 10];
/// The underlay addresses of host 1 and host 2, and ours of the second's family.
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 60);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 2);
const OURS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
/// The same endpoints by IPv6.
const NEAR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 2);
const FAR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 9);
/// Stands for the VXLAN device.
const DEVICE: u32 = 33;

fn mapped(address: IpAddr) -> Ipv6Address {
    match address {
        IpAddr::V4(address) => Ipv6Address::mapped(address.into()),
        IpAddr::V6(address) => address.into(),
    }
}

fn host(address: IpAddr, source: IpAddr, mtu: u32) -> Host {
    Host {
        address: mapped(address),
        source: mapped(source),
        next_hop: mapped(address),
        ifindex: NIC,
        mtu,
        port: PORT.to_be(),
        ..Host::default()
    }
}

/// The scene, with the overlay in it.
fn set() -> Scene {
    let mut scene = scene::set();
    furnish(&mut scene);
    scene
}

/// Puts the overlay into a scene.
pub fn furnish(scene: &mut Scene) {
    scene.set("GENERATIONS", NEAR.number, 1u32);
    lay(scene, NETWORK_ICC | NETWORK_MASQUERADES);
    scene.insert_subnet(Ipv4Address::new([10, 7, 0, 0]), 24, NUMBER);
    scene.insert_subnet6(Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 0).into(), 64, NUMBER);
    let local = |ifindex, gateway_of| LocalAddress { ifindex, gateway_of };
    scene.insert("LOCAL4", Ipv4Address::from(GATEWAY), local(HOST_IFINDEX, NUMBER));
    scene.insert("LOCAL6", Ipv6Address::from(OURS6), local(NIC, 0));
    scene.start(NEAR);
    let attachment = Attachment {
        endpoint: NEAR.number,
        generation: 1,
        network: NUMBER,
        address4: NEAR.address.into(),
        address6: NEAR6.into(),
        mac: NEAR.mac,
        padding: [0; 2],
    };
    scene.insert("ATTACHMENTS", NEAR.ifindex, attachment);
    let near = Endpoint {
        endpoint: NEAR.number,
        ifindex: NEAR.ifindex,
        mac: NEAR.mac,
        padding: [0; 2],
    };
    scene.insert("ENDPOINTS6", key6(NEAR6), near);
    scene.set("HOSTS", 1, host(PEER.into(), NIC_ADDRESS.into(), MTU));
    scene.set("HOSTS", 2, host(PEER6.into(), OURS6.into(), MTU - 20));
    scene.insert("SENDERS", mapped(PEER.into()), 1u32);
    scene.insert("SENDERS", mapped(PEER6.into()), 2u32);
    scene.insert("VNIS", VNI, NUMBER);
    live(scene, FAR, 1, FAR_MAC, 0);
    live(scene, FARTHER, 2, FARTHER_MAC, 0);
    let far = Remote {
        host: 1,
        endpoint: 0,
        mac: FAR_MAC,
        padding: [0; 2],
    };
    scene.insert("REMOTES6", key6(FAR6), far);
    let settings: Settings = scene.slot("SETTINGS", 0);
    let settings = Settings {
        overlay_ifindex: DEVICE,
        overlay_port: PORT.to_be(),
        ..settings
    };
    scene.set("SETTINGS", 0, settings);
}

fn key4(address: Ipv4Addr) -> EndpointKey<Ipv4> {
    EndpointKey {
        network: NUMBER,
        address: address.into(),
    }
}

fn key6(address: Ipv6Addr) -> EndpointKey<Ipv6> {
    EndpointKey {
        network: NUMBER,
        address: address.into(),
    }
}

/// Gives the network these rules.
fn lay(scene: &mut Scene, flags: u32) {
    let network = Network {
        flags: NETWORK_EXISTS | flags,
        mtu: MTU,
        gateway4: GATEWAY.into(),
        gateway_mac: GATEWAY_MAC,
        vni: VNI,
        ..Network::default()
    };
    scene.set("NETWORKS", NUMBER, network);
}

/// Somebody lives on another host.
fn live(scene: &mut Scene, address: Ipv4Addr, host: u32, mac: [u8; 6], endpoint: u32) {
    let remote = Remote {
        host,
        endpoint,
        mac,
        padding: [0; 2],
    };
    scene.insert("REMOTES4", key4(address), remote);
}

/// What the near endpoint says to the far one.
fn said(scene: &mut Scene, packet: Packet) -> Outcome {
    let mac = if packet.destination == FARTHER {
        FARTHER_MAC
    } else {
        FAR_MAC
    };
    scene.says(NEAR, &packet.macs(NEAR.mac, mac))
}

/// Another host sends a frame.
fn sent_by(scene: &mut Scene, from: IpAddr, vni: u32, inner: &Frame) -> Outcome {
    let to = if from.is_ipv4() {
        NIC_ADDRESS.into()
    } else {
        OURS6.into()
    };
    scene.run(programs::FROM_NIC, NIC, &wrapped(from, to, vni, inner))
}

/// A frame in a packet between hosts.
fn wrapped(from: IpAddr, to: IpAddr, vni: u32, inner: &Frame) -> Frame {
    wrapping::wrapped(
        &Wrapping {
            macs: (ROUTER_MAC, NIC_MAC),
            from,
            to,
            port: PORT,
            flags: 8,
            vni,
            marks: 0,
        },
        inner,
    )
}

/// Takes a packet between hosts apart.
#[track_caller]
fn unwrap(outcome: Outcome) -> Unwrapped {
    assert_eq!(outcome.verdict, Verdict::Sent);
    let unwrapped = wrapping::take_apart(&outcome.frame).unwrap();
    assert_eq!(unwrapped.port, PORT);
    unwrapped.inner.sums().unwrap();
    unwrapped
}

/// A frame as the first of the other hosts sends it.
pub fn sent_by_peer(inner: &Frame) -> Frame {
    wrapped(PEER.into(), NIC_ADDRESS.into(), VNI, inner)
}

/// Somebody else lives on the first of the other hosts.
pub fn settle(scene: &mut Scene, address: Ipv4Addr) {
    live(scene, address, 1, FAR_MAC, 0);
}

/// A frame of an endpoint on another host.
fn of_far(packet: Packet) -> Frame {
    packet.macs(FAR_MAC, NEAR.mac).build()
}

/// A UDP packet by IPv6, without a checksum that anybody looks at.
fn six(from: Ipv6Addr, to: Ipv6Addr, macs: ([u8; 6], [u8; 6])) -> Frame {
    let mut frame = [macs.1, macs.0].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 12, 17, 64]);
    frame.extend([from.octets(), to.octets()].concat());
    frame.extend([0x9c, 0x40, 0, 53, 0, 12, 0x12, 0x34, 1, 2, 3, 4]);
    Frame(frame)
}
