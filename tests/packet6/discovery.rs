//! Neighbour discovery is answered by the datapath: nothing of it travels.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::programs::{FROM_CONTAINER, FROM_HOST, FROM_NIC};

use crate::datapath::Verdict;
use crate::frame::{Frame, Mac};
use crate::scene::{
    self, GATEWAY, GATEWAY_MAC, HOST_LEG, HOST_MAC, LONE, NIC, NIC_ADDRESS, NIC_MAC, ROUTER, ROUTER_MAC, SHOP, WEB,
};
use crate::six::{self, ICMP, link_local};
use crate::twin;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const LISTENER_REPORT: u8 = 143;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const SENDERS: u8 = 1;
const TARGETS: u8 = 2;

/// The multicast group that whoever has the address listens to.
fn group(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from(b) << 8 | u16::from(c),
    )
}

fn message(kind: u8, flags: u8, target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some((kind, mac)) = option {
        message.extend([kind, 1]);
        message.extend(mac);
    }
    message
}

fn solicitation(
    mac: Mac,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    option: Option<(u8, Mac)>,
) -> Frame {
    let message = six::icmp(source, destination, &message(SOLICITATION, 0, target, option));
    six::packet(
        (mac, [0x33, 0x33, 0xff, 0, 0, 1]),
        source,
        destination,
        ICMP,
        255,
        &message,
    )
}

/// `WEB` asks who has an address, as Linux does.
fn who_has(target: Ipv6Addr) -> Frame {
    solicitation(WEB.mac, web(), group(target), target, Some((SENDERS, WEB.mac)))
}

fn web() -> Ipv6Addr {
    twin::of(WEB.address)
}

/// What is to be answered: solicited or not, by a router or not.
fn answer(mac: Mac, target: Ipv6Addr, asker: (Mac, Ipv6Addr), flags: u8) -> Frame {
    let message = six::icmp(
        target,
        asker.1,
        &message(ADVERTISEMENT, flags, target, Some((TARGETS, mac))),
    );
    six::packet((mac, asker.0), target, asker.1, ICMP, 255, &message)
}

const ROUTER_FLAG: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

#[track_caller]
fn assert_answered(question: &Frame, expected: &Frame) {
    let mut scene = scene::set();
    let outcome = scene.run_six(FROM_CONTAINER, WEB.ifindex, question);
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_eq!(&outcome.frame, expected);
    scene.assert_no_drops();
}

#[track_caller]
fn assert_dropped(frame: &Frame, reason: DropReason) {
    let mut scene = scene::set();
    let outcome = scene.run_six(FROM_CONTAINER, WEB.ifindex, frame);
    scene.assert_dropped(&outcome, reason, Direction::FromContainer, WEB.number);
}

#[track_caller]
fn assert_heard(program: &str, ifindex: u32, frame: &Frame) {
    let mut scene = scene::set();
    assert_eq!(scene.run_six(program, ifindex, frame).verdict, Verdict::Dropped);
    scene.assert_no_drops();
}

#[test]
fn the_gateway_is_at_the_gateways_mac_and_a_router() {
    let gateway = twin::of(GATEWAY);
    let expected = answer(
        GATEWAY_MAC,
        gateway,
        (WEB.mac, web()),
        ROUTER_FLAG | SOLICITED | OVERRIDE,
    );
    assert_answered(&who_has(gateway), &expected);
}

#[test]
fn the_gateway_is_found_at_its_link_local_address_too() {
    let gateway = link_local(GATEWAY_MAC);
    let expected = answer(
        GATEWAY_MAC,
        gateway,
        (WEB.mac, web()),
        ROUTER_FLAG | SOLICITED | OVERRIDE,
    );
    assert_answered(&who_has(gateway), &expected);
}

#[test]
fn a_neighbour_is_at_its_own_mac() {
    let shop = twin::of(SHOP.address);
    assert_answered(
        &who_has(shop),
        &answer(SHOP.mac, shop, (WEB.mac, web()), SOLICITED | OVERRIDE),
    );
}

#[test]
fn who_asks_by_its_link_local_address_is_answered_there() {
    let (shop, own) = (twin::of(SHOP.address), link_local(WEB.mac));
    let question = solicitation(WEB.mac, own, group(shop), shop, Some((SENDERS, WEB.mac)));
    assert_answered(&question, &answer(SHOP.mac, shop, (WEB.mac, own), SOLICITED | OVERRIDE));
}

#[test]
fn a_question_whether_a_neighbour_is_still_there_needs_no_option_and_may_have_others() {
    let shop = twin::of(SHOP.address);
    let expected = answer(SHOP.mac, shop, (WEB.mac, web()), SOLICITED | OVERRIDE);
    assert_answered(&solicitation(WEB.mac, web(), shop, shop, None), &expected);
    let mut long = message(SOLICITATION, 0, shop, Some((SENDERS, WEB.mac)));
    // A nonce (RFC 3971).
    long.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    let long = six::packet(
        (WEB.mac, SHOP.mac),
        web(),
        shop,
        ICMP,
        255,
        &six::icmp(web(), shop, &long),
    );
    assert_answered(&long, &expected);
}

#[test]
fn a_probe_for_an_address_that_is_taken_is_told_to_all() {
    let shop = twin::of(SHOP.address);
    let probe = solicitation(WEB.mac, Ipv6Addr::UNSPECIFIED, group(shop), shop, None);
    let expected = answer(SHOP.mac, shop, ([0x33, 0x33, 0, 0, 0, 1], ALL_NODES), OVERRIDE);
    assert_answered(&probe, &expected);
}

#[test]
fn what_needs_no_answer_is_heard_in_silence_and_is_no_drop() {
    for own in [web(), link_local(WEB.mac)] {
        let probe = solicitation(WEB.mac, Ipv6Addr::UNSPECIFIED, group(own), own, None);
        assert_heard(FROM_CONTAINER, WEB.ifindex, &probe);
        let announcement = six::icmp(
            own,
            ALL_NODES,
            &message(ADVERTISEMENT, OVERRIDE, own, Some((TARGETS, WEB.mac))),
        );
        let announcement = six::packet((WEB.mac, [0x33; 6]), own, ALL_NODES, ICMP, 255, &announcement);
        assert_heard(FROM_CONTAINER, WEB.ifindex, &announcement);
    }
    let own = link_local(WEB.mac);
    // Without any option it is as short as can be.
    let asks_for_routers = six::packet(
        (WEB.mac, [0x33; 6]),
        own,
        ALL_NODES,
        ICMP,
        255,
        &[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0],
    );
    assert_heard(FROM_CONTAINER, WEB.ifindex, &asks_for_routers);
    // Behind a hop-by-hop header with a router alert, as RFC 3810 wants it.
    let mut report = vec![ICMP, 0, 5, 2, 0, 0, 1, 0];
    report.extend([LISTENER_REPORT, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0]);
    report.extend(group(own).octets());
    assert_heard(
        FROM_CONTAINER,
        WEB.ifindex,
        &six::packet((WEB.mac, [0x33; 6]), own, ALL_NODES, 0, 1, &report),
    );
}

#[test]
fn nobody_answers_for_an_address_without_an_endpoint_or_of_another_network() {
    assert_dropped(
        &who_has(twin::of(Ipv4Addr::new(10, 9, 0, 77))),
        DropReason::NoSuchEndpoint,
    );
    assert_dropped(&who_has(twin::of(LONE.address)), DropReason::NoSuchEndpoint);
    assert_dropped(&who_has(link_local(SHOP.mac)), DropReason::LinkLocal);
}

#[test]
fn who_claims_what_is_not_its_own_is_forged() {
    let (shop, gateway) = (twin::of(SHOP.address), twin::of(GATEWAY));
    for target in [shop, gateway, link_local(GATEWAY_MAC)] {
        let claim = six::icmp(
            web(),
            ALL_NODES,
            &message(ADVERTISEMENT, OVERRIDE, target, Some((TARGETS, WEB.mac))),
        );
        let claim = six::packet((WEB.mac, [0x33; 6]), web(), ALL_NODES, ICMP, 255, &claim);
        assert_dropped(&claim, DropReason::ForgedNeighbour);
    }
    let as_another = solicitation(WEB.mac, shop, group(gateway), gateway, Some((SENDERS, WEB.mac)));
    assert_dropped(&as_another, DropReason::ForgedNeighbour);
    let with_anothers_mac = solicitation(WEB.mac, web(), group(gateway), gateway, Some((SENDERS, SHOP.mac)));
    assert_dropped(&with_anothers_mac, DropReason::ForgedNeighbour);
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        let router = six::icmp(web(), ALL_NODES, &message(kind, 0, web(), None));
        let router = six::packet((WEB.mac, [0x33; 6]), web(), ALL_NODES, ICMP, 255, &router);
        assert_dropped(&router, DropReason::ForgedNeighbour);
    }
    let mut from_afar = who_has(gateway);
    from_afar.0[21] = 64;
    assert_dropped(&from_afar, DropReason::ForgedNeighbour);
    let mut by_another_mac = who_has(gateway);
    by_another_mac.0[6..12].copy_from_slice(&SHOP.mac);
    assert_dropped(&by_another_mac, DropReason::ForgedMac);
}

#[test]
fn a_link_local_address_is_good_for_nothing_else() {
    let own = link_local(WEB.mac);
    let echo = |source, destination| {
        let message = six::icmp(source, destination, &[128, 0, 0, 0, 0, 7, 0, 1]);
        six::packet((WEB.mac, GATEWAY_MAC), source, destination, ICMP, 64, &message)
    };
    assert_dropped(&echo(own, twin::of(SHOP.address)), DropReason::LinkLocal);
    assert_dropped(&echo(web(), link_local(GATEWAY_MAC)), DropReason::LinkLocal);
}

#[test]
fn the_host_finds_an_endpoint_at_its_own_mac() {
    let (host, target) = (twin::of(GATEWAY), web());
    let question = solicitation(HOST_MAC, host, group(target), target, Some((SENDERS, HOST_MAC)));
    let scene = scene::set();
    let outcome = scene.run_six(FROM_HOST, HOST_LEG, &question);
    assert_eq!(outcome.verdict, Verdict::Sent);
    assert_eq!(
        outcome.frame,
        answer(WEB.mac, target, (HOST_MAC, host), SOLICITED | OVERRIDE)
    );
    drop(scene);
    let probe = solicitation(HOST_MAC, Ipv6Addr::UNSPECIFIED, group(host), host, None);
    assert_heard(FROM_HOST, HOST_LEG, &probe);
}

#[test]
fn what_the_hosts_own_neighbours_say_is_the_hosts() {
    let (host, router) = (twin::of(NIC_ADDRESS), twin::of(ROUTER));
    let message = six::icmp(
        router,
        host,
        &message(SOLICITATION, 0, host, Some((SENDERS, ROUTER_MAC))),
    );
    let question = six::packet((ROUTER_MAC, NIC_MAC), router, host, ICMP, 255, &message);
    let mut scene = scene::set();
    assert_eq!(scene.run_six(FROM_NIC, NIC, &question).verdict, Verdict::Stack);
    scene.assert_no_drops();
}
