//! Drops are told of as they happen, to whoever listens, and what is not told is counted.

use std::net::Ipv4Addr;
use std::time::Instant;

use sluice_datapath_common::Ipv4Address;
use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::event::{DropEvent, EVENTS_PER_SECOND};
use sluice_datapath_common::fragment::RING;
use sluice_datapath_common::programs::FROM_CONTAINER;

use crate::datapath::{Outcome, Verdict};
use crate::frame::{ICMP, Packet, SCTP, SYN, TCP, UDP};
use crate::scene::{self, CLIENT, GATEWAY_MAC, HOST_LEG, LONE, NIC, SERVER, SHOP, Scene, WEB};

/// What is told of a packet with these ends that `WEB` was not allowed to send.
fn told_of(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), protocol: u8, length: usize) -> DropEvent {
    DropEvent {
        source: words(from.0),
        destination: words(to.0),
        source_port: from.1.to_be(),
        destination_port: to.1.to_be(),
        endpoint: WEB.number,
        ifindex: WEB.ifindex,
        length: length as u32,
        ether_type: 0x0800,
        protocol,
        family: libc::AF_INET as u8,
        reason: DropReason::IsolatedNetwork as u8,
        direction: Direction::FromContainer as u8,
        ..DropEvent::default()
    }
}

fn words(address: Ipv4Addr) -> [u32; 4] {
    [Ipv4Address::from(address).0, 0, 0, 0]
}

/// The only event, without its time, which lies between the two moments.
#[track_caller]
fn only_event(scene: &mut Scene, outcome: &Outcome, before: u64) -> DropEvent {
    /// The coarse clock may be a tick behind, at the slowest usual rate.
    const TICK: u64 = 10_000_000;
    assert_eq!(outcome.verdict, Verdict::Dropped);
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    let time = told[0].time;
    assert!(before - TICK <= time && time <= scene.now(), "{before} {time}");
    DropEvent { time: 0, ..told[0] }
}

#[test]
fn every_drop_is_told_with_all_that_its_headers_say() {
    let mut scene = scene::set();
    scene.listen(1);
    let (from, to) = ((WEB.address, 4000), (LONE.address, 80));
    let packets = [
        (Packet::tcp(from, to, SYN), told_of(from, to, TCP, 0)),
        (Packet::udp(from, to), told_of(from, to, UDP, 0)),
        (Packet::sctp(from, to), told_of(from, to, SCTP, 0)),
        (Packet::other(47, from.0, to.0), told_of((from.0, 0), (to.0, 0), 47, 0)),
        (
            Packet::echo(from.0, to.0, 8, 77),
            told_of((from.0, 8 << 8), (to.0, 77), ICMP, 0),
        ),
    ];
    for (packet, expected) in packets {
        let (before, outcome) = (scene.now(), scene.says(WEB, &packet));
        let expected = DropEvent {
            length: packet.build().0.len() as u32,
            ..expected
        };
        assert_eq!(only_event(&mut scene, &outcome, before), expected);
    }
}

#[test]
fn a_drop_is_told_by_where_it_happened() {
    let mut scene = scene::set();
    scene.listen(1);
    // In from the LAN, to an endpoint's own address.
    let packet = Packet::tcp((CLIENT, 4000), (WEB.address, 80), SYN);
    let (before, outcome) = (scene.now(), scene.world_says(&packet));
    let event = only_event(&mut scene, &outcome, before);
    assert_eq!(
        (event.reason, event.direction, event.endpoint, event.ifindex),
        (DropReason::Unpublished as u8, Direction::FromNic as u8, 0, NIC)
    );
    assert_eq!((event.source, event.destination), (words(CLIENT), words(WEB.address)));
    // From the host's stack, to nobody.
    let packet = Packet::udp((scene::GATEWAY, 4000), (Ipv4Addr::new(10, 9, 0, 77), 80));
    let (before, outcome) = (scene.now(), scene.host_says(&packet));
    let event = only_event(&mut scene, &outcome, before);
    assert_eq!(
        (event.reason, event.direction, event.ifindex),
        (DropReason::NoSuchEndpoint as u8, Direction::FromHost as u8, HOST_LEG)
    );
}

#[test]
fn a_packet_that_is_cut_short_is_told_as_far_as_it_goes() {
    let mut scene = scene::set();
    scene.listen(1);
    let (from, to) = ((WEB.address, 4000), (SHOP.address, 80));
    for (rest, ports) in [(6, (0, 0)), (10, (from.1, to.1))] {
        let mut frame = Packet::tcp(from, to, SYN).macs(WEB.mac, SHOP.mac).build();
        frame.0.truncate(14 + 20 + rest);
        let (before, outcome) = (scene.now(), scene.run(FROM_CONTAINER, WEB.ifindex, &frame));
        let expected = DropEvent {
            reason: DropReason::Truncated as u8,
            ..told_of((from.0, ports.0), (to.0, ports.1), TCP, frame.0.len())
        };
        assert_eq!(only_event(&mut scene, &outcome, before), expected, "{rest}");
    }
}

#[test]
fn a_fragment_that_has_no_ports_shows_none() {
    let mut scene = scene::set();
    scene.listen(1);
    let (from, to) = ((SERVER, 4000), (SHOP.address, 80));
    let packet = Packet::udp(from, to).macs(WEB.mac, SHOP.mac).fragment(7, 64, false);
    let (before, outcome) = (scene.now(), scene.says(WEB, &packet));
    let event = only_event(&mut scene, &outcome, before);
    // In IPv6 being a fragment takes a header more.
    let length = event.length as usize;
    let expected = DropEvent {
        reason: DropReason::ForgedSource as u8,
        ..told_of((from.0, 0), (to.0, 0), UDP, length)
    };
    assert_eq!(event, expected);
}

#[test]
fn a_fragment_that_waited_in_vain_is_told_with_its_addresses() {
    let mut scene = scene::set();
    scene.listen(1);
    let lone =
        |identification| Packet::udp((WEB.address, 20_000), (SHOP.address, 53)).fragment(identification, 1480, false);
    for identification in 0..=RING as u16 {
        assert_eq!(scene.told(), [], "{identification}");
        scene.says(WEB, &lone(identification));
    }
    let told = scene.told();
    assert_eq!(told.len(), 1);
    let expected = DropEvent {
        reason: DropReason::FragmentAlone as u8,
        ifindex: 0,
        time: told[0].time,
        ..told_of((WEB.address, 0), (SHOP.address, 0), UDP, told[0].length as usize)
    };
    assert_eq!(told, [expected]);
}

#[test]
fn nothing_is_written_while_nobody_listens() {
    let mut scene = scene::set();
    let forbidden = Packet::udp((WEB.address, 4000), (LONE.address, 53));
    scene.says(WEB, &forbidden);
    assert_eq!(scene.told(), []);
    assert_eq!(scene.pace(DropReason::IsolatedNetwork), (0, 0));
    scene.listen(1);
    scene.says(WEB, &forbidden);
    assert_eq!(scene.told().len(), 1);
    scene.listen(0);
    scene.says(WEB, &forbidden);
    assert_eq!(scene.told(), []);
    assert_eq!(scene.drops()[0].3, 3, "counted they all are");
}

/// Pitfall B59.
#[test]
fn of_one_reason_so_many_are_told_in_a_second_and_the_others_counted() {
    const DROPS: usize = 1000;
    let mut scene = scene::set();
    scene.listen(1);
    let (started, mut told) = (Instant::now(), 0);
    for _ in 0..DROPS {
        scene.says(WEB, &Packet::udp((WEB.address, 4000), (LONE.address, 53)));
        told += scene.told().len();
    }
    let (too_many, lost) = scene.pace(DropReason::IsolatedNetwork);
    assert_eq!((told as u64 + too_many, lost), (DROPS as u64, 0));
    // The thread may have been moved from CPU to CPU, each of which has its own pace.
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let seconds = started.elapsed().as_secs() + 2;
    let most = u64::from(EVENTS_PER_SECOND) * seconds * cpus;
    assert!(
        (u64::from(EVENTS_PER_SECOND)..=most).contains(&(told as u64)),
        "{told} of {most}"
    );
    // Another reason has a pace of its own.
    let forged = Packet::udp((SHOP.address, 4000), (LONE.address, 53)).macs(WEB.mac, GATEWAY_MAC);
    scene.says(WEB, &forged);
    assert_eq!(scene.told().len(), 1);
    assert_eq!(scene.drops().iter().map(|drop| drop.3).sum::<u64>(), DROPS as u64 + 1);
}

/// Pitfall B59.
#[test]
fn what_finds_the_ring_full_is_lost_and_counted() {
    /// The ring of the tests is a page, and a record takes its header with it.
    const ROOM: u64 = 4096 / (size_of::<DropEvent>() as u64 + 8);
    let mut scene = scene::set();
    scene.listen(1);
    let drops = u64::from(EVENTS_PER_SECOND);
    for _ in 0..drops {
        scene.says(WEB, &Packet::udp((WEB.address, 4000), (LONE.address, 53)));
    }
    let (too_many, lost) = scene.pace(DropReason::IsolatedNetwork);
    assert_eq!((too_many, lost), (0, drops - ROOM));
    assert_eq!(scene.told().len() as u64, ROOM);
    scene.says(
        WEB,
        &Packet::udp((SHOP.address, 4000), (LONE.address, 53)).macs(WEB.mac, GATEWAY_MAC),
    );
    assert_eq!(scene.told().len(), 1, "there is room again");
}
