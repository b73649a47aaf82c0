//! The sender is told why its packet goes no further. For IPv4 the host's stack does that.

use std::net::Ipv6Addr;

use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES};
use sluice_datapath_common::programs::FROM_CONTAINER;

use crate::datapath::{Outcome, Verdict};
use crate::frame::{Frame, UDP};
use crate::scene::{self, GATEWAY, GATEWAY_MAC, SERVER, Scene, WEB};
use crate::six::{self, ICMP};
use crate::twin;

const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;

fn ends() -> (Ipv6Addr, Ipv6Addr) {
    (twin::of(WEB.address), twin::of(SERVER))
}

/// A datagram of `WEB` to the world.
fn datagram(hops: u8, length: usize) -> Frame {
    let (source, destination) = ends();
    let mut datagram = [&[0x4e, 0x20, 0, 53][..], &(8 + length as u16).to_be_bytes(), &[0, 0]].concat();
    datagram.extend((0..length).map(|place| place as u8));
    let sum = six::checksum(source, destination, UDP, &datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    six::packet((WEB.mac, GATEWAY_MAC), source, destination, UDP, hops, &datagram)
}

#[track_caller]
fn assert_reported(scene: &mut Scene, sent: &Frame, outcome: &Outcome, kind: u8, parameter: u32) {
    assert_eq!(outcome.verdict, Verdict::Sent);
    let quoted = (sent.0.len() - 14).min(252) & !3;
    let mut message = vec![kind, 0, 0, 0];
    message.extend(parameter.to_be_bytes());
    message.extend(&sent.0[14..14 + quoted]);
    let (gateway, web) = (twin::of(GATEWAY), ends().0);
    let message = six::icmp(gateway, web, &message);
    let expected = six::packet((GATEWAY_MAC, WEB.mac), gateway, web, ICMP, 64, &message);
    assert_eq!(outcome.frame, expected);
    scene.assert_no_drops();
}

#[test]
fn a_packet_at_its_last_hop_comes_back_as_a_report() {
    for length in [0, 1, 2, 3, 32, 203, 204, 205, 1400] {
        for hops in [0, 1] {
            let mut scene = scene::set();
            let sent = datagram(hops, length);
            let outcome = scene.run_six(FROM_CONTAINER, WEB.ifindex, &sent);
            assert_reported(&mut scene, &sent, &outcome, TIME_EXCEEDED, 0);
        }
    }
    let scene = scene::set();
    let outcome = scene.run_six(FROM_CONTAINER, WEB.ifindex, &datagram(2, 32));
    assert_eq!(
        (outcome.frame.0[21], outcome.frame.0[54]),
        (1, 0x4e),
        "with two hops it goes on"
    );
}

/// Pitfall B25.
#[test]
fn a_packet_too_long_for_the_nic_comes_back_with_the_nics_mtu() {
    let mut scene = scene::set();
    scene.network_with_mtu(2, NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES, 9000);
    let sent = datagram(64, 3000);
    let outcome = scene.run_six(FROM_CONTAINER, WEB.ifindex, &sent);
    assert_reported(&mut scene, &sent, &outcome, TOO_BIG, 1500);
}
