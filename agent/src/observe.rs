//! What the tables say, in words.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::IpAddr,
};

use aya::Pod;
use sluice_datapath_common::{
    DropReason, Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address,
    drop::Direction,
    flow::{Action, FLOW_IS_REPLY, FLOW_REWRITES_DESTINATION, FLOW_REWRITES_SOURCE, Flow, FlowKey, State},
};

use crate::{
    expire::{now, reverse},
    follow::Filter,
    map::{
        handle::Table,
        pins::{Maps, Specification},
    },
    roster::{Resident, Roster},
    view,
};

/// A family whose addresses can be told.
pub trait Told: Family {
    /// An address as the standard library has it.
    fn told(address: Self::Address) -> IpAddr;
}

impl Told for Ipv4 {
    fn told(address: Ipv4Address) -> IpAddr {
        IpAddr::V4(address.into())
    }
}

impl Told for Ipv6 {
    fn told(address: Ipv6Address) -> IpAddr {
        IpAddr::V6(address.into())
    }
}

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// The most recently used.
    #[default]
    Idle,
    /// What carried most bytes, both ways.
    Bytes,
    /// The same by packets.
    Packets,
    /// The youngest.
    Age,
}

impl Order {
    /// By its word.
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "idle" => Self::Idle,
            "bytes" => Self::Bytes,
            "packets" => Self::Packets,
            "age" => Self::Age,
            _ => return None,
        })
    }

    fn sort(self, flows: &mut [view::Flow]) {
        flows.sort_by(|one, other| match self {
            Self::Idle => one.idle.total_cmp(&other.idle),
            Self::Bytes => (other.bytes + other.reply_bytes).cmp(&(one.bytes + one.reply_bytes)),
            Self::Packets => (other.packets + other.reply_packets).cmp(&(one.packets + one.reply_packets)),
            Self::Age => one.age.total_cmp(&other.age),
        });
    }
}

/// The connections of all flow tables that are wanted, in this order; no more than so many, if that is said.
pub fn flows(
    maps: &Maps,
    roster: &Roster,
    filter: &Filter,
    order: Order,
    limit: Option<usize>,
) -> io::Result<Vec<view::Flow>> {
    let local = host_addresses(maps)?;
    let is_host = |address: IpAddr| address.is_loopback() || local.contains(&address);
    let mut view = Vec::new();
    for table in [&maps.FLOWS4, &maps.OPENING4] {
        add_flows(table, roster, &is_host, &mut view)?;
    }
    for table in [&maps.FLOWS6, &maps.OPENING6] {
        add_flows(table, roster, &is_host, &mut view)?;
    }
    view.retain(|flow| filter.wants_flow(flow));
    order.sort(&mut view);
    view.truncate(limit.unwrap_or(usize::MAX));
    Ok(view)
}

/// The host's own addresses.
pub fn host_addresses(maps: &Maps) -> io::Result<HashSet<IpAddr>> {
    let mut local: HashSet<IpAddr> = HashSet::new();
    maps.LOCAL4
        .each(|addresses, _| local.extend(addresses.iter().map(|address| Ipv4::told(*address))))?;
    maps.LOCAL6
        .each(|addresses, _| local.extend(addresses.iter().map(|address| Ipv6::told(*address))))?;
    Ok(local)
}

/// What rules of documents have said so far, by their numbers.
pub fn verdicts(maps: &Maps) -> io::Result<BTreeMap<u64, view::Verdicts>> {
    let mut verdicts: BTreeMap<u64, view::Verdicts> = BTreeMap::new();
    maps.VERDICTS.each(|keys, counters| {
        for (key, counter) in keys.iter().zip(counters) {
            let of_rule = verdicts.entry(key.rule).or_default();
            let count = match key.audited {
                0 => &mut of_rule.done,
                _ => &mut of_rule.audited,
            };
            count.packets += counter.packets;
            count.bytes += counter.bytes;
        }
    })?;
    Ok(verdicts)
}

fn add_flows<F: Told>(
    table: &Table<FlowKey<F>, Flow<F>>,
    roster: &Roster,
    is_host: &impl Fn(IpAddr) -> bool,
    view: &mut Vec<view::Flow>,
) -> io::Result<()>
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
{
    let entries = table.entries(|_, _| true)?;
    let replies: HashMap<Tuple, Flow<F>> = entries
        .iter()
        .filter(|(_, flow)| flow.flags & FLOW_IS_REPLY != 0)
        .map(|(key, flow)| (tuple(key), *flow))
        .collect();
    let now = now();
    for (key, flow) in entries.iter().filter(|(_, flow)| flow.flags & FLOW_IS_REPLY == 0) {
        let reply = replies.get(&tuple(&reverse(key, flow)));
        view.push(join(key, flow, reply, roster, is_host, now));
    }
    Ok(())
}

type Tuple = (IpAddr, IpAddr, u16, u16, u32, u8);

fn tuple<F: Told>(key: &FlowKey<F>) -> Tuple {
    (
        F::told(key.source),
        F::told(key.destination),
        key.source_port,
        key.destination_port,
        key.scope,
        key.protocol,
    )
}

/// Both directions of a connection as one.
fn join<F: Told>(
    key: &FlowKey<F>,
    flow: &Flow<F>,
    reply: Option<&Flow<F>>,
    roster: &Roster,
    is_host: &impl Fn(IpAddr) -> bool,
    now: u64,
) -> view::Flow {
    let peer = |address: F::Address, port: u16, endpoint: u32| {
        let resident = roster.resident(endpoint).filter(|_| endpoint != 0);
        let of =
            |field: fn(&Resident) -> &String| resident.map_or_else(String::new, |resident| field(resident).clone());
        view::Peer {
            address: F::told(address),
            port: u16::from_be(port),
            name: match endpoint {
                0 if is_host(F::told(address)) => "host".to_owned(),
                0 => String::new(),
                number => roster.name(number),
            },
            container: of(|resident| &resident.container),
            network: of(|resident| &resident.network),
            labels: resident.map_or_else(BTreeMap::new, |resident| resident.labels.clone()),
        }
    };
    let host_peer = |address: F::Address, port: u16| peer(address, port, 0);
    let rewrites = |flag: u8| flow.flags & flag != 0;
    // An address that is translated is one of the host's that stands for the endpoint.
    let to = match rewrites(FLOW_REWRITES_DESTINATION) {
        true => host_peer(key.destination, key.destination_port),
        false => peer(key.destination, key.destination_port, flow.destination_endpoint),
    };
    let seconds = |since: u64| now.saturating_sub(since) as f64 / 1e9;
    let last_seen = flow.last_seen.max(reply.map_or(0, |reply| reply.last_seen));
    view::Flow {
        protocol: protocol(key.protocol),
        from: peer(key.source, key.source_port, flow.source_endpoint),
        to,
        translated_from: rewrites(FLOW_REWRITES_SOURCE).then(|| host_peer(flow.source, flow.source_port)),
        translated_to: rewrites(FLOW_REWRITES_DESTINATION)
            .then(|| peer(flow.destination, flow.destination_port, flow.destination_endpoint)),
        state: state(flow.state).to_owned(),
        towards: towards(flow.action).to_owned(),
        packets: flow.packets,
        bytes: flow.bytes,
        reply_packets: reply.map_or(0, |reply| reply.packets),
        reply_bytes: reply.map_or(0, |reply| reply.bytes),
        age: seconds(flow.opened),
        idle: seconds(last_seen),
    }
}

/// The protocol by its name where one is known, else its number.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        other => other.to_string(),
    }
}

fn state(number: u8) -> &'static str {
    const STATES: [(State, &str); 4] = [
        (State::Unanswered, "unanswered"),
        (State::Established, "established"),
        (State::Closing, "closing"),
        (State::Closed, "closed"),
    ];
    STATES
        .iter()
        .find(|(state, _)| *state as u8 == number)
        .map_or("unknown", |(_, word)| word)
}

/// Where packets are taken, as a word.
pub fn towards(action: u8) -> &'static str {
    match action {
        action if action == Action::Endpoint as u8 => "container",
        action if action == Action::Host as u8 => "host",
        action if action == Action::Overlay as u8 => "overlay",
        _ => "world",
    }
}

/// Drops by reason, direction and endpoint, the most frequent first.
pub fn drops(maps: &Maps, roster: &Roster) -> io::Result<Vec<view::Drop>> {
    let (mut drops, mut seen) = (Vec::new(), HashSet::new());
    maps.DROPS.each(|key, counters| {
        // A walk that runs into an eviction begins again from the start.
        if !seen.insert((key.endpoint, key.reason, key.direction)) {
            return;
        }
        let (reason, sentence) = reason_words(key.reason);
        drops.push(view::Drop {
            reason,
            sentence,
            direction: direction_word(key.direction),
            endpoint: if key.endpoint == 0 {
                String::new()
            } else {
                roster.name(key.endpoint)
            },
            packets: counters.iter().map(|counter| counter.packets).sum(),
            bytes: counters.iter().map(|counter| counter.bytes).sum(),
        });
    })?;
    drops.sort_by(|one, other| {
        other
            .packets
            .cmp(&one.packets)
            .then_with(|| one.reason.cmp(&other.reason))
    });
    Ok(drops)
}

/// A reason as a word and in a sentence.
pub fn reason_words(number: u8) -> (String, String) {
    let reason = DropReason::from_number(number);
    let word = reason.map_or_else(|| format!("reason {number}"), |reason| reason.word().to_owned());
    let sentence = reason.map_or("A reason that this program does not know yet.", DropReason::sentence);
    (word, sentence.to_owned())
}

/// A direction as a word.
pub fn direction_word(number: u8) -> String {
    let direction = Direction::from_number(number);
    direction.map_or_else(
        || format!("direction {number}"),
        |direction| direction.word().to_owned(),
    )
}

/// Who fills the tables of flows, whoever holds most first.
pub fn shares(maps: &Maps, roster: &Roster) -> io::Result<Vec<view::Share>> {
    let tallies = maps.TALLIES.entries(|_, tally| tally.flows > 0)?;
    let mut shares: Vec<view::Share> = tallies
        .into_iter()
        .map(|(endpoint, tally)| view::Share {
            endpoint: match endpoint {
                0 => "host".to_owned(),
                number => roster.name(number),
            },
            connections: tally.flows,
            half_open: tally.half_open.max(0),
        })
        .collect();
    shares.sort_by(|one, other| {
        other
            .connections
            .cmp(&one.connections)
            .then_with(|| one.endpoint.cmp(&other.endpoint))
    });
    Ok(shares)
}

/// How full each table is; of arrays it is told only when that is wished.
pub fn tables(maps: &Maps, arrays: bool) -> io::Result<Vec<view::Table>> {
    let table = |(map, entries, capacity): (&'static Specification, u64, u32)| view::Table {
        name: map.name.to_owned(),
        sentence: map.sentence.to_owned(),
        entries,
        capacity: u64::from(capacity),
    };
    Ok(maps.fill(arrays)?.into_iter().map(table).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masqueraded() -> (FlowKey<Ipv4>, Flow<Ipv4>) {
        let key = FlowKey {
            source: Ipv4Address::new([172, 17, 0, 2]),
            destination: Ipv4Address::new([192, 0, 2, 9]),
            source_port: 4000u16.to_be(),
            destination_port: 80u16.to_be(),
            scope: 2,
            protocol: 6,
            padding: [0; 3],
        };
        let flow = Flow {
            packets: 3,
            bytes: 300,
            opened: 1_000_000_000,
            last_seen: 2_000_000_000,
            source: Ipv4Address::new([192, 0, 2, 1]),
            source_port: 1024u16.to_be(),
            destination: key.destination,
            destination_port: key.destination_port,
            flags: FLOW_REWRITES_SOURCE,
            action: Action::World as u8,
            state: State::Established as u8,
            source_endpoint: 7,
            ..Flow::default()
        };
        (key, flow)
    }

    #[test]
    fn connections_come_in_the_order_that_is_asked_for() {
        let (key, flow) = masqueraded();
        let one = join(&key, &flow, None, &Roster::default(), &|_| false, 5_000_000_000);
        let many = view::Flow {
            reply_bytes: 9_000,
            age: 9.0,
            idle: 8.0,
            ..one.clone()
        };
        let busy = view::Flow {
            packets: 90,
            idle: 0.5,
            ..one.clone()
        };
        let first = |order: &str| {
            let mut flows = vec![one.clone(), many.clone(), busy.clone()];
            Order::of_word(order).unwrap().sort(&mut flows);
            flows.remove(0)
        };
        assert_eq!((first("bytes"), first("packets")), (many.clone(), busy.clone()));
        assert_eq!((first("idle"), first("age")), (busy.clone(), one.clone()));
        assert_eq!(Order::of_word("size"), None);
    }

    #[test]
    fn both_directions_are_told_as_one_connection() {
        let (key, flow) = masqueraded();
        let reply = Flow {
            packets: 2,
            bytes: 900,
            last_seen: 3_000_000_000,
            ..flow
        };
        let is_host = |address: IpAddr| address.to_string() == "192.0.2.1";
        let view = join(&key, &flow, Some(&reply), &Roster::default(), &is_host, 5_000_000_000);
        assert_eq!(
            (view.packets, view.reply_packets, view.bytes, view.reply_bytes),
            (3, 2, 300, 900)
        );
        assert_eq!((view.age, view.idle), (4.0, 2.0));
        assert_eq!((view.from.name.as_str(), view.from.port), ("endpoint #7 (gone)", 4000));
        assert_eq!((view.to.name.as_str(), view.to.port), ("", 80));
        let translated = view.translated_from.unwrap();
        assert_eq!((translated.name.as_str(), translated.port), ("host", 1024));
        assert_eq!(view.translated_to, None);
        assert_eq!(
            (view.state.as_str(), view.towards.as_str(), view.protocol.as_str()),
            ("established", "world", "tcp")
        );
    }
}
