//! The store of several hosts: etcd, version 3.4 or newer.
//!
//! Every commit is one etcd transaction, every revision is etcd's own. Nothing is locked: who lost a race is told by a condition that does not hold.
//! A watch outlives the connection it was begun on ([`feed`]): it goes on from the last revision it has heard, at whichever member answers.

mod connect;
mod feed;
mod health;
mod lease;
mod pages;
mod transaction;

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KeyValue, KvClient};

use crate::{Answer, Entry, Lease, Pages, Revision, Store, StoreError, Transaction, Watch};
pub use connect::{Credentials, Encryption, EtcdOptions};
pub use health::{MemberHealth, MemberState};

/// The largest answer that is taken, bytes: a page of large records, or a thousand commits that a watch has missed.
const LARGEST_ANSWER: usize = 64 << 20;

/// A cluster of etcd members.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    /// Stands before every key.
    prefix: String,
    /// For how long an answer is waited for.
    patience: Duration,
    /// Who is asked, for the words of errors.
    members: String,
    /// The same, one by one.
    addresses: Vec<String>,
    /// How each is spoken to.
    wishes: ConnectOptions,
}

// === impl Etcd ===

impl Etcd {
    /// Makes ready to ask the members. Waits for one of them only when a name and a password are to be shown.
    ///
    /// # Errors
    /// An address, a certificate or a password that cannot be used.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        connect::connect(options).await
    }

    /// Waits for an answer, for as long as it is reasonable.
    async fn ask<T>(
        &self,
        what: &str,
        question: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.patience, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(what, &error)),
            Err(_) => Err(StoreError::Failed(format!(
                "cannot {what}: etcd at {} has not answered for {} s; is it running, and reachable from this host?",
                self.members,
                self.patience.as_secs()
            ))),
        }
    }

    fn failed(&self, what: &str, error: &etcd_client::Error) -> StoreError {
        StoreError::Failed(format!("cannot {what} (etcd at {}): {error}", self.members))
    }

    fn reader(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(LARGEST_ANSWER)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            let mut reader = self.reader();
            let answer = self
                .ask(&format!("read {key}"), reader.get(self.full(key), None))
                .await?;
            answer.kvs().first().map(|found| entry(&self.prefix, found)).transpose()
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Vec<Entry>, Revision)> {
        Box::pin(async move {
            // what was compacted while it was read is read again
            loop {
                match pages::all(self, prefix).await {
                    Err(StoreError::Compacted(_)) => {}
                    listed => return listed,
                }
            }
        })
    }

    fn pages<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Pages, Revision)> {
        Box::pin(pages::pages(self, prefix))
    }

    /// A transaction whose answer does not come may have happened all the same: who asked reads before it asks again.
    fn commit(&self, transaction: Transaction) -> Answer<'_, Revision> {
        Box::pin(transaction::commit(self, transaction))
    }

    /// Etcd makes all durable.
    fn commit_soon(&self, transaction: Transaction) -> Answer<'_, Revision> {
        self.commit(transaction)
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Watch> {
        Box::pin(feed::watch(self, prefix, after))
    }

    fn grant(&self, life: Duration) -> Answer<'_, Lease> {
        Box::pin(lease::grant(self, life))
    }

    fn renew(&self, lease: Lease) -> Answer<'_, ()> {
        Box::pin(lease::renew(self, lease))
    }

    fn revoke(&self, lease: Lease) -> Answer<'_, ()> {
        Box::pin(lease::revoke(self, lease))
    }
}

// === words ===

/// An entry as etcd tells it, under the key that we know it by.
fn entry(prefix: &str, found: &KeyValue) -> Result<Entry, StoreError> {
    Ok(Entry {
        key: own_key(prefix, found)?,
        value: found.value().to_vec(),
        modified: revision(found.mod_revision()),
    })
}

fn own_key(prefix: &str, found: &KeyValue) -> Result<String, StoreError> {
    let key = found.key_str().ok().and_then(|key| key.strip_prefix(prefix));
    key.map(str::to_owned).ok_or_else(|| {
        let key = String::from_utf8_lossy(found.key());
        StoreError::Failed(format!("etcd told of the key {key:?}, which nobody asked for"))
    })
}

/// The first key behind all that begin with `prefix`, as etcd wants ranges to end; a zero byte stands for the end of all keys.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte != u8::MAX) {
        Some(last) => [&prefix[..last], &[prefix[last] + 1]].concat(),
        None => vec![0],
    }
}

/// Etcd's revisions are signed and begin with 1.
fn revision(of_etcd: i64) -> Revision {
    Revision::try_from(of_etcd).unwrap_or_default()
}

/// Etcd's answer to a question about a revision that it has forgotten (`ErrCompacted`, gRPC code 11).
fn is_compacted(error: &etcd_client::Error) -> bool {
    error.to_string().contains("has been compacted")
}

#[cfg(test)]
mod tests;
