//! Who may speak with whom, as one table.

use std::net::Ipv4Addr;

use sluice_datapath_common::drop::DropReason::{
    self, HostAccess, IccDisabled, InternalNetwork, IsolatedNetwork, NoMasquerade, NoSuchEndpoint, PublishFrom,
    Unpublished,
};
use sluice_datapath_common::network::{
    NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES, NETWORK_NO_HOST, NETWORK_ONLY_GATEWAY,
    NETWORK_ROUTED, NETWORK_UNPROTECTED, Network,
};
use sluice_datapath_common::{Ipv4Address, uplink::LocalAddress};

use crate::datapath::Verdict;
use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, ICMP, Packet, SYN, TCP, UDP};
use crate::scene::{self, CLIENT, Container, GATEWAY, LONE, NIC_ADDRESS, SERVER, SHOP, Scene, WEB};

/// How a network meets the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Nat,
    Unprotected,
    Routed,
    /// The host has no address in it.
    Isolated,
}

/// Where its endpoints reach the host itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Host {
    All,
    Gateway,
    None,
}

/// Rules of a network.
#[derive(Clone, Copy, Debug)]
struct Rules {
    icc: bool,
    internal: bool,
    masquerades: bool,
    mode: Mode,
    host: Host,
    /// From `WEB` to `SHOP`, at the port 80 of TCP.
    linked: bool,
}

/// What is told by whom to whom.
#[derive(Clone, Copy, Debug)]
enum Speech {
    Says(Container, Ipv4Addr, u16),
    HostSays(Container),
    WorldSays(Ipv4Addr, u16),
    /// Somebody of the world, by a device that is none of ours and the host's stack.
    Forwarded(Container, u16),
}

use Speech::*;

/// The ports at which `SHOP`, of the network whose rules vary, and `LONE`, of the other, are published.
const OF_SHOP: u16 = 8080;
const OF_LONE: u16 = 8081;

fn all_rules() -> Vec<Rules> {
    let yes = [false, true];
    let mut all = Vec::new();
    for mode in [Mode::Nat, Mode::Unprotected, Mode::Routed, Mode::Isolated] {
        for host in [Host::All, Host::Gateway, Host::None] {
            for bits in 0..16 {
                let is = |bit: usize| yes[bits >> bit & 1];
                all.push(Rules {
                    icc: is(0),
                    internal: is(1),
                    masquerades: is(2),
                    linked: is(3),
                    mode,
                    host,
                });
            }
        }
    }
    // What is isolated is internal, and has nothing to masquerade.
    all.retain(|rules| rules.mode != Mode::Isolated || (rules.internal && !rules.masquerades));
    all
}

/// Pitfalls B7, B8: one engine judges every way, so the rules are tried in every combination on every way, by every kind of protocol.
#[test]
fn every_combination_of_rules_is_judged_as_the_table_says() {
    let unless = |condition: bool, reason: DropReason| if condition { Ok(()) } else { Err(reason) };
    for rules in all_rules() {
        let mut scene = scene::set();
        set_rules(&mut scene, rules);
        for protocol in [TCP, UDP, ICMP] {
            let outward = unless(!rules.internal, InternalNetwork);
            // Ports are what links open and what is published.
            let link = rules.linked && protocol == TCP;
            let published = protocol != ICMP;
            let host = |at_gateway: bool| match rules.host {
                Host::All => Ok(()),
                Host::Gateway if at_gateway => Ok(()),
                _ => Err(if rules.internal { InternalNetwork } else { HostAccess }),
            };
            let is_isolated = rules.mode == Mode::Isolated;
            // Where the host does not bear the gateway's address nobody does.
            let gateway = |judged| if is_isolated { Err(NoSuchEndpoint) } else { judged };
            // To an address of the host: by a published port, else to the host itself.
            let to_host = |at_gateway: bool, allowed| match published {
                true => allowed,
                false if at_gateway => host(true),
                false => outward.and(host(false)),
            };
            // The endpoint's own address, for the world: all of it, what is published and pings, or nothing.
            let own = |port_is_published: bool| match rules.mode {
                Mode::Unprotected => outward,
                Mode::Routed if port_is_published || protocol == ICMP => outward,
                _ => Err(Unpublished),
            };
            // The host's stack answers for what it forwards: an internal network gets none of it routed there.
            let forwarded = |port_is_published: bool| match own(port_is_published) {
                Err(InternalNetwork) => Ok(()),
                judged => judged,
            };
            let leaves = match rules.mode {
                Mode::Routed => Ok(()),
                _ => unless(rules.masquerades, NoMasquerade),
            };
            for (speech, expected) in [
                // The neighbour itself, at the port of the link and at another, there and back; and by the port that it has published.
                (Says(WEB, SHOP.address, 80), unless(rules.icc || link, IccDisabled)),
                (Says(WEB, SHOP.address, 81), unless(rules.icc, IccDisabled)),
                (Says(SHOP, WEB.address, 80), unless(rules.icc, IccDisabled)),
                (Says(WEB, GATEWAY, OF_SHOP), gateway(to_host(true, Ok(())))),
                (Says(WEB, NIC_ADDRESS, OF_SHOP), to_host(false, outward)),
                // Oneself, by one's own published port.
                (Says(SHOP, GATEWAY, OF_SHOP), gateway(to_host(true, Ok(())))),
                // Another network, and its published ports, there and back. A link leads to no other network.
                (Says(WEB, LONE.address, 80), Err(IsolatedNetwork)),
                (Says(LONE, WEB.address, 80), Err(IsolatedNetwork)),
                (Says(WEB, GATEWAY, OF_LONE), gateway(to_host(true, outward))),
                (Says(WEB, NIC_ADDRESS, OF_LONE), to_host(false, outward)),
                (
                    Says(LONE, NIC_ADDRESS, OF_SHOP),
                    if published { outward } else { Ok(()) },
                ),
                // The host by the network's gateway, and by its other addresses.
                (Says(WEB, GATEWAY, 22), gateway(host(true))),
                (Says(WEB, NIC_ADDRESS, 22), outward.and(host(false))),
                (HostSays(WEB), unless(!is_isolated, Unpublished)),
                // The world, there and back.
                (Says(WEB, SERVER, 80), outward.and(leaves)),
                (Forwarded(SHOP, 80), forwarded(published)),
                (Forwarded(SHOP, 81), forwarded(false)),
                (WorldSays(SHOP.address, 80), own(published)),
                (WorldSays(SHOP.address, 81), own(false)),
            ] {
                judge(&mut scene, rules, protocol, speech, expected);
            }
            if published {
                judge(&mut scene, rules, protocol, WorldSays(NIC_ADDRESS, OF_SHOP), outward);
            }
        }
    }
}

fn judge(scene: &mut Scene, rules: Rules, protocol: u8, speech: Speech, expected: Result<(), DropReason>) {
    // Nobody has spoken before.
    scene.forget_flows();
    let packet = |from: Ipv4Addr, to: Ipv4Addr, port: u16| match protocol {
        TCP => Packet::tcp((from, 20_000), (to, port), SYN),
        UDP => Packet::udp((from, 20_000), (to, port)),
        _ => Packet::echo(from, to, ECHO_REQUEST, port),
    };
    let outcome = match speech {
        Says(container, to, port) => scene.says(container, &packet(container.address, to, port)),
        HostSays(container) => scene.host_says(&packet(GATEWAY, container.address, 80)),
        WorldSays(to, port) => scene.world_says(&packet(CLIENT, to, port)),
        Forwarded(container, port) => scene.host_says(&packet(CLIENT, container.address, port)),
    };
    let reasons: Vec<DropReason> = scene.take_drops().iter().map(|drop| drop.0).collect();
    let (verdict, expected) = match expected {
        Ok(()) => (Verdict::Sent, vec![]),
        Err(reason) => (Verdict::Dropped, vec![reason]),
    };
    assert_eq!(
        (outcome.verdict, reasons),
        (verdict, expected),
        "{rules:?}, {speech:?} by {protocol}"
    );
}

fn set_rules(scene: &mut Scene, rules: Rules) {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    scene.network(
        2,
        NETWORK_EXISTS
            | bit(rules.icc, NETWORK_ICC)
            | bit(rules.internal, NETWORK_INTERNAL)
            | bit(rules.masquerades, NETWORK_MASQUERADES)
            | bit(rules.mode == Mode::Unprotected, NETWORK_UNPROTECTED)
            | bit(rules.mode == Mode::Routed, NETWORK_ROUTED)
            | bit(rules.host == Host::Gateway, NETWORK_ONLY_GATEWAY)
            | bit(rules.host == Host::None, NETWORK_NO_HOST),
    );
    if rules.mode == Mode::Isolated {
        let mut network: Network = scene.slot("NETWORKS", 2);
        (network.gateway4, network.gateway6) = Default::default();
        scene.set("NETWORKS", 2, network);
        scene.remove::<_, LocalAddress>("LOCAL4", Ipv4Address::from(GATEWAY));
    }
    for protocol in [TCP, UDP] {
        scene.publish(Ipv4Addr::UNSPECIFIED, OF_SHOP, protocol, SHOP, 80);
        scene.publish(Ipv4Addr::UNSPECIFIED, OF_LONE, protocol, LONE, 80);
        scene.publish(SHOP.address, 80, protocol, SHOP, 80);
    }
    if rules.linked {
        scene.link(WEB, SHOP, 80, TCP);
    }
}

const CLOSED: u32 = NETWORK_EXISTS | NETWORK_MASQUERADES;

#[test]
fn what_answers_a_link_passes_and_nothing_else_the_other_says() {
    let mut scene = scene::set();
    scene.network(2, CLOSED);
    scene.link(WEB, SHOP, 6379, TCP);
    scene
        .says(WEB, &Packet::tcp((WEB.address, 20_000), (SHOP.address, 6379), SYN))
        .sent();
    scene
        .says(
            SHOP,
            &Packet::tcp((SHOP.address, 6379), (WEB.address, 20_000), SYN | ACK),
        )
        .sent();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 20_000), (SHOP.address, 6379), ACK))
        .sent();
    scene.assert_no_drops();
    let outcome = scene.says(SHOP, &Packet::tcp((SHOP.address, 6379), (WEB.address, 20_001), SYN));
    assert_eq!(outcome.verdict, Verdict::Dropped);
}

#[test]
fn a_link_that_goes_takes_its_conversations_with_it() {
    let mut scene = scene::set();
    scene.network(2, CLOSED);
    scene.link(WEB, SHOP, 53, UDP);
    scene
        .says(WEB, &Packet::udp((WEB.address, 20_000), (SHOP.address, 53)))
        .sent();
    scene
        .says(SHOP, &Packet::udp((SHOP.address, 53), (WEB.address, 20_000)))
        .sent();
    scene.unlink(WEB, SHOP, 53, UDP);
    scene.move_epoch();
    let outcome = scene.says(WEB, &Packet::udp((WEB.address, 20_000), (SHOP.address, 53)));
    assert_eq!(outcome.verdict, Verdict::Dropped);
    let outcome = scene.says(SHOP, &Packet::udp((SHOP.address, 53), (WEB.address, 20_000)));
    assert_eq!(outcome.verdict, Verdict::Dropped);
    let reasons: Vec<DropReason> = scene.drops().iter().map(|drop| drop.0).collect();
    assert_eq!(reasons, [IccDisabled, IccDisabled]);
}

#[test]
fn a_thousand_links_are_none_of_a_known_flows_business() {
    let mut scene = scene::set();
    scene.network(2, CLOSED);
    for port in 1000..2000 {
        scene.link(WEB, SHOP, port, TCP);
    }
    scene
        .says(WEB, &Packet::tcp((WEB.address, 20_000), (SHOP.address, 1999), SYN))
        .sent();
    let outcome = scene.says(WEB, &Packet::tcp((WEB.address, 20_000), (SHOP.address, 2000), SYN));
    assert_eq!(outcome.verdict, Verdict::Dropped);
}

#[test]
fn a_port_that_is_for_some_is_closed_to_all_others() {
    let mut scene = scene::set();
    let lan = [(Ipv4Addr::new(192, 0, 2, 0), 24), (SHOP.address, 32)];
    scene.publish_for(Ipv4Addr::UNSPECIFIED, 8080, TCP, (WEB, 80), &lan);
    let asks = |from: Ipv4Addr| Packet::tcp((from, 20_000), (NIC_ADDRESS, 8080), SYN);
    let frame = scene.world_says(&asks(CLIENT)).sent();
    assert_eq!((frame.destination(), frame.destination_port()), (WEB.address, 80));
    let outcome = scene.world_says(&asks(SERVER));
    assert_eq!(outcome.verdict, Verdict::Dropped);
    // Containers are clients like others: by the address they have.
    scene.says(SHOP, &asks(SHOP.address)).sent();
    let outcome = scene.says(LONE, &asks(LONE.address));
    assert_eq!(outcome.verdict, Verdict::Dropped);
    let reasons: Vec<DropReason> = scene.take_drops().iter().map(|drop| drop.0).collect();
    assert_eq!(reasons, [PublishFrom, PublishFrom]);
    // What is not limited is for all.
    scene.publish(Ipv4Addr::UNSPECIFIED, 8081, TCP, WEB, 81);
    scene
        .world_says(&Packet::tcp((SERVER, 20_000), (NIC_ADDRESS, 8081), SYN))
        .sent();
}

#[test]
fn a_limit_holds_at_the_endpoints_own_address_too() {
    for mode in [NETWORK_ROUTED, NETWORK_UNPROTECTED] {
        let mut scene = scene::set();
        scene.network(2, CLOSED | mode);
        scene.publish_for(WEB.address, 80, TCP, (WEB, 80), &[(CLIENT, 32)]);
        scene
            .world_says(&Packet::tcp((CLIENT, 20_000), (WEB.address, 80), SYN))
            .sent();
        let outcome = scene.world_says(&Packet::tcp((SERVER, 20_000), (WEB.address, 80), SYN));
        assert_eq!(outcome.verdict, Verdict::Dropped);
        let outcome = scene.host_says(&Packet::tcp((SERVER, 20_001), (WEB.address, 80), SYN));
        assert_eq!(outcome.verdict, Verdict::Dropped);
        let reasons: Vec<DropReason> = scene.take_drops().iter().map(|drop| drop.0).collect();
        assert_eq!(reasons, [PublishFrom, PublishFrom]);
    }
}

#[test]
fn an_unprotected_endpoint_answers_with_its_own_address_and_asks_with_the_hosts() {
    let mut scene = scene::set();
    scene.network(2, CLOSED | NETWORK_UNPROTECTED);
    scene
        .world_says(&Packet::tcp((CLIENT, 20_000), (WEB.address, 22), SYN))
        .sent();
    let answer = Packet::tcp((WEB.address, 22), (CLIENT, 20_000), SYN | ACK);
    let frame = scene.says(WEB, &answer).sent();
    assert_eq!((frame.source(), frame.source_port()), (WEB.address, 22));
    // It passes by the NIC as it is, also when the host's stack had to cut it up.
    assert_eq!(scene.leaves_from(WEB, &answer).stays().source(), WEB.address);
    assert_eq!(scene.leaves(&answer).stays().source(), WEB.address);
    // What the stack forwards otherwise is masqueraded, and so is what the endpoint itself begins.
    let question = Packet::udp((WEB.address, 20_001), (SERVER, 53));
    assert_eq!(scene.leaves(&question).stays().source(), NIC_ADDRESS);
    assert_eq!(scene.says(WEB, &question).sent().source(), NIC_ADDRESS);
    // A ping from there is answered.
    scene
        .world_says(&Packet::echo(CLIENT, WEB.address, ECHO_REQUEST, 9))
        .sent();
    let pong = scene
        .says(WEB, &Packet::echo(WEB.address, CLIENT, ECHO_REPLY, 9))
        .sent();
    assert_eq!(pong.source(), WEB.address);
    scene.assert_no_drops();
}
