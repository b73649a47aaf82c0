//! Drops as they happen: one reader of the kernel's ring, and everybody who follows it.
//!
//! The programs write events only while somebody follows, and not more than so many per reason and second (`datapath-common/src/event.rs`). What is
//! lost on the way is told too: once a second how many drops the programs did not tell of and why, and to a follower that is too slow how much it
//! has missed.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use sluice_datapath_common::event::{DropEvent, EventPace};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{broadcast, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    AgentError, Tried,
    expire::now,
    kernel::{netlink::device_name, ring::Ring},
    map::{handle::Handle, pins::Maps},
    observe::{direction_word, protocol, reason_words},
    reconcile::{Shared, lock},
    roster::Roster,
    view::{DropTold, Told, Untold},
};

/// How many lines wait for a follower that is slow.
const WAITING: usize = 2_048;
/// How often it is told what was not.
const ACCOUNT: Duration = Duration::from_secs(1);
/// After trouble it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where followers meet the reader.
pub struct Meeting {
    lines: broadcast::Sender<Told>,
    followers: watch::Sender<u32>,
    /// The programs write for somebody.
    listening: watch::Sender<bool>,
    /// The agent ends.
    ended: watch::Sender<bool>,
    /// Lines that slow followers have missed, ever.
    missed: AtomicU64,
}

/// Somebody who follows the drops, until it is dropped.
pub struct Follower {
    lines: broadcast::Receiver<Told>,
    ended: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

// === impl Meeting ===

impl Default for Meeting {
    fn default() -> Self {
        Self {
            lines: broadcast::Sender::new(WAITING),
            followers: watch::Sender::new(0),
            listening: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            missed: AtomicU64::new(0),
        }
    }
}

impl Meeting {
    /// How many follow.
    pub fn followers(&self) -> u32 {
        *self.followers.borrow()
    }

    /// How many lines slow followers have missed, ever.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

// === impl Follower ===

impl Follower {
    /// Follows from now on: what dies after this returns is told.
    pub async fn new(shared: Arc<Shared>) -> Result<Self, AgentError> {
        let mut follower = Self {
            lines: shared.meeting.lines.subscribe(),
            ended: shared.meeting.ended.subscribe(),
            shared,
        };
        let meeting = &follower.shared.meeting;
        meeting.followers.send_modify(|followers| *followers += 1);
        let mut listening = meeting.listening.subscribe();
        let listens = tokio::select! {
            biased;
            _ = follower.ended.wait_for(|ended| *ended) => false,
            _ = listening.wait_for(|listening| *listening) => true,
        };
        if listens {
            Ok(follower)
        } else {
            Err(AgentError::Stopped)
        }
    }

    /// What is told next; none: the agent has ended.
    pub async fn next(&mut self) -> Option<Told> {
        let line = tokio::select! {
            biased;
            line = self.lines.recv() => line,
            _ = self.ended.wait_for(|ended| *ended) => Err(broadcast::error::RecvError::Closed),
        };
        match line {
            Ok(told) => Some(told),
            Err(broadcast::error::RecvError::Lagged(lines)) => {
                self.shared.meeting.missed.fetch_add(lines, Ordering::Relaxed);
                Some(Told::Missed {
                    time: Timestamp::now(),
                    lines,
                })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.meeting.followers.send_modify(|followers| *followers -= 1);
    }
}

// === the reader ===

/// Reads for as long as anybody follows, again and again.
pub async fn run(shared: &Shared) {
    // Whoever listened to an earlier life of ours is gone.
    if let Some((maps, _)) = lock(&shared.open).clone()
        && let Err(error) = maps.LISTENERS.put(&0, &0)
    {
        tracing::warn!(%error, "cannot say that nobody follows the drops");
    }
    let _end = End(&shared.meeting);
    let mut followers = shared.meeting.followers.subscribe();
    loop {
        if followers.wait_for(|followers| *followers > 0).await.is_err() {
            return;
        }
        if let Err(error) = listen(shared, &mut followers).await {
            tracing::warn!(%error, "cannot follow the drops");
            sleep(RETRY).await;
        }
    }
}

/// Whoever follows is told that there is nothing more, when this goes.
struct End<'a>(&'a Meeting);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

/// Reads until nobody follows, or the tables are others.
async fn listen(shared: &Shared, followers: &mut watch::Receiver<u32>) -> Result<(), AgentError> {
    let (maps, _) = lock(&shared.open).clone().ok_or(AgentError::Stopped)?;
    let mut ring = maps.EVENTS.reader().tried(|| "opening the ring of drops".to_owned())?;
    // What an earlier follower left.
    ring.read(|_| {});
    let _listening = Listening::begin(&maps, shared).tried(|| "saying that drops are followed".to_owned())?;
    let map = maps
        .EVENTS
        .map()
        .try_clone_to_owned()
        .tried(|| "opening the ring of drops".to_owned())?;
    // SAFETY: the descriptor is owned by what watches it, and nobody else closes it.
    let readable: AsyncFd<OwnedFd> = unsafe { AsyncFd::register_with_interest(map, Interest::READABLE) }
        .map_err(std::io::Error::from)
        .tried(|| "waiting for drops".to_owned())?;
    let mut account = Account::begin(&maps).tried(|| "reading what was told".to_owned())?;
    let mut pause = interval(ACCOUNT);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ready = readable.readable() => {
                ready.tried(|| "waiting for drops".to_owned())?.clear_ready();
                read(&mut ring, shared);
            }
            changed = followers.changed() => {
                if changed.is_err() || *followers.borrow_and_update() == 0 {
                    return Ok(());
                }
            }
            _ = pause.tick() => {
                read(&mut ring, shared);
                for untold in account.settle(&maps).tried(|| "reading what was told".to_owned())? {
                    let _ = shared.meeting.lines.send(Told::Untold(untold));
                }
                let current = lock(&shared.open).clone();
                if !current.is_some_and(|(current, _)| Arc::ptr_eq(&current, &maps)) {
                    return Ok(());
                }
            }
        }
    }
}

/// The programs write for us while this lives.
struct Listening<'a> {
    maps: &'a Maps,
    listening: &'a watch::Sender<bool>,
}

impl<'a> Listening<'a> {
    fn begin(maps: &'a Maps, shared: &'a Shared) -> io::Result<Self> {
        maps.LISTENERS.put(&0, &1)?;
        let listening = &shared.meeting.listening;
        listening.send_replace(true);
        Ok(Self { maps, listening })
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.listening.send_replace(false);
        if let Err(error) = self.maps.LISTENERS.put(&0, &0) {
            tracing::warn!(%error, "cannot say that nobody follows the drops");
        }
    }
}

fn read(ring: &mut Ring, shared: &Shared) {
    let roster = lock(&shared.roster);
    let clock = Clock::read();
    ring.read(|record| {
        if let Some(event) = event(record) {
            // Nobody there any more: then nobody is told.
            let _ = shared
                .meeting
                .lines
                .send(Told::Drop(Box::new(tell(&event, &roster, clock))));
        }
    });
}

/// The event of a record. The kernel rounds its length up to eight bytes, which an event's is.
fn event(record: &[u8]) -> Option<DropEvent> {
    // SAFETY: so long, and any bytes are an event (`plain_old_data!`).
    (record.len() == size_of::<DropEvent>()).then(|| unsafe { record.as_ptr().cast::<DropEvent>().read_unaligned() })
}

/// Now, on two clocks.
#[derive(Clone, Copy)]
struct Clock {
    /// CLOCK_MONOTONIC, ns.
    monotonic: u64,
    wall: Timestamp,
}

impl Clock {
    fn read() -> Self {
        Self {
            monotonic: now(),
            wall: Timestamp::now(),
        }
    }

    /// When it was so late by the monotonic clock.
    fn when(self, time: u64) -> Timestamp {
        let ago = SignedDuration::from_nanos(self.monotonic.saturating_sub(time) as i64);
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

fn tell(event: &DropEvent, roster: &Roster, clock: Clock) -> DropTold {
    let (reason, sentence) = reason_words(event.reason);
    let [source, destination] = [event.source, event.destination].map(|words| address(event.family, words));
    let resident = roster
        .resident(event.endpoint)
        .or_else(|| source.and_then(|address| roster.at(address)))
        .or_else(|| destination.and_then(|address| roster.at(address)));
    let name = |address: Option<std::net::IpAddr>| {
        let resident = address.and_then(|address| roster.at(address));
        resident.map_or_else(String::new, |resident| resident.name.clone())
    };
    let is_ip = matches!(event.ether_type, 0x0800 | 0x86dd) && event.family != 0;
    let is_icmp = is_ip && matches!(event.protocol, 1 | 58);
    let [kind, code] = event.source_port.to_ne_bytes();
    let port = |port: u16| match u16::from_be(port) {
        0 => None,
        _ if is_icmp => None,
        port => Some(port),
    };
    DropTold {
        time: clock.when(event.time),
        reason,
        sentence,
        number: event.reason,
        direction: direction_word(event.direction),
        container: resident.map_or_else(String::new, |resident| resident.name.clone()),
        container_id: resident.map_or_else(String::new, |resident| resident.container.clone()),
        network: resident.map_or_else(String::new, |resident| resident.network.clone()),
        device: match event.ifindex {
            0 => String::new(),
            ifindex => device_name(ifindex).unwrap_or_else(|| format!("#{ifindex}")),
        },
        ether_type: event.ether_type,
        protocol: match event.ether_type {
            0x0806 => "arp".to_owned(),
            _ if is_ip => protocol(event.protocol),
            _ => String::new(),
        },
        source,
        source_name: name(source),
        source_port: port(event.source_port),
        destination,
        destination_name: name(destination),
        destination_port: port(event.destination_port),
        icmp_type: is_icmp.then_some(kind),
        icmp_code: is_icmp.then_some(code),
        icmp_id: (is_icmp && event.destination_port != 0).then(|| u16::from_be(event.destination_port)),
        length: event.length,
    }
}

/// The address as the standard library has it.
fn address(family: u8, words: [u32; 4]) -> Option<std::net::IpAddr> {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    match i32::from(family) {
        libc::AF_INET => Some(std::net::IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
        libc::AF_INET6 => Some(std::net::IpAddr::from(bytes)),
        _ => None,
    }
}

/// What the programs did not tell of so far, by the reason's number: too many, and lost.
#[derive(Default)]
struct Account(BTreeMap<u32, (u64, u64)>);

impl Account {
    fn begin(maps: &Maps) -> io::Result<Self> {
        let mut account = Self::default();
        account.settle(maps)?;
        Ok(account)
    }

    /// What has come to it since.
    fn settle(&mut self, maps: &Maps) -> io::Result<Vec<Untold>> {
        let mut news = Vec::new();
        maps.EVENT_PACE.each(|reason, paces| {
            let (too_many, lost) = sums(paces);
            let before = self.0.insert(*reason, (too_many, lost)).unwrap_or_default();
            let (too_many, lost) = (too_many.wrapping_sub(before.0), lost.wrapping_sub(before.1));
            if too_many + lost > 0 {
                news.push(untold(*reason, too_many, lost));
            }
        })?;
        Ok(news)
    }
}

/// All that was ever not told of, by reason.
pub fn untold_of_all(maps: &Maps) -> io::Result<Vec<Untold>> {
    Account::default().settle(maps)
}

fn sums(paces: &[EventPace]) -> (u64, u64) {
    let sum = |of: fn(&EventPace) -> u64| paces.iter().map(of).sum();
    (sum(|pace| pace.too_many), sum(|pace| pace.lost))
}

fn untold(reason: u32, too_many: u64, lost: u64) -> Untold {
    let number = u8::try_from(reason).unwrap_or_default();
    Untold {
        time: Timestamp::now(),
        reason: reason_words(number).0,
        number,
        too_many,
        lost,
    }
}

#[cfg(test)]
mod tests {
    use sluice_datapath_common::{DropReason, drop::Direction};

    use super::*;
    use crate::{desired::Desired, fixture};

    fn event() -> DropEvent {
        DropEvent {
            time: 5_000_000_000,
            source: [u32::from_ne_bytes([172, 17, 0, 8]), 0, 0, 0],
            destination: [u32::from_ne_bytes([192, 0, 2, 9]), 0, 0, 0],
            endpoint: 7,
            length: 74,
            source_port: 40_000u16.to_be(),
            destination_port: 80u16.to_be(),
            ether_type: 0x0800,
            protocol: 6,
            family: libc::AF_INET as u8,
            reason: DropReason::InternalNetwork as u8,
            direction: Direction::FromContainer as u8,
            ..DropEvent::default()
        }
    }

    fn roster() -> Roster {
        let (mut roster, mut desired) = (Roster::default(), Desired::default());
        let (endpoint, network) = (fixture::endpoint(7, 1), fixture::network(2));
        desired.endpoints.insert(endpoint.id.to_string(), endpoint);
        desired.networks.insert(network.id.to_string(), network);
        roster.update(&desired);
        roster
    }

    fn clock() -> Clock {
        Clock {
            monotonic: 7_000_000_000,
            wall: "2026-01-01T00:00:02Z".parse().unwrap(),
        }
    }

    #[test]
    fn an_event_is_told_with_names_and_the_time_of_day() {
        let told = tell(&event(), &roster(), clock());
        assert_eq!(told.time.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!((told.reason.as_str(), told.number), ("internal_network", 11));
        assert_eq!((told.container.as_str(), told.network.as_str()), ("web7", "net2"));
        assert_eq!(told.container_id, fixture::endpoint(7, 1).container.to_string());
        assert_eq!(
            (told.source_name.as_str(), told.destination_name.as_str()),
            ("web7", "")
        );
        assert_eq!((told.source_port, told.destination_port), (Some(40_000), Some(80)));
        assert_eq!(told.source.unwrap().to_string(), "172.17.0.8");
        assert_eq!(
            (told.protocol.as_str(), told.icmp_type, told.device.as_str()),
            ("tcp", None, "")
        );
    }

    #[test]
    fn a_ping_has_a_type_and_an_identifier_instead_of_ports() {
        let ping = DropEvent {
            protocol: 1,
            source_port: u16::from_ne_bytes([8, 0]),
            destination_port: 77u16.to_be(),
            ..event()
        };
        let told = tell(&ping, &roster(), clock());
        assert_eq!((told.source_port, told.destination_port), (None, None));
        assert_eq!(
            (told.icmp_type, told.icmp_code, told.icmp_id),
            (Some(8), Some(0), Some(77))
        );
    }

    #[test]
    fn what_happens_at_a_nic_is_told_of_the_container_it_was_for() {
        let arrived = DropEvent {
            endpoint: 0,
            direction: Direction::FromNic as u8,
            source: event().destination,
            destination: event().source,
            ..event()
        };
        let told = tell(&arrived, &roster(), clock());
        assert_eq!((told.container.as_str(), told.direction.as_str()), ("web7", "from_nic"));
        assert_eq!(
            (told.source_name.as_str(), told.destination_name.as_str()),
            ("", "web7")
        );
    }

    #[test]
    fn a_frame_that_could_not_be_read_has_no_addresses() {
        let frame = DropEvent {
            family: 0,
            ether_type: 0x88cc,
            ..event()
        };
        let told = tell(&frame, &roster(), clock());
        assert_eq!(
            (told.source, told.destination, told.protocol.as_str()),
            (None, None, "")
        );
        let line = serde_json::to_value(Told::Drop(Box::new(told))).unwrap();
        assert_eq!((&line["kind"], &line["ether_type"]), (&"drop".into(), &0x88cc.into()));
    }

    #[tokio::test]
    async fn a_follower_that_is_slow_is_told_how_much_it_has_missed_and_the_end_reaches_all() {
        let shared = Arc::new(Shared::new());
        shared.meeting.listening.send_replace(true);
        let mut slow = Follower::new(shared.clone()).await.unwrap();
        assert_eq!(shared.meeting.followers(), 1);
        let told = |number: usize| {
            Told::Untold(Untold {
                lost: number as u64,
                ..untold(1, 0, 0)
            })
        };
        for number in 0..WAITING + 5 {
            shared.meeting.lines.send(told(number)).unwrap();
        }
        assert!(matches!(slow.next().await, Some(Told::Missed { lines: 5, .. })));
        let first = slow.next().await;
        assert!(
            matches!(&first, Some(Told::Untold(untold)) if untold.lost == 5),
            "{first:?}"
        );
        assert_eq!(shared.meeting.missed(), 5);
        drop(End(&shared.meeting));
        for _ in 6..WAITING + 5 {
            assert!(slow.next().await.is_some(), "what waits is still told");
        }
        assert_eq!(slow.next().await, None);
        drop(slow);
        assert_eq!(shared.meeting.followers(), 0);
        assert!(
            Follower::new(shared.clone()).await.is_err(),
            "there is nobody who would tell"
        );
        assert_eq!(shared.meeting.followers(), 0);
    }

    #[test]
    fn a_record_of_another_length_is_no_event() {
        assert_eq!(super::event(&[0; 64]), Some(DropEvent::default()));
        assert_eq!(super::event(&[0; 72]), None);
    }
}
