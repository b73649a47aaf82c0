//! Who may send what to another host, and what is refused.

use super::*;

#[test]
fn what_does_not_come_from_a_member_or_for_a_network_is_dropped_and_named() {
    let inner = of_far(Packet::udp((FAR, 1000), (NEAR.address, 53)));
    let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 77).into();
    for (from, vni, reason) in [
        (stranger, VNI, DropReason::NotAMember),
        (PEER.into(), VNI ^ 1, DropReason::UnknownVni),
        (PEER.into(), VNI & 0xffff, DropReason::UnknownVni),
    ] {
        let mut scene = set();
        let outcome = sent_by(&mut scene, from, vni, &inner);
        scene.assert_dropped(&outcome, reason, Direction::FromNic, 0);
    }
    // without the bit that says that there is a VNI
    let mut scene = set();
    let mut frame = wrapped(PEER.into(), NIC_ADDRESS.into(), VNI, &inner);
    frame.0[42] = 0;
    let outcome = scene.run(programs::FROM_NIC, NIC, &frame);
    scene.assert_dropped(&outcome, DropReason::UnknownVni, Direction::FromNic, 0);
    // neither IPv4 nor IPv6: who lives where is in tables
    drop(scene);
    let mut scene = set();
    let arp = Frame::who_has((FAR_MAC, FAR), NEAR.address);
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &arp);
    scene.assert_dropped(&outcome, DropReason::UnknownEtherType, Direction::FromNic, 0);
    // what has come by the VXLAN device bears its origin beside it
    drop(scene);
    let mut scene = set();
    let outcome = scene.run(programs::FROM_OVERLAY, DEVICE, &inner);
    scene.assert_dropped(&outcome, DropReason::NotAMember, Direction::FromOverlay, 0);
}

#[test]
fn an_inner_sender_must_live_on_the_host_that_sent_the_packet() {
    for source in [
        // lives on host 2, here, nowhere, in the world
        FARTHER,
        NEAR.address,
        Ipv4Addr::new(10, 7, 0, 99),
        CLIENT,
        scene::WEB.address,
    ] {
        let mut scene = set();
        let inner = of_far(Packet::tcp((source, 1000), (NEAR.address, 80), SYN));
        let outcome = sent_by(&mut scene, PEER.into(), VNI, &inner);
        assert_eq!(outcome.verdict, Verdict::Dropped, "{source}");
        let drops = scene.take_drops();
        assert!(
            matches!(drops[..], [(DropReason::ForgedRemote, Direction::FromNic, 0, 1)]),
            "{source}: {drops:?}"
        );
    }
    // nor does it get into a conversation that another host has
    let mut scene = set();
    said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53)));
    let forged = of_far(Packet::udp((FAR, 53), (NEAR.address, 40_000)));
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &forged);
    assert!(matches!(outcome.verdict, Verdict::Dropped | Verdict::Stack));
    if outcome.verdict == Verdict::Dropped {
        scene.assert_dropped(&outcome, DropReason::ForgedRemote, Direction::FromNic, 0);
    }
}

#[test]
fn nothing_is_handed_on_to_who_does_not_live_here() {
    let mut scene = set();
    for destination in [
        FARTHER,
        Ipv4Addr::new(10, 7, 0, 99),
        GATEWAY,
        scene::WEB.address,
        CLIENT,
    ] {
        let inner = of_far(Packet::udp((FAR, 1000), (destination, 53)));
        let outcome = sent_by(&mut scene, PEER.into(), VNI, &inner);
        scene.assert_dropped(&outcome, DropReason::NoSuchEndpoint, Direction::FromNic, 0);
        scene.take_drops();
    }
}

#[test]
fn icc_and_links_hold_between_hosts() {
    let mut scene = set();
    lay(&mut scene, NETWORK_MASQUERADES);
    let outcome = said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN));
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, NEAR.number);
    scene.take_drops();
    let inner = of_far(Packet::tcp((FAR, 1000), (NEAR.address, 80), SYN));
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &inner);
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromNic, 0);
    scene.take_drops();
    // a link each way, for one port
    let number = 70_000;
    live(&mut scene, FAR, 1, FAR_MAC, number);
    for (from, to) in [(NEAR.number, number), (number, NEAR.number)] {
        let link = LinkKey {
            from,
            to,
            port: 80u16.to_be(),
            protocol: TCP,
            padding: 0,
        };
        scene.insert("LINKS", link, 1u32);
    }
    unwrap(said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 80), SYN)));
    sent_by(&mut scene, PEER.into(), VNI, &inner).sent();
    let outcome = said(&mut scene, Packet::tcp((NEAR.address, 40_000), (FAR, 81), SYN));
    scene.assert_dropped(&outcome, DropReason::IccDisabled, Direction::FromContainer, NEAR.number);
}

#[test]
fn where_no_way_is_known_it_is_said_so() {
    let mut scene = set();
    scene.set(
        "HOSTS",
        1,
        Host {
            ifindex: 0,
            ..host(PEER.into(), NIC_ADDRESS.into(), MTU)
        },
    );
    let outcome = said(&mut scene, Packet::udp((NEAR.address, 40_000), (FAR, 53)));
    scene.assert_dropped(&outcome, DropReason::NoOverlay, Direction::FromContainer, NEAR.number);
}

#[test]
fn what_is_to_be_encrypted_is_neither_taken_nor_sent_in_the_clear() {
    let inner = of_far(Packet::udp((FAR, 1000), (NEAR.address, 53)));
    let mut scene = set();
    scene.insert("VNIS", VNI, NUMBER | SEALED);
    lay(&mut scene, NETWORK_ICC | NETWORK_ENCRYPTED);
    let outcome = sent_by(&mut scene, PEER.into(), VNI, &inner);
    scene.assert_dropped(&outcome, DropReason::InTheClear, Direction::FromNic, 0);
    scene.take_drops();
    // not from somebody who knows the address of an encrypted way, either
    scene.insert("SENDERS", mapped(PEER6.into()), 2 | SEALED);
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &inner);
    scene.assert_dropped(&outcome, DropReason::InTheClear, Direction::FromNic, 0);
    scene.take_drops();
    // there is no encrypted way to the far one's host
    let question = || Packet::udp((NEAR.address, 40_000), (FAR, 53));
    let outcome = said(&mut scene, question());
    scene.assert_dropped(&outcome, DropReason::NoOverlay, Direction::FromContainer, NEAR.number);
    scene.take_drops();
    // there is one: the VXLAN device takes the packet as it is
    let way = Host {
        sealed: 1,
        ..host(PEER.into(), NIC_ADDRESS.into(), MTU)
    };
    scene.set("HOSTS", 1, way);
    let outcome = said(&mut scene, question());
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert!(
        wrapping::take_apart(&outcome.frame).is_err(),
        "nothing of it is wrapped here"
    );
    // which is for nobody else
    lay(&mut scene, NETWORK_ICC);
    let outcome = said(&mut scene, question());
    scene.assert_dropped(&outcome, DropReason::NoOverlay, Direction::FromContainer, NEAR.number);
    scene.take_drops();
    scene.insert("VNIS", VNI, NUMBER);
    let outcome = sent_by(&mut scene, PEER6.into(), VNI, &inner);
    scene.assert_dropped(&outcome, DropReason::InTheClear, Direction::FromNic, 0);
    scene.take_drops();
}
