//! ARP is answered by the datapath: nothing of it travels.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::programs::{FROM_CONTAINER, FROM_HOST};

use crate::datapath::Verdict;
use crate::frame::Frame;
use crate::scene::{self, GATEWAY, GATEWAY_MAC, HOST_LEG, HOST_MAC, SHOP, WEB};

#[track_caller]
fn assert_answer(answer: &Frame, mac: [u8; 6], address: Ipv4Addr, asker: ([u8; 6], Ipv4Addr)) {
    let mut expected = Frame::arp(mac, 2, (mac, address), asker);
    expected.0[..6].copy_from_slice(&asker.0);
    assert_eq!(answer, &expected);
}

#[test]
fn the_gateway_is_at_the_gateways_mac() {
    let mut scene = scene::set();
    let question = Frame::who_has((WEB.mac, WEB.address), GATEWAY);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &question);
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_answer(&outcome.frame, GATEWAY_MAC, GATEWAY, (WEB.mac, WEB.address));
    scene.assert_no_drops();
}

/// Pitfall B29.
#[test]
fn a_neighbour_is_at_its_own_mac() {
    let scene = scene::set();
    let question = Frame::who_has((WEB.mac, WEB.address), SHOP.address);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &question);
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_answer(&outcome.frame, SHOP.mac, SHOP.address, (WEB.mac, WEB.address));
}

#[test]
fn nobody_answers_for_an_address_without_an_endpoint() {
    let mut scene = scene::set();
    let question = Frame::who_has((WEB.mac, WEB.address), Ipv4Addr::new(10, 9, 0, 77));
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &question);
    scene.assert_dropped(
        &outcome,
        DropReason::NoSuchEndpoint,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn an_endpoint_of_another_network_is_not_to_be_found() {
    let mut scene = scene::set();
    let question = Frame::who_has((WEB.mac, WEB.address), scene::LONE.address);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &question);
    scene.assert_dropped(
        &outcome,
        DropReason::NoSuchEndpoint,
        Direction::FromContainer,
        WEB.number,
    );
}

#[test]
fn a_probe_for_ones_own_address_is_heard_in_silence_and_is_no_drop() {
    let mut scene = scene::set();
    let probe = Frame::who_has((WEB.mac, Ipv4Addr::UNSPECIFIED), WEB.address);
    assert_eq!(scene.run(FROM_CONTAINER, WEB.ifindex, &probe).verdict, Verdict::Dropped);
    let announcement = Frame::who_has((WEB.mac, WEB.address), WEB.address);
    assert_eq!(
        scene.run(FROM_CONTAINER, WEB.ifindex, &announcement).verdict,
        Verdict::Dropped
    );
    scene.assert_no_drops();
}

#[test]
fn a_claim_to_the_gateways_address_is_forged() {
    let mut scene = scene::set();
    let claim = Frame::arp(WEB.mac, 2, (WEB.mac, GATEWAY), (SHOP.mac, SHOP.address));
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &claim);
    scene.assert_dropped(&outcome, DropReason::ForgedArp, Direction::FromContainer, WEB.number);
}

#[test]
fn the_host_finds_an_endpoint_at_its_own_mac() {
    let scene = scene::set();
    let question = Frame::who_has((HOST_MAC, GATEWAY), WEB.address);
    let outcome = scene.run(FROM_HOST, HOST_LEG, &question);
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_answer(&outcome.frame, WEB.mac, WEB.address, (HOST_MAC, GATEWAY));
}

#[test]
fn half_an_arp_packet_is_truncated() {
    let mut scene = scene::set();
    let mut question = Frame::who_has((WEB.mac, WEB.address), GATEWAY);
    question.0.truncate(30);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &question);
    scene.assert_dropped(&outcome, DropReason::Truncated, Direction::FromContainer, WEB.number);
}

#[test]
fn a_forged_claim_is_told_with_who_speaks_and_whom_it_is_about() {
    let mut scene = scene::set();
    scene.listen(1);
    let claim = Frame::arp(WEB.mac, 1, (WEB.mac, SHOP.address), ([0; 6], GATEWAY));
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &claim);
    scene.assert_dropped(&outcome, DropReason::ForgedArp, Direction::FromContainer, WEB.number);
    let told = scene.told();
    assert_eq!(told.len(), 1);
    let word = |address: Ipv4Addr| [u32::from_ne_bytes(address.octets()), 0, 0, 0];
    assert_eq!(
        (told[0].source, told[0].destination),
        (word(SHOP.address), word(GATEWAY))
    );
    assert_eq!(
        (told[0].ether_type, told[0].family, told[0].protocol),
        (0x0806, libc::AF_INET as u8, 0)
    );
}

#[test]
fn a_frame_of_no_known_kind_is_told_without_addresses() {
    let mut scene = scene::set();
    scene.listen(1);
    let mut frame = [&GATEWAY_MAC[..], &WEB.mac[..], &[0x88, 0xcc][..]].concat();
    frame.extend([0x45; 60]);
    scene.run(FROM_CONTAINER, WEB.ifindex, &Frame(frame));
    let told = scene.told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].ether_type, told[0].family, told[0].length), (0x88cc, 0, 74));
    assert_eq!((told[0].source, told[0].destination), ([0; 4], [0; 4]));
}
