//! A packet that goes no further is given to the host's stack, which tells its sender. For IPv6 the programs do that themselves.

use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES};

use crate::frame::{Packet, TIME_EXCEEDED};
use crate::scene::{self, GATEWAY, HOST_MAC, NIC_ADDRESS, SERVER, WEB};

/// Outside the host's ephemeral range: a port that is kept.
const KEPT: u16 = 20_000;

#[test]
fn a_packet_at_its_last_hop_is_given_to_the_host_to_report() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::udp((WEB.address, KEPT), (SERVER, 33_434)))
        .sent();
    let frame = scene
        .says(WEB, &Packet::udp((WEB.address, KEPT), (SERVER, 33_434)).ttl(1))
        .sent();
    assert_eq!(
        (frame.source(), frame.ttl(), frame.receiver_mac()),
        (WEB.address, 1, HOST_MAC)
    );
}

/// Pitfall B25.
#[test]
fn a_packet_too_long_for_the_nic_is_given_to_the_host_to_report() {
    let mut scene = scene::set();
    scene.network_with_mtu(2, NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES, 9000);
    let long = Packet::udp((WEB.address, KEPT), (SERVER, 53)).payload(&[7; 3000]);
    let frame = scene.says(WEB, &long).sent();
    assert_eq!((frame.source(), frame.receiver_mac()), (WEB.address, HOST_MAC));
    let short = scene.says(WEB, &Packet::udp((WEB.address, KEPT), (SERVER, 53))).sent();
    assert_eq!(short.source(), NIC_ADDRESS);
}

#[test]
fn the_host_reports_on_a_packet_that_it_was_given_for_this() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::udp((WEB.address, 20_000), (SERVER, 33_434)))
        .sent();
    let last_hop = scene
        .says(WEB, &Packet::udp((WEB.address, 20_000), (SERVER, 33_434)).ttl(1))
        .sent();
    let error = scene
        .host_says(&Packet::error(GATEWAY, WEB.address, TIME_EXCEEDED, &last_hop, 1000))
        .sent();
    assert_eq!((error.source(), error.receiver_mac()), (GATEWAY, WEB.mac));
    assert_eq!(error.quoted().source(), WEB.address);
}
