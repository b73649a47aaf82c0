//! A connection from its first packet to its last, and the tables when they are full.

use sluice_datapath_common::Ipv4;
use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::flow::{FLOW_IS_REPLY, Flow, State};
use sluice_datapath_common::lifetime::{TCP_CLOSED, TCP_ESTABLISHED, UDP_ANSWERED, UNANSWERED};
use sluice_datapath_common::settings::{Settings, Tally};

use crate::datapath::Verdict;
use crate::frame::{ACK, FIN, Packet, RST, SYN, TCP, UDP};
use crate::scene::{self, CLIENT, NIC_ADDRESS, SERVER, SHOP, Scene, WEB};

/// So long has an agent been dead, ns. A machine may have started later than that: the clock goes round.
const A_DAY: u64 = 86_400_000_000_000;

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

/// A conversation begins in the small table, or in the large one when its endpoint may have some half open ones there.
fn wherever_it_begins(test: impl Fn(&mut Scene)) {
    for half_open in [0, 1000] {
        let mut scene = scene::set();
        scene.limit(0, half_open);
        test(&mut scene);
    }
}

/// A whole handshake from this port of `WEB`. The last packet's verdict.
fn connect(scene: &mut Scene, port: u16) -> crate::datapath::Outcome {
    scene.says(WEB, &Packet::tcp((WEB.address, port), (SHOP.address, 80), SYN));
    scene.says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, port), SYN | ACK));
    scene.says(WEB, &Packet::tcp((WEB.address, port), (SHOP.address, 80), ACK))
}

/// Pitfall B47.
#[test]
fn a_connection_is_closed_when_both_sides_have_said_so() {
    wherever_it_begins(|scene| {
        scene.says(WEB, &web(SYN)).sent();
        assert_state(scene, State::Unanswered);
        scene.says(SHOP, &shop(SYN | ACK)).sent();
        assert_state(scene, State::Unanswered);
        scene.says(WEB, &web(ACK)).sent();
        assert_state(scene, State::Established);
        assert_eq!(scene.counts(), (2, 0));
        scene.says(WEB, &web(FIN | ACK)).sent();
        assert_state(scene, State::Closing);
        scene.says(WEB, &web(FIN | ACK)).sent();
        assert_state(scene, State::Closing);
        scene.says(SHOP, &shop(FIN | ACK)).sent();
        assert_state(scene, State::Closed);
        scene.says(WEB, &web(ACK)).sent();
        assert_state(scene, State::Closed);
    });
}

/// Pitfall B47.
#[test]
fn a_reset_closes_at_once() {
    wherever_it_begins(|scene| {
        connect(scene, 4000).sent();
        scene.says(SHOP, &shop(RST)).sent();
        assert_state(scene, State::Closed);
    });
}

/// Pitfall B47.
#[test]
fn a_refused_connection_never_reaches_the_table_that_never_evicts() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(RST | ACK)).sent();
    scene.says(WEB, &web(ACK)).sent();
    assert_eq!(scene.counts(), (0, 2));
    assert_state(&mut scene, State::Closed);
}

/// Pitfall B46.
#[test]
fn a_closed_connection_is_opened_again_by_a_syn() {
    wherever_it_begins(|scene| {
        connect(scene, 4000).sent();
        scene.says(WEB, &web(FIN | ACK)).sent();
        scene.says(SHOP, &shop(FIN | ACK)).sent();
        scene.says(WEB, &web(SYN)).sent();
        assert_state(scene, State::Unanswered);
        scene.says(WEB, &web(ACK)).sent();
        assert_state(scene, State::Unanswered);
        scene.says(SHOP, &shop(SYN | ACK)).sent();
        scene.says(WEB, &web(ACK)).sent();
        assert_state(scene, State::Established);
        scene.says(WEB, &web(FIN | ACK)).sent();
        assert_state(scene, State::Closing);
    });
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
    let flow = scene.flow(2, UDP, (WEB.address, 4000), (SHOP.address, 514)).unwrap();
    assert_eq!(flow.packets, 5);
}

#[test]
fn an_answered_datagram_makes_a_stream() {
    wherever_it_begins(|scene| {
        let ask = Packet::udp((WEB.address, 4000), (SHOP.address, 53));
        scene.says(WEB, &ask).sent();
        let state = |scene: &mut Scene| {
            scene
                .flow(2, UDP, (WEB.address, 4000), (SHOP.address, 53))
                .unwrap()
                .state
        };
        assert_eq!(state(scene), State::Unanswered as u8);
        scene
            .says(SHOP, &Packet::udp((SHOP.address, 53), (WEB.address, 4000)))
            .sent();
        assert_eq!(state(scene), State::Established as u8);
        assert_eq!(scene.counts(), (2, 0));
    });
}

/// Pitfall B41: who never completes a handshake must not fill the table for those who did, also when each SYN is answered.
#[test]
fn a_flood_of_answered_syns_never_reaches_the_table_that_never_evicts() {
    for (half_open, limit) in [(0, 2), (10, 22)] {
        let mut scene = scene::set();
        scene.limit(0, half_open);
        scene.publish(std::net::Ipv4Addr::UNSPECIFIED, 8080, TCP, WEB, 80);
        connect(&mut scene, 4000).sent();
        for port in 10_000..11_000 {
            scene
                .world_says(&Packet::tcp((CLIENT, port), (NIC_ADDRESS, 8080), SYN))
                .sent();
            scene
                .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, port), SYN | ACK))
                .sent();
        }
        let (kept, others) = scene.counts();
        assert_eq!(kept, limit);
        assert!(others <= 512, "{others}");
        scene.says(SHOP, &shop(ACK)).sent();
        assert_state(&mut scene, State::Established);
    }
}

/// Pitfall B41.
#[test]
fn a_flood_of_syns_pushes_out_no_established_connection() {
    for (half_open, limit) in [(0, 2), (10, 22)] {
        let mut scene = scene::set();
        scene.limit(0, half_open);
        connect(&mut scene, 4000).sent();
        for port in 10_000..11_000 {
            scene
                .says(WEB, &Packet::tcp((WEB.address, port), (SHOP.address, 80), SYN))
                .sent();
        }
        let (kept, others) = scene.counts();
        assert_eq!(kept, limit);
        assert!(others <= 512, "{others}");
        scene.says(SHOP, &shop(ACK)).sent();
        assert_state(&mut scene, State::Established);
    }
}

/// Pitfall B22: new connections are refused, and by name; those that live go on.
#[test]
fn a_full_table_refuses_new_connections_by_name_and_keeps_the_old() {
    wherever_it_begins(|scene| {
        let refused = (10_000..10_100).find(|port| connect(scene, *port).verdict == Verdict::Dropped);
        assert_eq!(refused, Some(10_032), "64 entries are 32 connections");
        let drops = scene.drops();
        assert!(
            drops
                .iter()
                .all(|(reason, direction, endpoint, _)| (*reason, *direction, *endpoint)
                    == (DropReason::FlowTableFull, Direction::FromContainer, WEB.number)
                    // Without its SYN the answer belongs to nothing that is known, and is refused too.
                    || *endpoint == SHOP.number),
            "{drops:?}"
        );
        assert!(drops.iter().any(|(reason, ..)| *reason == DropReason::FlowTableFull));
        let (kept, _) = scene.counts();
        assert_eq!(kept, 64, "no half of a connection is left");
        scene
            .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 10_000), ACK))
            .sent();
    });
}

/// Pitfall B40.
#[test]
fn a_lone_half_of_an_unanswered_flow_is_forgotten_and_opened_anew() {
    let mut scene = scene::set();
    scene.says(WEB, &web(SYN)).sent();
    let reply = scene::key(2, TCP, (SHOP.address, 80), (WEB.address, 4000));
    scene.remove::<_, Flow<Ipv4>>("OPENING4", reply);
    scene.says(WEB, &web(ACK)).sent();
    assert_eq!(scene.counts(), (0, 2));
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    scene.says(WEB, &web(ACK)).sent();
    assert_eq!(scene.counts(), (2, 0));
}

#[test]
fn an_endpoint_is_charged_for_what_it_holds_and_half_opens() {
    let mut scene = scene::set();
    scene.limit(0, 1000);
    let tally = |scene: &mut Scene, number| {
        let tally: Tally = scene.slot("TALLIES", number);
        (tally.flows, tally.half_open)
    };
    scene.says(WEB, &web(SYN)).sent();
    assert_eq!(tally(&mut scene, WEB.number), (1, 1));
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    scene.says(WEB, &web(ACK)).sent();
    assert_eq!(tally(&mut scene, WEB.number), (1, 0));
    assert_eq!(
        tally(&mut scene, SHOP.number),
        (0, 0),
        "who was spoken to by another is not charged"
    );
    scene.says(WEB, &web(FIN | ACK)).sent();
    scene.says(SHOP, &shop(FIN | ACK)).sent();
    scene.says(WEB, &web(SYN)).sent();
    assert_eq!(tally(&mut scene, WEB.number), (1, 1), "opened again");
    // The world opens; the endpoint that is spoken to answers for it.
    scene.publish(std::net::Ipv4Addr::UNSPECIFIED, 8080, TCP, SHOP, 80);
    scene
        .world_says(&Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 8080), SYN))
        .sent();
    assert_eq!(tally(&mut scene, SHOP.number), (1, 1));
    // A generation ends, and the next packet clears the flow away.
    scene.stop(SHOP);
    scene.says(WEB, &web(ACK));
    assert_eq!(tally(&mut scene, WEB.number), (0, 0));
}

/// Pitfall B22.
#[test]
fn an_endpoint_that_holds_its_share_opens_no_more_and_others_do() {
    wherever_it_begins(|scene| {
        let half_open = scene.slot::<Settings>("SETTINGS", 0).half_open_per_endpoint;
        scene.limit(5, half_open);
        for port in 10_000..10_005 {
            connect(scene, port).sent();
        }
        let refused = scene.says(WEB, &Packet::tcp((WEB.address, 10_005), (SHOP.address, 80), SYN));
        scene.assert_dropped(&refused, DropReason::FlowLimit, Direction::FromContainer, WEB.number);
        scene
            .says(SHOP, &Packet::tcp((SHOP.address, 4000), (WEB.address, 80), SYN))
            .sent();
        scene
            .says(WEB, &Packet::tcp((WEB.address, 10_000), (SHOP.address, 80), ACK))
            .sent();
    });
}

/// What is idle for too long is gone for the packet path too: a daemon that is dead keeps nothing alive.
#[test]
fn an_expired_flow_is_gone_though_nobody_has_cleared_it_away() {
    let mut scene = scene::set();
    scene.limit(0, 1000);
    let ask = Packet::udp((WEB.address, 4000), (SERVER, 53));
    scene.says(WEB, &ask).sent();
    let port = scene
        .flow(2, UDP, (WEB.address, 4000), (SERVER, 53))
        .unwrap()
        .source_port;
    let answer = Packet::udp((SERVER, 53), (NIC_ADDRESS, u16::from_be(port)));
    scene.world_says(&answer).sent();
    scene.age(UDP_ANSWERED / 2, |_| true);
    scene.world_says(&answer).sent();
    scene.age(UDP_ANSWERED + 1_000_000_000, |_| true);
    scene.world_says(&answer).stays();
    assert_eq!(scene.counts(), (0, 0), "the host's own affair now");
    assert_eq!(scene.slot::<Tally>("TALLIES", WEB.number), Tally::default());
}

#[test]
fn a_direction_that_is_idle_lives_as_long_as_the_other_is_used() {
    let mut scene = scene::set();
    scene.limit(0, 1000);
    connect(&mut scene, 4000).sent();
    scene.age(TCP_ESTABLISHED + 1_000_000_000, |flags| flags & FLOW_IS_REPLY == 0);
    scene.says(WEB, &web(ACK)).sent();
    assert_state(&mut scene, State::Established);
}

/// Pitfall B22.
#[test]
fn a_table_full_of_what_is_over_makes_room_when_no_agent_does() {
    wherever_it_begins(|scene| {
        for port in 10_000..10_032 {
            connect(scene, port).sent();
        }
        assert_eq!(scene.counts().0, 64);
        // An agent that lives sees to it itself.
        let now = scene.now();
        scene.set("SWEPT", 0, now);
        scene.age(TCP_ESTABLISHED + 1_000_000_000, |_| true);
        connect(scene, 20_000);
        assert_eq!(scene.counts().0, 64);
        // A day later nobody has.
        scene.set("SWEPT", 0, now.wrapping_sub(A_DAY));
        connect(scene, 20_001);
        assert!(scene.counts().0 <= 2, "{:?}", scene.counts());
        connect(scene, 20_002).sent();
        assert_eq!(scene.slot::<Tally>("TALLIES", WEB.number).half_open, 0);
    });
}

#[test]
fn an_endpoint_whose_share_is_over_gets_it_back_when_no_agent_gives_it() {
    let mut scene = scene::set();
    scene.limit(5, 1000);
    let now = scene.now();
    scene.set("SWEPT", 0, now.wrapping_sub(A_DAY));
    for port in 10_000..10_005 {
        connect(&mut scene, port).sent();
    }
    scene.age(TCP_ESTABLISHED + 1_000_000_000, |_| true);
    let refused = scene.says(WEB, &Packet::tcp((WEB.address, 10_005), (SHOP.address, 80), SYN));
    assert_eq!(refused.verdict, Verdict::Dropped);
    connect(&mut scene, 10_006).sent();
    assert_eq!(scene.slot::<Tally>("TALLIES", WEB.number).flows, 1);
}

#[test]
fn closed_connections_linger_less_while_room_is_short() {
    let mut scene = scene::set();
    scene.limit(0, 1000);
    let now = scene.now();
    scene.set("SWEPT", 0, now.wrapping_sub(A_DAY));
    for port in 10_000..10_032 {
        connect(&mut scene, port).sent();
        scene
            .says(WEB, &Packet::tcp((WEB.address, port), (SHOP.address, 80), RST))
            .sent();
    }
    scene.age(TCP_CLOSED / 2, |_| true);
    connect(&mut scene, 20_000);
    connect(&mut scene, 20_001).sent();
    assert!(scene.counts().0 <= 4, "{:?}", scene.counts());
}

/// Pitfall B15: the flows of a container that is gone or was started anew are dead at once.
#[test]
fn flows_of_a_restarted_container_die_with_it() {
    wherever_it_begins(|scene| {
        scene.publish(std::net::Ipv4Addr::UNSPECIFIED, 5353, UDP, SHOP, 53);
        let ask = Packet::udp((CLIENT, 5000), (NIC_ADDRESS, 5353));
        scene.world_says(&ask).sent();
        scene
            .says(SHOP, &Packet::udp((SHOP.address, 53), (CLIENT, 5000)))
            .sent();
        scene.stop(SHOP);
        scene.start(SHOP);
        assert_eq!(scene.world_says(&ask).sent().destination(), SHOP.address);
        let key = scene::key(0, UDP, (CLIENT, 5000), (NIC_ADDRESS, 5353));
        let all = [scene.flows("FLOWS4"), scene.flows("OPENING4")].concat();
        let flow = all.into_iter().find(|(other, _)| *other == key).unwrap().1;
        assert_eq!((flow.destination_generation, flow.packets), (2, 1), "a new one");
    });
}

/// Pitfall B47: half open connections do not stay for hours.
#[test]
fn a_half_open_connection_is_over_soon() {
    let mut scene = scene::set();
    scene.limit(0, 1000);
    scene.says(WEB, &web(SYN)).sent();
    scene.says(SHOP, &shop(SYN | ACK)).sent();
    scene.age(UNANSWERED + 1_000_000_000, |_| true);
    scene.says(SHOP, &shop(ACK)).sent();
    let flow = scene.flow(2, TCP, (SHOP.address, 80), (WEB.address, 4000)).unwrap();
    assert_eq!(flow.packets, 1, "a new one");
}
