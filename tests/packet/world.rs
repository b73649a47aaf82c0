//! Endpoints and the world: masquerade.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::{Action, FLOW_MASQUERADES, SCOPE_WORLD};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES};
use sluice_datapath_common::{Ipv4, Ipv4Address, uplink::Uplink};

use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, GRE, ICMP, Packet, SYN, TCP, UDP};
use crate::scene::{self, CLIENT, GATEWAY_MAC, HOST_LEG, HOST_MAC, NIC, NIC_ADDRESS, ROUTER, SERVER, SHOP, WEB};

/// Outside the host's ephemeral range: a port that is kept.
const KEPT: u16 = 20_000;

#[test]
fn the_server_sees_the_hosts_address() {
    let mut scene = scene::set();
    let frame = scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN))
        .sent();
    assert_eq!((frame.source(), frame.source_port()), (NIC_ADDRESS, KEPT));
    assert_eq!((frame.destination(), frame.destination_port()), (SERVER, 80));
    assert_eq!(frame.ttl(), 63);
    let flow = scene.flow(2, TCP, (WEB.address, KEPT), (SERVER, 80)).unwrap();
    assert_eq!((flow.action, flow.ifindex), (Action::World as u8, NIC));
    assert_eq!(flow.next_hop, Ipv4Address::from(ROUTER));
    assert_ne!(flow.flags & FLOW_MASQUERADES, 0);
}

#[test]
fn the_answer_finds_its_way_back() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN))
        .sent();
    let frame = scene
        .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, KEPT), SYN | ACK))
        .sent();
    assert_eq!((frame.source(), frame.source_port()), (SERVER, 80));
    assert_eq!((frame.destination(), frame.destination_port()), (WEB.address, KEPT));
    assert_eq!((frame.receiver_mac(), frame.sender_mac()), (WEB.mac, GATEWAY_MAC));
    scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), ACK))
        .sent();
    assert_eq!(scene.counts(), (2, 0));
    scene.assert_no_drops();
}

#[test]
fn in_the_lan_the_next_hop_is_the_neighbour_itself() {
    let mut scene = scene::set();
    scene.says(WEB, &Packet::udp((WEB.address, KEPT), (CLIENT, 53))).sent();
    let flow = scene.flow(2, UDP, (WEB.address, KEPT), (CLIENT, 53)).unwrap();
    assert_eq!(flow.next_hop, Ipv4Address::from(CLIENT));
}

/// Pitfall B44.
#[test]
fn an_ephemeral_port_is_exchanged_for_one_that_the_host_never_takes() {
    let mut scene = scene::set();
    let frame = scene
        .says(WEB, &Packet::tcp((WEB.address, 40_000), (SERVER, 80), SYN))
        .sent();
    let port = frame.source_port();
    assert!((1024..32_768).contains(&port) || port > 60_999, "{port}");
    let back = scene
        .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, port), SYN | ACK))
        .sent();
    assert_eq!((back.destination(), back.destination_port()), (WEB.address, 40_000));
}

#[test]
fn two_endpoints_with_the_same_port_do_not_share_it() {
    let mut scene = scene::set();
    let first = scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN))
        .sent();
    let second = scene
        .says(SHOP, &Packet::tcp((SHOP.address, KEPT), (SERVER, 80), SYN))
        .sent();
    assert_eq!(first.source_port(), KEPT);
    assert_ne!(second.source_port(), KEPT);
    let port = second.source_port();
    let back = scene
        .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, port), SYN | ACK))
        .sent();
    assert_eq!((back.destination(), back.destination_port()), (SHOP.address, KEPT));
}

/// Pitfall B42.
#[test]
fn towards_different_servers_both_keep_their_port() {
    let mut scene = scene::set();
    let first = scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN))
        .sent();
    let second = scene
        .says(SHOP, &Packet::tcp((SHOP.address, KEPT), (CLIENT, 80), SYN))
        .sent();
    assert_eq!((first.source_port(), second.source_port()), (KEPT, KEPT));
}

/// Pitfall B43.
#[test]
fn a_published_port_is_not_given_away() {
    let mut scene = scene::set();
    scene.reserve(KEPT, TCP);
    let frame = scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN))
        .sent();
    assert_ne!(frame.source_port(), KEPT);
}

/// Pitfall B44.
#[test]
fn a_port_with_a_socket_of_the_host_is_not_given_away() {
    let mut scene = scene::set();
    let _socket = scene::bind_udp(NIC_ADDRESS, KEPT);
    let frame = scene.says(WEB, &Packet::udp((WEB.address, KEPT), (SERVER, 53))).sent();
    assert_ne!(frame.source_port(), KEPT);
    let other = scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 53), SYN))
        .sent();
    assert_eq!(other.source_port(), KEPT, "of the other protocol it is free");
}

/// Pitfall B42.
#[test]
fn when_no_port_is_left_the_packet_is_dropped_by_name() {
    let mut scene = scene::set();
    let free = (1024..32_768).chain(61_000..=u16::MAX);
    free.for_each(|port| scene.reserve(port, TCP));
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 40_000), (SERVER, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::NoPortLeft, Direction::FromContainer, WEB.number);
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn a_ping_keeps_its_identifier() {
    let mut scene = scene::set();
    let frame = scene
        .says(WEB, &Packet::echo(WEB.address, SERVER, ECHO_REQUEST, 77))
        .sent();
    assert_eq!((frame.source(), frame.identifier()), (NIC_ADDRESS, 77));
    let back = scene
        .world_says(&Packet::echo(SERVER, NIC_ADDRESS, ECHO_REPLY, 77))
        .sent();
    assert_eq!((back.destination(), back.identifier()), (WEB.address, 77));
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn two_pings_with_the_same_identifier_are_told_apart() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::echo(WEB.address, SERVER, ECHO_REQUEST, 77))
        .sent();
    let frame = scene
        .says(SHOP, &Packet::echo(SHOP.address, SERVER, ECHO_REQUEST, 77))
        .sent();
    let identifier = frame.identifier();
    assert_ne!(identifier, 77);
    let back = scene
        .world_says(&Packet::echo(SERVER, NIC_ADDRESS, ECHO_REPLY, identifier))
        .sent();
    assert_eq!((back.destination(), back.identifier()), (SHOP.address, 77));
    let again = scene
        .says(SHOP, &Packet::echo(SHOP.address, SERVER, ECHO_REQUEST, 77))
        .sent();
    assert_eq!(again.identifier(), identifier);
    assert!(
        scene
            .flow(SCOPE_WORLD, ICMP, (SERVER, identifier), (NIC_ADDRESS, identifier))
            .is_some()
    );
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut scene = scene::set();
    let packet = Packet::udp((WEB.address, KEPT), (SERVER, 53)).without_udp_checksum();
    let frame = scene.says(WEB, &packet).sent();
    assert_eq!(&frame.0[14 + 20 + 6..14 + 20 + 8], &[0, 0]);
    assert_eq!(frame.source(), NIC_ADDRESS);
}

/// Pitfall B50.
#[test]
fn a_protocol_without_ports_cannot_be_masqueraded() {
    let mut scene = scene::set();
    let outcome = scene.says(WEB, &Packet::other(GRE, WEB.address, SERVER));
    scene.assert_dropped(
        &outcome,
        DropReason::CannotTranslate,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn only_a_syn_opens_a_connection_to_the_world() {
    let mut scene = scene::set();
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), ACK));
    scene.assert_dropped(&outcome, DropReason::NotAnOpening, Direction::FromContainer, WEB.number);
}

#[test]
fn an_internal_network_has_no_way_out() {
    let mut scene = scene::set();
    scene.network(2, NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES | NETWORK_INTERNAL);
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN));
    scene.assert_dropped(
        &outcome,
        DropReason::InternalNetwork,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn without_masquerading_nothing_leaves() {
    let mut scene = scene::set();
    scene.network(2, NETWORK_EXISTS | NETWORK_ICC);
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::NoMasquerade, Direction::FromContainer, WEB.number);
}

#[test]
fn a_destination_without_a_route_is_named_as_such() {
    let mut scene = scene::set();
    let outcome = scene.says(
        WEB,
        &Packet::tcp((WEB.address, KEPT), (Ipv4Addr::new(100, 64, 0, 1), 80), SYN),
    );
    scene.assert_dropped(&outcome, DropReason::NoRoute, Direction::FromContainer, WEB.number);
}

#[test]
fn what_leaves_by_a_device_that_is_not_ours_is_the_hosts_to_forward() {
    let mut scene = scene::set();
    let vm = Ipv4Addr::new(172, 30, 0, 9);
    let frame = scene.says(WEB, &Packet::tcp((WEB.address, KEPT), (vm, 80), SYN)).sent();
    assert_eq!((frame.source(), frame.receiver_mac()), (WEB.address, HOST_MAC));
    let flow = scene.flow(2, TCP, (WEB.address, KEPT), (vm, 80)).unwrap();
    assert_eq!((flow.action, flow.ifindex), (Action::Host as u8, HOST_LEG));
}

#[test]
fn a_binding_outlives_a_change_of_the_uplinks_address_as_long_as_the_host_has_it() {
    let mut scene = scene::set();
    scene.says(WEB, &Packet::udp((WEB.address, KEPT), (SERVER, 53))).sent();
    let new = Ipv4Addr::new(192, 0, 2, 9);
    scene.insert(
        "UPLINKS4",
        NIC,
        Uplink::<Ipv4> {
            address: new.into(),
            mtu: 1500,
        },
    );
    scene.move_epoch();
    let frame = scene.says(WEB, &Packet::udp((WEB.address, KEPT), (SERVER, 53))).sent();
    assert_eq!(frame.source(), NIC_ADDRESS);
    scene.remove::<_, sluice_datapath_common::uplink::LocalAddress>("LOCAL4", Ipv4Address::from(NIC_ADDRESS));
    scene.move_epoch();
    let frame = scene.says(WEB, &Packet::udp((WEB.address, KEPT), (SERVER, 53))).sent();
    assert_eq!(frame.source(), new);
}

/// Pitfall B43.
#[test]
fn a_port_published_later_takes_no_answer_away_from_a_masqueraded_connection() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::tcp((WEB.address, KEPT), (SERVER, 80), SYN))
        .sent();
    scene.publish(Ipv4Addr::UNSPECIFIED, KEPT, TCP, SHOP, 80);
    scene.move_epoch();
    let frame = scene
        .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, KEPT), SYN | ACK))
        .sent();
    assert_eq!((frame.destination(), frame.destination_port()), (WEB.address, KEPT));
}

/// Pitfall B23. A resolver asks for A and AAAA from one socket, at once, on two CPUs: both questions are sent, and by the same port.
#[test]
fn of_two_first_packets_at_once_none_is_lost() {
    /// Few enough for none to be pushed out.
    const PAIRS: u16 = 100;
    let scene = scene::set();
    let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let together = std::sync::Barrier::new(2);
    let ask = |question: u8| {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let ports = (0..PAIRS).map(|pair| {
            let packet = Packet::udp((WEB.address, 40_000), (SERVER, 1000 + pair)).payload(&[question; 20]);
            let frame = packet.macs(WEB.mac, GATEWAY_MAC).build();
            together.wait();
            let outcomes = [(); 2].map(|()| scene.run("from_container", WEB.ifindex, &frame));
            outcomes.map(|outcome| outcome.sent().source_port())
        });
        ports.collect::<Vec<[u16; 2]>>()
    };
    let (a, aaaa) = std::thread::scope(|threads| {
        let a = threads.spawn(|| ask(1));
        let aaaa = threads.spawn(|| ask(28));
        (a.join().unwrap(), aaaa.join().unwrap())
    });
    for (a, aaaa) in a.iter().zip(&aaaa) {
        assert_eq!(a, aaaa, "the loser of the race takes the winner's port");
    }
}
