//! The one reader of the kernel's ring, at work while anybody follows.

use std::{collections::HashSet, io, net::IpAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Ended, Followers, Heard, Meeting,
    account::Account,
    tell::{self, Clock, Record, see, see_flow, tell},
};
use crate::{
    AgentError, Tried,
    kernel::ring::Ring,
    map::{handle::Handle, pins::Maps},
    observe,
    reconcile::{Shared, lock},
    roster::Roster,
};

/// How often it is told what was not.
const ACCOUNT: Duration = Duration::from_secs(1);
/// After trouble it is tried again.
const RETRY: Duration = Duration::from_secs(1);

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
        if followers.wait_for(|followers| followers.all > 0).await.is_err() {
            return;
        }
        if let Err(error) = listen(shared, &mut followers).await {
            tracing::warn!(%error, "cannot follow the drops");
            sleep(RETRY).await;
        }
    }
}

/// Whoever follows is told that there is nothing more, when this goes.
pub struct End<'a>(pub &'a Meeting);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

/// Reads until nobody follows, or the tables are others.
async fn listen(shared: &Shared, followers: &mut watch::Receiver<Followers>) -> Result<(), AgentError> {
    let (maps, _) = lock(&shared.open).clone().ok_or(AgentError::Stopped)?;
    let mut ring = maps.EVENTS.reader().tried(|| "opening the ring of drops".to_owned())?;
    // What an earlier follower left.
    ring.read(|_| {});
    let mut host = observe::host_addresses(&maps).tried(|| "reading the host's addresses".to_owned())?;
    let listening = Listening {
        maps: &maps,
        listening: &shared.meeting.listening,
    };
    let wanted = followers.borrow_and_update().listen();
    let saying = || "saying what is followed".to_owned();
    listening.to(wanted).tried(saying)?;
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
                read(&mut ring, shared, &host);
            }
            changed = followers.changed() => {
                let wanted = followers.borrow_and_update().listen();
                if changed.is_err() || wanted == 0 {
                    return Ok(());
                }
                listening.to(wanted).tried(saying)?;
            }
            _ = pause.tick() => {
                read(&mut ring, shared, &host);
                for untold in account.settle(&maps).tried(|| "reading what was told".to_owned())? {
                    let _ = shared.meeting.lines.send(Heard::Untold(untold));
                }
                host = observe::host_addresses(&maps).tried(|| "reading the host's addresses".to_owned())?;
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
    listening: &'a watch::Sender<u32>,
}

impl Listening<'_> {
    /// They write this from now on.
    fn to(&self, what: u32) -> io::Result<()> {
        self.maps.LISTENERS.put(&0, &what)?;
        self.listening.send_replace(what);
        Ok(())
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.listening.send_replace(0);
        if let Err(error) = self.maps.LISTENERS.put(&0, &0) {
            tracing::warn!(%error, "cannot say that nobody follows the drops");
        }
    }
}

fn read(ring: &mut Ring, shared: &Shared, host: &HashSet<IpAddr>) {
    let roster = lock(&shared.roster);
    let clock = Clock::read();
    ring.read(|record| {
        if let Some(record) = tell::read(record) {
            // Nobody there any more: then nobody is told.
            let _ = shared.meeting.lines.send(heard(&record, &roster, host, clock));
        }
    });
}

fn heard(record: &Record, roster: &Roster, host: &HashSet<IpAddr>, clock: Clock) -> Heard {
    match record {
        Record::Drop(event, frame) => {
            let told = tell(event, roster, clock);
            let seen = see(event, &told, frame, roster);
            Heard::Drop(Box::new((told, seen)))
        }
        Record::Flow4(event) => Heard::Flow(Box::new(see_flow(event, roster, host, clock))),
        Record::Flow6(event) => Heard::Flow(Box::new(see_flow(event, roster, host, clock))),
    }
}

/// Tells of conversations that the agent itself has ended.
pub fn tell_ended(shared: &Shared, maps: &Maps, ended: Ended) {
    let (records, untold) = ended.take();
    if records.is_empty() {
        return;
    }
    let Ok(host) = observe::host_addresses(maps) else {
        return;
    };
    let (roster, clock) = (lock(&shared.roster), Clock::read());
    for record in &records {
        let _ = shared.meeting.lines.send(heard(record, &roster, &host, clock));
    }
    if let Some(untold) = untold {
        let _ = shared.meeting.lines.send(Heard::Untold(untold));
    }
}
