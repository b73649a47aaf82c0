//! The one thread that writes.

use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    ENTRIES, Feed, LENT, REVISION, failed,
    leases::{Book, Leases},
};
use crate::{Condition, Entry, Event, Lease, Revision, StoreError, Transaction, Write};

/// Transactions that share one fsync at most.
const BATCH: usize = 64;

/// What the writer is asked to do.
pub(super) enum Task {
    /// Carry out a transaction.
    Carry(Transaction),
    /// Carry out a transaction that may be durable later.
    CarrySoon(Transaction),
    /// Make all durable that is not yet.
    Settle,
    /// End a lease.
    End(Lease),
}

/// A task that waits, and where its answer goes.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) answer: oneshot::Sender<Result<Revision, StoreError>>,
}

/// What became of a transaction inside a batch: its revision and events, or why not.
type Outcome = Result<(Revision, Vec<Event>), StoreError>;

/// Commits what comes until the store is closed.
pub(super) fn run(database: &Database, feed: &Feed, leases: &Leases, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    let mut is_settled = true;
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        let (tasks, answers): (Vec<_>, Vec<_>) = batch.drain(..).map(|job| (job.task, job.answer)).unzip();
        let committed = tracing::debug_span!("commit", transactions = tasks.len())
            .in_scope(|| commit_all(database, leases, &tasks, &mut is_settled));
        match committed {
            // Whoever asked may have gone; that changes nothing.
            Ok(outcomes) => outcomes.into_iter().zip(answers).for_each(|(outcome, answer)| {
                let _ = answer.send(publish(feed, outcome));
            }),
            Err(error) => answers.into_iter().for_each(|answer| {
                let _ = answer.send(Err(failed("commit to the store", &error)));
            }),
        }
    }
    if let Err(error) = commit_all(database, leases, &[Task::Settle], &mut is_settled) {
        tracing::error!("cannot make the store's last commits durable: {error}");
    }
}

/// Watchers hear of a commit before the one who made it goes on.
fn publish(feed: &Feed, outcome: Outcome) -> Result<Revision, StoreError> {
    let (revision, events) = outcome?;
    if !events.is_empty() {
        feed.publish(revision, events);
    }
    Ok(revision)
}

/// Carries out transactions one after the other and makes all of them durable at once, unless all of them can wait for that; `is_settled`: nothing that was
/// committed waits for it. A transaction whose conditions do not hold has no part in that; an error is that of the file and concerns all of them.
fn commit_all(
    database: &Database,
    leases: &Leases,
    tasks: &[Task],
    is_settled: &mut bool,
) -> Result<Vec<Outcome>, redb::Error> {
    let mut writing = database.begin_write()?;
    let can_wait = tasks.iter().all(|task| matches!(task, Task::CarrySoon(_)));
    writing.set_durability(match can_wait {
        true => Durability::None,
        false => Durability::Immediate,
    })?;
    let mut outcomes = Vec::with_capacity(tasks.len());
    let changed = carry_out(&writing, &mut leases.open(), tasks, &mut outcomes)?;
    let settles = !*is_settled && tasks.iter().any(|task| matches!(task, Task::Settle));
    if changed || settles {
        writing.commit()?;
        *is_settled = !can_wait;
    } else {
        writing.abort()?;
    }
    Ok(outcomes)
}

/// Did anything change?
fn carry_out(
    writing: &WriteTransaction,
    leases: &mut Book,
    tasks: &[Task],
    outcomes: &mut Vec<Outcome>,
) -> Result<bool, redb::Error> {
    let mut hands = Hands {
        entries: writing.open_table(ENTRIES)?,
        lent: writing.open_table(LENT)?,
        leases,
    };
    let mut revisions = writing.open_table(REVISION)?;
    let first = revisions.get(())?.map_or(0, |value| value.value());
    let mut revision = first;
    for task in tasks {
        let ending;
        let writes = match task {
            Task::End(lease) => {
                ending = hands.leases.end(*lease).into_iter().map(Write::Delete).collect();
                &ending
            }
            Task::Settle => {
                outcomes.push(Ok((revision, Vec::new())));
                continue;
            }
            Task::Carry(Transaction { conditions, writes }) | Task::CarrySoon(Transaction { conditions, writes }) => {
                if let Some(condition) = broken(&hands.entries, conditions)? {
                    outcomes.push(Err(StoreError::Conflict(condition.clone())));
                    continue;
                }
                if let Some(lost) = hands.lost(writes) {
                    outcomes.push(Err(StoreError::LeaseLost(lost)));
                    continue;
                }
                writes
            }
        };
        if writes.is_empty() {
            outcomes.push(Ok((revision, Vec::new())));
            continue;
        }
        let events = hands.write(writes, revision + 1)?;
        // What changes nothing is no revision, as in etcd: whoever waits for one waits for its events.
        if !events.is_empty() {
            revision += 1;
        }
        outcomes.push(Ok((revision, events)));
    }
    if revision != first {
        revisions.insert((), revision)?;
    }
    Ok(revision != first)
}

/// The first condition that does not hold.
fn broken<'a>(
    entries: &Table<'_, &str, (u64, &[u8])>,
    conditions: &'a [Condition],
) -> Result<Option<&'a Condition>, redb::Error> {
    for condition in conditions {
        let holds = match condition {
            Condition::Absent(key) => entries.get(key.as_str())?.is_none(),
            Condition::Present(key) => entries.get(key.as_str())?.is_some(),
            Condition::Unchanged(key, revision) => entries
                .get(key.as_str())?
                .is_some_and(|value| value.value().0 == *revision),
            Condition::Holds(key, wanted) => entries
                .get(key.as_str())?
                .is_some_and(|value| value.value().1 == wanted.as_slice()),
            Condition::NoneUnder(prefix) => match entries.range(prefix.as_str()..)?.next() {
                Some(first) => !first?.0.value().starts_with(prefix),
                None => true,
            },
        };
        if !holds {
            return Ok(Some(condition));
        }
    }
    Ok(None)
}

/// What a transaction writes in.
struct Hands<'a, 'txn> {
    entries: Table<'txn, &'static str, (u64, &'static [u8])>,
    lent: Table<'txn, &'static str, ()>,
    leases: &'a mut Book,
}

impl Hands<'_, '_> {
    /// A lease that somebody would lend to and that has ended.
    fn lost(&self, writes: &[Write]) -> Option<Lease> {
        writes.iter().find_map(|write| match write {
            Write::Lend(_, _, lease) if !self.leases.has(*lease) => Some(*lease),
            _ => None,
        })
    }

    fn write(&mut self, writes: &[Write], revision: Revision) -> Result<Vec<Event>, redb::Error> {
        let mut events = Vec::with_capacity(writes.len());
        for write in writes {
            let (Write::Put(key, _) | Write::Lend(key, ..) | Write::Delete(key)) = write;
            if self.leases.forget(key) {
                self.lent.remove(key.as_str())?;
            }
            match write {
                Write::Put(key, value) | Write::Lend(key, value, _) => {
                    self.entries.insert(key.as_str(), (revision, value.as_slice()))?;
                    events.push(Event::Put(Entry {
                        key: key.clone(),
                        value: value.clone(),
                        modified: revision,
                    }));
                }
                Write::Delete(key) => {
                    if self.entries.remove(key.as_str())?.is_some() {
                        events.push(Event::Deleted(key.clone(), revision));
                    }
                }
            }
            if let Write::Lend(key, _, lease) = write {
                self.leases.lend(key, *lease);
                self.lent.insert(key.as_str(), ())?;
            }
        }
        Ok(events)
    }
}
