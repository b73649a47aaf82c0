//! Ends flows that nobody uses any more, and at once those of endpoints that are gone.
//!
//! The packet path never ends a flow. The table of answered flows does not evict either, so memory is bounded by its size, and what keeps it from
//! filling up is this walk. Both directions of a connection are judged together by whichever was used last, and go together: half a connection
//! would be translated one way only.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    time::{Duration, Instant},
};

use aya::Pod;
use sluice_datapath_common::{
    Family,
    flow::{FLOW_IS_REPLY, FLOW_REWRITES_SOURCE, Flow, FlowKey, State},
    lifetime::is_idle,
    settings::Tally,
};

use crate::{
    follow::{Ended, GONE, IDLE, Recorded},
    map::{handle::Table, pins::Maps},
};

/// How closely flows are followed to their end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How long until they are looked through again.
    pub interval: Duration,
    /// Room is short: TCP's closed ones linger for less.
    hurried: bool,
}

/// A walk now and then.
pub const CALM: Pace = Pace {
    interval: Duration::from_secs(5),
    hurried: false,
};

/// While the table fills up.
const HURRIED: Pace = Pace {
    interval: Duration::from_secs(1),
    hurried: true,
};

/// A walk never costs more than this part of a CPU.
const SHARE: u32 = 20;

/// The pace that a table wants which had so many answered entries of so many when it was last walked through, in so long a time.
pub fn pace(swept: &Swept, capacity: usize) -> Pace {
    let pace = if swept.found > capacity / 4 { HURRIED } else { CALM };
    Pace {
        interval: pace.interval.max(swept.took * SHARE),
        ..pace
    }
}

/// The key of the other direction.
pub fn reverse<F: Family>(key: &FlowKey<F>, flow: &Flow<F>) -> FlowKey<F> {
    FlowKey {
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        scope: flow.reverse_scope,
        protocol: key.protocol,
        padding: [0; 3],
    }
}

/// Now on the clock of `last_seen`, ns.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to `time`, which is exclusively borrowed. This clock cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What a walk through a table found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Swept {
    /// Entries that were there, in the fuller table.
    pub found: usize,
    /// Entries that went, of that table.
    pub ended: usize,
    /// Its name.
    pub table: &'static str,
    /// Connections that hold a port of the host, of both tables.
    pub masqueraded: usize,
    /// How long it took.
    pub took: Duration,
}

/// Looks through all flows once and says what became of the answered ones, whose table does not evict. The tallies of endpoints are set right by the
/// way, and the packet path is told that somebody looks after its tables.
///
/// `ended`: where conversations that go are noted, if anybody follows them.
pub fn sweep(maps: &Maps, now: u64, pace: Pace, ended: Option<&mut Ended>) -> io::Result<Swept> {
    let started = Instant::now();
    let before: HashMap<u32, Tally> = maps
        .TALLIES
        .entries(|_, tally| *tally != Tally::default())?
        .into_iter()
        .collect();
    let mut round = Round {
        generations: &maps.GENERATIONS,
        known: HashMap::new(),
        held: HashMap::new(),
        masqueraded: 0,
        now,
        pace,
        ended,
    };
    let (ipv4, ipv6) = (
        sweep_table(&maps.FLOWS4, &mut round)?,
        sweep_table(&maps.FLOWS6, &mut round)?,
    );
    let (held, masqueraded) = (std::mem::take(&mut round.held), round.masqueraded);
    correct(&maps.TALLIES, &before, &held)?;
    sweep_table(&maps.OPENING4, &mut round)?;
    sweep_table(&maps.OPENING6, &mut round)?;
    maps.SWEPT.put(&0, &now)?;
    // The pace is that of the fuller of both: each has room of its own.
    let fuller = match ipv6.found > ipv4.found {
        true => Swept {
            table: "FLOWS6",
            ..ipv6
        },
        false => Swept {
            table: "FLOWS4",
            ..ipv4
        },
    };
    Ok(Swept {
        masqueraded,
        took: started.elapsed(),
        ..fuller
    })
}

/// Sets right what the packet path has counted without a lock: what is held now is what the walk has met, and what came and went since it began.
fn correct(tallies: &Table<u32, Tally>, before: &HashMap<u32, Tally>, held: &HashMap<u32, Tally>) -> io::Result<()> {
    let endpoints: BTreeSet<u32> = before.keys().chain(held.keys()).copied().collect();
    for endpoint in endpoints {
        let then = before.get(&endpoint).copied().unwrap_or_default();
        let met = held.get(&endpoint).copied().unwrap_or_default();
        if met == then {
            continue;
        }
        let now = tallies.get(&endpoint)?.unwrap_or_default();
        let right = Tally {
            flows: now.flows + met.flows - then.flows,
            half_open: now.half_open + met.half_open - then.half_open,
        };
        tallies.put(&endpoint, &right)?;
    }
    Ok(())
}

/// What a walk goes by: the time, and which endpoints live, as the packet path sees it.
struct Round<'a> {
    generations: &'a Table<u32, u32>,
    known: HashMap<u32, u32>,
    /// What endpoints hold, as far as the walk has come.
    held: HashMap<u32, Tally>,
    /// Connections that it has met whose source is translated.
    masqueraded: usize,
    /// On the clock of `last_seen`, ns.
    now: u64,
    pace: Pace,
    ended: Option<&'a mut Ended>,
}

impl Round<'_> {
    /// Is this the present generation of the number? What was read a moment ago may be outdated: nobody is taken for dead by it.
    fn is_alive(&mut self, endpoint: u32, generation: u32) -> io::Result<bool> {
        if endpoint == 0 || self.known.get(&endpoint) == Some(&generation) {
            return Ok(true);
        }
        let present = self.generations.get(&endpoint)?.unwrap_or(0);
        self.known.insert(endpoint, present);
        Ok(present == generation)
    }

    fn is_idle<F: Family>(&self, flow: &Flow<F>) -> bool {
        is_idle(flow, self.now, self.pace.hurried)
    }

    /// Counts a connection by its opener's entry. Those that were opened since the walk began are in the tally already.
    fn count<F: Family>(&mut self, flow: &Flow<F>) {
        if flow.flags & FLOW_IS_REPLY == 0 && flow.opened <= self.now {
            let tally = self.held.entry(flow.owner()).or_default();
            tally.flows += 1;
            tally.half_open += i64::from(flow.state == State::Unanswered as u8);
            self.masqueraded += usize::from(flow.flags & FLOW_REWRITES_SOURCE != 0);
        }
    }
}

fn sweep_table<F: Recorded>(table: &Table<FlowKey<F>, Flow<F>>, round: &mut Round<'_>) -> io::Result<Swept>
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
{
    let (mut swept, mut outcome) = (Swept::default(), Ok(()));
    let mut doomed = Vec::new();
    table.each(|keys, flows| {
        if outcome.is_err() {
            return;
        }
        doomed.clear();
        outcome = keys
            .iter()
            .zip(flows)
            .try_for_each(|(key, flow)| judge(table, key, flow, round, &mut doomed));
        swept.found += keys.len();
        swept.ended += doomed.len();
        outcome = std::mem::replace(&mut outcome, Ok(())).and_then(|()| table.remove_all(&doomed));
    })?;
    outcome.map(|()| swept)
}

/// Adds the keys that are to go to `doomed`.
fn judge<F: Recorded>(
    table: &Table<FlowKey<F>, Flow<F>>,
    key: &FlowKey<F>,
    flow: &Flow<F>,
    round: &mut Round<'_>,
    doomed: &mut Vec<FlowKey<F>>,
) -> io::Result<()>
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
{
    // One of its ends is an endpoint that lives no more, or lives anew.
    if !(round.is_alive(flow.source_endpoint, flow.source_generation)?
        && round.is_alive(flow.destination_endpoint, flow.destination_generation)?)
    {
        doomed.push(*key);
        if let Some(ended) = &mut round.ended
            && flow.flags & FLOW_IS_REPLY == 0
        {
            ended.note(key, flow, table.get(&reverse(key, flow))?.as_ref(), GONE);
        }
        return Ok(());
    }
    if !round.is_idle(flow) {
        round.count(flow);
        return Ok(());
    }
    let other = reverse(key, flow);
    match table.get(&other)?.filter(|reply| reverse(&other, reply) == *key) {
        // The other direction is in use, and this one with it.
        Some(reply) if !round.is_idle(&reply) => round.count(flow),
        reply => {
            doomed.push(*key);
            doomed.extend(reply.map(|_| other));
            if let Some(ended) = &mut round.ended {
                ended.note(key, flow, reply.as_ref(), IDLE);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_datapath_common::{Ipv4, Ipv4Address, lifetime::TCP_ESTABLISHED};

    use super::*;
    use crate::map::handle::Handle;

    fn flow(last_seen: u64) -> (FlowKey<Ipv4>, Flow<Ipv4>) {
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
            last_seen,
            source: Ipv4Address::new([192, 0, 2, 1]),
            destination: key.destination,
            source_port: 1024u16.to_be(),
            destination_port: key.destination_port,
            source_endpoint: 7,
            source_generation: 3,
            reverse_scope: 0,
            state: State::Established as u8,
            ..Flow::default()
        };
        (key, flow)
    }

    #[test]
    fn a_masqueraded_flows_other_direction_is_that_of_its_answers() {
        let (key, flow) = flow(0);
        let other = reverse(&key, &flow);
        assert_eq!(
            (other.source, other.source_port),
            (Ipv4Address::new([192, 0, 2, 9]), 80u16.to_be())
        );
        assert_eq!(
            (other.destination, other.destination_port),
            (Ipv4Address::new([192, 0, 2, 1]), 1024u16.to_be())
        );
        assert_eq!(other.scope, 0);
    }

    #[test]
    fn the_pace_is_hurried_while_the_table_fills_up_and_never_costs_more_than_a_twentieth() {
        let after = |found, took| {
            let swept = Swept {
                found,
                took: Duration::from_millis(took),
                ..Swept::default()
            };
            pace(&swept, 131_072)
        };
        assert_eq!((after(1_000, 1), after(40_000, 40)), (CALM, HURRIED));
        assert_eq!(after(1_000_000, 400).interval, Duration::from_secs(8));
    }

    type Flows = Table<FlowKey<Ipv4>, Flow<Ipv4>>;

    /// Maps of the kernel, on a bpffs of the test's own; none without root.
    fn tables() -> Option<(Flows, Table<u32, u32>)> {
        use crate::{
            kernel::bpf,
            map::pins::{SPECIFICATIONS, Specification},
        };
        use nix::{
            mount::{MsFlags, mount},
            sched::{CloneFlags, unshare},
        };
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).unwrap();
        let make = |name: &str, kind: &str| {
            let map: &Specification = SPECIFICATIONS.iter().find(|map| map.name == name).unwrap();
            let (key, value) = (map.key_size.to_string(), map.value_size.to_string());
            let pin = format!("/sys/fs/bpf/{name}");
            let size = ["key", &key, "value", &value, "entries", "1024", "name", name];
            let made = std::process::Command::new("bpftool")
                .args(["map", "create", &pin, "type", kind])
                .args(size)
                .status();
            assert!(made.unwrap().success());
            bpf::open_pin(std::path::Path::new(&pin)).unwrap()
        };
        let flows = Table::from_map(make("FLOWS4", "hash")).unwrap();
        let generations = Table::from_map(make("GENERATIONS", "array")).unwrap();
        generations.put(&7, &3).unwrap();
        Some((flows, generations))
    }

    fn connection(port: u16, seen: u64, answered: u64) -> [(FlowKey<Ipv4>, Flow<Ipv4>); 2] {
        let (mut key, mut flow) = flow(seen);
        key.source_port = port.to_be();
        flow.source_port = port.to_be();
        let other = reverse(&key, &flow);
        let reply = Flow {
            last_seen: answered,
            source: key.destination,
            source_port: key.destination_port,
            destination: key.source,
            destination_port: key.source_port,
            reverse_scope: key.scope,
            source_endpoint: 0,
            source_generation: 0,
            destination_endpoint: flow.source_endpoint,
            destination_generation: flow.source_generation,
            flags: FLOW_IS_REPLY,
            ..flow
        };
        [(key, flow), (other, reply)]
    }

    #[test]
    fn a_sweep_ends_whole_connections_and_only_those_that_are_idle_both_ways_or_whose_endpoint_is_gone() {
        let Some((table, generations)) = tables() else { return };
        let long_ago = 1_000_000_000;
        let now = long_ago + 2 * TCP_ESTABLISHED;
        let left = |generations: &Table<u32, u32>| {
            let mut round = Round {
                generations,
                known: HashMap::new(),
                held: HashMap::new(),
                masqueraded: 0,
                now,
                pace: CALM,
                ended: None,
            };
            sweep_table(&table, &mut round).unwrap();
            let held = round.held.values().map(|tally| tally.flows).sum::<i64>();
            assert_eq!(held * 2, table.count().unwrap() as i64);
            table.count().unwrap()
        };
        // Idle both ways; idle one way; in use; and more than one batch holds.
        let mut entries = Vec::new();
        entries.extend(connection(1001, long_ago, long_ago));
        entries.extend(connection(1002, long_ago, now));
        entries.extend(connection(1003, now, now));
        (0..400).for_each(|port| entries.extend(connection(2000 + port, long_ago, long_ago)));
        entries.iter().for_each(|(key, flow)| table.put(key, flow).unwrap());
        assert_eq!(left(&generations), 4, "two connections of two entries each");
        // The endpoint begins another life.
        generations.put(&7, &4).unwrap();
        assert_eq!(left(&generations), 0);
    }
}
