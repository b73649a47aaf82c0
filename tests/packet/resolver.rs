//! Questions for names, and their answers.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::Direction;
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_INTERNAL, Network};
use sluice_datapath_common::resolver::{Asking, RESOLVER_PORT};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::{DropReason, programs};

use crate::datapath::Verdict;
use crate::frame::{Packet, SYN};
use crate::scene::{self, Container, GATEWAY, GATEWAY_MAC, LONE, OTHER_GATEWAY, SERVER, SHOP, Scene, WEB};

/// The datapath's end of the resolver's leg; any device that is there will do.
const LEG: u32 = 14;

/// Endpoints of the first network may ask, `most` times in a tick.
fn with_names(most: u32) -> Scene {
    let mut scene = scene::set();
    answer_in(&mut scene, 2, GATEWAY);
    let settings: Settings = scene.slot("SETTINGS", 0);
    let settings = Settings {
        questions_per_tick: most,
        resolver_ifindex: LEG,
        ..settings
    };
    scene.set("SETTINGS", 0, settings);
    scene
}

fn answer_in(scene: &mut Scene, number: u32, resolver: Ipv4Addr) {
    let network: Network = scene.slot("NETWORKS", number);
    let network = Network {
        resolver4: resolver.into(),
        ..network
    };
    scene.set("NETWORKS", number, network);
}

fn question(from: Container, to: Ipv4Addr) -> Packet {
    Packet::udp((from.address, 40_000), (to, RESOLVER_PORT))
}

#[test]
fn a_question_goes_to_the_resolver_and_leaves_no_flow() {
    let mut scene = with_names(0);
    scene.says(WEB, &question(WEB, GATEWAY)).sent();
    let opening = Packet::tcp((WEB.address, 40_001), (GATEWAY, RESOLVER_PORT), SYN);
    scene.says(WEB, &opening).sent();
    assert_eq!(scene.counts(), (0, 0));
    scene.assert_no_drops();
}

#[test]
fn no_rule_of_the_network_keeps_an_endpoint_from_asking() {
    let mut scene = with_names(0);
    // internal, its endpoints do not talk to each other, and the host bears no address in it
    let network: Network = scene.slot("NETWORKS", 2);
    let network = Network {
        flags: NETWORK_EXISTS | NETWORK_INTERNAL,
        gateway4: Default::default(),
        resolver4: GATEWAY.into(),
        ..network
    };
    scene.set("NETWORKS", 2, network);
    scene.says(WEB, &question(WEB, GATEWAY)).sent();
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn the_same_port_of_others_is_theirs() {
    let mut scene = with_names(0);
    scene.says(WEB, &question(WEB, SERVER)).sent();
    assert_ne!(scene.counts(), (0, 0), "it is masqueraded as everything else is");
    drop(scene);
    let mut scene = scene::set();
    scene.says(WEB, &question(WEB, GATEWAY)).sent();
    assert_ne!(scene.counts(), (0, 0), "without names it is the host's");
}

#[test]
fn nobody_asks_by_the_name_of_another() {
    let mut scene = with_names(0);
    let outcome = scene.says(WEB, &question(SHOP, GATEWAY));
    scene.assert_dropped(&outcome, DropReason::ForgedSource, Direction::FromContainer, WEB.number);
}

#[test]
fn who_asks_too_much_is_cut_short_and_the_others_are_not() {
    let mut scene = with_names(3);
    // three a tick, and what six ticks have left over; some ticks may go by meanwhile
    let (mut sent, room) = (0, 3 * Asking::DEPTH);
    for _ in 0..200 {
        let outcome = scene.says(WEB, &question(WEB, GATEWAY));
        sent += u32::from(outcome.verdict == Verdict::Sent);
    }
    assert!((room..200).contains(&sent), "{sent} of 200 got through");
    let drops = scene.drops();
    let [(DropReason::TooManyQuestions, Direction::FromContainer, number, count)] = drops[..] else {
        panic!("{drops:?}");
    };
    assert_eq!((number, count), (WEB.number, u64::from(200 - sent)));
    scene.says(SHOP, &question(SHOP, GATEWAY)).sent();
}

#[test]
fn an_answer_goes_straight_to_who_asked() {
    let mut scene = with_names(0);
    let answer = Packet::udp((GATEWAY, RESOLVER_PORT), (WEB.address, 40_000)).macs(GATEWAY_MAC, GATEWAY_MAC);
    let frame = scene.run(programs::FROM_RESOLVER, LEG, &answer.build()).sent();
    assert_eq!((frame.receiver_mac(), frame.sender_mac()), (WEB.mac, GATEWAY_MAC));
    assert_eq!(scene.counts(), (0, 0));
    scene.assert_no_drops();
}

#[test]
fn the_resolver_speaks_in_each_network_by_the_address_it_is_asked_at() {
    let mut scene = with_names(0);
    let answer = Packet::udp((GATEWAY, RESOLVER_PORT), (LONE.address, 40_000)).macs(GATEWAY_MAC, GATEWAY_MAC);
    let outcome = scene.run(programs::FROM_RESOLVER, LEG, &answer.build());
    scene.assert_dropped(&outcome, DropReason::IsolatedNetwork, Direction::FromResolver, 0);
    answer_in(&mut scene, 3, OTHER_GATEWAY);
    let answer = Packet::udp((OTHER_GATEWAY, RESOLVER_PORT), (LONE.address, 40_000)).macs(GATEWAY_MAC, GATEWAY_MAC);
    scene.run(programs::FROM_RESOLVER, LEG, &answer.build()).sent();
}
