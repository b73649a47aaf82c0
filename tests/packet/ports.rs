//! The ports that masqueraded connections leave with: who has one, who gets the next, and what happens when there is none.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::lifetime::UDP_ANSWERED;

use crate::datapath::Verdict;
use crate::frame::{ACK, Packet, RST, SYN, TCP, UDP};
use crate::scene::{self, NIC_ADDRESS, SERVER, SHOP, Scene, WEB};

/// The host's ephemeral ports of the scene are 32768 to 60999.
const USABLE: usize = (32_768 - 1024) + (65_535 - 60_999);

/// The next of many connections to one server: its own port is the host's to give, so another has to be found.
fn from(index: usize) -> (Ipv4Addr, u16) {
    let container = if index < 28_232 { WEB } else { SHOP };
    (container.address, 32_768 + (index % 28_232) as u16)
}

/// Asks the server for a connection. The port it left with.
fn connect(scene: &mut Scene, index: usize) -> Option<u16> {
    let container = if index < 28_232 { WEB } else { SHOP };
    let syn = scene.says(container, &Packet::tcp(from(index), (SERVER, 80), SYN));
    if syn.verdict == Verdict::Dropped {
        return None;
    }
    Some(syn.sent().source_port())
}

/// Time that passes on a slow machine ends no connection: each looks as if it had been used an hour from now.
fn keep_young(scene: &mut Scene) {
    const HOUR: u64 = 3_600_000_000_000;
    scene.age(HOUR.wrapping_neg(), |_| true);
}

/// All ports may be searched at once, as if some time had passed.
fn take_a_breath(scene: &mut Scene) {
    scene.set("NEXT_SEARCH", 0, 0u64);
}

/// Pitfall B42: the stated limit is every port outside the host's ephemeral range, and it is reached; what is beyond is refused by name and never in silence.
#[test]
fn thirty_thousand_connections_to_one_server_have_a_port_each_and_the_last_port_is_found() {
    let mut scene = scene::set_large();
    scene.limit(0, 1_000_000);
    let mut ports = HashSet::new();
    let mut renewed = Instant::now();
    for index in 0..USABLE {
        if index == 30_000 {
            scene.assert_no_drops();
        }
        if index > 30_000 {
            take_a_breath(&mut scene);
        }
        // Nobody answers them, and what nobody answers is over after half a minute.
        if renewed.elapsed() > Duration::from_secs(5) {
            keep_young(&mut scene);
            renewed = Instant::now();
        }
        let port = connect(&mut scene, index).unwrap_or_else(|| panic!("connection {index} was refused"));
        assert!(
            (1024..32_768).contains(&port) || port > 60_999,
            "{port} is the host's to give"
        );
        assert!(ports.insert(port), "{port} was given twice");
    }
    keep_young(&mut scene);
    take_a_breath(&mut scene);
    assert_eq!(connect(&mut scene, USABLE), None);
    assert_eq!(
        scene.drops(),
        [(DropReason::NoPortLeft, Direction::FromContainer, SHOP.number, 1)]
    );
    // To another server all of them are free.
    let other = Ipv4Addr::new(203, 0, 113, 8);
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 40_000), (other, 80), SYN))
        .sent();
    // As soon as one connection is closed its port is the next one's.
    let freed = scene.flow(2, TCP, from(17), (SERVER, 80)).unwrap().source_port;
    let answer = Packet::tcp((SERVER, 80), (NIC_ADDRESS, u16::from_be(freed)), SYN | ACK);
    scene.world_says(&answer).sent();
    scene.says(WEB, &Packet::tcp(from(17), (SERVER, 80), ACK)).sent();
    scene.says(WEB, &Packet::tcp(from(17), (SERVER, 80), RST)).sent();
    take_a_breath(&mut scene);
    assert_eq!(connect(&mut scene, USABLE), Some(u16::from_be(freed)));
}

/// Pitfall B42.
#[test]
fn the_port_of_a_stream_that_is_over_is_free_though_nobody_has_cleared_it_away() {
    let mut scene = scene::set();
    scene.limit(0, 1000);
    // All but one port are published.
    let free = (1024..32_768).chain(61_000..=u16::MAX);
    free.filter(|port| *port != 2000)
        .for_each(|port| scene.reserve(port, UDP));
    let ask = |scene: &mut Scene, port: u16| {
        take_a_breath(scene);
        scene.says(WEB, &Packet::udp((WEB.address, port), (SERVER, 53)))
    };
    assert_eq!(ask(&mut scene, 40_000).sent().source_port(), 2000);
    scene.world_says(&Packet::udp((SERVER, 53), (NIC_ADDRESS, 2000))).sent();
    assert_eq!(ask(&mut scene, 40_001).verdict, Verdict::Dropped);
    scene.age(UDP_ANSWERED + 1_000_000_000, |_| true);
    assert_eq!(ask(&mut scene, 40_001).sent().source_port(), 2000);
    assert_eq!(scene.counts(), (2, 0));
}

/// Pitfalls B12, B43: a published port is never given to a connection, be it published by itself or in a range.
#[test]
fn a_port_of_a_published_range_is_not_given_away() {
    let mut scene = scene::set();
    scene.publish_range(Ipv4Addr::UNSPECIFIED, (1024, 32_000), TCP, (SHOP, 1024));
    for port in [2000, 31_999, 40_000] {
        let frame = scene
            .says(WEB, &Packet::tcp((WEB.address, port), (SERVER, 80), SYN))
            .sent();
        assert!(
            !(1024..=32_000).contains(&frame.source_port()),
            "{}",
            frame.source_port()
        );
    }
}

#[test]
fn a_search_through_all_ports_is_made_only_now_and_then() {
    let mut scene = scene::set();
    let free = (1024..32_768).chain(61_000..=u16::MAX);
    free.filter(|port| *port != 2000)
        .for_each(|port| scene.reserve(port, TCP));
    let far_off = scene.now() + 3_600_000_000_000;
    scene.set("NEXT_SEARCH", 0, far_off);
    let refused = (0..20)
        .filter(|port| {
            let syn = Packet::tcp((WEB.address, 40_000 + port), (SERVER, 80), SYN);
            scene.says(WEB, &syn).verdict == Verdict::Dropped
        })
        .count();
    // 512 of 36,280 are tried: one in seventy finds it.
    assert!(refused >= 15, "{refused} of 20 were refused");
    take_a_breath(&mut scene);
    let last = scene.says(WEB, &Packet::tcp((WEB.address, 50_000), (SERVER, 80), SYN));
    assert!(refused < 20 || last.sent().source_port() == 2000);
}
