//! The one thread that writes.

use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::{ENTRIES, Feed, REVISION, failed};
use crate::{Condition, Entry, Event, Revision, StoreError, Transaction, Write};

/// Transactions that share one fsync at most.
const BATCH: usize = 64;

/// A transaction that waits, and where its answer goes.
pub(super) struct Job {
    pub(super) transaction: Transaction,
    pub(super) answer: oneshot::Sender<Result<Revision, StoreError>>,
}

/// What became of a transaction inside a batch: its revision and events, or why not.
type Outcome = Result<(Revision, Vec<Event>), StoreError>;

/// Commits what comes until the store is closed.
pub(super) fn run(database: &Database, feed: &Feed, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        let (transactions, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|job| (job.transaction, job.answer)).unzip();
        let committed = tracing::debug_span!("commit", transactions = transactions.len())
            .in_scope(|| commit_all(database, &transactions));
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
}

/// Watchers hear of a commit before the one who made it goes on.
fn publish(feed: &Feed, outcome: Outcome) -> Result<Revision, StoreError> {
    let (revision, events) = outcome?;
    if !events.is_empty() {
        feed.publish(revision, events);
    }
    Ok(revision)
}

/// Carries out transactions one after the other and makes all of them durable at once. A transaction whose conditions do not hold has no part
/// in that; an error is that of the file and concerns all of them.
fn commit_all(database: &Database, transactions: &[Transaction]) -> Result<Vec<Outcome>, redb::Error> {
    let mut writing = database.begin_write()?;
    writing.set_durability(Durability::Immediate)?;
    let mut outcomes = Vec::with_capacity(transactions.len());
    let changed = carry_out(&writing, transactions, &mut outcomes)?;
    if changed {
        writing.commit()?;
    } else {
        writing.abort()?;
    }
    Ok(outcomes)
}

/// Did anything change?
fn carry_out(
    writing: &WriteTransaction,
    transactions: &[Transaction],
    outcomes: &mut Vec<Outcome>,
) -> Result<bool, redb::Error> {
    let mut entries = writing.open_table(ENTRIES)?;
    let mut revisions = writing.open_table(REVISION)?;
    let first = revisions.get(())?.map_or(0, |value| value.value());
    let mut revision = first;
    for transaction in transactions {
        outcomes.push(match broken(&entries, &transaction.conditions)? {
            Some(condition) => Err(StoreError::Conflict(condition.clone())),
            None if transaction.writes.is_empty() => Ok((revision, Vec::new())),
            None => {
                revision += 1;
                Ok((revision, write(&mut entries, &transaction.writes, revision)?))
            }
        });
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
        };
        if !holds {
            return Ok(Some(condition));
        }
    }
    Ok(None)
}

fn write(
    entries: &mut Table<'_, &str, (u64, &[u8])>,
    writes: &[Write],
    revision: Revision,
) -> Result<Vec<Event>, redb::Error> {
    let mut events = Vec::with_capacity(writes.len());
    for write in writes {
        match write {
            Write::Put(key, value) => {
                entries.insert(key.as_str(), (revision, value.as_slice()))?;
                events.push(Event::Put(Entry {
                    key: key.clone(),
                    value: value.clone(),
                    modified: revision,
                }));
            }
            Write::Delete(key) => {
                if entries.remove(key.as_str())?.is_some() {
                    events.push(Event::Deleted(key.clone(), revision));
                }
            }
        }
    }
    Ok(events)
}
