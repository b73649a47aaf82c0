//! Other hosts at random: how they come and go, and what is said between them and this one.

use sluice_datapath_common::overlay::{PORT, host_of, network_of};

use super::chance::Chance;
use super::generate;
use super::place::{PEERS, Place, STRANGERS, Stranger, TENANTS, Tenant, VNIS};
use super::step::{Ends, PLAIN, Speech, Step, Wrapped};
use super::trial::Trial;
use crate::reference::Hook;
use crate::reference::wire::{ACK, RST, SYN, TCP, UDP};
use crate::reference::world::Family;
use crate::scene::{HOST_LEG, NIC, SECOND_NIC};

/// Those who live in networks that reach over several hosts.
const TRAVELLERS: [Tenant; 3] = [TENANTS[2], TENANTS[3], TENANTS[4]];

/// Does this host know of any other?
pub fn is_known(trial: &Trial<'_>) -> bool {
    !trial.reference.world.peers.is_empty() || trial.reference.world.overlay_port.is_some()
}

pub fn join(chance: &mut Chance) -> Step {
    Step::Joins(chance.one_of(&[PORT, PORT, PORT, 8472]))
}

/// The world of several hosts changes.
pub fn change(chance: &mut Chance) -> Step {
    let stranger = chance.one_of(&STRANGERS);
    let (port, protocol) = (generate::port(chance), chance.one_of(&[TCP, UDP]));
    match chance.below(20) {
        0 => Step::Parts,
        1 => join(chance),
        2..5 => Step::Meets {
            host: peer(chance),
            device: chance.one_of(&[NIC, NIC, NIC, SECOND_NIC, 0]),
            mtu: chance.one_of(&[1450, 1450, 900]),
            is_neighbour: chance.percent(60),
        },
        5 => Step::Misses(peer(chance)),
        6..10 => Step::Moves {
            place: stranger.place,
            host: chance.one_of(&[0, 1, 1, 2, 2, 3]),
            is_linked: chance.percent(60),
        },
        10..13 => Step::Direct {
            network: chance.one_of(&VNIS).0,
            direct: chance.percent(60),
        },
        13 | 14 => {
            let here = chance.one_of(&TRAVELLERS).number;
            let (from, to) = match chance.percent(50) {
                true => (here, stranger.number),
                false => (stranger.number, here),
            };
            Step::Links {
                from,
                to,
                port,
                protocol,
                holds: chance.percent(80),
            }
        }
        15..18 => Step::Meshes {
            at: chance.one_of(&[Place::Nobody, Place::Nic, Place::SecondNic]),
            port,
            protocol,
            to: stranger.place,
            inside: generate::port(chance),
        },
        _ => Step::Accepts {
            endpoint: chance.one_of(&TRAVELLERS).number,
            port,
            protocol,
        },
    }
}

/// Something new is said from one host to another.
pub fn speech(chance: &mut Chance, trial: &Trial<'_>) -> Speech {
    let stranger = chance.one_of(&STRANGERS);
    let near: Vec<Tenant> = TRAVELLERS
        .into_iter()
        .filter(|tenant| tenant.network == stranger.network)
        .collect();
    let near = match chance.percent(90) {
        true => chance.one_of(&near),
        false => chance.one_of(&TENANTS),
    };
    let (port, other) = (generate::port(chance), generate::port(chance));
    let speech = Speech {
        family: generate::family(chance),
        protocol: generate::protocol(chance),
        tcp_flags: chance.one_of(&[SYN, SYN, SYN, SYN, ACK, SYN | ACK, RST]),
        icmp_kind: chance.one_of(&[8, 8, 8, 13, 0, 5]),
        ..PLAIN
    };
    match chance.below(20) {
        0..7 => Speech {
            hook: Hook::FromContainer,
            device: near.device,
            ends: Ends::New(near.place, port, stranger.place, other),
            ..speech
        },
        7..16 => wrapped_speech(chance, trial, &stranger, &near, speech),
        16 | 17 => Speech {
            hook: Hook::FromHost,
            device: HOST_LEG,
            ends: Ends::New(generate::of_host(chance), port, stranger.place, other),
            ..speech
        },
        // without any wrapping
        18 => Speech {
            hook: Hook::FromNic,
            device: NIC,
            ends: Ends::New(stranger.place, port, near.place, other),
            ..speech
        },
        _ => Speech {
            hook: Hook::ToNic,
            device: NIC,
            ends: Ends::New(near.place, port, stranger.place, other),
            ..speech
        },
    }
}

/// Another host says something: for an endpoint, for itself, for a client.
fn wrapped_speech(
    chance: &mut Chance,
    trial: &Trial<'_>,
    stranger: &Stranger,
    near: &Tenant,
    speech: Speech,
) -> Speech {
    let world = &trial.reference.world;
    let remote = world
        .remotes
        .get(&(stranger.network, stranger.place.address(Family::V4)));
    let host = match remote {
        Some(remote) if chance.percent(92) => remote.host,
        _ => peer(chance),
    };
    let gateway = if stranger.network == 4 {
        Place::MillGateway
    } else {
        Place::LoneGateway
    };
    let from = match chance.below(10) {
        0..6 => stranger.place,
        6 | 7 => gateway,
        8 => Place::Client,
        _ => chance.one_of(&Place::ALL),
    };
    let to = match chance.below(12) {
        0 => chance.one_of(&Place::ALL),
        1 => chance.one_of(&STRANGERS).place,
        _ => near.place,
    };
    // What the endpoint takes of clients, more often than chance would have it.
    let accepted: Vec<(u16, u8)> = world
        .published
        .keys()
        .filter(|(address, _, _)| *address == near.place.address(Family::V4))
        .map(|(_, port, protocol)| (*port, *protocol))
        .collect();
    let (other, protocol) = match chance.percent(50) {
        true => generate::pick(chance, &accepted).unwrap_or((generate::port(chance), speech.protocol)),
        false => (generate::port(chance), speech.protocol),
    };
    Speech {
        hook: Hook::FromNic,
        device: chance.one_of(&[NIC, NIC, NIC, SECOND_NIC]),
        ends: Ends::New(from, generate::port(chance), to, other),
        protocol,
        wrapped: Some(around(trial, host, stranger.network)),
        ..speech
    }
}

/// What stands around the frames of a scope.
pub fn of_scope(trial: &Trial<'_>, scope: u32) -> Wrapped {
    around(trial, host_of(scope), network_of(scope))
}

fn around(trial: &Trial<'_>, host: u32, network: u32) -> Wrapped {
    let index = (host.max(1) as usize - 1).min(PEERS.len() - 1);
    let (by, family, to) = PEERS[index];
    let vni = VNIS.iter().find(|(number, _)| *number == network);
    Wrapped {
        by,
        to,
        family,
        port: trial.reference.world.overlay_port.unwrap_or(PORT),
        flags: 8,
        vni: vni.map_or(1, |(_, vni)| *vni),
        marks: 0,
        cut: None,
        flip: None,
    }
}

/// The same, and now and then something special about it.
pub fn disturbed(chance: &mut Chance, mut around: Wrapped) -> Wrapped {
    if chance.once_in(30) {
        around.by = chance.one_of(&[Place::Client, Place::Peer, Place::SecondPeer, Place::Server]);
    }
    if chance.once_in(40) {
        around.to = chance.one_of(&[Place::Nic, Place::SecondNic, Place::NewNic, Place::Client]);
    }
    if chance.once_in(40) {
        around.family = generate::family(chance);
    }
    if chance.once_in(40) {
        around.vni = chance.one_of(&[1, 0, 0x00ab_cdee, 0xcdef, VNIS[0].1, VNIS[1].1]);
    }
    if chance.once_in(40) {
        around.flags = chance.one_of(&[0, 0xff, 0x88]);
    }
    if chance.once_in(40) {
        around.port = chance.one_of(&[PORT, 8472, 53]);
    }
    if chance.once_in(20) {
        around.marks = chance.one_of(&[1, 2, 3]);
    }
    if chance.once_in(30) {
        around.cut = Some(20 + chance.below(120) as u16);
    }
    if chance.once_in(30) {
        around.flip = Some((chance.below(100) as u16, 1 << chance.below(8)));
    }
    around
}

/// A number of a host.
fn peer(chance: &mut Chance) -> u32 {
    1 + chance.below(PEERS.len()) as u32
}
