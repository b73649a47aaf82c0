//! The host's stack and endpoints.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::{Action, SCOPE_HOST};

use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, Packet, SYN, TCP};
use crate::scene::{self, CLIENT, GATEWAY, GATEWAY_MAC, HOST_LEG, HOST_MAC, NIC_ADDRESS, OTHER_GATEWAY, WEB};

#[test]
fn the_host_reaches_an_endpoint_and_is_answered() {
    let mut scene = scene::set();
    let frame = scene
        .host_says(&Packet::tcp((GATEWAY, 4000), (WEB.address, 80), SYN))
        .sent();
    assert_eq!(
        (frame.source(), frame.destination(), frame.receiver_mac()),
        (GATEWAY, WEB.address, WEB.mac)
    );
    let flow = scene.flow(SCOPE_HOST, TCP, (GATEWAY, 4000), (WEB.address, 80)).unwrap();
    assert_eq!((flow.action, flow.ifindex), (Action::Endpoint as u8, WEB.ifindex));
    let answer = scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (GATEWAY, 4000), SYN | ACK))
        .sent();
    assert_eq!(
        (answer.receiver_mac(), answer.source(), answer.ttl()),
        (HOST_MAC, WEB.address, 64)
    );
    scene
        .host_says(&Packet::tcp((GATEWAY, 4000), (WEB.address, 80), ACK))
        .sent();
    assert_eq!(scene.counts(), (2, 0));
    scene.assert_no_drops();
}

#[test]
fn a_frame_of_the_host_that_is_not_for_the_endpoints_mac_is_readdressed() {
    let scene = scene::set();
    let packet = Packet::udp((GATEWAY, 4000), (WEB.address, 53)).macs(HOST_MAC, HOST_MAC);
    let frame = scene.run("from_host", HOST_LEG, &packet.build()).sent();
    assert_eq!((frame.receiver_mac(), frame.sender_mac()), (WEB.mac, GATEWAY_MAC));
}

#[test]
fn an_endpoint_reaches_every_address_of_the_host() {
    for address in [GATEWAY, NIC_ADDRESS, OTHER_GATEWAY] {
        let mut scene = scene::set();
        let frame = scene
            .says(WEB, &Packet::tcp((WEB.address, 4000), (address, 22), SYN))
            .sent();
        assert_eq!(
            (frame.receiver_mac(), frame.source(), frame.destination()),
            (HOST_MAC, WEB.address, address)
        );
        let back = scene
            .host_says(&Packet::tcp((address, 22), (WEB.address, 4000), SYN | ACK))
            .sent();
        assert_eq!((back.receiver_mac(), back.source()), (WEB.mac, address));
        scene
            .says(WEB, &Packet::tcp((WEB.address, 4000), (address, 22), ACK))
            .sent();
        assert_eq!(scene.counts(), (2, 0));
    }
}

#[test]
fn an_endpoint_can_ping_its_gateway() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::echo(WEB.address, GATEWAY, ECHO_REQUEST, 5))
        .sent();
    scene
        .host_says(&Packet::echo(GATEWAY, WEB.address, ECHO_REPLY, 5))
        .sent();
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn the_host_is_told_by_name_that_nobody_lives_there() {
    let mut scene = scene::set();
    let outcome = scene.host_says(&Packet::tcp((GATEWAY, 4000), (Ipv4Addr::new(10, 9, 0, 99), 80), SYN));
    scene.assert_dropped(&outcome, DropReason::NoSuchEndpoint, Direction::FromHost, 0);
}

#[test]
fn what_the_host_forwards_from_elsewhere_does_not_reach_an_endpoint() {
    let mut scene = scene::set();
    let outcome = scene.host_says(&Packet::tcp((CLIENT, 4000), (WEB.address, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::Unpublished, Direction::FromHost, 0);
}

#[test]
fn the_hosts_multicasts_do_not_come_round_again() {
    let mut scene = scene::set();
    let outcome = scene.host_says(&Packet::udp((GATEWAY, 5353), (Ipv4Addr::new(224, 0, 0, 251), 5353)));
    scene.assert_dropped(&outcome, DropReason::Multicast, Direction::FromHost, 0);
}
