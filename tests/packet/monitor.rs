//! Conversations are told of as they open and close, to whoever listens for that; which rule let them be, and which did not.

use sluice_datapath_common::drop::DropReason;
use sluice_datapath_common::event::{CLOSED, LISTEN_DROPS, LISTEN_FLOWS, OPENED};

use crate::datapath::ToldFlow;
use crate::frame::{ACK, FIN, Packet, RST, SYN, TCP};
use crate::scene::{self, CLIENT, NIC_ADDRESS, SERVER, SHOP, Scene, WEB};

fn web(flags: u8) -> Packet {
    Packet::tcp((WEB.address, 4000), (SHOP.address, 80), flags)
}

fn shop(flags: u8) -> Packet {
    Packet::tcp((SHOP.address, 80), (WEB.address, 4000), flags)
}

fn told(kind: u8, ports: (u16, u16), packets: (u64, u64)) -> ToldFlow {
    ToldFlow {
        kind: u32::from(kind),
        ports,
        packets,
        rule: 0,
    }
}

/// The whole life of a connection of `WEB` to `SHOP`, half open in either table.
fn live(scene: &mut Scene) {
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    scene.says(WEB, &web(ACK)).sent();
    scene.says(WEB, &web(FIN | ACK)).sent();
    scene.says(SHOP, &shop(FIN | ACK)).sent();
    scene.says(WEB, &web(ACK)).sent();
}

#[test]
fn a_connection_is_told_when_it_opens_and_when_it_closes_and_not_in_between() {
    for half_open in [0, 1000] {
        let mut scene = scene::set();
        scene.limit(0, half_open);
        scene.listen(LISTEN_FLOWS);
        live(&mut scene);
        let expected = [told(OPENED, (4000, 80), (1, 0)), told(CLOSED, (4000, 80), (3, 2))];
        assert_eq!(scene.told_flows(), expected, "{half_open}");
        scene.says(SHOP, &shop(RST | ACK)).sent();
        assert_eq!(scene.told_flows(), [], "it was closed before");
        scene.says(WEB, &web(SYN)).sent();
        scene.says(SHOP, &shop(RST | ACK)).sent();
        let again = scene.told_flows();
        assert_eq!(
            again.len(),
            1,
            "begun anew it is the same one, and closes once more: {again:?}"
        );
        assert_eq!(again[0].kind, u32::from(CLOSED));
    }
}

#[test]
fn a_reset_by_either_side_is_an_end_and_is_told_as_the_openers_conversation() {
    let mut scene = scene::set();
    scene.listen(LISTEN_FLOWS);
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    scene.says(WEB, &web(ACK)).sent();
    scene.says(SHOP, &shop(RST)).sent();
    assert_eq!(
        scene.told_flows(),
        [told(OPENED, (4000, 80), (1, 0)), told(CLOSED, (4000, 80), (2, 2))]
    );
}

#[test]
fn conversations_are_told_wherever_they_come_from() {
    let mut scene = scene::set();
    scene.publish(NIC_ADDRESS, 8080, TCP, WEB, 80);
    scene.listen(LISTEN_FLOWS);
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    scene.says(WEB, &Packet::udp((WEB.address, 6000), (SERVER, 53))).sent();
    scene
        .host_says(&Packet::udp((scene::GATEWAY, 7000), (WEB.address, 9000)))
        .sent();
    let ports = [(5000, 8080), (6000, 53), (7000, 9000)];
    assert_eq!(scene.told_flows(), ports.map(|ports| told(OPENED, ports, (1, 0))));
}

#[test]
fn who_listens_for_drops_hears_of_no_conversation_and_the_other_way_round() {
    let mut scene = scene::set();
    live(&mut scene);
    assert_eq!(scene.told_flows(), [], "nobody listens");
    scene.forget_flows();
    scene.listen(LISTEN_DROPS);
    live(&mut scene);
    assert_eq!(scene.told_flows(), []);
    scene.listen(LISTEN_FLOWS);
    scene.says(WEB, &Packet::udp((WEB.address, 4000), (scene::LONE.address, 53)));
    assert_eq!(scene.told_flows(), []);
    assert_eq!(scene.drops()[0].3, 1);
}

#[test]
fn the_rule_that_decided_is_told_with_what_it_let_be_and_with_what_it_refused() {
    let mut scene = scene::set();
    scene.rule(
        "{name: shop, select: {name: shop}, ingress: [{from: [{name: web}], ports: [80]}, {from: [{name: web}], ports: [81], action: deny}]}",
        &[],
    );
    scene.listen(LISTEN_FLOWS | LISTEN_DROPS);
    scene.says(WEB, &web(SYN)).sent();
    let opened = scene.told_flows();
    assert_eq!(opened.len(), 1);
    assert_ne!(opened[0].rule, 0);
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 4001), (SHOP.address, 81), SYN));
    assert_eq!(outcome.verdict, crate::datapath::Verdict::Dropped);
    let dropped = scene.told();
    assert_eq!((dropped.len(), dropped[0].reason), (1, DropReason::PolicyDenied as u8));
    assert!(dropped[0].rule != 0 && dropped[0].rule != opened[0].rule);
    // A later drop that no document has to do with bears none.
    scene.says(WEB, &Packet::udp((WEB.address, 4000), (scene::LONE.address, 53)));
    assert_eq!(scene.told()[0].rule, 0);
}
