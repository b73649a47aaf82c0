//! Extension headers before the layer above.

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::programs::{FROM_CONTAINER, TO_NIC};

use crate::datapath::{Outcome, Verdict};
use crate::frame::{Frame, UDP};
use crate::scene::{self, NIC, NIC_ADDRESS, NIC_MAC, ROUTER_MAC, SERVER, SHOP, Scene, WEB};
use crate::{six, twin};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const NOTHING: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// A datagram from `WEB`, port 4000, to `SHOP`, port 53.
fn datagram() -> Vec<u8> {
    let (source, destination) = (twin::of(WEB.address), twin::of(SHOP.address));
    let mut datagram = vec![0x0f, 0xa0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
    let sum = six::checksum(source, destination, UDP, &datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// Options that do nothing, in units of eight bytes.
fn options(next: u8, units: u8) -> Vec<u8> {
    let mut header = vec![next, units - 1];
    let mut left = 8 * usize::from(units) - 2;
    while left > 0 {
        let padding = left.min(200);
        header.extend([1, padding as u8 - 2]);
        header.resize(header.len() + padding - 2, 0);
        left -= padding;
    }
    header
}

fn says(scene: &mut Scene, next: u8, rest: &[u8]) -> Outcome {
    let (source, destination) = (twin::of(WEB.address), twin::of(SHOP.address));
    let frame: Frame = six::packet((WEB.mac, SHOP.mac), source, destination, next, 64, rest);
    let outcome = scene.run_six(FROM_CONTAINER, WEB.ifindex, &frame);
    if outcome.verdict == Verdict::Sent {
        assert_eq!(outcome.frame, frame, "a neighbour gets it as it was sent");
    }
    outcome
}

#[track_caller]
fn assert_dropped(next: u8, rest: &[u8], reason: DropReason) {
    let mut scene = scene::set();
    let outcome = says(&mut scene, next, rest);
    scene.assert_dropped(&outcome, reason, Direction::FromContainer, WEB.number);
}

#[test]
fn headers_in_between_do_not_hide_the_ports() {
    let plain = datagram();
    let one = [options(UDP, 1), plain.clone()].concat();
    let spent_route = [vec![UDP, 2, 4, 0], vec![0; 20], plain.clone()].concat();
    let long = [options(UDP, 32), plain.clone()].concat();
    let all = [
        options(ROUTING, 1),
        vec![DESTINATION_OPTIONS, 0, 4, 0, 0, 0, 0, 0],
        options(UDP, 3),
        plain.clone(),
    ]
    .concat();
    for (next, rest) in [
        (UDP, plain),
        (HOP_BY_HOP, one.clone()),
        (DESTINATION_OPTIONS, one),
        (ROUTING, spent_route),
        (HOP_BY_HOP, long),
        (HOP_BY_HOP, all),
    ] {
        let mut scene = scene::set();
        assert_eq!(says(&mut scene, next, &rest).verdict, Verdict::Sent, "{next}");
        assert!(
            scene.flow(2, UDP, (WEB.address, 4000), (SHOP.address, 53)).is_some(),
            "{next}"
        );
        scene.assert_no_drops();
    }
}

#[test]
fn what_is_encrypted_or_unknown_passes_as_a_protocol_without_ports() {
    for protocol in [ESP, AUTHENTICATION, NOTHING, 135, 200] {
        let mut scene = scene::set();
        assert_eq!(says(&mut scene, protocol, &[7; 24]).verdict, Verdict::Sent);
        assert!(scene.flow(2, protocol, (WEB.address, 0), (SHOP.address, 0)).is_some());
    }
}

#[test]
fn a_chain_that_is_too_long_is_dropped_by_name() {
    let by_bytes = [options(UDP, 33), datagram()].concat();
    assert_dropped(HOP_BY_HOP, &by_bytes, DropReason::ExtensionHeaders);
    let mut by_headers: Vec<u8> = (0..6).flat_map(|_| options(DESTINATION_OPTIONS, 1)).collect();
    by_headers.extend(options(UDP, 1));
    by_headers.extend(datagram());
    assert_dropped(DESTINATION_OPTIONS, &by_headers, DropReason::ExtensionHeaders);
}

#[test]
fn a_chain_that_ends_before_its_packet_does_is_truncated() {
    assert_dropped(HOP_BY_HOP, &options(UDP, 1)[..6], DropReason::Truncated);
    assert_dropped(HOP_BY_HOP, &options(UDP, 1), DropReason::Truncated);
    // It says that it is longer than the frame.
    let mut liar = options(UDP, 1);
    liar[1] = 20;
    liar.extend(datagram());
    assert_dropped(HOP_BY_HOP, &liar, DropReason::Truncated);
}

#[test]
fn a_packet_that_names_its_own_way_is_not_carried() {
    let mut routed = vec![UDP, 2, 4, 1];
    routed.extend([0; 20]);
    routed.extend(datagram());
    assert_dropped(ROUTING, &routed, DropReason::SourceRouted);
}

#[test]
fn a_datagram_in_one_fragment_is_whole() {
    let mut scene = scene::set();
    let atomic = [vec![UDP, 0, 0, 0, 0, 0, 0, 9], datagram()].concat();
    assert_eq!(says(&mut scene, FRAGMENT, &atomic).verdict, Verdict::Sent);
    assert!(scene.flow(2, UDP, (WEB.address, 4000), (SHOP.address, 53)).is_some());
}

#[test]
fn fragments_are_told_apart_by_all_32_bits_of_their_number() {
    let mut scene = scene::set();
    let first = [vec![UDP, 0, 0, 1, 0, 1, 0, 9], datagram()].concat();
    assert_eq!(says(&mut scene, FRAGMENT, &first).verdict, Verdict::Sent);
    assert_eq!(
        says(&mut scene, FRAGMENT, &[UDP, 0, 0, 0x10, 0, 1, 0, 9, 5, 6]).verdict,
        Verdict::Sent
    );
    let of_another = [UDP, 0, 0, 0x10, 0, 2, 0, 9, 5, 6];
    assert_eq!(says(&mut scene, FRAGMENT, &of_another).verdict, Verdict::Dropped);
}

#[test]
fn an_endpoints_packet_that_cannot_be_read_does_not_leave_by_a_nic_either() {
    let too_long = [options(UDP, 33), datagram()].concat();
    let leaves = |source| {
        let frame = six::packet(
            (NIC_MAC, ROUTER_MAC),
            source,
            twin::of(SERVER),
            HOP_BY_HOP,
            64,
            &too_long,
        );
        let mut scene = scene::set();
        let outcome = scene.run_six(TO_NIC, NIC, &frame);
        (outcome.verdict, scene.drops())
    };
    let dropped = vec![(DropReason::UnmasqueradedSource, Direction::ToNic, 0, 1)];
    assert_eq!(leaves(twin::of(WEB.address)), (Verdict::Dropped, dropped));
    assert_eq!(
        leaves(twin::of(NIC_ADDRESS)),
        (Verdict::Stack, vec![]),
        "the host's own is the host's"
    );
}

#[test]
fn a_drop_is_told_with_the_ports_behind_the_headers_in_between() {
    let mut scene = scene::set();
    scene.listen(1);
    let rest = [options(DESTINATION_OPTIONS, 2), options(UDP, 3), datagram()].concat();
    let (source, destination) = (twin::of(SHOP.address), twin::of(WEB.address));
    let frame = six::packet((WEB.mac, SHOP.mac), source, destination, HOP_BY_HOP, 64, &rest);
    let outcome = scene.run_six(FROM_CONTAINER, WEB.ifindex, &frame);
    scene.assert_dropped(&outcome, DropReason::ForgedSource, Direction::FromContainer, WEB.number);
    let told = scene.told();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].protocol, told[0].source_port, told[0].destination_port),
        (UDP, 4000u16.to_be(), 53u16.to_be())
    );
}

#[test]
fn a_later_fragment_is_told_with_its_protocol_and_no_ports() {
    let mut scene = scene::set();
    scene.listen(1);
    // Offset 8, more follow.
    let rest = [vec![UDP, 0, 0, 9, 0, 0, 0, 7], datagram()].concat();
    let (source, destination) = (twin::of(SHOP.address), twin::of(WEB.address));
    let frame = six::packet((WEB.mac, SHOP.mac), source, destination, FRAGMENT, 64, &rest);
    scene.run_six(FROM_CONTAINER, WEB.ifindex, &frame);
    let told = scene.told();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].protocol, told[0].source_port, told[0].destination_port),
        (UDP, 0, 0)
    );
}
