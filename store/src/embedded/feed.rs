//! What happened lately, and those who are told of it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::{Event, Revision, StoreError, Watch, watch::Change};

/// Commits that are remembered for watches which begin in the past.
const REMEMBERED_COMMITS: usize = 1024;
/// Bytes of values that are remembered; beyond it the oldest commits are forgotten.
const REMEMBERED_BYTES: usize = 1 << 20;
/// Commits that may wait for a watcher before it is sent off to list again.
const WAITING_CHANGES: usize = 256;

/// The last commits and all watchers.
pub(super) struct Feed {
    inner: Mutex<Inner>,
}

struct Inner {
    /// The last commits, oldest first.
    history: VecDeque<Change>,
    /// Bytes in `history`.
    bytes: usize,
    /// The last commit that `history` does not hold any more.
    forgotten: Revision,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: String,
    /// It wants what comes after this revision.
    after: Revision,
    changes: mpsc::Sender<Result<Change, StoreError>>,
}

// === impl Feed ===

impl Feed {
    /// A feed that knows nothing of what happened up to `revision`.
    pub(super) fn beginning_after(revision: Revision) -> Self {
        let inner = Inner {
            history: VecDeque::new(),
            bytes: 0,
            forgotten: revision,
            watchers: Vec::new(),
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// Begins a watch with what is remembered of the time after `after`.
    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let mut inner = self.lock();
        if after < inner.forgotten {
            return Err(StoreError::Compacted(after));
        }
        let past: Vec<Change> = inner
            .history
            .iter()
            .filter_map(|change| part_of(change, prefix, after))
            .collect();
        // One place more than can wait: it is kept for the farewell to a watcher that fell behind.
        let (changes, receiver) = mpsc::channel(past.len() + WAITING_CHANGES + 1);
        for change in past {
            // There is room for all of them.
            let _ = changes.try_send(Ok(change));
        }
        inner.watchers.push(Watcher {
            prefix: prefix.to_owned(),
            after,
            changes,
        });
        Ok(Watch { changes: receiver })
    }

    /// Tells of a durable commit. Called in the order of revisions.
    pub(super) fn publish(&self, revision: Revision, events: Vec<Event>) {
        let change = (revision, events);
        let mut inner = self.lock();
        inner.watchers.retain(|watcher| watcher.tell(&change));
        inner.remember(change);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics between two steps that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn remember(&mut self, change: Change) {
        self.bytes += weight(&change);
        self.history.push_back(change);
        while self.history.len() > REMEMBERED_COMMITS || self.bytes > REMEMBERED_BYTES {
            let Some(oldest) = self.history.pop_front() else { break };
            self.bytes -= weight(&oldest);
            self.forgotten = oldest.0;
        }
    }
}

// === impl Watcher ===

impl Watcher {
    /// Tells of a commit; false when the watcher is gone or fell behind.
    fn tell(&self, change: &Change) -> bool {
        if self.changes.is_closed() {
            return false;
        }
        let Some(part) = part_of(change, &self.prefix, self.after) else {
            return true;
        };
        // This is the only sender, so the room that is seen here is still there below.
        if self.changes.capacity() > 1 {
            return self.changes.try_send(Ok(part)).is_ok();
        }
        let _ = self.changes.try_send(Err(StoreError::Compacted(change.0)));
        false
    }
}

/// What of a commit concerns a watcher.
fn part_of((revision, events): &Change, prefix: &str, after: Revision) -> Option<Change> {
    if *revision <= after {
        return None;
    }
    let matching: Vec<Event> = events
        .iter()
        .filter(|event| key(event).starts_with(prefix))
        .cloned()
        .collect();
    (!matching.is_empty()).then_some((*revision, matching))
}

fn key(event: &Event) -> &str {
    match event {
        Event::Put(entry) => &entry.key,
        Event::Deleted(key, _) => key,
    }
}

/// Bytes that a commit takes in memory, about.
fn weight((_, events): &Change) -> usize {
    let of = |event: &Event| match event {
        Event::Put(entry) => entry.key.len() + entry.value.len() + 64,
        Event::Deleted(key, _) => key.len() + 64,
    };
    events.iter().map(of).sum::<usize>() + 32
}
