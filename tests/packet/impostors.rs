//! Whoever is not who it says it is, and whatever is not what we carry.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::programs::FROM_CONTAINER;

use crate::frame::{Frame, Packet, SYN};
use crate::scene::{self, GATEWAY_MAC, SERVER, SHOP, WEB};

#[test]
fn a_forged_source_address_is_dropped_and_counted() {
    let mut scene = scene::set();
    let packet = Packet::tcp((SHOP.address, 4000), (SERVER, 80), SYN).macs(WEB.mac, GATEWAY_MAC);
    let outcome = scene.says(WEB, &packet);
    scene.assert_dropped(&outcome, DropReason::ForgedSource, Direction::FromContainer, WEB.number);
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn a_forged_mac_is_dropped_and_counted() {
    let mut scene = scene::set();
    let packet = Packet::tcp((WEB.address, 4000), (SERVER, 80), SYN).macs(SHOP.mac, GATEWAY_MAC);
    let outcome = scene.says(WEB, &packet);
    scene.assert_dropped(&outcome, DropReason::ForgedMac, Direction::FromContainer, WEB.number);
}

#[test]
fn a_veth_of_no_endpoint_gets_nothing_through() {
    let mut scene = scene::set();
    let packet = Packet::udp((WEB.address, 4000), (SHOP.address, 53)).macs(WEB.mac, SHOP.mac);
    let outcome = scene.run(FROM_CONTAINER, 33, &packet.build());
    scene.assert_dropped(&outcome, DropReason::UnknownDevice, Direction::FromContainer, 0);
}

#[test]
fn an_unknown_ether_type_is_dropped() {
    let mut scene = scene::set();
    let mut frame = [&GATEWAY_MAC[..], &WEB.mac[..], &[0x88, 0xcc][..]].concat();
    frame.extend([0; 60]);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &Frame(frame));
    scene.assert_dropped(
        &outcome,
        DropReason::UnknownEtherType,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn a_packet_that_ends_before_its_ports_is_truncated() {
    let mut scene = scene::set();
    let mut frame = Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN)
        .macs(WEB.mac, SHOP.mac)
        .build();
    frame.0.truncate(14 + 20 + 6);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &frame);
    scene.assert_dropped(&outcome, DropReason::Truncated, Direction::FromContainer, WEB.number);
}

#[test]
fn multicast_and_broadcast_are_not_carried() {
    for destination in [Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::BROADCAST] {
        let mut scene = scene::set();
        let outcome = scene.says(WEB, &Packet::udp((WEB.address, 5353), (destination, 5353)));
        scene.assert_dropped(&outcome, DropReason::Multicast, Direction::FromContainer, WEB.number);
    }
}

#[test]
fn addresses_that_are_never_on_a_wire_are_not_routed() {
    for destination in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::new(240, 0, 0, 1),
    ] {
        let mut scene = scene::set();
        let outcome = scene.says(WEB, &Packet::udp((WEB.address, 5353), (destination, 5353)));
        scene.assert_dropped(&outcome, DropReason::NotRoutable, Direction::FromContainer, WEB.number);
    }
}

#[test]
fn a_frame_for_another_station_than_the_gateway_stays_in_its_network() {
    let mut scene = scene::set();
    let packet = Packet::tcp((WEB.address, 4000), (SERVER, 80), SYN).macs(WEB.mac, SHOP.mac);
    let outcome = scene.says(WEB, &packet);
    scene.assert_dropped(
        &outcome,
        DropReason::NoSuchEndpoint,
        Direction::FromContainer,
        WEB.number,
    );
}
