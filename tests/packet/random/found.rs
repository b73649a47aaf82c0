//! Cases that were found at random, made short, and are kept.

use std::sync::{LazyLock, Mutex};

use super::place::Place::*;
use super::place::VNIS;
use super::stage::Stage;
use super::step::Ends::*;
use super::step::Step::*;
use super::step::{Case, PLAIN, Question, Quote, Speech, Step, Wrapped};
use super::trial::Trial;
use crate::reference::Hook::*;
use crate::reference::conversation::Side::*;
use crate::reference::world::Family::*;

/// Tries a case; it fails where programs and reference differ.
#[track_caller]
fn replay(steps: &[Step]) {
    static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| Mutex::new(Stage::set()));
    let mut stage = STAGE.lock().unwrap_or_else(|failed| failed.into_inner());
    stage.enter();
    if let Err((_, what)) = Trial::of(&mut stage, &Case::of(steps)) {
        panic!("{what}");
    }
}

/// Pitfall B25.
/// The network's MTU is larger than the NIC's: too long an answer is given to the host to report, as a question would be.
#[test]
fn an_answer_of_a_published_port_is_measured_before_it_leaves() {
    replay(&[
        Rules {
            network: 2,
            icc: true,
            masquerades: true,
            internal: false,
            mtu: 9000,
        },
        Publishes {
            at: Nic,
            port: 8080,
            protocol: 17,
            endpoint: 2,
            inside: 80,
            count: 1,
        },
        Says(Speech {
            hook: FromNic,
            device: 31,
            ends: New(Client, 4000, Nic, 8080),
            ..PLAIN
        }),
        Says(Speech {
            device: 12,
            ends: Of(2, Answerer),
            payload: 2400,
            ..PLAIN
        }),
    ]);
}

/// Pitfall B25.
/// The same when the way out has changed since the conversation was opened.
#[test]
fn a_new_judgement_also_says_whether_packets_are_measured() {
    replay(&[
        Rules {
            network: 2,
            icc: true,
            masquerades: true,
            internal: false,
            mtu: 1400,
        },
        Says(Speech {
            ends: New(Web, 4000, Client, 80),
            ..PLAIN
        }),
        Rules {
            network: 2,
            icc: true,
            masquerades: true,
            internal: false,
            mtu: 9000,
        },
        Epoch,
        Says(Speech {
            ends: Of(1, Opener),
            payload: 2400,
            ..PLAIN
        }),
    ]);
}

/// Pitfall B48.
/// Seed 4. It left with a time to live of 0, or of 255.
#[test]
fn an_icmp_error_at_its_last_hop_does_not_leave() {
    replay(&[
        Says(Speech {
            ends: New(Web, 4001, Client, 40000),
            ..PLAIN
        }),
        Says(Speech {
            protocol: 1,
            icmp_kind: 11,
            hops: 1,
            quotes: Some(Quote {
                of: 0,
                side: Answerer,
                reporter: None,
                bytes: 28,
                payload: 10,
                offset: 0,
            }),
            ..PLAIN
        }),
    ]);
}

/// Pitfall B40.
/// Seed 7. The answer was judged as if its conversation were whole, and dropped; but it may be the host's by now.
#[test]
fn a_lone_half_is_forgotten_before_anything_is_judged() {
    replay(&[
        Says(Speech {
            hook: ToNic,
            device: 31,
            ends: New(Lone, 8080, SecondNic, 8080),
            ..PLAIN
        }),
        Uplink {
            device: 31,
            lends: None,
            mtu: 1400,
        },
        Epoch,
        PushedOut { of: 0, side: Opener },
        Says(Speech {
            hook: FromNic,
            device: 31,
            ends: Of(0, Answerer),
            ..PLAIN
        }),
    ]);
}

/// Seed 297. Both directions were one entry.
#[test]
fn what_an_endpoint_says_to_itself_is_not_carried() {
    replay(&[Says(Speech {
        device: 12,
        ends: New(Shop, 20001, Shop, 20002),
        protocol: 47,
        ..PLAIN
    })]);
}

/// Pitfall B8.
/// By its own gateway's address a container of an internal network reached the ports of all others; and anybody theirs.
#[test]
fn a_published_port_leads_neither_out_of_an_internal_network_nor_into_one() {
    replay(&[
        Publishes {
            at: Nobody,
            port: 8080,
            protocol: 6,
            endpoint: 3,
            inside: 80,
            count: 1,
        },
        Publishes {
            at: Nobody,
            port: 8081,
            protocol: 6,
            endpoint: 1,
            inside: 80,
            count: 1,
        },
        Rules {
            network: 2,
            icc: true,
            masquerades: true,
            internal: true,
            mtu: 1500,
        },
        Says(Speech {
            ends: New(Web, 4000, WebGateway, 8080),
            protocol: 6,
            tcp_flags: 2,
            ..PLAIN
        }),
        Says(Speech {
            device: 13,
            ends: New(Lone, 4000, LoneGateway, 8081),
            protocol: 6,
            tcp_flags: 2,
            ..PLAIN
        }),
        Says(Speech {
            device: 12,
            ends: New(Shop, 4000, WebGateway, 8081),
            protocol: 6,
            tcp_flags: 2,
            ..PLAIN
        }),
    ]);
}

/// It would have left with the address 0.0.0.0.
#[test]
fn what_the_host_forwards_is_not_masqueraded_by_a_nic_without_an_address() {
    replay(&[
        Uplink {
            device: 31,
            lends: None,
            mtu: 1500,
        },
        Says(Speech {
            hook: ToNic,
            device: 31,
            ends: New(Web, 4000, Server, 80),
            ..PLAIN
        }),
    ]);
}

/// Pitfall B9.
/// Seed 5267. Question and answer looked the same: an endpoint asked by its gateway's address for a port of its own, from that very port.
#[test]
fn an_endpoint_reaches_its_own_published_port_from_that_very_port() {
    replay(&[
        Publishes {
            at: Nobody,
            port: 40000,
            protocol: 6,
            endpoint: 2,
            inside: 40000,
            count: 1,
        },
        Says(Speech {
            device: 12,
            ends: New(Shop, 40000, WebGateway, 40000),
            protocol: 6,
            tcp_flags: 2,
            ..PLAIN
        }),
        Says(Speech {
            device: 12,
            ends: Of(1, Answerer),
            protocol: 6,
            tcp_flags: 18,
            ..PLAIN
        }),
    ]);
}

/// Seed 1. What found no room among the answered flows called itself established all the same.
#[test]
fn a_full_table_leaves_an_unanswered_flow_as_it_was() {
    let full = super::stage::CAPACITY as u16 / 2;
    let opened = |port| {
        Says(Speech {
            ends: New(Web, port, Shop, 80),
            ..PLAIN
        })
    };
    let answered = |of| {
        Says(Speech {
            device: 12,
            ends: Of(of, Answerer),
            ..PLAIN
        })
    };
    let steps: Vec<Step> = (0..=full)
        .flat_map(|n| [opened(4000 + n), answered(usize::from(2 * n))])
        .collect();
    replay(&steps);
}

/// Found with seed 952731614.
#[test]
fn later_fragments_follow_their_first_also_when_the_address_has_gone() {
    replay(&[
        Starts(6),
        Publishes {
            at: Nic,
            port: 20001,
            protocol: 6,
            endpoint: 6,
            inside: 20002,
            count: 7,
        },
        Says(Speech {
            hook: FromNic,
            device: 31,
            ends: New(Client, 40000, Nic, 20001),
            protocol: 6,
            tcp_flags: 2,
            ..PLAIN
        }),
        Owns(Nic, false),
        Says(Speech {
            hook: FromNic,
            device: 31,
            ends: Of(2, Opener),
            protocol: 6,
            identification: 2,
            more_fragments: true,
            ..PLAIN
        }),
        Says(Speech {
            hook: FromNic,
            device: 31,
            ends: New(Client, 20002, Nic, 20001),
            protocol: 6,
            identification: 2,
            offset: 180,
            ..PLAIN
        }),
    ]);
}

/// Seed 2. A neighbour advertisement of the host was given another source, and kept the checksum of the old one.
#[test]
fn what_the_host_tells_its_neighbours_leaves_as_it_is() {
    replay(&[Asks(Question {
        hook: ToNic,
        device: 31,
        family: V6,
        operation: 3,
        claims: None,
        claims_mac: false,
        target: Server,
        cut: None,
    })]);
}

/// A message without an identifier was masqueraded and kept the checksum of its old address.
#[test]
fn every_message_of_icmpv6_has_the_checksum_of_its_addresses() {
    replay(&[Says(Speech {
        family: V6,
        ends: New(Web, 0, Client, 0),
        protocol: 1,
        icmp_kind: 17,
        ..PLAIN
    })]);
}

/// Seed 952800713. The side that was pushed out would not have been idle yet: the reference kept the conversation alive for its sake.
#[test]
fn a_lone_half_is_over_when_it_has_been_idle_itself() {
    replay(&[
        Says(Speech {
            device: 13,
            ends: New(Lone, 20001, WebGateway, 80),
            ..PLAIN
        }),
        PushedOut { of: 0, side: Answerer },
        Ages { of: 0, seconds: 200 },
        Says(Speech {
            device: 13,
            protocol: 1,
            icmp_kind: 4,
            quotes: Some(Quote {
                of: 0,
                side: Answerer,
                reporter: None,
                bytes: 28,
                payload: 200,
                offset: 0,
            }),
            ..PLAIN
        }),
    ]);
}

/// Pitfall B52.
/// The ports were exchanged, and what a NIC has summed up (CHECKSUM_COMPLETE) did not hear of it: there is no checksum of UDP to make up for them.
#[test]
fn a_datagram_without_a_checksum_gets_another_port_and_the_sum_of_the_frame_stays_right() {
    for family in [V4, V6] {
        replay(&[
            Publishes {
                at: SecondNic,
                port: 20001,
                protocol: 17,
                endpoint: 5,
                inside: 20002,
                count: 1,
            },
            Says(Speech {
                hook: FromNic,
                device: 31,
                family,
                ends: New(Server, 4001, SecondNic, 20001),
                has_udp_checksum: false,
                ..PLAIN
            }),
        ]);
    }
}

/// It was read by its type alone.
#[test]
fn an_sctp_chunk_without_a_whole_header_is_none() {
    replay(&[Says(Speech {
        hook: FromHost,
        device: 22,
        ends: New(Shop, 20002, Mill, 20000),
        protocol: 132,
        cut: Some(47),
        ..PLAIN
    })]);
}

/// A network without a resolver was taken for one whose resolver has the address `::`.
#[test]
fn nobody_has_the_address_that_is_none() {
    for family in [V4, V6] {
        replay(&[Asks(Question {
            hook: FromContainer,
            device: 15,
            family,
            operation: 1,
            claims: None,
            claims_mac: false,
            target: Nobody,
            cut: None,
        })]);
    }
}

/// What has too few hops left to leave by a NIC, and was sent by an endpoint of another host, is reported there.
#[test]
fn an_endpoint_of_another_host_is_told_what_becomes_of_its_answer() {
    for family in [V4, V6] {
        replay(&[
            Joins(4789),
            Meshes {
                at: SecondNic,
                port: 53,
                protocol: 17,
                to: Far,
                inside: 8081,
            },
            Says(Speech {
                hook: FromNic,
                family,
                device: 32,
                ends: New(Vm, 20_003, SecondNic, 53),
                ..PLAIN
            }),
            Says(Speech {
                hook: FromNic,
                device: 31,
                family,
                ends: Of(2, Answerer),
                wrapped: Some(BY_PEER),
                hops: 0,
                ..PLAIN
            }),
        ]);
    }
}

/// A report that finds no way to the other host is what dies, and is counted with its own length.
#[test]
fn a_report_for_which_no_way_is_known_is_counted_as_it_is() {
    replay(&[
        Joins(4789),
        Meshes {
            at: Nic,
            port: 4000,
            protocol: 17,
            to: Far,
            inside: 80,
        },
        Meets {
            host: 1,
            device: 0,
            mtu: 1450,
            is_neighbour: false,
        },
        Says(Speech {
            hook: FromNic,
            device: 31,
            family: V6,
            ends: New(Server, 40_000, Nic, 4000),
            ..PLAIN
        }),
        Says(Speech {
            hook: FromNic,
            device: 31,
            family: V6,
            ends: Of(3, Answerer),
            hops: 0,
            wrapped: Some(BY_PEER),
            ..PLAIN
        }),
    ]);
}

/// What the first of the other hosts puts around frames of its endpoints.
const BY_PEER: Wrapped = Wrapped {
    by: Peer,
    to: Nic,
    family: V4,
    port: 4789,
    flags: 8,
    vni: VNIS[0].1,
    marks: 0,
    cut: None,
    flip: None,
};
