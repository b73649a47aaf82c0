//! Fragments follow their first.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};

use crate::frame::{Packet, UDP};
use crate::scene::{self, CLIENT, NIC_ADDRESS, SERVER, SHOP, WEB};

#[test]
fn later_fragments_take_the_flow_of_the_first() {
    let mut scene = scene::set();
    let packet = Packet::udp((WEB.address, 20_000), (SERVER, 53)).payload(&[1; 1472]);
    let first = scene.says(WEB, &packet.clone().fragment(9, 0, true));
    assert_eq!((first.frame.source(), first.frame.source_port()), (NIC_ADDRESS, 20_000));
    let later = scene.says(WEB, &packet.fragment(9, 1480, false));
    assert_eq!(later.frame.source(), NIC_ADDRESS);
    assert_eq!(&later.frame.0[34..], &[1; 1472], "the payload is not taken for ports");
    later.frame.ip_sum().unwrap();
    assert_eq!(
        scene.flow(2, UDP, (WEB.address, 20_000), (SERVER, 53)).unwrap().packets,
        2
    );
}

#[test]
fn a_fragment_without_its_first_is_dropped_by_name() {
    let mut scene = scene::set();
    let later = Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).fragment(9, 1480, false);
    let outcome = scene.says(WEB, &later);
    scene.assert_dropped(
        &outcome,
        DropReason::FragmentAlone,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn fragments_of_another_datagram_do_not_follow() {
    let mut scene = scene::set();
    let packet = Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).payload(&[1; 1472]);
    scene.says(WEB, &packet.clone().fragment(9, 0, true));
    let outcome = scene.says(WEB, &packet.fragment(10, 1480, false));
    scene.assert_dropped(
        &outcome,
        DropReason::FragmentAlone,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn fragments_to_a_published_port_arrive_and_others_are_the_hosts() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 53, UDP, WEB, 5353);
    let packet = Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53)).payload(&[1; 1472]);
    let first = scene.world_says(&packet.clone().fragment(9, 0, true));
    assert_eq!(
        (first.frame.destination(), first.frame.destination_port()),
        (WEB.address, 5353)
    );
    let later = scene.world_says(&packet.fragment(9, 1480, false));
    assert_eq!(later.frame.destination(), WEB.address);
    scene
        .world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 99)).fragment(11, 1480, false))
        .stays();
    scene.assert_no_drops();
}
