//! Leases of a store of one host: kept in memory, as none outlives the process that renews it. What was lent is written down, so that whoever opens
//! the file again takes it away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::writer::{Job, Task};
use crate::{Lease, StoreError};

/// All leases, and what was lent to each.
#[derive(Default)]
pub(super) struct Leases {
    inner: Mutex<Book>,
}

/// Written in by the writer while it carries out transactions.
#[derive(Default)]
pub(super) struct Book {
    last: i64,
    granted: BTreeMap<Lease, Granted>,
    /// To which lease a key was lent.
    lent: BTreeMap<String, Lease>,
}

struct Granted {
    life: Duration,
    ends: Instant,
    keys: BTreeSet<String>,
}

// === impl Leases ===

impl Leases {
    pub(super) fn open(&self) -> MutexGuard<'_, Book> {
        // Nothing in here panics between two steps that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new lease, watched over until it ends or the store is closed.
    pub(super) fn grant(self: &Arc<Self>, life: Duration, jobs: mpsc::WeakSender<Job>) -> Lease {
        let life = life.max(Duration::from_secs(1));
        let mut book = self.open();
        book.last += 1;
        let lease = Lease(book.last);
        let granted = Granted {
            life,
            ends: Instant::now() + life,
            keys: BTreeSet::new(),
        };
        book.granted.insert(lease, granted);
        drop(book);
        tokio::spawn(watch_over(self.clone(), lease, jobs));
        lease
    }

    pub(super) fn renew(&self, lease: Lease) -> Result<(), StoreError> {
        let mut book = self.open();
        let granted = book.granted.get_mut(&lease).ok_or(StoreError::LeaseLost(lease))?;
        granted.ends = Instant::now() + granted.life;
        Ok(())
    }
}

async fn watch_over(leases: Arc<Leases>, lease: Lease, jobs: mpsc::WeakSender<Job>) {
    loop {
        let Some(ends) = leases.open().granted.get(&lease).map(|granted| granted.ends) else {
            return;
        };
        if ends <= Instant::now() {
            break;
        }
        sleep_until(ends).await;
    }
    let (answer, _) = oneshot::channel();
    if let Some(jobs) = jobs.upgrade() {
        // A store that is closed meanwhile takes it away when it is opened again.
        let task = Task::End(lease);
        let _ = jobs.send(Job { task, answer }).await;
    }
}

// === impl Book ===

impl Book {
    pub(super) fn has(&self, lease: Lease) -> bool {
        self.granted.contains_key(&lease)
    }

    /// Notes to whom a key is lent.
    pub(super) fn lend(&mut self, key: &str, lease: Lease) {
        self.forget(key);
        if let Some(granted) = self.granted.get_mut(&lease) {
            granted.keys.insert(key.to_owned());
            self.lent.insert(key.to_owned(), lease);
        }
    }

    /// A key is lent no more: was it?
    pub(super) fn forget(&mut self, key: &str) -> bool {
        let Some(lease) = self.lent.remove(key) else {
            return false;
        };
        if let Some(granted) = self.granted.get_mut(&lease) {
            granted.keys.remove(key);
        }
        true
    }

    /// Ends a lease; what was lent to it.
    pub(super) fn end(&mut self, lease: Lease) -> BTreeSet<String> {
        self.granted
            .remove(&lease)
            .map(|granted| granted.keys)
            .unwrap_or_default()
    }
}
