//! Routed networks: their addresses are the world's too. Nothing is translated, and what is published is reached at the endpoint's own address.

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::{Action, SCOPE_WORLD};
use sluice_datapath_common::network::{
    NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES, NETWORK_ROUTED,
};

use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, GRE, Packet, SYN, TCP, UDP};
use crate::scene::{self, CLIENT, GATEWAY_MAC, LONE, NIC, SERVER, Scene, WEB};

fn set() -> Scene {
    let mut scene = scene::set();
    // What would be masqueraded otherwise.
    scene.network(2, NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES | NETWORK_ROUTED);
    scene
}

#[test]
fn what_leaves_keeps_its_address_and_port_and_is_answered_there() {
    let mut scene = set();
    let frame = scene
        .says(WEB, &Packet::tcp((WEB.address, 40_000), (SERVER, 80), SYN))
        .sent();
    assert_eq!(
        (frame.source(), frame.source_port(), frame.ttl()),
        (WEB.address, 40_000, 63)
    );
    let flow = scene.flow(2, TCP, (WEB.address, 40_000), (SERVER, 80)).unwrap();
    assert_eq!((flow.action, flow.ifindex), (Action::World as u8, NIC));
    let back = scene
        .world_says(&Packet::tcp((SERVER, 80), (WEB.address, 40_000), SYN | ACK))
        .sent();
    assert_eq!((back.source(), back.destination()), (SERVER, WEB.address));
    assert_eq!((back.receiver_mac(), back.sender_mac()), (WEB.mac, GATEWAY_MAC));
    scene.assert_no_drops();
}

#[test]
fn a_protocol_without_ports_needs_no_translation_and_passes() {
    let mut scene = set();
    let frame = scene.says(WEB, &Packet::other(GRE, WEB.address, SERVER)).sent();
    assert_eq!(frame.source(), WEB.address);
    scene.world_says(&Packet::other(GRE, SERVER, WEB.address)).sent();
}

#[test]
fn a_published_port_is_reached_at_the_endpoints_own_address() {
    let mut scene = set();
    scene.publish(WEB.address, 80, TCP, WEB, 80);
    let frame = scene
        .world_says(&Packet::tcp((CLIENT, 5000), (WEB.address, 80), SYN))
        .sent();
    assert_eq!((frame.source(), frame.destination()), (CLIENT, WEB.address));
    assert_eq!((frame.destination_port(), frame.receiver_mac()), (80, WEB.mac));
    let back = scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, 5000), SYN | ACK))
        .sent();
    assert_eq!((back.source(), back.source_port()), (WEB.address, 80));
    assert!(
        scene
            .flow(SCOPE_WORLD, TCP, (CLIENT, 5000), (WEB.address, 80))
            .is_some()
    );
}

#[test]
fn every_other_port_is_closed_to_the_world() {
    let mut scene = set();
    scene.publish(WEB.address, 80, TCP, WEB, 80);
    let outcome = scene.world_says(&Packet::tcp((CLIENT, 5000), (WEB.address, 81), SYN));
    scene.assert_dropped(&outcome, DropReason::Unpublished, Direction::FromNic, 0);
    drop(scene);
    let mut scene = set();
    scene.publish(WEB.address, 80, TCP, WEB, 80);
    let outcome = scene.world_says(&Packet::udp((CLIENT, 5000), (WEB.address, 80)));
    scene.assert_dropped(&outcome, DropReason::Unpublished, Direction::FromNic, 0);
}

#[test]
fn an_endpoint_can_be_pinged_from_the_world() {
    let mut scene = set();
    let frame = scene
        .world_says(&Packet::echo(CLIENT, WEB.address, ECHO_REQUEST, 9))
        .sent();
    assert_eq!((frame.destination(), frame.identifier()), (WEB.address, 9));
    let back = scene
        .says(WEB, &Packet::echo(WEB.address, CLIENT, ECHO_REPLY, 9))
        .sent();
    assert_eq!((back.source(), back.identifier()), (WEB.address, 9));
}

#[test]
fn an_address_without_an_endpoint_is_named_as_such_to_the_world_too() {
    let mut scene = set();
    scene.stop(WEB);
    let outcome = scene.world_says(&Packet::echo(CLIENT, WEB.address, ECHO_REQUEST, 9));
    scene.assert_dropped(&outcome, DropReason::NoSuchEndpoint, Direction::FromNic, 0);
}

#[test]
fn what_the_host_forwards_reaches_published_ports_only() {
    let mut scene = set();
    scene.publish(WEB.address, 53, UDP, WEB, 53);
    scene.host_says(&Packet::udp((CLIENT, 5000), (WEB.address, 53))).sent();
    let outcome = scene.host_says(&Packet::udp((CLIENT, 5000), (WEB.address, 54)));
    scene.assert_dropped(&outcome, DropReason::Unpublished, Direction::FromHost, 0);
}

#[test]
fn its_address_may_leave_by_a_nic_and_that_of_no_other_network() {
    let mut scene = set();
    let frame = scene.leaves(&Packet::udp((WEB.address, 40_000), (SERVER, 53))).stays();
    assert_eq!(frame.source(), WEB.address);
    let translated = scene.leaves(&Packet::udp((LONE.address, 20_000), (SERVER, 53))).stays();
    assert_ne!(translated.source(), LONE.address);
}

#[test]
fn an_internal_network_stays_closed_though_it_be_routed() {
    let mut scene = scene::set();
    scene.network(2, NETWORK_EXISTS | NETWORK_ICC | NETWORK_INTERNAL | NETWORK_ROUTED);
    scene.publish(WEB.address, 80, TCP, WEB, 80);
    let outcome = scene.world_says(&Packet::tcp((CLIENT, 5000), (WEB.address, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::InternalNetwork, Direction::FromNic, 0);
    let outcome = scene.leaves(&Packet::udp((WEB.address, 40_000), (SERVER, 53)));
    assert_eq!(outcome.verdict, crate::datapath::Verdict::Dropped);
}
