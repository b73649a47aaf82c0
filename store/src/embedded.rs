//! The store of a single host: redb, one file.
//!
//! Commits go through one thread ([`writer`]), which answers when they are on disk (or, for what can be learned again, will be in a second); several that
//! wait share one fsync. Reads see the last commit and wait for nobody. Watches are served from memory ([`feed`]).

mod feed;
mod leases;
mod writer;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::{Answer, Entry, Lease, Pages, Revision, Store, StoreError, Transaction, Watch};
use feed::Feed;
use leases::Leases;
use writer::{Job, Task};

/// Keys, each with the revision that wrote it and its value.
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// The revision of the last commit.
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("revision");

/// Keys that were lent.
const LENT: TableDefinition<'_, &str, ()> = TableDefinition::new("lent");

/// The records of one host are some kilobytes each, and the page cache holds the file too: a small cache of our own is enough.
const CACHE_BYTES: usize = 1 << 20;
/// Transactions that may wait for the writer before further callers wait for them.
const WAITING_COMMITS: usize = 128;
/// Entries of a page.
const PAGE: usize = 500;
/// How long what was committed without being made durable waits for that.
const SETTLES_AFTER: Duration = Duration::from_secs(1);

/// A redb file.
pub struct Embedded {
    database: Arc<Database>,
    feed: Arc<Feed>,
    leases: Arc<Leases>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// What is not durable yet will be made so in a moment.
    settles: Arc<AtomicBool>,
}

// === impl Embedded ===

impl Embedded {
    /// Opens the file, or makes it. Only one process at a time may have it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Arc::new(open_database(path)?);
        let revision = make_tables(&database).map_err(|error| failed("make the tables of the store", &error))?;
        let feed = Arc::new(Feed::beginning_after(revision));
        let leases = Arc::<Leases>::default();
        let (jobs, waiting) = mpsc::channel(WAITING_COMMITS);
        let writer = {
            let (database, feed, leases) = (database.clone(), feed.clone(), leases.clone());
            std::thread::Builder::new()
                .name("store-writer".to_owned())
                .stack_size(256 << 10)
                .spawn(move || writer::run(&database, &feed, &leases, waiting))
                .map_err(|error| failed("start the store's writer", &error))?
        };
        Ok(Self {
            database,
            feed,
            leases,
            jobs: Some(jobs),
            writer: Some(writer),
            settles: Arc::default(),
        })
    }

    /// What was committed without being made durable is made so in a moment, together with what comes meanwhile.
    fn settle_soon(&self) {
        let Some(jobs) = self.jobs.as_ref().map(mpsc::Sender::downgrade) else {
            return;
        };
        if self.settles.swap(true, Ordering::AcqRel) {
            return;
        }
        let settles = self.settles.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SETTLES_AFTER).await;
            settles.store(false, Ordering::Release);
            let (answer, _) = oneshot::channel();
            // a store that is closed meanwhile has done so then
            if let Some(jobs) = jobs.upgrade() {
                let task = Task::Settle;
                let _ = jobs.send(Job { task, answer }).await;
            }
        });
    }

    async fn hand_over(&self, task: Task) -> Result<Revision, StoreError> {
        let gone = || StoreError::Failed("cannot commit: the store is closed".to_owned());
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { task, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Waits for the writer, so that the file is unlocked when the store is gone.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so already.
            let _ = writer.join();
        }
    }
}

impl Store for Embedded {
    /// One descent of the tree through pages in memory: some microseconds, not worth another thread.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move { read_one(&self.database, key).map_err(|error| failed(&format!("read {key}"), &error)) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Vec<Entry>, Revision)> {
        let (database, prefix) = (self.database.clone(), prefix.to_owned());
        Box::pin(async move {
            tokio::task::spawn_blocking(move || {
                read_all(&database, &prefix).map_err(|error| failed(&format!("list {prefix}"), &error))
            })
            .await
            .map_err(|error| failed("list the store", &error))?
        })
    }

    fn pages<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Pages, Revision)> {
        let (database, prefix) = (self.database.clone(), prefix.to_owned());
        Box::pin(async move {
            let what = format!("list {prefix}");
            let (sender, pages) = mpsc::channel(1);
            let (begun, revision) = oneshot::channel();
            let why = what.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = hand_pages(&database, &prefix, begun, &sender) {
                    let _ = sender.blocking_send(Err(failed(&why, &error)));
                }
            });
            match revision.await {
                Ok(revision) => Ok((Pages { pages }, revision)),
                Err(_) => Err(StoreError::Failed(format!("cannot {what}: the store cannot be read"))),
            }
        })
    }

    /// A transaction that was handed over happens even when nobody waits for its answer any more.
    fn commit(&self, transaction: Transaction) -> Answer<'_, Revision> {
        Box::pin(self.hand_over(Task::Carry(transaction)))
    }

    /// What is committed durably later makes this durable, too.
    fn commit_soon(&self, transaction: Transaction) -> Answer<'_, Revision> {
        Box::pin(async move {
            let revision = self.hand_over(Task::CarrySoon(transaction)).await;
            self.settle_soon();
            revision
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Watch> {
        Box::pin(async move { self.feed.watch(prefix, after) })
    }

    fn grant(&self, life: Duration) -> Answer<'_, Lease> {
        Box::pin(async move {
            let jobs = self.jobs.as_ref().map(mpsc::Sender::downgrade);
            let jobs = jobs.ok_or_else(|| StoreError::Failed("cannot take a lease: the store is closed".to_owned()))?;
            Ok(self.leases.grant(life, jobs))
        })
    }

    fn renew(&self, lease: Lease) -> Answer<'_, ()> {
        Box::pin(async move { self.leases.renew(lease) })
    }

    fn revoke(&self, lease: Lease) -> Answer<'_, ()> {
        Box::pin(async move { self.hand_over(Task::End(lease)).await.map(drop) })
    }
}

// === the file ===

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let directory = path.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    std::fs::create_dir_all(&directory).map_err(|error| failed(&format!("make {}", directory.display()), &error))?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Failed(format!(
                "{} is in use by another process: is another daemon running with this data root?",
                path.display()
            )),
            other => failed(&format!("open {}", path.display()), &other),
        })?;
    // The file's name is as durable as its contents only when its directory is.
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed(&format!("sync {}", directory.display()), &error))?;
    Ok(database)
}

/// Makes the tables when they are not there, and takes away what was lent in an earlier life; the revision of the last commit.
fn make_tables(database: &Database) -> Result<Revision, redb::Error> {
    let transaction = database.begin_write()?;
    let revision = {
        let (mut entries, mut lent) = (transaction.open_table(ENTRIES)?, transaction.open_table(LENT)?);
        let mut revisions = transaction.open_table(REVISION)?;
        let mut revision = revisions.get(())?.map_or(0, |value| value.value());
        let mut ended = Vec::new();
        for found in lent.iter()? {
            ended.push(found?.0.value().to_owned());
        }
        for key in &ended {
            entries.remove(key.as_str())?;
            lent.remove(key.as_str())?;
        }
        if !ended.is_empty() {
            revision += 1;
            revisions.insert((), revision)?;
        }
        revision
    };
    transaction.commit()?;
    Ok(revision)
}

fn read_one(database: &Database, key: &str) -> Result<Option<Entry>, redb::Error> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    Ok(table.get(key)?.map(|value| entry(key, value.value())))
}

fn read_all(database: &Database, prefix: &str) -> Result<(Vec<Entry>, Revision), redb::Error> {
    let transaction = database.begin_read()?;
    let revision = transaction
        .open_table(REVISION)?
        .get(())?
        .map_or(0, |value| value.value());
    let mut entries = Vec::new();
    for found in transaction.open_table(ENTRIES)?.range(prefix..)? {
        let (key, value) = found?;
        if !key.value().starts_with(prefix) {
            break;
        }
        entries.push(entry(key.value(), value.value()));
    }
    Ok((entries, revision))
}

/// Hands on what begins with a prefix until all is told or nobody listens.
fn hand_pages(
    database: &Database,
    prefix: &str,
    begun: oneshot::Sender<Revision>,
    sender: &mpsc::Sender<Result<Vec<Entry>, StoreError>>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    let revision = transaction
        .open_table(REVISION)?
        .get(())?
        .map_or(0, |value| value.value());
    let entries = transaction.open_table(ENTRIES)?;
    let _ = begun.send(revision);
    let mut page = Vec::new();
    for found in entries.range(prefix..)? {
        let (key, value) = found?;
        if !key.value().starts_with(prefix) {
            break;
        }
        page.push(entry(key.value(), value.value()));
        if page.len() == PAGE && sender.blocking_send(Ok(std::mem::take(&mut page))).is_err() {
            return Ok(());
        }
    }
    if !page.is_empty() {
        let _ = sender.blocking_send(Ok(page));
    }
    Ok(())
}

fn entry(key: &str, (modified, value): (u64, &[u8])) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.to_vec(),
        modified,
    }
}

fn failed(tried: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("cannot {tried}: {error}"))
}

#[cfg(test)]
mod tests;
