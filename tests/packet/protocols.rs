//! Protocols besides TCP, UDP and ping: what can be translated is, and what cannot be says so.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::State;

use crate::frame::{ACK, GRE, Packet, RST, SCTP, SYN, UDP_LITE, UNREACHABLE};
use crate::scene::{self, CLIENT, NIC_ADDRESS, SERVER, SHOP, WEB};

const SOURCE_QUENCH: u8 = 4;

/// GRE, ESP, AH, DCCP, OSPF.
const PORTLESS: [u8; 5] = [GRE, 50, 51, 33, 89];

/// Pitfall B50.
#[test]
fn sctp_reaches_a_published_port_and_its_crc_stays_right() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 9000, SCTP, WEB, 38_412);
    let mut init = Packet::sctp((CLIENT, 5000), (NIC_ADDRESS, 9000)).payload(&[7; 100]);
    init.tcp_flags = SYN;
    let frame = scene.world_says(&init).sent();
    assert_eq!((frame.destination(), frame.destination_port()), (WEB.address, 38_412));
    let mut answer = Packet::sctp((WEB.address, 38_412), (CLIENT, 5000)).payload(&[1; 37]);
    answer.tcp_flags = SYN | ACK;
    let frame = scene.says(WEB, &answer).sent();
    assert_eq!((frame.source(), frame.source_port()), (NIC_ADDRESS, 9000));
}

#[test]
fn two_containers_share_an_sctp_port_towards_one_server() {
    let mut scene = scene::set();
    let init = |from| {
        let mut init = Packet::sctp((from, 20_000), (SERVER, 80)).payload(&[3; 51]);
        init.tcp_flags = SYN;
        init
    };
    let first = scene.says(WEB, &init(WEB.address)).sent();
    let second = scene.says(SHOP, &init(SHOP.address)).sent();
    assert_eq!((first.source(), first.source_port()), (NIC_ADDRESS, 20_000));
    assert_eq!(second.source(), NIC_ADDRESS);
    assert_ne!(second.source_port(), 20_000);
    let mut answer = Packet::sctp((SERVER, 80), (NIC_ADDRESS, second.source_port()));
    answer.tcp_flags = SYN | ACK;
    let frame = scene.world_says(&answer).sent();
    assert_eq!((frame.destination(), frame.destination_port()), (SHOP.address, 20_000));
}

#[test]
fn an_sctp_checksum_that_waits_for_the_nic_is_left_alone() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 9000, SCTP, WEB, 38_412);
    let mut init = Packet::sctp((CLIENT, 5000), (NIC_ADDRESS, 9000));
    init.tcp_flags = SYN;
    let mut frame = init.macs(scene::ROUTER_MAC, scene::NIC_MAC).build();
    frame.0[42..46].fill(0);
    let sent = scene.run(sluice_datapath_common::programs::FROM_NIC, scene::NIC, &frame);
    assert_eq!(&sent.frame.0[42..46], &[0; 4]);
    assert_eq!(sent.frame.destination_port(), 38_412);
}

#[test]
fn only_an_init_opens_an_sctp_association_through_a_translation() {
    let mut scene = scene::set();
    let data = Packet::sctp((WEB.address, 20_000), (SERVER, 80));
    let outcome = scene.says(WEB, &data);
    scene.assert_dropped(&outcome, DropReason::NotAnOpening, Direction::FromContainer, WEB.number);
}

#[test]
fn an_abort_closes_an_sctp_association() {
    let mut scene = scene::set();
    let mut packet = Packet::sctp((WEB.address, 20_000), (SERVER, 80));
    packet.tcp_flags = SYN;
    scene.says(WEB, &packet).sent();
    let mut answer = Packet::sctp((SERVER, 80), (NIC_ADDRESS, 20_000));
    answer.tcp_flags = SYN | ACK;
    scene.world_says(&answer).sent();
    packet.tcp_flags = 0;
    scene.says(WEB, &packet).sent();
    packet.tcp_flags = RST;
    scene.says(WEB, &packet).sent();
    let flow = scene.flow(2, SCTP, (WEB.address, 20_000), (SERVER, 80)).unwrap();
    assert_eq!(flow.state, State::Closed as u8);
}

/// Pitfall B48.
#[test]
fn an_error_about_sctp_is_translated_with_the_crc_it_quotes() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 9000, SCTP, WEB, 38_412);
    let mut init = Packet::sctp((CLIENT, 5000), (NIC_ADDRESS, 9000)).payload(&[7; 61]);
    init.tcp_flags = SYN;
    let asked = scene.world_says(&init).sent();
    for quoted in [28, 32, 1000] {
        let error = scene
            .says(WEB, &Packet::error(WEB.address, CLIENT, UNREACHABLE, &asked, quoted))
            .sent();
        let quote = error.quoted();
        assert_eq!(
            (quote.destination(), quote.destination_port()),
            (NIC_ADDRESS, 9000),
            "{quoted} bytes"
        );
        if quoted == 1000 {
            quote.sums().unwrap();
        }
    }
}

#[test]
fn fragments_of_sctp_pass_where_the_port_stays_and_are_refused_where_it_changes() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 9000, SCTP, WEB, 9000);
    scene.publish(Ipv4Addr::UNSPECIFIED, 9001, SCTP, WEB, 38_412);
    let mut init = Packet::sctp((CLIENT, 5000), (NIC_ADDRESS, 9000)).payload(&[7; 1000]);
    init.tcp_flags = SYN;
    let frame = scene.world_says(&init.clone().fragment(7, 0, true)).sent();
    assert_eq!(frame.destination(), WEB.address);
    init.destination_port = 9001;
    let outcome = scene.world_says(&init.fragment(8, 0, true));
    scene.assert_dropped(&outcome, DropReason::CannotTranslate, Direction::FromNic, 0);
}

#[test]
fn udp_lite_is_translated_as_udp_is() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 9000, UDP_LITE, WEB, 9);
    let frame = scene
        .world_says(&Packet::udp_lite((CLIENT, 5000), (NIC_ADDRESS, 9000)))
        .sent();
    assert_eq!((frame.destination(), frame.destination_port()), (WEB.address, 9));
    let frame = scene
        .says(WEB, &Packet::udp_lite((WEB.address, 20_000), (SERVER, 9)))
        .sent();
    assert_eq!((frame.source(), frame.source_port()), (NIC_ADDRESS, 20_000));
}

#[test]
fn protocols_without_ports_pass_between_neighbours_and_not_through_a_translation() {
    for protocol in PORTLESS {
        let mut scene = scene::set();
        let between = Packet::other(protocol, WEB.address, SHOP.address);
        assert_eq!(
            scene.says(WEB, &between).sent(),
            between.macs(WEB.mac, SHOP.mac).build()
        );
        let outcome = scene.says(WEB, &Packet::other(protocol, WEB.address, SERVER));
        scene.assert_dropped(
            &outcome,
            DropReason::CannotTranslate,
            Direction::FromContainer,
            WEB.number,
        );
        scene.world_says(&Packet::other(protocol, CLIENT, NIC_ADDRESS)).stays();
    }
}

/// Nobody sends them any more (RFC 6633), but who gets one must not take it for a conversation. IPv6 never had them.
#[test]
fn a_source_quench_goes_where_other_errors_go() {
    let mut scene = scene::set();
    let sent = scene
        .says(WEB, &Packet::udp((WEB.address, 20_000), (SERVER, 53)))
        .sent();
    let error = scene
        .world_says(&Packet::error(SERVER, NIC_ADDRESS, SOURCE_QUENCH, &sent, 28))
        .sent();
    assert_eq!(
        (error.destination(), error.quoted().source()),
        (WEB.address, WEB.address)
    );
}
