//! A container in the daemon's hands: its record, the lock that lets one story at a time change it, and what others wait for.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use jiff::Timestamp;
use sluice_model::{Container, Id, container::Phase, health::Health};
use sluice_runtime::Promise;
use tokio::sync::watch;

/// What a container has been through since the daemon knows it; waiters watch this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Life {
    /// How often it was started.
    pub starts: u64,
    /// How often it ended and its end was recorded.
    pub ends: u64,
    /// Is its process running (or frozen) now?
    pub running: bool,
    /// Is there none, but one to come by the restart policy?
    pub restarting: bool,
    /// The code of its last end.
    pub exit_code: i32,
    /// It is removed.
    pub removed: bool,
}

/// A container in the daemon's hands.
pub(crate) struct Held {
    /// Its id.
    pub id: Id,
    /// Held while a story (start, its end, remove, rename…) changes the container. Stop and kill do not take it: they wait for the end, which does.
    pub story: Arc<tokio::sync::Mutex<()>>,
    /// Held while a signal is sent and told of, so that the end which it causes is told of after it.
    pub signals: tokio::sync::Mutex<()>,
    /// Clients that attached before there was a process.
    pub early: Mutex<Vec<Promise>>,
    /// Volumes made for it alone go with it.
    pub removes_volumes: AtomicBool,
    /// Failures in a row, for the pause before the restart policy starts it again.
    pub failures: AtomicU32,
    /// What is known of its health, since the daemon knows it.
    pub(crate) health: Mutex<Option<Health>>,
    record: RwLock<Container>,
    life: watch::Sender<Life>,
}

impl Held {
    /// Takes a record in hand.
    pub fn new(record: Container) -> Self {
        let life = Life {
            running: record.state.is_alive(),
            restarting: record.state.phase == Phase::Restarting,
            exit_code: record.state.exit_code,
            ..Default::default()
        };
        Self {
            id: record.id.clone(),
            story: Arc::default(),
            signals: tokio::sync::Mutex::default(),
            early: Mutex::default(),
            removes_volumes: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            health: Mutex::default(),
            record: RwLock::new(record),
            life: watch::Sender::new(life),
        }
    }

    /// A copy of the record.
    pub fn record(&self) -> Container {
        self.look(Container::clone)
    }

    /// Looks at the record without a copy.
    pub fn look<T>(&self, look: impl FnOnce(&Container) -> T) -> T {
        look(&self.record.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the record in memory; returns it as it is now.
    pub fn change(&self, change: impl FnOnce(&mut Container)) -> Container {
        let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        record.clone()
    }

    /// What it has been through.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// It runs now.
    pub fn began(&self) {
        self.life.send_modify(|life| {
            life.starts += 1;
            life.running = true;
            life.restarting = false;
        });
    }

    /// It has ended and is about to be removed: who waits is told when that is done.
    pub fn leaves_with(&self, exit_code: i32) {
        self.life.send_modify(|life| life.exit_code = exit_code);
    }

    /// Its end is recorded; the policy starts it again, or not.
    pub fn ended(&self, exit_code: i32, restarting: bool) {
        self.life.send_modify(|life| {
            life.ends += 1;
            life.running = false;
            life.restarting = restarting;
            life.exit_code = exit_code;
        });
    }

    /// The restart that was to come will not come.
    pub fn rests(&self) {
        self.life.send_modify(|life| life.restarting = false);
    }

    /// It is gone.
    pub fn removed(&self) {
        self.life.send_modify(|life| {
            life.removed = true;
            life.running = false;
            life.restarting = false;
        });
        self.send_early_clients_away();
    }

    /// Clients that wait for a process that will not come see the end of the stream.
    pub fn send_early_clients_away(&self) {
        self.early.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How long the restart policy pauses before the next start: 100 ms, doubled with each failure in a row, a minute at most. A run of ten
    /// seconds and more starts the row anew.
    pub fn pause_before_restart(&self, started: Option<Timestamp>, ended: Timestamp) -> std::time::Duration {
        let ran = started.map_or(0, |started| ended.as_millisecond() - started.as_millisecond());
        if ran >= 10_000 {
            self.failures.store(0, Ordering::Relaxed);
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        std::time::Duration::from_millis((100_u64 << failures.min(10)).min(60_000))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sluice_model::{ContainerConfig, HostConfig};

    use super::*;

    /// A record that was just made.
    pub(crate) fn record(name: &str, byte: u8) -> Container {
        Container {
            id: Id::from_bytes([byte; 32]),
            name: name.to_owned(),
            created: Timestamp::UNIX_EPOCH,
            config: ContainerConfig::default(),
            host_config: HostConfig::default(),
            networks: Default::default(),
            image_id: "sha256:00".into(),
            mounts: Vec::new(),
            id_map: None,
            state: Default::default(),
        }
    }

    #[test]
    fn the_pause_before_a_restart_doubles_to_a_minute_and_begins_anew_after_ten_seconds_up() {
        let held = Held::new(record("web", 1));
        let start = Timestamp::UNIX_EPOCH;
        let soon = start + jiff::SignedDuration::from_millis(50);
        let pause = |ended| held.pause_before_restart(Some(start), ended).as_millis();
        assert_eq!([pause(soon), pause(soon), pause(soon)], [100, 200, 400]);
        for _ in 0..20 {
            pause(soon);
        }
        assert_eq!(pause(soon), 60_000);
        assert_eq!(pause(start + jiff::SignedDuration::from_secs(10)), 100);
    }
}
