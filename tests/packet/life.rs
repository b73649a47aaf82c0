//! A connection from its first packet to its last, and the tables when they are full.

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::State;

use crate::frame::{ACK, FIN, Packet, RST, SYN, TCP, UDP};
use crate::scene::{self, SHOP, Scene, WEB};

fn web(flags: u8) -> Packet {
    Packet::tcp((WEB.address, 4000), (SHOP.address, 80), flags)
}

fn shop(flags: u8) -> Packet {
    Packet::tcp((SHOP.address, 80), (WEB.address, 4000), flags)
}

#[track_caller]
fn assert_state(scene: &mut Scene, state: State) {
    let forward = scene.flow(2, TCP, (WEB.address, 4000), (SHOP.address, 80)).unwrap();
    let reply = scene.flow(2, TCP, (SHOP.address, 80), (WEB.address, 4000)).unwrap();
    assert_eq!((forward.state, reply.state), (state as u8, state as u8));
}

/// Pitfall B47.
#[test]
fn a_connection_is_closed_when_both_sides_have_said_so() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    assert_state(&mut scene, State::Unanswered);
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    assert_state(&mut scene, State::Established);
    scene.says(WEB, &web(FIN | ACK)).sent();
    assert_state(&mut scene, State::Closing);
    scene.says(WEB, &web(FIN | ACK)).sent();
    assert_state(&mut scene, State::Closing);
    scene.says(SHOP, &shop(FIN | ACK)).sent();
    assert_state(&mut scene, State::Closed);
    scene.says(WEB, &web(ACK)).sent();
    assert_state(&mut scene, State::Closed);
}

/// Pitfall B47.
#[test]
fn a_reset_closes_at_once() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    scene.says(SHOP, &shop(RST)).sent();
    assert_state(&mut scene, State::Closed);
}

/// Pitfall B47.
#[test]
fn a_refused_connection_never_reaches_the_table_that_never_evicts() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(RST | ACK)).sent();
    assert_eq!(scene.counts(), (0, 2));
    assert_state(&mut scene, State::Closed);
}

/// Pitfall B46.
#[test]
fn a_closed_connection_is_opened_again_by_a_syn() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    scene.says(WEB, &web(FIN | ACK)).sent();
    scene.says(SHOP, &shop(FIN | ACK)).sent();
    scene.says(WEB, &web(SYN)).sent();
    assert_state(&mut scene, State::Unanswered);
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    assert_state(&mut scene, State::Established);
    scene.says(WEB, &web(FIN | ACK)).sent();
    assert_state(&mut scene, State::Closing);
}

#[test]
fn one_sided_datagrams_stay_where_the_oldest_give_way() {
    let mut scene = scene::set();
    for _ in 0..5 {
        scene
            .says(WEB, &Packet::udp((WEB.address, 4000), (SHOP.address, 514)))
            .sent();
    }
    assert_eq!(scene.counts(), (0, 2));
    assert_eq!(
        scene
            .flow(2, UDP, (WEB.address, 4000), (SHOP.address, 514))
            .unwrap()
            .packets,
        5
    );
}

/// Pitfall B41.
#[test]
fn a_flood_of_syns_pushes_out_no_established_connection() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    for port in 10_000..11_000 {
        scene
            .says(WEB, &Packet::tcp((WEB.address, port), (SHOP.address, 80), SYN))
            .sent();
    }
    let (answered, unanswered) = scene.counts();
    assert_eq!(answered, 2);
    assert!(unanswered <= 512, "{unanswered}");
    scene.says(SHOP, &shop(ACK)).sent();
    assert_state(&mut scene, State::Established);
}

/// Pitfall B22.
#[test]
fn a_full_table_refuses_new_connections_by_name_and_keeps_the_old() {
    let mut scene = scene::set();
    let mut opened = 0;
    let refused = (10_000..10_100).find_map(|port| {
        scene
            .says(WEB, &Packet::tcp((WEB.address, port), (SHOP.address, 80), SYN))
            .sent();
        let answer = scene.says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, port), SYN | ACK));
        opened += 1;
        (answer.verdict == crate::datapath::Verdict::Dropped).then_some(answer)
    });
    scene.assert_dropped(
        &refused.unwrap(),
        DropReason::FlowTableFull,
        Direction::FromContainer,
        SHOP.number,
    );
    assert_eq!(opened, 33, "64 entries are 32 connections");
    let (answered, _) = scene.counts();
    assert_eq!(answered, 64, "no half of a connection is left");
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 10_000), ACK))
        .sent();
}

/// Pitfall B40.
#[test]
fn a_lone_half_of_an_unanswered_flow_is_forgotten_and_opened_anew() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    let reply = scene::key(2, TCP, (SHOP.address, 80), (WEB.address, 4000));
    scene.remove::<_, sluice_datapath_common::flow::Flow<sluice_datapath_common::Ipv4>>("OPENING4", reply);
    scene.says(WEB, &web(SYN)).sent();
    assert_eq!(scene.counts(), (0, 2));
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    assert_eq!(scene.counts(), (2, 0));
}
