//! ICMP errors, translated by the packet they quote.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};

use crate::frame::{ECHO_REQUEST, Frame, Packet, SYN, TCP, TIME_EXCEEDED, UDP, UNREACHABLE};
use crate::scene::{self, CLIENT, NIC_ADDRESS, ROUTER, SERVER, SHOP, WEB};

/// The quoted packet, whose own checksums are right where the quotation is whole.
#[track_caller]
fn quoted(error: &Frame) -> Frame {
    let quoted = error.quoted();
    quoted.ip_sum().unwrap();
    quoted
}

/// Pitfall B48.
#[test]
fn an_error_about_a_masqueraded_packet_finds_its_sender() {
    let mut scene = scene::set();
    let sent = scene
        .says(WEB, &Packet::udp((WEB.address, 40_000), (SERVER, 33_434)))
        .sent();
    let error = scene
        .world_says(&Packet::error(ROUTER, NIC_ADDRESS, TIME_EXCEEDED, &sent, 1000))
        .sent();
    assert_eq!(
        (error.source(), error.destination(), error.receiver_mac()),
        (ROUTER, WEB.address, WEB.mac)
    );
    let quoted = quoted(&error);
    quoted.sums().unwrap();
    assert_eq!((quoted.source(), quoted.source_port()), (WEB.address, 40_000));
    assert_eq!((quoted.destination(), quoted.destination_port()), (SERVER, 33_434));
}

#[test]
fn eight_quoted_bytes_are_enough() {
    let mut scene = scene::set();
    let sent = scene
        .says(WEB, &Packet::tcp((WEB.address, 40_000), (SERVER, 80), SYN))
        .sent();
    let error = scene
        .world_says(&Packet::error(SERVER, NIC_ADDRESS, UNREACHABLE, &sent, 28))
        .sent();
    let quoted = quoted(&error);
    assert_eq!(
        (quoted.source(), quoted.source_port(), quoted.destination()),
        (WEB.address, 40_000, SERVER)
    );
}

#[test]
fn an_error_about_a_ping_gives_the_identifier_back() {
    let mut scene = scene::set();
    scene
        .says(SHOP, &Packet::echo(SHOP.address, SERVER, ECHO_REQUEST, 77))
        .sent();
    let sent = scene
        .says(WEB, &Packet::echo(WEB.address, SERVER, ECHO_REQUEST, 77))
        .sent();
    assert_ne!(sent.identifier(), 77);
    let error = scene
        .world_says(&Packet::error(ROUTER, NIC_ADDRESS, TIME_EXCEEDED, &sent, 1000))
        .sent();
    let quoted = quoted(&error);
    quoted.sums().unwrap();
    assert_eq!((error.destination(), quoted.identifier()), (WEB.address, 77));
}

#[test]
fn a_clients_error_about_an_answer_reaches_the_endpoint() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 53, UDP, WEB, 5353);
    scene.world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53))).sent();
    let answer = scene
        .says(WEB, &Packet::udp((WEB.address, 5353), (CLIENT, 5000)))
        .sent();
    let error = scene
        .world_says(&Packet::error(CLIENT, NIC_ADDRESS, UNREACHABLE, &answer, 1000))
        .sent();
    let quoted = quoted(&error);
    quoted.sums().unwrap();
    assert_eq!((quoted.source(), quoted.source_port()), (WEB.address, 5353));
    assert_eq!((quoted.destination(), quoted.destination_port()), (CLIENT, 5000));
}

/// Pitfall B48.
#[test]
fn an_endpoints_error_about_a_published_port_speaks_of_that_port() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 53, UDP, WEB, 5353);
    let asked = scene.world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53))).sent();
    let error = scene
        .says(WEB, &Packet::error(WEB.address, CLIENT, UNREACHABLE, &asked, 1000))
        .sent();
    assert_eq!((error.source(), error.destination()), (NIC_ADDRESS, CLIENT));
    let quoted = quoted(&error);
    quoted.sums().unwrap();
    assert_eq!(
        (quoted.source(), quoted.destination(), quoted.destination_port()),
        (CLIENT, NIC_ADDRESS, 53)
    );
}

#[test]
fn an_error_between_neighbours_passes_as_it_is() {
    let mut scene = scene::set();
    let asked = scene
        .says(WEB, &Packet::udp((WEB.address, 4000), (SHOP.address, 53)))
        .sent();
    let packet = Packet::error(SHOP.address, WEB.address, UNREACHABLE, &asked, 1000);
    let error = scene.says(SHOP, &packet).sent();
    assert_eq!(error, packet.macs(SHOP.mac, WEB.mac).build());
}

#[test]
fn an_error_about_nothing_known_is_dropped_from_a_container_and_the_hosts_from_the_world() {
    let mut scene = scene::set();
    let never_sent = Packet::udp((SHOP.address, 53), (WEB.address, 4000)).build();
    let outcome = scene.says(
        WEB,
        &Packet::error(WEB.address, SHOP.address, UNREACHABLE, &never_sent, 1000),
    );
    scene.assert_dropped(
        &outcome,
        DropReason::UnrelatedError,
        Direction::FromContainer,
        WEB.number,
    );
    let of_host = Packet::tcp((NIC_ADDRESS, 4000), (SERVER, 80), SYN).build();
    scene
        .world_says(&Packet::error(ROUTER, NIC_ADDRESS, TIME_EXCEEDED, &of_host, 1000))
        .stays();
}

#[test]
fn an_error_does_not_open_or_answer_a_flow() {
    let mut scene = scene::set();
    let sent = scene
        .says(WEB, &Packet::tcp((WEB.address, 20_000), (SERVER, 80), SYN))
        .sent();
    scene
        .world_says(&Packet::error(ROUTER, NIC_ADDRESS, UNREACHABLE, &sent, 28))
        .sent();
    assert_eq!(scene.counts(), (0, 2));
    assert_eq!(
        scene.flow(0, TCP, (SERVER, 80), (NIC_ADDRESS, 20_000)).unwrap().packets,
        0
    );
}

/// Type and greatest code: unreachable, time exceeded, parameter problem (RFC 792, RFC 1812).
const ERRORS: [(u8, u8); 3] = [(UNREACHABLE, 15), (TIME_EXCEEDED, 1), (12, 2)];

#[test]
fn errors_of_all_types_and_codes_reach_whoever_sent_the_packet_out() {
    let mut scene = scene::set();
    for (kind, last) in ERRORS {
        for code in 0..=last {
            for packet in [
                Packet::udp((WEB.address, 40_000), (SERVER, 33_434)),
                Packet::udp((WEB.address, 40_000), (SERVER, 33_434)).options(10),
                Packet::udp((WEB.address, 40_000), (SERVER, 33_434)).without_udp_checksum(),
                Packet::udp((WEB.address, 40_000), (SERVER, 33_434)).fragment(5, 0, true),
            ] {
                let sent = scene.says(WEB, &packet).sent();
                let whole = sent.0.len();
                for quoted_bytes in [8 + 20 + 4 * packet.options, whole] {
                    let error = Packet::error(ROUTER, NIC_ADDRESS, kind, &sent, quoted_bytes).code(code);
                    let told = scene.world_says(&error).sent();
                    assert_eq!(told.icmp_kind_and_code(), (kind, code));
                    assert_eq!((told.source(), told.destination()), (ROUTER, WEB.address));
                    let quote = told.quoted();
                    quote.ip_sum().unwrap();
                    if quoted_bytes == whole {
                        quote.sums().unwrap();
                    }
                    assert_eq!((quote.source(), quote.source_port()), (WEB.address, 40_000));
                }
            }
        }
    }
    scene.assert_no_drops();
}

#[test]
fn errors_of_all_types_and_codes_reach_whoever_asked_a_published_port() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 53, UDP, WEB, 5353);
    for (kind, last) in ERRORS {
        for code in 0..=last {
            for options in [0, 10] {
                let asked = scene
                    .world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53)).options(options))
                    .sent();
                let error = Packet::error(WEB.address, CLIENT, kind, &asked, 1000).code(code);
                let told = scene.says(WEB, &error).sent();
                assert_eq!(told.icmp_kind_and_code(), (kind, code));
                assert_eq!((told.source(), told.destination()), (NIC_ADDRESS, CLIENT));
                let quote = told.quoted();
                quote.sums().unwrap();
                assert_eq!((quote.destination(), quote.destination_port()), (NIC_ADDRESS, 53));
            }
        }
    }
    scene.assert_no_drops();
}

/// Nobody may report on it (RFC 1122, 3.2.2), and it does not say whose it is.
#[test]
fn an_error_about_a_later_fragment_is_the_hosts() {
    let mut scene = scene::set();
    let packet = Packet::udp((WEB.address, 40_000), (SERVER, 33_434)).payload(&[1; 1472]);
    scene.says(WEB, &packet.clone().fragment(6, 0, true)).sent();
    let later = scene.says(WEB, &packet.fragment(6, 1480, false)).sent();
    scene
        .world_says(&Packet::error(ROUTER, NIC_ADDRESS, TIME_EXCEEDED, &later, 1000))
        .stays();
}
