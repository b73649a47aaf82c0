//! Ends flows that nobody uses any more, and at once those of endpoints that are gone.
//!
//! The packet path never ends a flow. The table of answered flows does not evict either, so memory is bounded by its size, and what keeps it from
//! filling up is this walk. Both directions of a connection are judged together by whichever was used last, and go together: half a connection
//! would be translated one way only.

use std::{collections::HashMap, io, time::Duration};

use aya::Pod;
use sluice_datapath_common::{
    Family, Ipv4, Ipv6,
    flow::{Flow, FlowKey, State},
};

use crate::map::{
    handle::Table,
    pins::{Maps, SPECIFICATIONS},
};

/// How closely flows are followed to their end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How often they are looked through.
    pub interval: Duration,
    /// How long TCP's closed ones linger: the last ACK may have to be sent again.
    closed: Duration,
}

/// A few retransmission times for a closed connection, a walk now and then.
pub const CALM: Pace = Pace {
    interval: Duration::from_secs(5),
    closed: Duration::from_secs(10),
};

/// While the table fills up. Twenty thousand connections a second, which two cores can make, would fill it in three seconds: what lingers is then
/// one second's worth, and a walk costs some 50 ms.
pub const HURRIED: Pace = Pace {
    interval: Duration::from_secs(1),
    closed: Duration::from_millis(500),
};

/// The pace that so many answered flows want.
pub fn pace(entries: usize) -> Pace {
    let capacity = SPECIFICATIONS
        .iter()
        .find(|map| map.name == "FLOWS4")
        .map_or(0, |map| map.capacity);
    if entries > capacity as usize / 4 { HURRIED } else { CALM }
}

/// Nobody answered. Longer than the first four SYNs of Linux (at 0, 1, 3, 7, 15 s), shorter than anybody waits for a UDP answer.
const UNANSWERED: Duration = Duration::from_secs(30);
/// TCP, both have spoken. Idle sessions (ssh, databases) without keep-alive survive a night; Linux' own keep-alive begins after 2 h.
const TCP_ESTABLISHED: Duration = Duration::from_secs(24 * 60 * 60);
/// TCP, one side is done. The other may go on sending for long, but then it is not idle; FIN_WAIT_2 of Linux lasts 60 s.
const TCP_CLOSING: Duration = Duration::from_secs(60);
/// UDP, both have spoken: as long as conntrack's default for a stream, longer than common keep-alives (QUIC 30 s, WireGuard 25 s, DTLS 60 s).
const UDP_ANSWERED: Duration = Duration::from_secs(120);
/// ICMP echo: `ping` asks each second, and asks again under the same identifier.
const ICMP: Duration = Duration::from_secs(30);
/// Protocols without ports: as conntrack's generic timeout.
const OTHER: Duration = Duration::from_secs(600);

const TCP: u8 = 6;
const UDP: u8 = 17;

/// How long a flow in this state may be idle.
pub fn timeout(protocol: u8, state: u8, pace: Pace) -> Duration {
    const UNANSWERED_STATE: u8 = State::Unanswered as u8;
    const CLOSING: u8 = State::Closing as u8;
    const CLOSED: u8 = State::Closed as u8;
    match (protocol, state) {
        (Ipv4::ICMP | Ipv6::ICMP, _) => ICMP,
        (_, UNANSWERED_STATE) => UNANSWERED,
        (TCP, CLOSED) => pace.closed,
        (TCP, CLOSING) => TCP_CLOSING,
        (TCP, _) => TCP_ESTABLISHED,
        (UDP, _) => UDP_ANSWERED,
        _ => OTHER,
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
    /// Entries that went.
    pub ended: usize,
}

/// Looks through all flows once and says what became of the answered ones, whose table does not evict.
pub fn sweep(maps: &Maps, now: u64, pace: Pace) -> io::Result<Swept> {
    let mut round = Round {
        generations: &maps.GENERATIONS,
        known: HashMap::new(),
        now,
        pace,
    };
    sweep_table(&maps.OPENING4, &mut round)?;
    sweep_table(&maps.OPENING6, &mut round)?;
    let (ipv4, ipv6) = (
        sweep_table(&maps.FLOWS4, &mut round)?,
        sweep_table(&maps.FLOWS6, &mut round)?,
    );
    // The pace is that of the fuller of both: each has room of its own.
    Ok(Swept {
        found: ipv4.found.max(ipv6.found),
        ended: ipv4.ended + ipv6.ended,
    })
}

/// What a walk goes by: the time, and which endpoints live, as the packet path sees it.
struct Round<'a> {
    generations: &'a Table<u32, u32>,
    known: HashMap<u32, u32>,
    /// On the clock of `last_seen`, ns.
    now: u64,
    pace: Pace,
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

    fn is_idle<F: Family>(&self, key: &FlowKey<F>, flow: &Flow<F>) -> bool {
        is_idle(key, flow, self.now, self.pace)
    }
}

fn is_idle<F: Family>(key: &FlowKey<F>, flow: &Flow<F>, now: u64, pace: Pace) -> bool {
    // A packet of this moment may be later than `now`.
    now.saturating_sub(flow.last_seen) > timeout(key.protocol, flow.state, pace).as_nanos() as u64
}

fn sweep_table<F: Family>(table: &Table<FlowKey<F>, Flow<F>>, round: &mut Round<'_>) -> io::Result<Swept>
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
fn judge<F: Family>(
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
        return Ok(());
    }
    if !round.is_idle(key, flow) {
        return Ok(());
    }
    let other = reverse(key, flow);
    match table.get(&other)?.filter(|reply| reverse(&other, reply) == *key) {
        // The other direction is in use, and this one with it.
        Some(reply) if !round.is_idle(&other, &reply) => {}
        Some(_) => doomed.extend([*key, other]),
        None => doomed.push(*key),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_datapath_common::Ipv4Address;

    use super::*;
    use crate::map::handle::Handle;

    fn flow(last_seen: u64) -> (FlowKey<Ipv4>, Flow<Ipv4>) {
        let key = FlowKey {
            source: Ipv4Address::new([172, 17, 0, 2]),
            destination: Ipv4Address::new([192, 0, 2, 9]),
            source_port: 4000u16.to_be(),
            destination_port: 80u16.to_be(),
            scope: 2,
            protocol: TCP,
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
    fn timeouts_grow_with_what_would_be_lost() {
        let of = |protocol, state: State| timeout(protocol, state as u8, CALM);
        assert!(of(TCP, State::Closed) < of(TCP, State::Unanswered));
        assert!(of(TCP, State::Unanswered) < of(TCP, State::Closing));
        assert!(of(TCP, State::Closing) < of(TCP, State::Established));
        assert!(of(UDP, State::Unanswered) < of(UDP, State::Established));
        assert!(of(UDP, State::Established) < of(TCP, State::Established));
    }

    #[test]
    fn closed_connections_linger_less_while_the_table_fills_up_and_only_they() {
        assert_eq!((pace(1_000), pace(40_000)), (CALM, HURRIED), "of 131,072");
        let of = |state: State, pace| timeout(TCP, state as u8, pace);
        assert!(of(State::Closed, HURRIED) < of(State::Closed, CALM));
        assert_eq!(of(State::Established, HURRIED), of(State::Established, CALM));
        assert_eq!(of(State::Closing, HURRIED), of(State::Closing, CALM));
    }

    #[test]
    fn a_flow_of_this_very_moment_is_not_idle_even_if_the_clocks_disagree() {
        let (key, flow) = flow(1_000_000_000);
        assert!(!is_idle(&key, &flow, 999_000_000, CALM));
        assert!(!is_idle(
            &key,
            &flow,
            1_000_000_000 + TCP_ESTABLISHED.as_nanos() as u64,
            CALM
        ));
        assert!(is_idle(
            &key,
            &flow,
            1_000_000_001 + TCP_ESTABLISHED.as_nanos() as u64,
            CALM
        ));
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
            ..flow
        };
        [(key, flow), (other, reply)]
    }

    #[test]
    fn a_sweep_ends_whole_connections_and_only_those_that_are_idle_both_ways_or_whose_endpoint_is_gone() {
        let Some((table, generations)) = tables() else { return };
        let long_ago = 1_000_000_000;
        let now = long_ago + 2 * TCP_ESTABLISHED.as_nanos() as u64;
        let left = |generations: &Table<u32, u32>| {
            let mut round = Round {
                generations,
                known: HashMap::new(),
                now,
                pace: CALM,
            };
            sweep_table(&table, &mut round).unwrap();
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
