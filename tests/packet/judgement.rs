//! Flows are judged again when the epoch has moved, and die with their endpoints.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_MASQUERADES};

use crate::frame::{ACK, Packet, SYN, TCP};
use crate::scene::{self, CLIENT, NIC_ADDRESS, SERVER, SHOP, Scene, WEB};

fn connect(scene: &mut Scene) {
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN))
        .sent();
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 4000), SYN | ACK))
        .sent();
}

#[test]
fn a_change_of_policy_bites_an_established_connection_at_once() {
    let mut scene = scene::set();
    connect(&mut scene);
    scene.network(2, NETWORK_EXISTS | NETWORK_MASQUERADES);
    scene.move_epoch();
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), ACK));
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, WEB.number);
    assert_eq!(scene.counts(), (0, 0), "both entries are gone");
}

#[test]
fn it_bites_on_the_answerers_packet_too() {
    let mut scene = scene::set();
    connect(&mut scene);
    scene.network(2, NETWORK_EXISTS | NETWORK_MASQUERADES);
    scene.move_epoch();
    let outcome = scene.says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 4000), ACK));
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, SHOP.number);
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn what_is_still_allowed_goes_on_in_the_new_epoch() {
    let mut scene = scene::set();
    connect(&mut scene);
    scene.move_epoch();
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 4000), ACK))
        .sent();
    let forward = scene.flow(2, TCP, (WEB.address, 4000), (SHOP.address, 80)).unwrap();
    let reply = scene.flow(2, TCP, (SHOP.address, 80), (WEB.address, 4000)).unwrap();
    assert_eq!((forward.epoch, reply.epoch, reply.packets), (2, 2, 2));
    scene.assert_no_drops();
}

#[test]
fn a_masqueraded_connection_keeps_its_port_in_the_new_epoch() {
    let mut scene = scene::set();
    let first = scene
        .says(WEB, &Packet::tcp((WEB.address, 40_000), (SERVER, 80), SYN))
        .sent();
    let port = first.source_port();
    scene
        .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, port), SYN | ACK))
        .sent();
    scene.move_epoch();
    let later = scene
        .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, port), ACK))
        .sent();
    assert_eq!(later.destination_port(), 40_000);
    scene.move_epoch();
    let later = scene
        .says(WEB, &Packet::tcp((WEB.address, 40_000), (SERVER, 80), ACK))
        .sent();
    assert_eq!(later.source_port(), port);
}

#[test]
fn a_connection_by_a_port_that_is_no_longer_published_becomes_the_hosts() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, WEB, 80);
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, 5000), SYN | ACK))
        .sent();
    scene.unpublish(Ipv4Addr::UNSPECIFIED, 8080, TCP);
    scene.move_epoch();
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), ACK))
        .stays();
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn a_published_connection_goes_on_while_other_ports_come_and_go() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, WEB, 80);
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, 5000), SYN | ACK))
        .sent();
    scene.publish(Ipv4Addr::UNSPECIFIED, 8081, TCP, SHOP, 80);
    scene.move_epoch();
    let answer = scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, 5000), ACK))
        .sent();
    assert_eq!((answer.source(), answer.source_port()), (NIC_ADDRESS, 8080));
    let more = scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), ACK))
        .sent();
    assert_eq!(more.destination(), WEB.address);
}

#[test]
fn a_port_that_moved_to_another_endpoint_takes_only_new_connections_along() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, WEB, 80);
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, 5000), SYN | ACK))
        .sent();
    scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, SHOP, 80);
    scene.move_epoch();
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), ACK))
        .stays();
    let new = scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_eq!(new.destination(), SHOP.address);
}

#[test]
fn the_flows_of_an_endpoint_that_is_gone_are_gone() {
    let mut scene = scene::set();
    connect(&mut scene);
    scene.stop(SHOP);
    let outcome = scene.says(
        WEB,
        &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), ACK).macs(WEB.mac, SHOP.mac),
    );
    scene.assert_dropped(
        &outcome,
        DropReason::NoSuchEndpoint,
        Direction::FromContainer,
        WEB.number,
    );
    assert_eq!(scene.counts(), (0, 0));
}

/// Pitfall B29.
#[test]
fn an_endpoint_that_comes_back_at_its_address_is_met_anew() {
    let mut scene = scene::set();
    connect(&mut scene);
    scene.stop(SHOP);
    scene.start(SHOP);
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN))
        .sent();
    assert_eq!(scene.counts(), (0, 2));
    let flow = scene.flow(2, TCP, (WEB.address, 4000), (SHOP.address, 80)).unwrap();
    assert_eq!((flow.destination_generation, flow.packets), (2, 1));
}

/// Pitfall B15.
#[test]
fn udp_of_a_restarted_container_is_not_stuck_to_its_old_port() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 53, crate::frame::UDP, WEB, 53);
    scene.world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53))).sent();
    scene.says(WEB, &Packet::udp((WEB.address, 53), (CLIENT, 5000))).sent();
    scene.stop(WEB);
    scene.start(WEB);
    let frame = scene.world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53))).sent();
    assert_eq!(frame.destination(), WEB.address);
    let answer = scene.says(WEB, &Packet::udp((WEB.address, 53), (CLIENT, 5000))).sent();
    assert_eq!(answer.source(), NIC_ADDRESS);
    assert_eq!(scene.counts(), (2, 0));
}
