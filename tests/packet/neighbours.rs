//! Endpoints of one network, and of two.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::{Action, State};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_MASQUERADES};

use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, GRE, Packet, RST, SYN, TCP};
use crate::scene::{self, GATEWAY_MAC, LONE, SHOP, WEB};

#[test]
fn a_neighbour_gets_the_frame_as_it_was_sent() {
    let mut scene = scene::set();
    let packet = Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN).macs(WEB.mac, SHOP.mac);
    let frame = scene.says(WEB, &packet).sent();
    assert_eq!(frame, packet.build());
    let flow = scene.flow(2, TCP, (WEB.address, 4000), (SHOP.address, 80)).unwrap();
    assert_eq!(
        (flow.action, flow.ifindex, flow.packets),
        (Action::Endpoint as u8, SHOP.ifindex, 1)
    );
    assert_eq!(
        (flow.source_endpoint, flow.destination_endpoint),
        (WEB.number, SHOP.number)
    );
    scene.assert_no_drops();
}

#[test]
fn a_complete_handshake_moves_both_entries_to_the_table_that_never_evicts() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN))
        .sent();
    assert_eq!(scene.counts(), (0, 2));
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 4000), SYN | ACK))
        .sent();
    assert_eq!(scene.counts(), (0, 2), "who asked may be an invention");
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), ACK))
        .sent();
    assert_eq!(scene.counts(), (2, 0));
    let flow = scene.flow(2, TCP, (WEB.address, 4000), (SHOP.address, 80)).unwrap();
    assert_eq!((flow.state, flow.packets), (State::Established as u8, 2));
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), ACK))
        .sent();
    let flow = scene.flow(2, TCP, (WEB.address, 4000), (SHOP.address, 80)).unwrap();
    assert_eq!((flow.packets, flow.bytes), (3, 3 * (14 + 20 + 20 + 23)));
}

#[test]
fn a_frame_sent_to_the_gateways_mac_is_routed_to_the_neighbour() {
    let mut scene = scene::set();
    let packet = Packet::udp((WEB.address, 4000), (SHOP.address, 53)).macs(WEB.mac, GATEWAY_MAC);
    let frame = scene.says(WEB, &packet).sent();
    assert_eq!((frame.receiver_mac(), frame.sender_mac()), (SHOP.mac, GATEWAY_MAC));
}

#[test]
fn a_neighbour_can_be_pinged() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::echo(WEB.address, SHOP.address, ECHO_REQUEST, 77))
        .sent();
    let answer = scene
        .says(SHOP, &Packet::echo(SHOP.address, WEB.address, ECHO_REPLY, 77))
        .sent();
    assert_eq!(answer.identifier(), 77);
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn protocols_without_ports_pass_between_neighbours() {
    let mut scene = scene::set();
    scene.says(WEB, &Packet::other(GRE, WEB.address, SHOP.address)).sent();
    scene.says(SHOP, &Packet::other(GRE, SHOP.address, WEB.address)).sent();
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn ip_options_do_not_hide_the_ports() {
    let mut scene = scene::set();
    scene
        .says(
            WEB,
            &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN).options(10),
        )
        .sent();
    assert!(scene.flow(2, TCP, (WEB.address, 4000), (SHOP.address, 80)).is_some());
}

#[test]
fn without_icc_neighbours_do_not_hear_each_other() {
    let mut scene = scene::set();
    scene.network(2, NETWORK_EXISTS | NETWORK_MASQUERADES);
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, WEB.number);
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn networks_are_isolated_from_each_other() {
    let mut scene = scene::set();
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 4000), (LONE.address, 80), SYN));
    scene.assert_dropped(
        &outcome,
        DropReason::IsolatedNetwork,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn an_address_without_an_endpoint_is_named_as_such() {
    let mut scene = scene::set();
    let nobody = Ipv4Addr::new(10, 9, 0, 99);
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 4000), (nobody, 80), SYN));
    scene.assert_dropped(
        &outcome,
        DropReason::NoSuchEndpoint,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn a_connection_that_is_older_than_the_tables_goes_on() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), ACK))
        .sent();
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 4000), ACK))
        .sent();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), ACK))
        .sent();
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn a_reset_opens_nothing() {
    let mut scene = scene::set();
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), RST));
    scene.assert_dropped(&outcome, DropReason::NotAnOpening, Direction::FromContainer, WEB.number);
    assert_eq!(scene.counts(), (0, 0));
}
