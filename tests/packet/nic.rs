//! The NICs' programs leave the host alone, and let no container's address out.

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::{Action, SCOPE_HOST, SCOPE_WORLD};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC};
use sluice_datapath_common::programs::{FROM_NIC, TO_NIC};

use crate::datapath::Verdict;
use crate::frame::{ACK, ECHO_REQUEST, Frame, GRE, Packet, SYN, TCP, UDP};
use crate::scene::{self, CLIENT, NIC, NIC_ADDRESS, SERVER, WEB};

/// Pitfall B70.
#[test]
fn the_hosts_own_traffic_passes_both_ways_as_it_is() {
    let mut scene = scene::set();
    for packet in [
        Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 22), SYN),
        Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 22), ACK),
        Packet::udp((CLIENT, 53), (NIC_ADDRESS, 40_000)),
        Packet::echo(CLIENT, NIC_ADDRESS, ECHO_REQUEST, 3),
        Packet::other(GRE, CLIENT, NIC_ADDRESS),
        Packet::tcp((CLIENT, 5000), (SERVER, 22), SYN),
    ] {
        let frame = packet.clone().macs(scene::ROUTER_MAC, scene::NIC_MAC).build();
        assert_eq!(scene.world_says(&packet).stays(), frame);
        let out = Packet {
            source: packet.destination,
            destination: packet.source,
            ..packet
        };
        let frame = out.clone().macs(scene::NIC_MAC, scene::ROUTER_MAC).build();
        assert_eq!(scene.leaves(&out).stays(), frame);
    }
    assert_eq!(scene.counts(), (0, 0));
    scene.assert_no_drops();
}

/// Pitfall B70.
#[test]
fn what_the_nics_programs_cannot_read_goes_to_the_host() {
    let mut scene = scene::set();
    let whole = Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 22), SYN)
        .macs(scene::ROUTER_MAC, scene::NIC_MAC)
        .build();
    let mut cut = whole.clone();
    cut.0.truncate(14 + 20 + 3);
    let mut odd = whole.clone();
    odd.0[14] = 0x4f;
    let mut short = whole.clone();
    short.0[14] = 0x41;
    let arp = Frame::who_has((scene::ROUTER_MAC, CLIENT), NIC_ADDRESS);
    for frame in [cut, odd, short, arp] {
        assert_eq!(scene.run(FROM_NIC, NIC, &frame).verdict, Verdict::Stack);
        assert_eq!(scene.run(TO_NIC, NIC, &frame).verdict, Verdict::Stack);
    }
    scene.assert_no_drops();
}

/// Pitfall B3.
#[test]
fn a_containers_own_address_cannot_be_reached_from_outside() {
    let mut scene = scene::set();
    let outcome = scene.world_says(&Packet::tcp((CLIENT, 5000), (WEB.address, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::Unpublished, Direction::FromNic, 0);
}

#[test]
fn what_the_stack_forwards_is_masqueraded_in_place() {
    let mut scene = scene::set();
    let frame = scene.leaves(&Packet::udp((WEB.address, 20_000), (SERVER, 53))).stays();
    assert_eq!(
        (frame.source(), frame.source_port(), frame.ttl()),
        (NIC_ADDRESS, 20_000, 64)
    );
    let flow = scene
        .flow(SCOPE_HOST, UDP, (WEB.address, 20_000), (SERVER, 53))
        .unwrap();
    assert_eq!(flow.action, Action::Stay as u8);
    let back = scene
        .world_says(&Packet::udp((SERVER, 53), (NIC_ADDRESS, 20_000)))
        .stays();
    assert_eq!((back.destination(), back.destination_port()), (WEB.address, 20_000));
    assert!(
        scene
            .flow(SCOPE_WORLD, UDP, (SERVER, 53), (NIC_ADDRESS, 20_000))
            .is_some()
    );
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn what_the_stack_forwards_of_a_known_flow_keeps_its_binding() {
    let mut scene = scene::set();
    let first = scene
        .says(WEB, &Packet::udp((WEB.address, 40_000), (SERVER, 53)))
        .sent();
    let forwarded = scene.leaves(&Packet::udp((WEB.address, 40_000), (SERVER, 53))).stays();
    assert_eq!(
        (forwarded.source(), forwarded.source_port()),
        (NIC_ADDRESS, first.source_port())
    );
}

/// Pitfall B45.
#[test]
fn a_containers_address_that_cannot_be_translated_does_not_leave() {
    let mut scene = scene::set();
    let later = Packet::udp((WEB.address, 20_000), (SERVER, 53)).fragment(9, 1480, false);
    let outcome = scene.leaves(&later);
    scene.assert_dropped(&outcome, DropReason::UnmasqueradedSource, Direction::ToNic, 0);
    let mut scene = {
        drop(scene);
        scene::set()
    };
    let outcome = scene.leaves(&Packet::other(GRE, WEB.address, SERVER));
    scene.assert_dropped(&outcome, DropReason::CannotTranslate, Direction::ToNic, 0);
    let mut scene = {
        drop(scene);
        scene::set()
    };
    scene.network(2, NETWORK_EXISTS | NETWORK_ICC);
    let outcome = scene.leaves(&Packet::tcp((WEB.address, 20_000), (SERVER, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::NoMasquerade, Direction::ToNic, 0);
    let mut scene = {
        drop(scene);
        scene::set()
    };
    let outcome = scene.leaves(&Packet::tcp((WEB.address, 20_000), (SERVER, 80), ACK));
    scene.assert_dropped(&outcome, DropReason::NotAnOpening, Direction::ToNic, 0);
    assert!(
        scene
            .flow(SCOPE_HOST, TCP, (WEB.address, 20_000), (SERVER, 80))
            .is_none()
    );
}
