//! Between hosts: what goes into a packet to another host, what is taken out of one, and what is not.
//!
//! ```text
//!   network 5: 10.7.0.0/24, VNI 0xabcdef, near 10.7.0.2 here, far 10.7.0.9 on host 1 (192.0.2.60), farther 10.7.0.10 on host 2 (2001:db8:ff::2)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::endpoint::{Attachment, Endpoint, EndpointKey};
use sluice_datapath_common::flow::Action;
use sluice_datapath_common::network::{NETWORK_DIRECT, NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES, Network};
use sluice_datapath_common::overlay::{Host, PORT, Remote, scope_of};
use sluice_datapath_common::policy::LinkKey;
use sluice_datapath_common::publish::{Publication, PublishKey};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::uplink::LocalAddress;
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6, Ipv6Address, programs};

use crate::datapath::{Outcome, Verdict};
use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, Frame, Packet, SYN, TCP, UNREACHABLE, checksum};
use crate::scene::{
    self, CLIENT, Container, GATEWAY_MAC, HOST_IFINDEX, HOST_LEG, HOST_MAC, NIC, NIC_ADDRESS, NIC_MAC, ROUTER_MAC,
    Scene,
};

const NUMBER: u32 = 5;
/// All of the 24 bits are used.
const VNI: u32 = 0x00ab_cdef;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const MTU: u32 = 1450;

const NEAR: Container = Container {
    number: 4,
    network: NUMBER,
    ifindex: 14,
    address: Ipv4Addr::new(10, 7, 0, 2),
    mac: [0x02, 0x42, 10, 7, 0, 2],
};
const FAR: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 9);
const FAR_MAC: [u8; 6] = [0x02, 0x42, 10, 7, 0, 9];
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
    scene.set("GENERATIONS", NEAR.number, 1u32);
    lay(&mut scene, NETWORK_ICC | NETWORK_MASQUERADES);
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
    live(&mut scene, FAR, 1, FAR_MAC, 0);
    live(&mut scene, FARTHER, 2, FARTHER_MAC, 0);
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
    scene
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
    let mut above = [50_000u16.to_be_bytes(), PORT.to_be_bytes()].concat();
    above.extend((16 + inner.0.len() as u16).to_be_bytes());
    above.extend([0, 0, 8, 0, 0, 0]);
    above.extend((vni << 8).to_be_bytes());
    above.extend(&inner.0);
    let mut frame = [&NIC_MAC[..], &ROUTER_MAC[..]].concat();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, 0];
            ip.extend((20 + above.len() as u16).to_be_bytes());
            ip.extend([0, 7, 0, 0, 64, 17, 0, 0]);
            ip.extend([from.octets(), to.octets()].concat());
            let sum = checksum(&ip).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            frame.extend([8, 0]);
            frame.extend(ip);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((above.len() as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend([from.octets(), to.octets()].concat());
        }
        _ => panic!("an underlay is of one family"),
    }
    frame.extend(above);
    Frame(frame)
}

/// A packet between hosts, taken apart.
#[derive(Debug)]
struct Unwrapped {
    from: IpAddr,
    to: IpAddr,
    source_port: u16,
    vni: u32,
    inner: Frame,
}

/// Takes a packet between hosts apart; what must be right in every one is looked at.
#[track_caller]
fn unwrap(outcome: Outcome) -> Unwrapped {
    assert_eq!(outcome.verdict, Verdict::Sent);
    let bytes = &outcome.frame.0;
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    // The Ethernet header is written when the frame leaves, by the kernel's neighbour table.
    let (from, to, above): (IpAddr, IpAddr, usize) = if bytes[14] >> 4 == 4 {
        assert_eq!(checksum(&bytes[14..34]), 0, "the outer header's sum");
        assert_eq!(
            (usize::from(word(16)), word(20)),
            (bytes.len() - 14, 0),
            "length, and may be cut up"
        );
        assert_eq!((bytes[14], bytes[22], bytes[23]), (0x45, 64, 17));
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
        (address(26), address(30), 34)
    } else {
        assert_eq!((bytes[14], bytes[20], bytes[21]), (0x60, 17, 64));
        assert_eq!(usize::from(word(18)), bytes.len() - 54);
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
        (address(22), address(38), 54)
    };
    assert_eq!(word(above + 2), PORT);
    assert_eq!(usize::from(word(above + 4)), bytes.len() - above, "UDP's length");
    assert_eq!(word(above + 6), 0, "no outer checksum");
    assert_eq!(bytes[above + 8..above + 12], [8, 0, 0, 0], "VXLAN's flags");
    assert_eq!(bytes[above + 15], 0, "reserved");
    let inner = Frame(bytes[above + 16..].to_vec());
    inner.sums().unwrap();
    Unwrapped {
        from,
        to,
        source_port: word(above),
        vni: u32::from_be_bytes([0, bytes[above + 12], bytes[above + 13], bytes[above + 14]]),
        inner,
    }
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

#[test]
fn what_an_endpoint_says_to_one_on_another_host_is_wrapped_up() {
    let mut scene = set();
    let packet = Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN);
    let out = unwrap(said(&mut scene, packet.clone()));
    assert_eq!((out.from, out.to), (NIC_ADDRESS.into(), PEER.into()));
    assert_eq!(out.vni, VNI);
    assert!(out.source_port >= 49_152, "{}", out.source_port);
    assert_eq!(
        out.inner,
        packet.macs(NEAR.mac, FAR_MAC).build(),
        "the frame is as it was"
    );
    let flow = scene.flow(NUMBER, TCP, (NEAR.address, 40_000), (FAR, 80)).unwrap();
    assert_eq!(
        (flow.action, flow.reverse_scope),
        (Action::Overlay as u8, scope_of(1, NUMBER))
    );
    // by an underlay of the other family
    let packet = Packet::udp((NEAR.address, 40_000), (FARTHER, 53));
    let out = unwrap(said(&mut scene, packet.clone()));
    assert_eq!((out.from, out.to, out.vni), (OURS6.into(), PEER6.into(), VNI));
    assert_eq!(out.inner, packet.macs(NEAR.mac, FARTHER_MAC).build());
    scene.assert_no_drops();
}

#[test]
fn what_is_answered_from_there_goes_straight_into_the_endpoint() {
    let mut scene = set();
    said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN));
    let answer = of_far(Packet::tcp((FAR, 80), (NEAR.address, 40_000), SYN | ACK));
    let frame = sent_by(&mut scene, PEER.into(), VNI, &answer).sent();
    assert_eq!(frame, answer);
    // inner IPv4 by an underlay of IPv6
    said(&mut scene, Packet::udp((NEAR.address, 40_000), (FARTHER, 53)));
    let answer = Packet::udp((FARTHER, 53), (NEAR.address, 40_000))
        .macs(FARTHER_MAC, NEAR.mac)
        .build();
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &answer);
    match outcome.verdict {
        // before Linux 6.3 that is the kernel's to do
        Verdict::Stack => {}
        _ => assert_eq!(outcome.sent(), answer),
    }
    scene.assert_no_drops();
}

#[test]
fn an_endpoint_is_spoken_to_from_another_host_and_answers_there() {
    let mut scene = set();
    let question = of_far(Packet::echo(FAR, NEAR.address, ECHO_REQUEST, 7));
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &question).sent(), question);
    let answer = Packet::echo(NEAR.address, FAR, ECHO_REPLY, 7);
    let out = unwrap(said(&mut scene, answer));
    assert_eq!((out.to, out.vni, out.inner.destination()), (PEER.into(), VNI, FAR));
    scene.assert_no_drops();
}

#[test]
fn the_frames_within_may_be_of_ipv6() {
    let mut scene = set();
    let question = six(FAR6, NEAR6, (FAR_MAC, NEAR.mac));
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &question);
    if outcome.verdict != Verdict::Stack {
        assert_eq!((outcome.verdict, outcome.frame), (Verdict::Sent, question));
    }
    let outcome = scene.run(
        programs::FROM_CONTAINER,
        NEAR.ifindex,
        &six(NEAR6, FAR6, (NEAR.mac, FAR_MAC)),
    );
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_eq!(outcome.frame.0[14], 0x45, "the underlay is of IPv4");
    assert_eq!(outcome.frame.0[50..], six(NEAR6, FAR6, (NEAR.mac, FAR_MAC)).0);
    scene.assert_no_drops();
}

#[test]
fn what_does_not_come_from_a_member_or_for_a_network_is_dropped_and_named() {
    let inner = of_far(Packet::udp((FAR, 1000), (NEAR.address, 53)));
    let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 77).into();
    for (from, vni, reason) in [
        (stranger, VNI, DropReason::NotAMember),
        (PEER.into(), VNI ^ 1, DropReason::UnknownVni),
        (PEER.into(), VNI & 0xffff, DropReason::UnknownVni),
    ] {
        let mut scene = set();
        let outcome = sent_by(&mut scene, from, vni, &inner);
        scene.assert_dropped(&outcome, reason, Direction::FromNic, 0);
    }
    // without the bit that says that there is a VNI
    let mut scene = set();
    let mut frame = wrapped(PEER.into(), NIC_ADDRESS.into(), VNI, &inner);
    frame.0[42] = 0;
    let outcome = scene.run(programs::FROM_NIC, NIC, &frame);
    scene.assert_dropped(&outcome, DropReason::UnknownVni, Direction::FromNic, 0);
    // neither IPv4 nor IPv6: who lives where is in tables
    drop(scene);
    let mut scene = set();
    let arp = Frame::who_has((FAR_MAC, FAR), NEAR.address);
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &arp);
    scene.assert_dropped(&outcome, DropReason::UnknownEtherType, Direction::FromNic, 0);
    // what has come by the VXLAN device bears its origin beside it
    drop(scene);
    let mut scene = set();
    let outcome = scene.run(programs::FROM_OVERLAY, DEVICE, &inner);
    scene.assert_dropped(&outcome, DropReason::NotAMember, Direction::FromOverlay, 0);
}

#[test]
fn an_inner_sender_must_live_on_the_host_that_sent_the_packet() {
    for source in [
        // lives on host 2, here, nowhere, in the world
        FARTHER,
        NEAR.address,
        Ipv4Addr::new(10, 7, 0, 99),
        CLIENT,
        scene::WEB.address,
    ] {
        let mut scene = set();
        let inner = of_far(Packet::tcp((source, 1000), (NEAR.address, 80), SYN));
        let outcome = sent_by(&mut scene, PEER.into(), VNI, &inner);
        assert_eq!(outcome.verdict, Verdict::Dropped, "{source}");
        let drops = scene.take_drops();
        assert!(
            matches!(drops[..], [(DropReason::ForgedRemote, Direction::FromNic, 0, 1)]),
            "{source}: {drops:?}"
        );
    }
    // nor does it get into a conversation that another host has
    let mut scene = set();
    said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53)));
    let forged = of_far(Packet::udp((FAR, 53), (NEAR.address, 40_000)));
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &forged);
    assert!(matches!(outcome.verdict, Verdict::Dropped | Verdict::Stack));
    if outcome.verdict == Verdict::Dropped {
        scene.assert_dropped(&outcome, DropReason::ForgedRemote, Direction::FromNic, 0);
    }
}

#[test]
fn nothing_is_handed_on_to_who_does_not_live_here() {
    let mut scene = set();
    for destination in [
        FARTHER,
        Ipv4Addr::new(10, 7, 0, 99),
        GATEWAY,
        scene::WEB.address,
        CLIENT,
    ] {
        let inner = of_far(Packet::udp((FAR, 1000), (destination, 53)));
        let outcome = sent_by(&mut scene, PEER.into(), VNI, &inner);
        scene.assert_dropped(&outcome, DropReason::NoSuchEndpoint, Direction::FromNic, 0);
        scene.take_drops();
    }
}

#[test]
fn icc_and_links_hold_between_hosts() {
    let mut scene = set();
    lay(&mut scene, NETWORK_MASQUERADES);
    let outcome = said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, NEAR.number);
    scene.take_drops();
    let inner = of_far(Packet::tcp((FAR, 1000), (NEAR.address, 80), SYN));
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &inner);
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromNic, 0);
    scene.take_drops();
    // a link each way, for one port
    let number = 70_000;
    live(&mut scene, FAR, 1, FAR_MAC, number);
    for (from, to) in [(NEAR.number, number), (number, NEAR.number)] {
        let link = LinkKey {
            from,
            to,
            port: 80u16.to_be(),
            protocol: TCP,
            padding: 0,
        };
        scene.insert("LINKS", link, 1u32);
    }
    unwrap(said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN)));
    sent_by(&mut scene, PEER.into(), VNI, &inner).sent();
    let outcome = said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 81), SYN));
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, NEAR.number);
}

#[test]
fn the_host_speaks_to_endpoints_elsewhere_as_the_gateway() {
    let mut scene = set();
    for source in [GATEWAY, NIC_ADDRESS] {
        let packet = Packet::tcp((source, 40_000), (FAR, 80), SYN).macs(HOST_MAC, FAR_MAC);
        let out = unwrap(scene.run(programs::FROM_HOST, HOST_LEG, &packet.build()));
        assert_eq!(
            (out.to, out.inner.source(), out.inner.destination()),
            (PEER.into(), GATEWAY, FAR)
        );
        assert_eq!(out.inner.receiver_mac(), FAR_MAC);
        let answer = Packet::tcp((FAR, 80), (GATEWAY, out.inner.source_port()), SYN | ACK)
            .macs(FAR_MAC, GATEWAY_MAC)
            .build();
        let back = sent_by(&mut scene, PEER.into(), VNI, &answer).sent();
        assert_eq!((back.destination(), back.destination_port()), (source, 40_000));
    }
    // and asks for their MACs
    let asked = Frame::who_has((HOST_MAC, GATEWAY), FAR);
    let told = scene.run(programs::FROM_HOST, HOST_LEG, &asked);
    assert_eq!((told.verdict, told.frame.sender_mac()), (Verdict::Sent, FAR_MAC));
}

#[test]
fn other_hosts_speak_to_endpoints_as_the_gateway_and_are_told_apart() {
    let mut scene = set();
    let question = Packet::udp((GATEWAY, 5000), (NEAR.address, 53))
        .macs(GATEWAY_MAC, NEAR.mac)
        .build();
    let first = sent_by(&mut scene, PEER.into(), VNI, &question).sent();
    assert_eq!((first.source(), first.source_port()), (GATEWAY, 5000));
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &question);
    if outcome.verdict == Verdict::Stack {
        return;
    }
    let second = outcome.sent();
    assert_eq!(second.source(), GATEWAY);
    assert_ne!(
        second.source_port(),
        5000,
        "two hosts have the same address, not the same port"
    );
    for (port, host) in [(5000, IpAddr::from(PEER)), (second.source_port(), PEER6.into())] {
        let answer = Packet::udp((NEAR.address, 53), (GATEWAY, port)).macs(NEAR.mac, GATEWAY_MAC);
        let out = unwrap(scene.says(NEAR, &answer));
        assert_eq!((out.to, out.inner.destination_port()), (host, 5000));
    }
}

#[test]
fn an_endpoint_is_told_the_mac_of_one_on_another_host() {
    let mut scene = set();
    let asked = Frame::who_has((NEAR.mac, NEAR.address), FAR);
    let told = scene.run(programs::FROM_CONTAINER, NEAR.ifindex, &asked);
    assert_eq!((told.verdict, told.frame.sender_mac()), (Verdict::Sent, FAR_MAC));
    let asked = Frame::who_has((NEAR.mac, NEAR.address), Ipv4Addr::new(10, 7, 0, 99));
    let told = scene.run(programs::FROM_CONTAINER, NEAR.ifindex, &asked);
    scene.assert_dropped(&told, DropReason::NoSuchEndpoint, Direction::FromContainer, NEAR.number);
}

#[test]
fn the_sender_of_what_does_not_fit_is_told_how_much_does() {
    let mut scene = set();
    let fitting = MTU as usize - 28;
    let packet = |payload: usize, may_be_cut: bool| {
        let packet = Packet::udp((NEAR.address, 40_000), (FAR, 53)).payload(&vec![7; payload]);
        Packet {
            fragment: if may_be_cut { 0 } else { 0x4000 },
            ..packet
        }
    };
    let out = unwrap(said(&mut scene, packet(fitting, false)));
    assert_eq!(out.inner.0.len(), MTU as usize + 14);
    let told = said(&mut scene, packet(fitting + 1, false)).sent();
    assert_eq!(told.icmp_kind_and_code(), (UNREACHABLE, 4));
    assert_eq!((told.source(), told.destination()), (GATEWAY, NEAR.address));
    assert_eq!((told.sender_mac(), told.receiver_mac()), (FAR_MAC, NEAR.mac));
    assert_eq!(told.identifier(), 0);
    assert_eq!(told.0[40..42], (MTU as u16).to_be_bytes(), "the MTU that is told");
    assert_eq!(
        (told.quoted().source(), told.quoted().destination_port()),
        (NEAR.address, 53)
    );
    // what may be cut up goes by the kernel's VXLAN device, as it is
    let outcome = said(&mut scene, packet(fitting + 1, true));
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_eq!(outcome.frame.0.len(), MTU as usize + 15);
    scene.assert_no_drops();
}

#[test]
fn where_no_way_is_known_it_is_said_so() {
    let mut scene = set();
    scene.set(
        "HOSTS",
        1,
        Host {
            ifindex: 0,
            ..host(PEER.into(), NIC_ADDRESS.into(), MTU)
        },
    );
    let outcome = said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53)));
    scene.assert_dropped(&outcome, DropReason::NoOverlay, Direction::FromContainer, NEAR.number);
}

#[test]
fn conversations_end_with_the_endpoint_and_follow_it_to_another_host() {
    let mut scene = set();
    let packet = || Packet::udp((NEAR.address, 40_000), (FAR, 53));
    assert_eq!(unwrap(said(&mut scene, packet())).to, IpAddr::from(PEER));
    live(&mut scene, FAR, 2, FAR_MAC, 0);
    scene.move_epoch();
    assert_eq!(unwrap(said(&mut scene, packet())).to, IpAddr::from(PEER6));
    scene.remove::<_, Remote>("REMOTES4", key4(FAR));
    scene.move_epoch();
    let outcome = said(&mut scene, packet());
    scene.assert_dropped(
        &outcome,
        DropReason::NoSuchEndpoint,
        Direction::FromContainer,
        NEAR.number,
    );
}

#[test]
fn errors_between_hosts_find_their_conversation() {
    let mut scene = set();
    let question = said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53)));
    let quoted = unwrap(question).inner;
    let error = of_far(Packet::error(FAR, NEAR.address, UNREACHABLE, &quoted, 28).code(3));
    let told = sent_by(&mut scene, PEER.into(), VNI, &error).sent();
    assert_eq!(told, error);
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &error);
    if outcome.verdict != Verdict::Stack {
        scene.assert_dropped(&outcome, DropReason::UnrelatedError, Direction::FromNic, 0);
    }
}

/// A port of the far endpoint that every host accepts.
fn publish_far(scene: &mut Scene) {
    let key = PublishKey::<Ipv4> {
        address: Ipv4Address::default(),
        port: 8080u16.to_be(),
        protocol: TCP,
        padding: 0,
    };
    let publication = Publication::<Ipv4> {
        network: NUMBER as u16,
        endpoint: 0,
        address: FAR.into(),
        port: 80u16.to_be(),
        first: 0,
        limited: 0,
    };
    scene.insert("PUBLISHED4", key, publication);
}

#[test]
fn a_port_of_an_endpoint_elsewhere_is_reached_here_with_the_clients_own_address() {
    let mut scene = set();
    publish_far(&mut scene);
    let asked = Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN);
    let out = unwrap(scene.world_says(&asked));
    assert_eq!((out.to, out.vni), (PEER.into(), VNI));
    assert_eq!((out.inner.source(), out.inner.source_port()), (CLIENT, 5000));
    assert_eq!((out.inner.destination(), out.inner.destination_port()), (FAR, 80));
    assert_eq!(
        (out.inner.receiver_mac(), out.inner.sender_mac()),
        (FAR_MAC, GATEWAY_MAC)
    );
    let answer = Packet::tcp((FAR, 80), (CLIENT, 5000), SYN | ACK)
        .macs(FAR_MAC, GATEWAY_MAC)
        .build();
    let back = sent_by(&mut scene, PEER.into(), VNI, &answer).sent();
    assert_eq!((back.source(), back.source_port()), (NIC_ADDRESS, 8080));
    assert_eq!((back.destination(), back.destination_port()), (CLIENT, 5000));
}

#[test]
fn the_owner_of_such_a_port_takes_clients_from_other_hosts_and_answers_by_them() {
    let mut scene = set();
    let asked = Packet::tcp((CLIENT, 5000), (NEAR.address, 80), SYN)
        .macs(GATEWAY_MAC, NEAR.mac)
        .build();
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &asked);
    scene.assert_dropped(&outcome, DropReason::ForgedRemote, Direction::FromNic, 0);
    let key = PublishKey::<Ipv4> {
        address: NEAR.address.into(),
        port: 80u16.to_be(),
        protocol: TCP,
        padding: 0,
    };
    let publication = Publication::<Ipv4> {
        network: NUMBER as u16,
        endpoint: NEAR.number,
        address: NEAR.address.into(),
        port: 80u16.to_be(),
        first: 0,
        limited: 0,
    };
    scene.insert("PUBLISHED4", key, publication);
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &asked).sent().source(), CLIENT);
    let answer = Packet::tcp((NEAR.address, 80), (CLIENT, 5000), SYN | ACK).macs(NEAR.mac, GATEWAY_MAC);
    let out = unwrap(scene.says(NEAR, &answer));
    assert_eq!(
        (out.to, out.inner.destination(), out.inner.source_port()),
        (PEER.into(), CLIENT, 80)
    );
    // clients that it is not for
    scene.insert(
        "PUBLISHED4",
        key,
        Publication {
            limited: 1,
            ..publication
        },
    );
    let asked = Packet::tcp((CLIENT, 5001), (NEAR.address, 80), SYN)
        .macs(GATEWAY_MAC, NEAR.mac)
        .build();
    scene.take_drops();
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &asked);
    scene.assert_dropped(&outcome, DropReason::PublishFrom, Direction::FromNic, 0);
}

#[test]
fn hosts_of_one_link_send_without_wrapping_where_the_network_wants_it_so() {
    let mut scene = set();
    lay(&mut scene, NETWORK_ICC | NETWORK_MASQUERADES | NETWORK_DIRECT);
    // no neighbour yet: wrapped all the same
    unwrap(said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53))));
    let neighbour = Host {
        neighbour4: PEER.into(),
        ..host(PEER.into(), NIC_ADDRESS.into(), MTU)
    };
    scene.set("HOSTS", 1, neighbour);
    let packet = Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN);
    let frame = said(&mut scene, packet.clone()).sent();
    assert_eq!(
        (frame.source(), frame.destination(), frame.ttl()),
        (NEAR.address, FAR, 63)
    );
    let flow = scene.flow(NUMBER, TCP, (NEAR.address, 40_000), (FAR, 80)).unwrap();
    assert_eq!(
        (flow.action, flow.ifindex, flow.next_hop),
        (Action::World as u8, NIC, PEER.into())
    );
    // it passes the NIC as it is
    scene.leaves_from(NEAR, &packet.ttl(63)).stays();
    let answer = scene
        .world_says(&Packet::tcp((FAR, 80), (NEAR.address, 40_000), SYN | ACK))
        .sent();
    assert_eq!((answer.source(), answer.receiver_mac()), (FAR, NEAR.mac));
    // the other way round
    let asked = scene
        .world_says(&Packet::tcp((FAR, 1000), (NEAR.address, 81), SYN))
        .sent();
    assert_eq!(asked.receiver_mac(), NEAR.mac);
    let answer = scene
        .says(
            NEAR,
            &Packet::tcp((NEAR.address, 81), (FAR, 1000), SYN | ACK).macs(NEAR.mac, FAR_MAC),
        )
        .sent();
    assert_eq!((answer.source(), answer.destination()), (NEAR.address, FAR));
    // nobody else does so
    let outcome = scene.world_says(&Packet::tcp((CLIENT, 1000), (NEAR.address, 81), SYN));
    scene.assert_dropped(&outcome, DropReason::Unpublished, Direction::FromNic, 0);
}

#[test]
fn the_port_is_the_overlays_only_where_there_is_one() {
    let mut scene = set();
    let inner = of_far(Packet::udp((FAR, 1000), (NEAR.address, 53)));
    let settings: Settings = scene.slot("SETTINGS", 0);
    let other = 8472u16.to_be();
    for port in [0, other] {
        scene.set(
            "SETTINGS",
            0,
            Settings {
                overlay_port: port,
                ..settings
            },
        );
        assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &inner).verdict, Verdict::Stack);
    }
    let mut frame = wrapped(PEER.into(), NIC_ADDRESS.into(), VNI, &inner);
    frame.0[36..38].copy_from_slice(&8472u16.to_be_bytes());
    assert_eq!(scene.run(programs::FROM_NIC, NIC, &frame).sent(), inner);
    scene.assert_no_drops();
}

#[test]
fn pieces_between_hosts_follow_their_first() {
    let mut scene = set();
    let first = of_far(
        Packet::udp((FAR, 1000), (NEAR.address, 53))
            .payload(&[1; 32])
            .fragment(9, 0, true),
    );
    let later = of_far(
        Packet::udp((FAR, 1000), (NEAR.address, 53))
            .payload(&[2; 32])
            .fragment(9, 40, false),
    );
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &later);
    scene.assert_dropped(&outcome, DropReason::FragmentAlone, Direction::FromNic, 0);
    scene.take_drops();
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &first).sent(), first);
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &later).sent(), later);
    scene.assert_no_drops();
}

#[test]
fn what_a_congested_router_has_marked_is_left_to_the_kernel() {
    let scene = set();
    let inner = of_far(Packet::udp((FAR, 1000), (NEAR.address, 53)));
    let mut frame = wrapped(PEER.into(), NIC_ADDRESS.into(), VNI, &inner);
    frame.0[15] = 3;
    frame.0[24..26].fill(0);
    let sum = checksum(&frame.0[14..34]).to_be_bytes();
    frame.0[24..26].copy_from_slice(&sum);
    let outcome = scene.run(programs::FROM_NIC, NIC, &frame);
    assert_eq!((outcome.verdict, outcome.frame), (Verdict::Stack, frame));
}
