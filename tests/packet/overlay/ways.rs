//! Who else speaks between hosts: the hosts themselves, clients of ports that all of them publish, and neighbours that need no wrapping.

use super::*;

#[test]
fn the_host_speaks_to_endpoints_elsewhere_as_the_gateway() {
    let mut scene = set();
    for source in [GATEWAY, NIC_ADDRESS] {
        let packet = Packet::tcp((source, 40_000), (FAR, 80), SYN).macs(HOST_MAC, FAR_MAC);
        let out = unwrap(scene.run(programs::FROM_HOST, HOST_LEG, &packet.build()));
        assert_eq!(
            (out.to, out.inner.source(), out.inner.destination()),
            (PEER.into(), GATEWAY, FAR)
        );
        assert_eq!(out.inner.receiver_mac(), FAR_MAC);
        let answer = Packet::tcp((FAR, 80), (GATEWAY, out.inner.source_port()), SYN | ACK)
            .macs(FAR_MAC, GATEWAY_MAC)
            .build();
        let back = sent_by(&mut scene, PEER.into(), VNI, &answer).sent();
        assert_eq!((back.destination(), back.destination_port()), (source, 40_000));
    }
    // and asks for their MACs
    let asked = Frame::who_has((HOST_MAC, GATEWAY), FAR);
    let told = scene.run(programs::FROM_HOST, HOST_LEG, &asked);
    assert_eq!((told.verdict, told.frame.sender_mac()), (Verdict::Sent, FAR_MAC));
}

#[test]
fn other_hosts_speak_to_endpoints_as_the_gateway_and_are_told_apart() {
    let mut scene = set();
    let question = Packet::udp((GATEWAY, 5000), (NEAR.address, 53))
        .macs(GATEWAY_MAC, NEAR.mac)
        .build();
    let first = sent_by(&mut scene, PEER.into(), VNI, &question).sent();
    assert_eq!((first.source(), first.source_port()), (GATEWAY, 5000));
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &question);
    if outcome.verdict == Verdict::Stack {
        return;
    }
    let second = outcome.sent();
    assert_eq!(second.source(), GATEWAY);
    assert_ne!(
        second.source_port(),
        5000,
        "two hosts have the same address, not the same port"
    );
    for (port, host) in [(5000, IpAddr::from(PEER)), (second.source_port(), PEER6.into())] {
        let answer = Packet::udp((NEAR.address, 53), (GATEWAY, port)).macs(NEAR.mac, GATEWAY_MAC);
        let out = unwrap(scene.says(NEAR, &answer));
        assert_eq!((out.to, out.inner.destination_port()), (host, 5000));
    }
}

#[test]
fn an_endpoint_is_told_the_mac_of_one_on_another_host() {
    let mut scene = set();
    let asked = Frame::who_has((NEAR.mac, NEAR.address), FAR);
    let told = scene.run(programs::FROM_CONTAINER, NEAR.ifindex, &asked);
    assert_eq!((told.verdict, told.frame.sender_mac()), (Verdict::Sent, FAR_MAC));
    let asked = Frame::who_has((NEAR.mac, NEAR.address), Ipv4Addr::new(10, 7, 0, 99));
    let told = scene.run(programs::FROM_CONTAINER, NEAR.ifindex, &asked);
    scene.assert_dropped(&told, DropReason::NoSuchEndpoint, Direction::FromContainer, NEAR.number);
}

/// A port of the far endpoint that every host accepts.
fn publish_far(scene: &mut Scene) {
    let key = PublishKey::<Ipv4> {
        address: Ipv4Address::default(),
        port: 8080u16.to_be(),
        protocol: TCP,
        padding: 0,
    };
    let publication = Publication::<Ipv4> {
        network: NUMBER as u16,
        endpoint: 0,
        address: FAR.into(),
        port: 80u16.to_be(),
        first: 0,
        limited: 0,
    };
    scene.insert("PUBLISHED4", key, publication);
}

#[test]
fn a_port_of_an_endpoint_elsewhere_is_reached_here_with_the_clients_own_address() {
    let mut scene = set();
    publish_far(&mut scene);
    let asked = Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN);
    let out = unwrap(scene.world_says(&asked));
    assert_eq!((out.to, out.vni), (PEER.into(), VNI));
    assert_eq!((out.inner.source(), out.inner.source_port()), (CLIENT, 5000));
    assert_eq!((out.inner.destination(), out.inner.destination_port()), (FAR, 80));
    assert_eq!(
        (out.inner.receiver_mac(), out.inner.sender_mac()),
        (FAR_MAC, GATEWAY_MAC)
    );
    let answer = Packet::tcp((FAR, 80), (CLIENT, 5000), SYN | ACK)
        .macs(FAR_MAC, GATEWAY_MAC)
        .build();
    let back = sent_by(&mut scene, PEER.into(), VNI, &answer).sent();
    assert_eq!((back.source(), back.source_port()), (NIC_ADDRESS, 8080));
    assert_eq!((back.destination(), back.destination_port()), (CLIENT, 5000));
}

#[test]
fn the_owner_of_such_a_port_takes_clients_from_other_hosts_and_answers_by_them() {
    let mut scene = set();
    let asked = Packet::tcp((CLIENT, 5000), (NEAR.address, 80), SYN)
        .macs(GATEWAY_MAC, NEAR.mac)
        .build();
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &asked);
    scene.assert_dropped(&outcome, DropReason::ForgedRemote, Direction::FromNic, 0);
    let key = PublishKey::<Ipv4> {
        address: NEAR.address.into(),
        port: 80u16.to_be(),
        protocol: TCP,
        padding: 0,
    };
    let publication = Publication::<Ipv4> {
        network: NUMBER as u16,
        endpoint: NEAR.number,
        address: NEAR.address.into(),
        port: 80u16.to_be(),
        first: 0,
        limited: 0,
    };
    scene.insert("PUBLISHED4", key, publication);
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &asked).sent().source(), CLIENT);
    let answer = Packet::tcp((NEAR.address, 80), (CLIENT, 5000), SYN | ACK).macs(NEAR.mac, GATEWAY_MAC);
    let out = unwrap(scene.says(NEAR, &answer));
    assert_eq!(
        (out.to, out.inner.destination(), out.inner.source_port()),
        (PEER.into(), CLIENT, 80)
    );
    // clients that it is not for
    scene.insert(
        "PUBLISHED4",
        key,
        Publication {
            limited: 1,
            ..publication
        },
    );
    let asked = Packet::tcp((CLIENT, 5001), (NEAR.address, 80), SYN)
        .macs(GATEWAY_MAC, NEAR.mac)
        .build();
    scene.take_drops();
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &asked);
    scene.assert_dropped(&outcome, DropReason::PublishFrom, Direction::FromNic, 0);
}

#[test]
fn hosts_of_one_link_send_without_wrapping_where_the_network_wants_it_so() {
    let mut scene = set();
    lay(&mut scene, NETWORK_ICC | NETWORK_MASQUERADES | NETWORK_DIRECT);
    // no neighbour yet: wrapped all the same
    unwrap(said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53))));
    let neighbour = Host {
        neighbour4: PEER.into(),
        ..host(PEER.into(), NIC_ADDRESS.into(), MTU)
    };
    scene.set("HOSTS", 1, neighbour);
    let packet = Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN);
    let frame = said(&mut scene, packet.clone()).sent();
    assert_eq!(
        (frame.source(), frame.destination(), frame.ttl()),
        (NEAR.address, FAR, 63)
    );
    let flow = scene.flow(NUMBER, TCP, (NEAR.address, 40_000), (FAR, 80)).unwrap();
    assert_eq!(
        (flow.action, flow.ifindex, flow.next_hop),
        (Action::World as u8, NIC, PEER.into())
    );
    // it passes the NIC as it is
    scene.leaves_from(NEAR, &packet.ttl(63)).stays();
    let answer = scene
        .world_says(&Packet::tcp((FAR, 80), (NEAR.address, 40_000), SYN | ACK))
        .sent();
    assert_eq!((answer.source(), answer.receiver_mac()), (FAR, NEAR.mac));
    // the other way round
    let asked = scene
        .world_says(&Packet::tcp((FAR, 1000), (NEAR.address, 81), SYN))
        .sent();
    assert_eq!(asked.receiver_mac(), NEAR.mac);
    let answer = scene
        .says(
            NEAR,
            &Packet::tcp((NEAR.address, 81), (FAR, 1000), SYN | ACK).macs(NEAR.mac, FAR_MAC),
        )
        .sent();
    assert_eq!((answer.source(), answer.destination()), (NEAR.address, FAR));
    // nobody else does so
    let outcome = scene.world_says(&Packet::tcp((CLIENT, 1000), (NEAR.address, 81), SYN));
    scene.assert_dropped(&outcome, DropReason::Unpublished, Direction::FromNic, 0);
}

/// `traceroute` and the MTU of the path work from behind a port that another host has published.
#[test]
fn who_answers_by_another_host_is_told_what_gets_no_further_there() {
    let mut scene = set();
    publish_far(&mut scene);
    let asked = Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN);
    unwrap(scene.world_says(&asked));
    let answer = Packet::tcp((FAR, 80), (CLIENT, 5000), SYN | ACK)
        .ttl(1)
        .macs(FAR_MAC, GATEWAY_MAC)
        .build();
    let given = sent_by(&mut scene, PEER.into(), VNI, &answer).sent();
    assert_eq!(
        (given.receiver_mac(), given.ttl()),
        (HOST_MAC, 1),
        "the host's to report on"
    );
    let report = Packet::error(GATEWAY, FAR, TIME_EXCEEDED, &answer, 28).macs(HOST_MAC, LEG_MAC);
    let told = unwrap(scene.run(programs::FROM_HOST, HOST_LEG, &report.build()));
    assert_eq!((told.to, told.vni), (PEER.into(), VNI));
    assert_eq!((told.inner.destination(), told.inner.receiver_mac()), (FAR, FAR_MAC));
    scene.assert_no_drops();
}
