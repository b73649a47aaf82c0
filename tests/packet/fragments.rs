//! Fragments follow their first.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::fragment::{FRAGMENT_OF_HOST, FragmentKey, FragmentPorts, PATIENCE, RING};
use sluice_datapath_common::{Ipv4, programs};

use crate::datapath::Verdict;
use crate::frame::{Frame, Packet, SYN, UDP};
use crate::listener::Listener;
use crate::scene::{
    self, CLIENT, Container, GATEWAY, GATEWAY_MAC, HOST_MAC, LONE, NIC, NIC_ADDRESS, NIC_MAC, ROUTER_MAC, SERVER, SHOP,
    WEB,
};

/// Pitfall B49.
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

/// Pitfall B49.
#[test]
fn a_fragment_that_overtakes_its_first_waits_for_it_and_is_heard_again() {
    let mut scene = scene::set();
    let listener = Listener::on("slc1");
    let packet = Packet::udp((WEB.address, 20_000), (SERVER, 53)).payload(&[1; 1472]);
    let overtaker = packet.clone().payload(&[2; 700]).fragment(21, 1480, false);
    assert_eq!(scene.says(WEB, &overtaker).verdict, Verdict::Dropped);
    scene.assert_no_drops();
    let first = scene.says(WEB, &packet.fragment(21, 0, true)).sent();
    assert_eq!((first.source(), first.source_port()), (NIC_ADDRESS, 20_000));
    assert_eq!(&first.0[42..], &[1; 1472], "the first one has its own bytes again");
    let heard = listener.frames(1);
    assert_eq!(heard, [built(WEB, &overtaker)]);
    let later = scene.run(programs::FROM_CONTAINER, WEB.ifindex, &heard[0]).sent();
    assert_eq!((later.source(), &later.0[34..]), (NIC_ADDRESS, &[2; 700][..]));
    assert_eq!(listener.frames(0), [], "nobody is heard twice");
}

/// Pitfall B49.
#[test]
fn a_datagram_in_the_reverse_order_arrives_whole() {
    /// Fits into an Ethernet frame with either header.
    const LENGTH: usize = 1440;
    let mut scene = scene::set();
    let listener = Listener::on("slc1");
    let packet = Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).payload(&[3; LENGTH - 8]);
    let later: Vec<_> = (1..44)
        .rev()
        .map(|at| {
            packet
                .clone()
                .payload(&[at as u8; LENGTH])
                .fragment(22, at * LENGTH as u16, at < 43)
        })
        .collect();
    for fragment in &later {
        assert_eq!(scene.says(WEB, fragment).verdict, Verdict::Dropped);
    }
    scene.says(WEB, &packet.fragment(22, 0, true)).sent();
    let expected: Vec<_> = later.iter().map(|fragment| built_to(WEB, SHOP, fragment)).collect();
    assert_eq!(listener.frames(43), expected, "in the order they came");
    for frame in &expected {
        scene.run(programs::FROM_CONTAINER, WEB.ifindex, frame).sent();
    }
    scene.assert_no_drops();
}

#[test]
fn a_fragment_longer_than_a_piece_waits_in_several() {
    let mut scene = scene::set();
    let listener = Listener::on("slc1");
    let packet = Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).payload(&[3; 3000]);
    let bytes: Vec<u8> = (0..3000).map(|at| (at / 31) as u8).collect();
    let overtaker = packet.clone().payload(&bytes).fragment(23, 3008, false);
    assert_eq!(scene.says(WEB, &overtaker).verdict, Verdict::Dropped);
    let first = scene.says(WEB, &packet.fragment(23, 0, true)).sent();
    assert_eq!(&first.0[42..], &[3; 3000]);
    assert_eq!(listener.frames(1), [built_to(WEB, SHOP, &overtaker)]);
}

#[test]
fn a_flood_of_lone_fragments_is_counted_and_pushes_out_nobody_elses() {
    let mut scene = scene::set();
    let listener = Listener::on("slc2");
    let packet = Packet::udp((SHOP.address, 20_000), (WEB.address, 53)).payload(&[1; 1472]);
    let overtaker = packet.clone().fragment(24, 1480, false);
    scene.says(SHOP, &overtaker);
    for identification in 0..200 {
        let lone = Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).fragment(identification, 1480, false);
        scene.says(WEB, &lone);
    }
    let given_up = u64::from(200 - RING);
    assert_eq!(
        scene.drops(),
        [(
            DropReason::FragmentAlone,
            Direction::FromContainer,
            WEB.number,
            given_up
        )]
    );
    scene.says(SHOP, &packet.fragment(24, 0, true)).sent();
    assert_eq!(listener.frames(1), [built_to(SHOP, WEB, &overtaker)]);
}

#[test]
fn fragments_of_another_datagram_do_not_follow() {
    let mut scene = scene::set();
    let listener = Listener::on("slc1");
    let packet = Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).payload(&[1; 1472]);
    let other = scene.says(WEB, &packet.clone().fragment(10, 1480, false));
    assert_eq!(other.verdict, Verdict::Dropped);
    scene.says(WEB, &packet.clone().fragment(9, 0, true)).sent();
    let other = scene.says(WEB, &packet.fragment(10, 2960, false));
    assert_eq!(other.verdict, Verdict::Dropped);
    assert_eq!(listener.frames(0), []);
}

#[test]
fn a_number_that_is_used_again_much_later_is_another_datagram() {
    let mut scene = scene::set();
    let packet = Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).payload(&[1; 1472]);
    scene.says(WEB, &packet.clone().fragment(25, 0, true)).sent();
    scene.says(WEB, &packet.clone().fragment(25, 1480, true)).sent();
    let (key, ports) = scene.entries::<FragmentKey<Ipv4>, FragmentPorts>("FRAGMENTS4")[0];
    let long_ago = FragmentPorts {
        seen: ports.seen.wrapping_sub(PATIENCE + 1),
        ..ports
    };
    scene.insert("FRAGMENTS4", key, long_ago);
    let outcome = scene.says(WEB, &packet.fragment(25, 2960, false));
    assert_eq!(outcome.verdict, Verdict::Dropped);
    scene.assert_no_drops();
}

#[test]
fn what_waits_dies_for_the_reason_that_its_first_died_for() {
    let mut scene = scene::set();
    let listener = Listener::on("slc1");
    let packet = Packet::udp((WEB.address, 20_000), (LONE.address, 53)).payload(&[1; 1472]);
    scene.says(WEB, &packet.clone().fragment(26, 1480, false));
    let outcome = scene.says(WEB, &packet.fragment(26, 0, true));
    scene.assert_dropped(
        &outcome,
        DropReason::IsolatedNetwork,
        Direction::FromContainer,
        WEB.number,
    );
    let heard = listener.frames(1);
    scene.run(programs::FROM_CONTAINER, WEB.ifindex, &heard[0]);
    assert_eq!(
        scene.drops(),
        [(DropReason::IsolatedNetwork, Direction::FromContainer, WEB.number, 2)]
    );
}

#[test]
fn a_first_fragment_without_its_whole_header_is_refused() {
    let mut scene = scene::set();
    let mut tiny = Packet::tcp((WEB.address, 20_000), (SHOP.address, 80), SYN)
        .fragment(27, 0, true)
        .macs(WEB.mac, SHOP.mac)
        .build();
    // Sixteen bytes of TCP: the flags are in, but the frame's padding completes the header.
    tiny.set_ip_length(36);
    let outcome = scene.run(programs::FROM_CONTAINER, WEB.ifindex, &tiny);
    scene.assert_dropped(&outcome, DropReason::TinyFragment, Direction::FromContainer, WEB.number);
}

#[test]
fn a_later_fragment_that_lies_over_the_header_is_refused() {
    let mut scene = scene::set();
    let packet = Packet::tcp((WEB.address, 20_000), (SHOP.address, 80), SYN);
    scene.says(WEB, &packet.clone().fragment(28, 0, true)).sent();
    let outcome = scene.says(WEB, &packet.fragment(28, 8, false));
    scene.assert_dropped(&outcome, DropReason::TinyFragment, Direction::FromContainer, WEB.number);
}

#[test]
fn the_host_gets_what_may_be_its_own_and_a_published_port_gets_it_again() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 53, UDP, WEB, 5353);
    let listener = Listener::on("nic0");
    let packet = Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53)).payload(&[1; 1472]);
    let overtaker = packet.clone().fragment(29, 1480, false).macs(ROUTER_MAC, NIC_MAC);
    scene.world_says(&overtaker).stays();
    scene.world_says(&packet.fragment(29, 0, true)).sent();
    let heard = listener.frames(1);
    assert_eq!(heard, [overtaker.build()]);
    let later = scene.run(programs::FROM_NIC, NIC, &heard[0]).sent();
    assert_eq!(later.destination(), WEB.address);
}

#[test]
fn fragments_of_the_hosts_own_datagrams_stay_the_hosts() {
    let mut scene = scene::set();
    let listener = Listener::on("nic0");
    let packet = Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 2049)).payload(&[1; 1472]);
    scene.world_says(&packet.clone().fragment(30, 1480, true)).stays();
    scene.world_says(&packet.clone().fragment(30, 0, true)).stays();
    scene.world_says(&packet.fragment(30, 2960, false)).stays();
    assert_eq!(listener.frames(0), [], "it has them all");
    let noted = scene.entries::<FragmentKey<Ipv4>, FragmentPorts>("FRAGMENTS4");
    assert_eq!(noted[0].1.flags, FRAGMENT_OF_HOST);
    scene.assert_no_drops();
}

#[test]
fn the_hosts_fragments_wait_too() {
    let mut scene = scene::set();
    let listener = Listener::on("sluice0-dp");
    let packet = Packet::udp((GATEWAY, 5000), (WEB.address, 53)).payload(&[1; 1472]);
    let overtaker = packet.clone().fragment(31, 1480, false);
    assert_eq!(scene.host_says(&overtaker).verdict, Verdict::Dropped);
    scene.host_says(&packet.fragment(31, 0, true)).sent();
    assert_eq!(listener.frames(1), [overtaker.macs(HOST_MAC, WEB.mac).build()]);
    scene.assert_no_drops();
}

/// Pitfall B49.
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

fn built(from: Container, packet: &Packet) -> Frame {
    packet.clone().macs(from.mac, GATEWAY_MAC).build()
}

fn built_to(from: Container, to: Container, packet: &Packet) -> Frame {
    packet.clone().macs(from.mac, to.mac).build()
}
