//! Who may speak with whom, as one table.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::DropReason::{self, IccDisabled, InternalNetwork, IsolatedNetwork, NoMasquerade};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES};

use crate::datapath::Verdict;
use crate::frame::{Packet, SYN, TCP};
use crate::scene::{self, CLIENT, Container, GATEWAY, LONE, NIC_ADDRESS, SERVER, SHOP, Scene, WEB};

/// Rules of a network.
#[derive(Clone, Copy, Debug)]
struct Rules {
    icc: bool,
    internal: bool,
    masquerades: bool,
}

/// What is told by whom to whom.
#[derive(Clone, Copy, Debug)]
enum Speech {
    Says(Container, Ipv4Addr, u16),
    HostSays(Container),
    WorldSays(Ipv4Addr, u16),
}

use Speech::*;

/// The ports at which `SHOP`, of the network whose rules vary, and `LONE`, of the other, are published.
const OF_SHOP: u16 = 8080;
const OF_LONE: u16 = 8081;

/// Pitfalls B7, B8: one engine judges every way, so the rules are tried in every combination on every way.
#[test]
fn every_combination_of_rules_is_judged_as_the_table_says() {
    let yes = [false, true];
    for (icc, internal, masquerades) in yes
        .iter()
        .flat_map(|icc| yes.map(|internal| (*icc, internal)))
        .flat_map(|(icc, internal)| yes.map(|masquerades| (icc, internal, masquerades)))
    {
        let rules = Rules {
            icc,
            internal,
            masquerades,
        };
        let unless = |condition: bool, reason: DropReason| if condition { Ok(()) } else { Err(reason) };
        let outward = unless(!internal, InternalNetwork);
        for (speech, expected) in [
            // The neighbour itself, and by the port that it has published.
            (Says(WEB, SHOP.address, 80), unless(icc, IccDisabled)),
            (Says(WEB, GATEWAY, OF_SHOP), Ok(())),
            (Says(WEB, NIC_ADDRESS, OF_SHOP), outward),
            // Oneself, by one's own published port.
            (Says(SHOP, GATEWAY, OF_SHOP), Ok(())),
            // Another network, and its published ports, there and back.
            (Says(WEB, LONE.address, 80), Err(IsolatedNetwork)),
            (Says(LONE, WEB.address, 80), Err(IsolatedNetwork)),
            (Says(WEB, GATEWAY, OF_LONE), outward),
            (Says(WEB, NIC_ADDRESS, OF_LONE), outward),
            (Says(LONE, NIC_ADDRESS, OF_SHOP), outward),
            // The host by the network's gateway, and by its other addresses.
            (Says(WEB, GATEWAY, 22), Ok(())),
            (Says(WEB, NIC_ADDRESS, 22), outward),
            (HostSays(WEB), Ok(())),
            // The world, there and back.
            (Says(WEB, SERVER, 80), outward.and(unless(masquerades, NoMasquerade))),
            (WorldSays(NIC_ADDRESS, OF_SHOP), outward),
            (WorldSays(SHOP.address, 80), Err(DropReason::Unpublished)),
        ] {
            judge(rules, speech, expected);
        }
    }
}

fn judge(rules: Rules, speech: Speech, expected: Result<(), DropReason>) {
    let mut scene = scene::set();
    set_rules(&mut scene, rules);
    scene.publish(Ipv4Addr::UNSPECIFIED, OF_SHOP, TCP, SHOP, 80);
    scene.publish(Ipv4Addr::UNSPECIFIED, OF_LONE, TCP, LONE, 80);
    let outcome = match speech {
        Says(container, to, port) => scene.says(container, &Packet::tcp((container.address, 20_000), (to, port), SYN)),
        HostSays(container) => scene.host_says(&Packet::tcp((GATEWAY, 20_000), (container.address, 80), SYN)),
        WorldSays(to, port) => scene.world_says(&Packet::tcp((CLIENT, 20_000), (to, port), SYN)),
    };
    let reasons: Vec<DropReason> = scene.drops().iter().map(|drop| drop.0).collect();
    match expected {
        Ok(()) => assert_eq!(
            (outcome.verdict, reasons),
            (Verdict::Sent, vec![]),
            "{rules:?}, {speech:?}"
        ),
        Err(reason) => assert_eq!(
            (outcome.verdict, reasons),
            (Verdict::Dropped, vec![reason]),
            "{rules:?}, {speech:?}"
        ),
    }
}

fn set_rules(scene: &mut Scene, rules: Rules) {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    scene.network(
        2,
        NETWORK_EXISTS
            | bit(rules.icc, NETWORK_ICC)
            | bit(rules.internal, NETWORK_INTERNAL)
            | bit(rules.masquerades, NETWORK_MASQUERADES),
    );
}
