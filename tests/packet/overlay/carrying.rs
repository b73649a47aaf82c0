//! What goes into a packet to another host and what comes out of one.

use super::*;

#[test]
fn what_an_endpoint_says_to_one_on_another_host_is_wrapped_up() {
    let mut scene = set();
    let packet = Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN);
    let out = unwrap(said(&mut scene, packet.clone()));
    assert_eq!((out.from, out.to), (NIC_ADDRESS.into(), PEER.into()));
    assert_eq!(out.vni, VNI);
    assert_eq!(
        out.inner,
        packet.macs(NEAR.mac, FAR_MAC).build(),
        "the frame is as it was"
    );
    let flow = scene.flow(NUMBER, TCP, (NEAR.address, 40_000), (FAR, 80)).unwrap();
    assert_eq!(
        (flow.action, flow.reverse_scope),
        (Action::Overlay as u8, scope_of(1, NUMBER))
    );
    // by an underlay of the other family
    let packet = Packet::udp((NEAR.address, 40_000), (FARTHER, 53));
    let out = unwrap(said(&mut scene, packet.clone()));
    assert_eq!((out.from, out.to, out.vni), (OURS6.into(), PEER6.into(), VNI));
    assert_eq!(out.inner, packet.macs(NEAR.mac, FARTHER_MAC).build());
    scene.assert_no_drops();
}

#[test]
fn what_is_answered_from_there_goes_straight_into_the_endpoint() {
    let mut scene = set();
    said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN));
    let answer = of_far(Packet::tcp((FAR, 80), (NEAR.address, 40_000), SYN | ACK));
    let frame = sent_by(&mut scene, PEER.into(), VNI, &answer).sent();
    assert_eq!(frame, answer);
    // inner IPv4 by an underlay of IPv6
    said(&mut scene, Packet::udp((NEAR.address, 40_000), (FARTHER, 53)));
    let answer = Packet::udp((FARTHER, 53), (NEAR.address, 40_000))
        .macs(FARTHER_MAC, NEAR.mac)
        .build();
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &answer);
    match outcome.verdict {
        // before Linux 6.3 that is the kernel's to do
        Verdict::Stack => {}
        _ => assert_eq!(outcome.sent(), answer),
    }
    scene.assert_no_drops();
}

#[test]
fn an_endpoint_is_spoken_to_from_another_host_and_answers_there() {
    let mut scene = set();
    let question = of_far(Packet::echo(FAR, NEAR.address, ECHO_REQUEST, 7));
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &question).sent(), question);
    let answer = Packet::echo(NEAR.address, FAR, ECHO_REPLY, 7);
    let out = unwrap(said(&mut scene, answer));
    assert_eq!((out.to, out.vni, out.inner.destination()), (PEER.into(), VNI, FAR));
    scene.assert_no_drops();
}

#[test]
fn the_frames_within_may_be_of_ipv6() {
    let mut scene = set();
    let question = six(FAR6, NEAR6, (FAR_MAC, NEAR.mac));
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &question);
    if outcome.verdict != Verdict::Stack {
        assert_eq!((outcome.verdict, outcome.frame), (Verdict::Sent, question));
    }
    let outcome = scene.run(
        programs::FROM_CONTAINER,
        NEAR.ifindex,
        &six(NEAR6, FAR6, (NEAR.mac, FAR_MAC)),
    );
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_eq!(outcome.frame.0[14], 0x45, "the underlay is of IPv4");
    assert_eq!(outcome.frame.0[50..], six(NEAR6, FAR6, (NEAR.mac, FAR_MAC)).0);
    scene.assert_no_drops();
}

#[test]
fn the_sender_of_what_does_not_fit_is_told_how_much_does() {
    let mut scene = set();
    let fitting = MTU as usize - 28;
    let packet = |payload: usize, may_be_cut: bool| {
        let packet = Packet::udp((NEAR.address, 40_000), (FAR, 53)).payload(&vec![7; payload]);
        Packet {
            fragment: if may_be_cut { 0 } else { 0x4000 },
            ..packet
        }
    };
    let out = unwrap(said(&mut scene, packet(fitting, false)));
    assert_eq!(out.inner.0.len(), MTU as usize + 14);
    let told = said(&mut scene, packet(fitting + 1, false)).sent();
    assert_eq!(told.icmp_kind_and_code(), (UNREACHABLE, 4));
    assert_eq!((told.source(), told.destination()), (GATEWAY, NEAR.address));
    assert_eq!((told.sender_mac(), told.receiver_mac()), (FAR_MAC, NEAR.mac));
    assert_eq!(told.identifier(), 0);
    assert_eq!(told.0[40..42], (MTU as u16).to_be_bytes(), "the MTU that is told");
    assert_eq!(
        (told.quoted().source(), told.quoted().destination_port()),
        (NEAR.address, 53)
    );
    // what may be cut up goes by the kernel's VXLAN device, as it is
    let outcome = said(&mut scene, packet(fitting + 1, true));
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_eq!(outcome.frame.0.len(), MTU as usize + 15);
    scene.assert_no_drops();
}

#[test]
fn errors_between_hosts_find_their_conversation() {
    let mut scene = set();
    let question = said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53)));
    let quoted = unwrap(question).inner;
    let error = of_far(Packet::error(FAR, NEAR.address, UNREACHABLE, &quoted, 28).code(3));
    let told = sent_by(&mut scene, PEER.into(), VNI, &error).sent();
    assert_eq!(told, error);
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &error);
    if outcome.verdict != Verdict::Stack {
        scene.assert_dropped(&outcome, DropReason::UnrelatedError, Direction::FromNic, 0);
    }
}

#[test]
fn pieces_between_hosts_follow_their_first() {
    let mut scene = set();
    let first = of_far(
        Packet::udp((FAR, 1000), (NEAR.address, 53))
            .payload(&[1; 32])
            .fragment(9, 0, true),
    );
    let later = of_far(
        Packet::udp((FAR, 1000), (NEAR.address, 53))
            .payload(&[2; 32])
            .fragment(9, 40, false),
    );
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &later);
    scene.assert_dropped(&outcome, DropReason::FragmentAlone, Direction::FromNic, 0);
    scene.take_drops();
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &first).sent(), first);
    assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &later).sent(), later);
    scene.assert_no_drops();
}

#[test]
fn what_a_congested_router_has_marked_is_left_to_the_kernel() {
    let scene = set();
    let inner = of_far(Packet::udp((FAR, 1000), (NEAR.address, 53)));
    let mut frame = wrapped(PEER.into(), NIC_ADDRESS.into(), VNI, &inner);
    frame.0[15] = 3;
    frame.0[24..26].fill(0);
    let sum = checksum(&frame.0[14..34]).to_be_bytes();
    frame.0[24..26].copy_from_slice(&sum);
    let outcome = scene.run(programs::FROM_NIC, NIC, &frame);
    assert_eq!((outcome.verdict, outcome.frame), (Verdict::Stack, frame));
}

#[test]
fn the_port_is_the_overlays_only_where_there_is_one() {
    let mut scene = set();
    let inner = of_far(Packet::udp((FAR, 1000), (NEAR.address, 53)));
    let settings: Settings = scene.slot("SETTINGS", 0);
    let other = 8472u16.to_be();
    for port in [0, other] {
        scene.set(
            "SETTINGS",
            0,
            Settings {
                overlay_port: port,
                ..settings
            },
        );
        assert_eq!(sent_by(&mut scene, PEER.into(), VNI, &inner).verdict, Verdict::Stack);
    }
    let mut frame = wrapped(PEER.into(), NIC_ADDRESS.into(), VNI, &inner);
    frame.0[36..38].copy_from_slice(&8472u16.to_be_bytes());
    assert_eq!(scene.run(programs::FROM_NIC, NIC, &frame).sent(), inner);
    scene.assert_no_drops();
}

#[test]
fn conversations_end_with_the_endpoint_and_follow_it_to_another_host() {
    let mut scene = set();
    let packet = || Packet::udp((NEAR.address, 40_000), (FAR, 53));
    assert_eq!(unwrap(said(&mut scene, packet())).to, IpAddr::from(PEER));
    live(&mut scene, FAR, 2, FAR_MAC, 0);
    scene.move_epoch();
    assert_eq!(unwrap(said(&mut scene, packet())).to, IpAddr::from(PEER6));
    scene.remove::<_, Remote>("REMOTES4", key4(FAR));
    scene.move_epoch();
    let outcome = said(&mut scene, packet());
    scene.assert_dropped(
        &outcome,
        DropReason::NoSuchEndpoint,
        Direction::FromContainer,
        NEAR.number,
    );
}
