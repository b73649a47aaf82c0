//! A network on a Linux bridge of the host: what is between endpoints, to published ports and by the gateway to elsewhere goes as everywhere;
//! others on the wire, and the host itself, are reached as the bridge does it. Who says it is looked at in every case.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::network::{
    NETWORK_BRIDGED, NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES, NETWORK_NO_HOST, NETWORK_ONLY_GATEWAY,
};
use sluice_datapath_common::programs::FROM_CONTAINER;

use crate::datapath::Verdict;
use crate::frame::{ECHO_REPLY, ECHO_REQUEST, Frame, Mac, Packet, SYN, TCP};
use crate::scene::{self, CLIENT, GATEWAY, NIC_ADDRESS, SERVER, SHOP, Scene, WEB};
use crate::twin;

/// Somebody on the wire.
const NEIGHBOUR_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x77];
const ICC: u32 = NETWORK_ICC;

fn set(icc: u32) -> Scene {
    let mut scene = scene::set();
    scene.network(2, NETWORK_EXISTS | NETWORK_MASQUERADES | NETWORK_BRIDGED | icc);
    scene
}

/// It is dropped for this reason, alone since it was asked last.
fn assert_refused(scene: &mut Scene, packet: &Packet, reason: DropReason) {
    let outcome = scene.says(WEB, packet);
    scene.assert_dropped(&outcome, reason, Direction::FromContainer, WEB.number);
    scene.take_drops();
}

/// What the container `WEB` says to this address and port, to a MAC of its neighbourhood.
fn to_neighbour(address: Ipv4Addr, port: u16) -> Packet {
    let mut packet = Packet::tcp((WEB.address, 20_000), (address, port), SYN);
    packet.to_mac = NEIGHBOUR_MAC;
    packet
}

#[test]
fn a_stranger_on_the_wire_is_reached_by_the_bridge_and_no_flow_is_kept() {
    let mut scene = set(ICC);
    let frame = scene.says(WEB, &to_neighbour(CLIENT, 80)).stays();
    assert_eq!(
        (frame.source(), frame.source_port(), frame.receiver_mac()),
        (WEB.address, 20_000, NEIGHBOUR_MAC)
    );
    let mut to_all = to_neighbour(CLIENT, 80);
    to_all.to_mac = [0xff; 6];
    scene.says(WEB, &to_all).stays();
    assert_eq!(scene.counts(), (0, 0));
    scene.assert_no_drops();
}

#[test]
fn endpoints_meet_as_everywhere_or_not_at_all() {
    for (icc, verdict) in [(ICC, Verdict::Sent), (0, Verdict::Dropped)] {
        let mut scene = set(icc);
        let packet = Packet::tcp((WEB.address, 20_000), (SHOP.address, 80), SYN);
        let outcome = scene.says(WEB, &packet);
        assert_eq!(outcome.verdict, verdict);
        if icc == 0 {
            scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, WEB.number);
        }
    }
}

#[test]
fn the_host_answers_by_the_bridge_but_at_published_ports() {
    let mut scene = set(ICC);
    scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, SHOP, 80);
    scene.says(WEB, &to_neighbour(NIC_ADDRESS, 22)).stays();
    let frame = scene.says(WEB, &to_neighbour(NIC_ADDRESS, 8080)).sent();
    assert_eq!((frame.destination(), frame.destination_port()), (SHOP.address, 80));
    scene.assert_no_drops();
}

#[test]
fn the_host_is_reached_where_the_network_lets_its_endpoints() {
    for (access, at_gateway, elsewhere) in [
        (0, true, true),
        (NETWORK_ONLY_GATEWAY, true, false),
        (NETWORK_NO_HOST, false, false),
    ] {
        let mut scene = set(ICC | access);
        scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, SHOP, 80);
        for (address, is_reached) in [(GATEWAY, at_gateway), (NIC_ADDRESS, elsewhere)] {
            let packet = to_neighbour(address, 22);
            match is_reached {
                true => drop(scene.says(WEB, &packet).stays()),
                false => assert_refused(&mut scene, &packet, DropReason::HostAccess),
            }
        }
        scene.says(WEB, &to_neighbour(NIC_ADDRESS, 8080)).sent();
        scene.says(WEB, &to_neighbour(CLIENT, 80)).stays();
    }
}

/// The bridge carries what the host says, so there is no flow that its answer would belong to.
#[test]
fn what_answers_the_host_passes_though_the_host_is_not_to_be_reached() {
    let mut scene = set(ICC | NETWORK_NO_HOST);
    let neighbours = |mut packet: Packet| {
        packet.to_mac = NEIGHBOUR_MAC;
        packet
    };
    let sockets = scene::bind_udp(NIC_ADDRESS, 5353);
    let answer = neighbours(Packet::udp((WEB.address, 53), (NIC_ADDRESS, 5353)));
    assert_refused(&mut scene, &answer, DropReason::HostAccess);
    sockets[0].connect((WEB.address, 53)).expect("connect");
    sockets[1].connect((twin::of(WEB.address), 53)).expect("connect");
    scene.says(WEB, &answer).stays();
    for (kind, passes) in [(ECHO_REPLY, true), (ECHO_REQUEST, false)] {
        let packet = neighbours(Packet::echo(WEB.address, NIC_ADDRESS, kind, 7));
        match passes {
            true => drop(scene.says(WEB, &packet).stays()),
            false => assert_refused(&mut scene, &packet, DropReason::HostAccess),
        }
    }
}

#[test]
fn what_is_said_to_one_in_a_frame_for_all_is_judged_as_what_is_said_to_one() {
    let mut scene = set(NETWORK_NO_HOST);
    for (address, reason) in [
        (SHOP.address, DropReason::IccDisabled),
        (NIC_ADDRESS, DropReason::HostAccess),
    ] {
        let mut packet = Packet::udp((WEB.address, 20_000), (address, 53));
        packet.to_mac = [0xff; 6];
        assert_refused(&mut scene, &packet, reason);
    }
}

#[test]
fn what_is_for_the_gateway_leaves_the_host_as_everywhere() {
    let mut scene = set(ICC);
    let packet = Packet::tcp((WEB.address, 20_000), (SERVER, 80), SYN);
    assert_eq!(scene.says(WEB, &packet).sent().source(), NIC_ADDRESS);
}

#[test]
fn a_forger_is_found_out_before_the_bridge_hears_of_it() {
    let mut scene = set(ICC);
    let mut packet = to_neighbour(CLIENT, 80);
    packet.source = Ipv4Addr::new(10, 9, 0, 99);
    let outcome = scene.says(WEB, &packet);
    scene.assert_dropped(&outcome, DropReason::ForgedSource, Direction::FromContainer, WEB.number);
}

#[test]
fn who_has_an_address_is_asked_on_the_wire_by_the_one_who_asks() {
    let mut scene = set(ICC);
    let question = Frame::who_has((WEB.mac, WEB.address), CLIENT);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &question);
    assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Stack, &question));
    scene.assert_no_drops();
    let claim = Frame::arp(WEB.mac, 2, (WEB.mac, GATEWAY), (SHOP.mac, SHOP.address));
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &claim);
    scene.assert_dropped(&outcome, DropReason::ForgedArp, Direction::FromContainer, WEB.number);
}
