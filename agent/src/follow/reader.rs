//! The one reader of the kernel's ring, at work while anybody follows.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Meeting,
    account::Account,
    tell::{Clock, event, tell},
};
use crate::{
    AgentError, Tried,
    kernel::ring::Ring,
    map::{handle::Handle, pins::Maps},
    reconcile::{Shared, lock},
    view::Told,
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
pub struct End<'a>(pub &'a Meeting);

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
