//! Published ports, from everywhere.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::{Action, FLOW_PUBLISHED, SCOPE_WORLD};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_MASQUERADES};
use sluice_datapath_common::{Ipv4Address, programs};

use crate::datapath::Verdict;
use crate::frame::{ACK, FIN, Packet, RST, SYN, TCP, UDP};
use crate::scene::{
    self, CLIENT, GATEWAY, GATEWAY_MAC, LONE, NIC, NIC_ADDRESS, NIC_MAC, ROUTER_MAC, SECOND_ADDRESS, SECOND_NIC,
    SERVER, SHOP, WEB,
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn a_client_of_the_lan_reaches_the_endpoint_as_itself() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    let frame = scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_eq!((frame.source(), frame.source_port()), (CLIENT, 5000));
    assert_eq!((frame.destination(), frame.destination_port()), (WEB.address, 80));
    assert_eq!((frame.receiver_mac(), frame.sender_mac()), (WEB.mac, GATEWAY_MAC));
    let flow = scene
        .flow(SCOPE_WORLD, TCP, (CLIENT, 5000), (NIC_ADDRESS, 8080))
        .unwrap();
    assert_eq!((flow.action, flow.ifindex), (Action::Endpoint as u8, WEB.ifindex));
    assert_ne!(flow.flags & FLOW_PUBLISHED, 0);
}

#[test]
fn the_endpoints_answer_comes_from_the_published_port() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    let frame = scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, 5000), SYN | ACK))
        .sent();
    assert_eq!((frame.source(), frame.source_port()), (NIC_ADDRESS, 8080));
    assert_eq!((frame.destination(), frame.destination_port()), (CLIENT, 5000));
    let flow = scene.flow(2, TCP, (WEB.address, 80), (CLIENT, 5000)).unwrap();
    assert_eq!(
        (flow.action, flow.ifindex, flow.next_hop),
        (Action::World as u8, NIC, Ipv4Address::from(CLIENT))
    );
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), ACK))
        .sent();
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn an_answer_to_afar_goes_by_the_router() {
    let mut scene = scene::set();
    scene.publish(ANY, 53, UDP, WEB, 53);
    scene.world_says(&Packet::udp((SERVER, 5000), (NIC_ADDRESS, 53))).sent();
    let flow = scene.flow(2, UDP, (WEB.address, 53), (SERVER, 5000)).unwrap();
    assert_eq!(flow.next_hop, Ipv4Address::from(scene::ROUTER));
}

#[test]
fn an_answer_without_a_route_goes_back_by_the_nic_it_came_from() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    let packet = Packet::tcp((Ipv4Addr::new(100, 64, 0, 9), 5000), (SECOND_ADDRESS, 8080), SYN);
    let packet = packet.macs(ROUTER_MAC, [0x02, 0x42, 0, 0, 0, 0x32]);
    scene.run(programs::FROM_NIC, SECOND_NIC, &packet.build()).sent();
    let flow = scene
        .flow(2, TCP, (WEB.address, 80), (Ipv4Addr::new(100, 64, 0, 9), 5000))
        .unwrap();
    assert_eq!((flow.ifindex, flow.next_hop), (SECOND_NIC, Ipv4Address(0)));
}

#[test]
fn the_exact_address_goes_before_all_addresses() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    scene.publish(NIC_ADDRESS, 8080, TCP, SHOP, 81);
    let frame = scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_eq!((frame.destination(), frame.destination_port()), (SHOP.address, 81));
}

/// Pitfall B2.
#[test]
fn a_port_published_at_another_address_is_not_published_here() {
    let mut scene = scene::set();
    scene.publish(SECOND_ADDRESS, 8080, TCP, WEB, 80);
    scene.publish(Ipv4Addr::LOCALHOST, 8081, TCP, WEB, 80);
    for port in [8080, 8081] {
        scene
            .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, port), SYN))
            .stays();
    }
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn a_tcp_port_is_not_a_udp_port() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    scene
        .world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 8080)))
        .stays();
}

#[test]
fn only_a_syn_opens_a_published_connection() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    for flags in [ACK, FIN | ACK, SYN | ACK, 0] {
        scene
            .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), flags))
            .stays();
    }
    assert_eq!(scene.counts(), (0, 0));
    scene.assert_no_drops();
}

#[test]
fn a_socket_of_the_host_keeps_what_is_its_own() {
    let mut scene = scene::set();
    let _socket = scene::bind_udp(NIC_ADDRESS, 8080);
    scene.publish(ANY, 8080, UDP, WEB, 80);
    scene
        .world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 8080)))
        .stays();
}

#[test]
fn an_address_of_ours_does_not_come_in_by_a_nic() {
    for source in [SHOP.address, GATEWAY, NIC_ADDRESS] {
        let mut scene = scene::set();
        scene.publish(ANY, 8080, TCP, WEB, 80);
        let outcome = scene.world_says(&Packet::tcp((source, 5000), (NIC_ADDRESS, 8080), SYN));
        scene.assert_dropped(&outcome, DropReason::ForgedSource, Direction::FromNic, 0);
    }
}

#[test]
fn two_ports_of_one_endpoint_are_told_apart_for_one_client() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    scene.publish(ANY, 8081, TCP, WEB, 80);
    let first = scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    let second = scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8081), SYN))
        .sent();
    assert_ne!(first.source_port(), second.source_port());
    let back = Packet::tcp((WEB.address, 80), (CLIENT, second.source_port()), SYN | ACK);
    let back = scene.says(WEB, &back).sent();
    assert_eq!((back.source_port(), back.destination_port()), (8081, 5000));
}

#[test]
fn a_neighbour_reaches_the_published_port_as_itself() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    let frame = scene
        .says(SHOP, &Packet::tcp((SHOP.address, 4000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_eq!(
        (frame.source(), frame.destination(), frame.destination_port()),
        (SHOP.address, WEB.address, 80)
    );
    assert_eq!((frame.receiver_mac(), frame.sender_mac()), (WEB.mac, GATEWAY_MAC));
    let back = scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (SHOP.address, 4000), SYN | ACK))
        .sent();
    assert_eq!(
        (back.source(), back.source_port(), back.destination()),
        (NIC_ADDRESS, 8080, SHOP.address)
    );
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 4000), (NIC_ADDRESS, 8080), ACK))
        .sent();
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn a_published_port_is_open_to_other_networks_and_without_icc() {
    let mut scene = scene::set();
    scene.network(2, NETWORK_EXISTS | NETWORK_MASQUERADES);
    scene.publish(ANY, 8080, TCP, WEB, 80);
    let frame = scene
        .says(LONE, &Packet::tcp((LONE.address, 4000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_eq!(frame.destination(), WEB.address);
    let back = scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (LONE.address, 4000), SYN | ACK))
        .sent();
    assert_eq!((back.source(), back.receiver_mac()), (NIC_ADDRESS, LONE.mac));
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 4000), (NIC_ADDRESS, 8080), SYN))
        .sent();
}

#[test]
fn an_endpoint_reaches_its_own_published_port_by_way_of_the_gateway() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    let frame = scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_eq!(
        (frame.source(), frame.destination(), frame.destination_port()),
        (GATEWAY, WEB.address, 80)
    );
    assert_eq!((frame.receiver_mac(), frame.sender_mac()), (WEB.mac, GATEWAY_MAC));
    let answer = Packet::tcp((WEB.address, 80), (GATEWAY, frame.source_port()), SYN | ACK);
    let back = scene.says(WEB, &answer).sent();
    assert_eq!((back.source(), back.source_port()), (NIC_ADDRESS, 8080));
    assert_eq!((back.destination(), back.destination_port()), (WEB.address, 4000));
}

#[test]
fn a_direct_connection_and_one_by_the_published_port_do_not_mix() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 4000), (WEB.address, 80), SYN))
        .sent();
    let by_port = scene
        .says(SHOP, &Packet::tcp((SHOP.address, 4000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_ne!(by_port.source_port(), 4000);
    let back = scene
        .says(
            WEB,
            &Packet::tcp((WEB.address, 80), (SHOP.address, by_port.source_port()), SYN | ACK),
        )
        .sent();
    assert_eq!((back.source(), back.destination_port()), (NIC_ADDRESS, 4000));
    let direct = scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (SHOP.address, 4000), SYN | ACK))
        .sent();
    assert_eq!(direct.source(), WEB.address);
}

#[test]
fn a_publication_whose_endpoint_is_gone_reaches_nobody() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    scene.stop(WEB);
    let outcome = scene.world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN));
    scene.assert_dropped(&outcome, DropReason::NoSuchEndpoint, Direction::FromNic, 0);
}

#[test]
fn what_a_promiscuous_nic_overhears_is_left_alone() {
    let mut scene = scene::set();
    scene.publish(ANY, 8080, TCP, WEB, 80);
    let packet = Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN).macs(ROUTER_MAC, SHOP.mac);
    assert_ne!(SHOP.mac, NIC_MAC);
    assert_eq!(
        scene.run(programs::FROM_NIC, NIC, &packet.build()).verdict,
        Verdict::Stack
    );
    assert_eq!(scene.counts(), (0, 0));
}

/// Pitfall B3.
#[test]
fn a_port_published_at_loopback_is_not_there_for_the_lan() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::LOCALHOST, 8080, TCP, WEB, 80);
    for to in [NIC_ADDRESS, Ipv4Addr::LOCALHOST] {
        let packet = Packet::tcp((CLIENT, 5000), (to, 8080), SYN);
        assert_eq!(
            scene.world_says(&packet).stays(),
            packet.macs(ROUTER_MAC, NIC_MAC).build()
        );
    }
    assert_eq!(scene.counts(), (0, 0));
}

/// Pitfall B15.
#[test]
fn a_datagram_that_comes_before_the_container_pins_nothing() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 53, UDP, WEB, 53);
    scene.stop(WEB);
    let question = Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 53));
    let outcome = scene.world_says(&question);
    scene.assert_dropped(&outcome, DropReason::NoSuchEndpoint, Direction::FromNic, 0);
    assert_eq!(scene.counts(), (0, 0));
    scene.start(WEB);
    assert_eq!(scene.world_says(&question).sent().destination(), WEB.address);
}

/// Pitfall B45. Nor does the next connection of the container skip its translation because of it.
#[test]
fn a_late_packet_of_a_forgotten_connection_opens_nothing_the_wrong_way_round() {
    let mut scene = scene::set();
    for flags in [ACK, FIN | ACK, SYN | ACK, RST] {
        // The answer of a server to a container's connection that nobody remembers, at the port that it had.
        scene
            .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, 20_000), flags))
            .stays();
        // The client of a published port, and the container's answer to it.
        scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, WEB, 80);
        scene
            .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), flags))
            .stays();
        let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, 5000), flags));
        assert_eq!(outcome.verdict, Verdict::Dropped);
    }
    assert_eq!(scene.counts(), (0, 0));
    let frame = scene
        .says(WEB, &Packet::tcp((WEB.address, 20_000), (SERVER, 80), SYN))
        .sent();
    assert_eq!(frame.source(), NIC_ADDRESS);
}

/// Pitfall B12.
#[test]
fn each_port_of_a_range_leads_to_its_counterpart() {
    let mut scene = scene::set();
    scene.publish_range(ANY, (20_000, 29_999), TCP, (WEB, 5000));
    for (port, inside) in [(20_000, 5000), (20_001, 5001), (24_576, 9576), (29_999, 14_999)] {
        let frame = scene
            .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, port), SYN))
            .sent();
        assert_eq!((frame.destination(), frame.destination_port()), (WEB.address, inside));
        let back = scene
            .says(WEB, &Packet::tcp((WEB.address, inside), (CLIENT, 5000), SYN | ACK))
            .sent();
        assert_eq!((back.source(), back.source_port()), (NIC_ADDRESS, port));
    }
    for port in [19_999, 30_000] {
        scene
            .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, port), SYN))
            .stays();
    }
    scene
        .world_says(&Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 20_000)))
        .stays();
}

#[test]
fn a_single_port_goes_before_a_range_and_an_exact_address_before_all() {
    let mut scene = scene::set();
    scene.publish_range(ANY, (20_000, 20_999), TCP, (WEB, 20_000));
    scene.publish_range(NIC_ADDRESS, (20_100, 20_199), TCP, (SHOP, 100));
    scene.publish(ANY, 20_150, TCP, WEB, 80);
    for (port, to) in [
        (20_000, (WEB.address, 20_000)),
        (20_120, (SHOP.address, 120)),
        (20_150, (WEB.address, 80)),
    ] {
        let frame = scene
            .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, port), SYN))
            .sent();
        assert_eq!((frame.destination(), frame.destination_port()), to, "{port}");
    }
}
