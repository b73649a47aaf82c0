//! One family in a network that has only the other.

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::programs::FROM_CONTAINER;

use crate::datapath::Verdict;
use crate::frame::Frame;
use crate::scene::{self, GATEWAY_MAC, WEB};

#[test]
fn ipv6_is_dropped_while_the_network_has_none() {
    let mut scene = scene::set();
    let mut frame = [&GATEWAY_MAC[..], &WEB.mac[..], &[0x86, 0xdd][..]].concat();
    frame.extend([0x60; 60]);
    let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &Frame(frame));
    scene.assert_dropped(
        &outcome,
        DropReason::FamilyDisabled,
        Direction::FromContainer,
        WEB.number,
    );
}

/// An IPv6 packet of ICMP, from nobody or from the link-local address of `WEB`, with as much of the message as anybody reads.
fn icmp(source: [u8; 16], destination: [u8; 16], kind: u8, target: [u8; 16]) -> Frame {
    let mut frame = [
        &[0x33, 0x33, 0, 0, 0, 1][..],
        &WEB.mac[..],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255][..],
    ]
    .concat();
    frame.extend(source);
    frame.extend(destination);
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(target);
    Frame(frame)
}

#[test]
fn what_a_kernel_says_by_itself_when_it_has_ipv6_is_no_drop() {
    const ROUTER_SOLICITATION: u8 = 133;
    const SOLICITATION: u8 = 135;
    const LISTENER_REPORT: u8 = 143;
    let mut scene = scene::set();
    let [a, b, c, d, e, f] = WEB.mac;
    let own = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let all = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (source, kind) in [
        ([0; 16], ROUTER_SOLICITATION),
        (own, ROUTER_SOLICITATION),
        ([0; 16], SOLICITATION),
        (own, LISTENER_REPORT),
    ] {
        let outcome = scene.run(FROM_CONTAINER, WEB.ifindex, &icmp(source, all, kind, own));
        assert_eq!(outcome.verdict, Verdict::Dropped);
    }
    scene.assert_no_drops();
}
