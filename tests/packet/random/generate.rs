//! The next step, at random: mostly what makes sense as things stand, now and then something that does not.

use std::net::IpAddr;

use sluice_datapath_common::flow::{Action, State};
use sluice_datapath_common::overlay::is_overlay;

use super::abroad;
use super::chance::Chance;
use super::place::{NETWORKS, Place, TENANTS, Tenant};
use super::stage::SOCKETS;
use super::step::{Ends, PLAIN, Question, Quote, Speech, Station, Step, Wrapped};
use super::trial::Trial;
use crate::reference::Hook;
use crate::reference::conversation::{Key, Side};
use crate::reference::path::{HOST, WORLD};
use crate::reference::wire::{ACK, FIN, ICMP, RST, SCTP, SYN, TCP, UDP, UDP_LITE};
use crate::reference::world::{Family, HostAccess};
use crate::scene::{HOST_LEG, NIC, SECOND_NIC};

/// Few, so that packets meet: kept when masqueraded, or ephemeral, privileged, published, with a socket of the host.
const PORTS: [u16; 11] = [
    4000, 4001, 20_000, 40_000, 53, 80, 8080, 8081, SOCKETS[0], SOCKETS[1], SOCKETS[2],
];
/// Protocols with ports, with identifiers, and with neither.
const PROTOCOLS: [u8; 10] = [TCP, TCP, TCP, UDP, UDP, UDP, ICMP, SCTP, UDP_LITE, 47];
const OUTSIDE: [Place; 6] = [
    Place::Client,
    Place::Server,
    Place::SecondClient,
    Place::Vm,
    Place::Unrouted,
    Place::Client,
];
const OF_HOST: [Place; 7] = [
    Place::WebGateway,
    Place::LoneGateway,
    Place::MillGateway,
    Place::Nic,
    Place::SecondNic,
    Place::NewNic,
    Place::VmBridge,
];
const INSIDE: [Place; 6] = [
    Place::Web,
    Place::Shop,
    Place::Lone,
    Place::Mill,
    Place::Barn,
    Place::Vacant,
];

pub fn step(chance: &mut Chance, trial: &Trial<'_>) -> Step {
    // A world of its own first. The usual one keeps what nobody has answered; with little room that fills up at once.
    if trial.packets == 0 && chance.percent(85) {
        return match chance.below(10) {
            0..3 => limits(chance),
            3 => abroad::join(chance),
            _ => change(chance, trial),
        };
    }
    let has_others = abroad::is_known(trial);
    let speech = match chance.below(100) {
        0..7 if has_others && chance.percent(40) => return abroad::change(chance),
        0..7 => return change(chance, trial),
        7..10 => return end(chance, trial),
        10..14 => return Step::Asks(question(chance)),
        14..54 => continued(chance, trial),
        54..62 => error(chance, trial),
        62..91 if has_others && chance.percent(50) => abroad::speech(chance, trial),
        62..91 => opened(chance, trial),
        91..94 => to_many(chance),
        _ => wild(chance),
    };
    Step::Says(disturbed(chance, speech))
}

fn limits(chance: &mut Chance) -> Step {
    Step::Limits {
        conversations: chance.one_of(&[0, 0, 0, 1, 2, 3]),
        half_open: chance.one_of(&[0, 1, 2, u32::MAX, u32::MAX]),
    }
}

/// The world changes.
fn change(chance: &mut Chance, trial: &Trial<'_>) -> Step {
    let protocol = chance.one_of(&[TCP, UDP]);
    let port = chance.one_of(&PORTS);
    match chance.below(30) {
        22 | 23 => Step::Opens {
            network: chance.one_of(&NETWORKS).0,
            host_access: chance.one_of(&[HostAccess::All, HostAccess::All, HostAccess::Gateway, HostAccess::None]),
            unprotected: chance.percent(30),
        },
        24 | 25 => {
            let (from, to) = (chance.one_of(&TENANTS).number, chance.one_of(&TENANTS).number);
            Step::Links {
                from,
                to,
                port,
                protocol,
                holds: chance.percent(75),
            }
        }
        27..30 => Step::Carries {
            network: chance.one_of(&NETWORKS).0,
            multicast: chance.percent(75),
        },
        26 => Step::Serves {
            endpoint: chance.one_of(&TENANTS).number,
            only: chance.one_of(&[
                None,
                Some(Place::Client),
                Some(Place::Server),
                Some(Place::Web),
                Some(Place::Vm),
            ]),
        },
        0..5 => Step::Epoch,
        5..8 => Step::Rules {
            network: chance.one_of(&NETWORKS).0,
            icc: chance.percent(65),
            masquerades: chance.percent(80),
            internal: chance.percent(25),
            mtu: chance.one_of(&[1500, 1500, 9000]),
        },
        8..10 => {
            let tenant = chance.one_of(&TENANTS);
            let lives = trial
                .reference
                .world
                .attachments
                .values()
                .any(|other| other.number == tenant.number);
            match lives {
                true => Step::Stops(tenant.number),
                false => Step::Starts(tenant.number),
            }
        }
        10..15 => Step::Publishes {
            at: chance.one_of(&[
                Place::Nobody,
                Place::Nobody,
                Place::Nic,
                Place::SecondNic,
                Place::Loopback,
            ]),
            port,
            protocol,
            endpoint: chance.one_of(&TENANTS).number,
            inside: chance.one_of(&PORTS),
            count: chance.one_of(&[1, 1, 2, 7, 1000]),
        },
        15 => {
            let published: Vec<_> = trial.reference.world.published.keys().copied().collect();
            let Some((at, port, protocol)) = pick(chance, &published) else {
                return Step::Epoch;
            };
            Step::Unpublishes {
                at: place_of(at).unwrap_or(Place::Nobody),
                port,
                protocol,
            }
        }
        16 => Step::Uplink {
            device: chance.one_of(&[NIC, SECOND_NIC]),
            lends: chance.one_of(&[Some(Place::Nic), Some(Place::NewNic), Some(Place::SecondNic), None]),
            mtu: chance.one_of(&[1500, 1400]),
        },
        17 => Step::NoUplink {
            device: chance.one_of(&[NIC, SECOND_NIC, SECOND_NIC]),
        },
        18 => limits(chance),
        19 => Step::Routed {
            network: chance.one_of(&NETWORKS).0,
            routed6: chance.percent(60),
        },
        _ => Step::Owns(chance.one_of(&[Place::NewNic, Place::Nic]), chance.percent(70)),
    }
}

/// A conversation ends without its ends noticing.
fn end(chance: &mut Chance, trial: &Trial<'_>) -> Step {
    let labels: Vec<usize> = trial.opened.keys().copied().collect();
    let Some(of) = pick(chance, &labels) else {
        return Step::Epoch;
    };
    match chance.below(10) {
        0..3 => Step::Expires { of },
        3..7 => Step::Ages {
            of,
            // Multiples of eleven: no sum of them comes near to a lifetime from below (10, 30, 60, 120, 600 seconds, a day), and real time passes besides.
            seconds: chance.one_of(&[11, 22, 44, 88, 198, 704, 99_000]),
        },
        _ => Step::PushedOut { of, side: side(chance) },
    }
}

/// Somebody says something new.
fn opened(chance: &mut Chance, trial: &Trial<'_>) -> Speech {
    let protocol = chance.one_of(&PROTOCOLS);
    let (port, other) = (chance.one_of(&PORTS), chance.one_of(&PORTS));
    let tenant = chance.one_of(&TENANTS);
    let (hook, device, from, to) = match chance.below(10) {
        0..5 => {
            let to = match chance.below(8) {
                0 => neighbour(chance, &tenant),
                1 => chance.one_of(&INSIDE),
                2 | 3 => chance.one_of(&OF_HOST),
                _ => chance.one_of(&OUTSIDE),
            };
            (Hook::FromContainer, tenant.device, tenant.place, to)
        }
        5..8 => {
            let from = chance.one_of(&[
                Place::Client,
                Place::Client,
                Place::Server,
                Place::SecondClient,
                Place::Vm,
            ]);
            let device = chance.one_of(&[NIC, NIC, NIC, SECOND_NIC]);
            (
                Hook::FromNic,
                device,
                from,
                chance.one_of(&[Place::Nic, Place::Nic, Place::SecondNic, Place::Web]),
            )
        }
        8 => (Hook::FromHost, HOST_LEG, chance.one_of(&OF_HOST), tenant.place),
        _ => (Hook::ToNic, NIC, tenant.place, chance.one_of(&OUTSIDE)),
    };
    let mut speech = Speech {
        hook,
        device,
        family: family(chance),
        ends: Ends::New(from, port, to, other),
        protocol,
        tcp_flags: chance.one_of(&[SYN, SYN, SYN, SYN, SYN, ACK, SYN | ACK, RST, FIN | ACK, SYN | FIN]),
        icmp_kind: chance.one_of(&[8, 8, 8, 8, 13, 0, 14, 5, 9]),
        ..PLAIN
    };
    // To what is published, more often than chance would have it.
    let published: Vec<_> = trial.reference.world.published.keys().copied().collect();
    if hook != Hook::FromHost
        && chance.percent(60)
        && let Some((address, port, protocol)) = pick(chance, &published)
        && let Ends::New(from, source_port, _, _) = speech.ends
    {
        let at = place_of(address)
            .filter(|place| *place != Place::Nobody)
            .unwrap_or(chance.one_of(&OF_HOST));
        speech.ends = Ends::New(from, source_port, at, port);
        speech.protocol = protocol;
    }
    speech
}

/// An endpoint says something to all others of its network.
fn to_many(chance: &mut Chance) -> Speech {
    let tenant = chance.one_of(&TENANTS);
    let from = match chance.below(6) {
        0 => Place::Nobody,
        1 => Place::WebLink,
        _ => tenant.place,
    };
    let to = chance.one_of(&[Place::Group, Place::Group, Place::Broadcast, Place::WebBroadcast]);
    Speech {
        device: tenant.device,
        family: family(chance),
        ends: Ends::New(from, chance.one_of(&PORTS), to, chance.one_of(&PORTS)),
        protocol: chance.one_of(&[UDP, UDP, UDP, ICMP, 2, TCP]),
        to: if chance.once_in(8) {
            Station::Gateway
        } else {
            Station::Everybody
        },
        ..PLAIN
    }
}

/// A known conversation goes on.
fn continued(chance: &mut Chance, trial: &Trial<'_>) -> Speech {
    let labels: Vec<usize> = trial.opened.keys().copied().collect();
    // The latest are spoken of most.
    let recent = &labels[labels.len().saturating_sub(6)..];
    let of = if chance.percent(70) {
        pick(chance, recent)
    } else {
        pick(chance, &labels)
    };
    let Some(of) = of else { return opened(chance, trial) };
    let side = side(chance);
    let (opening, answers) = trial.opened[&of];
    let key = if side == Side::Opener { opening } else { answers };
    let state = trial
        .reference
        .find(&opening)
        .map(|(index, _)| trial.reference.conversations[index].state);
    let tcp_flags = match (state, side) {
        (Some(State::Unanswered), Side::Answerer) => {
            chance.one_of(&[SYN | ACK, SYN | ACK, SYN | ACK, SYN | ACK, RST | ACK, ACK, SYN])
        }
        (None, _) => chance.one_of(&[SYN, ACK, FIN | ACK, RST]),
        _ => chance.one_of(&[ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, SYN, SYN | ACK]),
    };
    let (hook, device) = arrival(chance, trial, &key);
    Speech {
        hook,
        device,
        ends: Ends::Of(of, side),
        protocol: key.protocol,
        tcp_flags,
        icmp_kind: if side == Side::Opener { 8 } else { 0 },
        wrapped: wrapped(trial, hook, &key),
        ..PLAIN
    }
}

/// Other hosts wrap up what they say.
fn wrapped(trial: &Trial<'_>, hook: Hook, key: &Key) -> Option<Wrapped> {
    (is_overlay(key.scope) && hook == Hook::FromNic).then(|| abroad::of_scope(trial, key.scope))
}

/// An ICMP error about what somebody has said.
fn error(chance: &mut Chance, trial: &Trial<'_>) -> Speech {
    let labels: Vec<usize> = trial.opened.keys().copied().collect();
    let Some(of) = pick(chance, &labels) else {
        return opened(chance, trial);
    };
    let side = side(chance);
    let (opening, answers) = trial.opened[&of];
    // It comes from where the answers to it come from.
    let back = if side == Side::Opener { answers } else { opening };
    let (hook, device) = arrival(chance, trial, &back);
    let reporters = [Place::Server, Place::Client, Place::Nic, Place::WebGateway, Place::Web];
    Speech {
        hook,
        device,
        protocol: ICMP,
        icmp_kind: chance.one_of(&[3, 4, 11, 12]),
        quotes: Some(Quote {
            of,
            side,
            reporter: chance.percent(40).then(|| chance.one_of(&reporters)),
            bytes: chance.one_of(&[28, 28, 36, 38, 48, 1000, 24, 19]),
            payload: chance.one_of(&[10, 11, 200]),
            offset: if chance.once_in(20) { 3 } else { 0 },
        }),
        wrapped: wrapped(trial, hook, &back),
        ..PLAIN
    }
}

/// Anything anywhere.
fn wild(chance: &mut Chance) -> Speech {
    let (hook, device) = chance.one_of(&[
        (Hook::FromContainer, 11),
        (Hook::FromContainer, 12),
        (Hook::FromContainer, 13),
        (Hook::FromContainer, 33),
        (Hook::FromHost, HOST_LEG),
        (Hook::FromNic, NIC),
        (Hook::FromNic, SECOND_NIC),
        (Hook::ToNic, NIC),
        (Hook::ToNic, SECOND_NIC),
    ]);
    let ends = Ends::New(
        chance.one_of(&Place::ALL),
        chance.one_of(&PORTS),
        chance.one_of(&Place::ALL),
        chance.one_of(&PORTS),
    );
    Speech {
        hook,
        device,
        family: family(chance),
        ends,
        protocol: chance.one_of(&[TCP, UDP, ICMP, 47, SCTP, UDP_LITE, 33, 50, 2]),
        tcp_flags: chance.below(64) as u8,
        icmp_kind: chance.below(20) as u8,
        ..PLAIN
    }
}

/// The same, and now and then something special about it.
fn disturbed(chance: &mut Chance, mut speech: Speech) -> Speech {
    speech.payload = chance.one_of(&[10, 10, 0, 1, 2, 11]);
    // Seldom: to build and to sum up long packets takes most of the time.
    if chance.once_in(25) {
        speech.payload = chance.one_of(&[100, 1480, 2400]);
    }
    if chance.once_in(12) {
        speech.hops = chance.one_of(&[0, 1, 2, 255]);
    }
    if chance.once_in(10) {
        (speech.offset, speech.more_fragments) =
            chance.one_of(&[(0, true), (0, true), (1, false), (3, true), (3, false), (180, false)]);
        speech.identification = chance.one_of(&[1, 2]);
    }
    if chance.once_in(15) {
        speech.options = chance.one_of(&[1, 2, 10]);
    }
    if chance.once_in(15) {
        speech.headers = chance.one_of(&[1, 1, 2, 2, 3, 3, 4, 5, 6]);
    }
    if chance.once_in(10) {
        speech.has_udp_checksum = false;
    }
    if chance.once_in(30) {
        speech.from = chance.one_of(&[Station::Gateway, Station::Stranger, Station::Everybody]);
    }
    if chance.once_in(15) {
        speech.to = chance.one_of(&[
            Station::Gateway,
            Station::Gateway,
            Station::Stranger,
            Station::Everybody,
        ]);
    }
    if chance.once_in(25) {
        speech.cut = Some(15 + chance.below(80) as u16);
    }
    if chance.once_in(20) {
        let at = if chance.percent(80) {
            chance.below(80)
        } else {
            chance.below(200)
        };
        speech.flip = Some((at as u16, 1 << chance.below(8)));
    }
    speech.wrapped = speech.wrapped.map(|around| abroad::disturbed(chance, around));
    speech
}

fn question(chance: &mut Chance) -> Question {
    let (hook, device) = chance.one_of(&[
        (Hook::FromContainer, 11),
        (Hook::FromContainer, 13),
        (Hook::FromContainer, 15),
        (Hook::FromHost, HOST_LEG),
        (Hook::FromNic, NIC),
        (Hook::ToNic, NIC),
    ]);
    Question {
        hook,
        device,
        family: family(chance),
        operation: chance.one_of(&[1, 1, 1, 1, 2, 3, 4]),
        claims: chance
            .once_in(6)
            .then(|| chance.one_of(&[Place::Nobody, Place::Vacant, Place::Shop, Place::WebGateway])),
        claims_mac: chance.once_in(12),
        target: chance.one_of(&Place::ALL),
        cut: chance.once_in(12).then(|| 15 + chance.below(40) as u16),
    }
}

/// The program that packets with this key meet, and the device; once in a while another.
fn arrival(chance: &mut Chance, trial: &Trial<'_>, key: &Key) -> (Hook, u32) {
    if chance.once_in(60) {
        return chance.one_of(&[
            (Hook::FromHost, HOST_LEG),
            (Hook::ToNic, NIC),
            (Hook::FromNic, NIC),
            (Hook::FromContainer, 11),
        ]);
    }
    match key.scope {
        WORLD => (Hook::FromNic, if chance.once_in(12) { SECOND_NIC } else { NIC }),
        HOST => {
            let stays = trial
                .reference
                .find(key)
                .is_some_and(|(index, side)| trial.reference.conversations[index].leg(side).action == Action::Stay);
            if stays {
                (Hook::ToNic, NIC)
            } else {
                (Hook::FromHost, HOST_LEG)
            }
        }
        scope if is_overlay(scope) => (Hook::FromNic, if chance.once_in(12) { SECOND_NIC } else { NIC }),
        network => (Hook::FromContainer, device_of(network, key.source)),
    }
}

/// Somebody of the same network.
fn neighbour(chance: &mut Chance, tenant: &Tenant) -> Place {
    let others: Vec<Place> = TENANTS
        .iter()
        .filter(|other| other.network == tenant.network)
        .map(|other| other.place)
        .collect();
    chance.one_of(&others)
}

pub fn port(chance: &mut Chance) -> u16 {
    chance.one_of(&PORTS)
}

pub fn protocol(chance: &mut Chance) -> u8 {
    chance.one_of(&PROTOCOLS)
}

/// An address of the host.
pub fn of_host(chance: &mut Chance) -> Place {
    chance.one_of(&OF_HOST)
}

fn place_of(address: IpAddr) -> Option<Place> {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    Place::ALL.into_iter().find(|place| place.address(family) == address)
}

pub fn family(chance: &mut Chance) -> Family {
    chance.one_of(&[Family::V4, Family::V4, Family::V4, Family::V6, Family::V6])
}

/// The device behind which the address is, or was.
fn device_of(network: u32, address: IpAddr) -> u32 {
    TENANTS
        .iter()
        .find(|tenant| tenant.network == network && place_of(address) == Some(tenant.place))
        .map_or(11, |tenant| tenant.device)
}

fn side(chance: &mut Chance) -> Side {
    chance.one_of(&[Side::Opener, Side::Answerer])
}

pub fn pick<T: Copy>(chance: &mut Chance, all: &[T]) -> Option<T> {
    (!all.is_empty()).then(|| all[chance.below(all.len())])
}
