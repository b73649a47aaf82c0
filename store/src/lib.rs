//! Where the desired state is written and watched.
//!
//! Records are versioned serde JSON under keys like `/sluice/v1/endpoints/<id>`. One trait, [`Store`]; here the embedded implementation for one
//! host ([`embedded::Embedded`]), and the one of several that share an etcd ([`etcd::Etcd`]). Both pass the suite in `conformance`.

#[cfg(test)]
mod conformance;
pub mod embedded;
pub mod etcd;
pub mod key;
pub mod pages;
pub mod record;
pub mod watch;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

pub use pages::Pages;
pub use watch::Watch;

/// Counts commits. Each commit has its own; a later one is greater. 0 is before the first.
pub type Revision = u64;

/// What a call answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store in shared hands.
pub type SharedStore = Arc<dyn Store>;

/// A key's value and the revision that wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that wrote this value.
    pub modified: Revision,
}

/// Whoever has one and renews it is there: what was lent to it is taken away when it ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lease(pub i64);

/// What must be true for a transaction to be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The key has no value.
    Absent(String),
    /// The key has a value.
    Present(String),
    /// The key's value was written by this revision.
    Unchanged(String, Revision),
    /// The key has this value.
    Holds(String, Vec<u8>),
    /// No key that begins so has a value.
    NoneUnder(String),
}

/// What a transaction does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Gives a key a value.
    Put(String, Vec<u8>),
    /// Gives a key a value until the lease ends or the key is put or deleted.
    Lend(String, Vec<u8>, Lease),
    /// Takes a key's value away; fine when there is none.
    Delete(String),
}

/// All conditions hold and all writes happen, or nothing does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// What must be true.
    pub conditions: Vec<Condition>,
    /// What is done.
    pub writes: Vec<Write>,
}

/// What a watch tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A key has a (new) value.
    Put(Entry),
    /// A key has none any more, since this revision.
    Deleted(String, Revision),
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A condition does not hold: which.
    #[error("the store has changed meanwhile: {0:?} does not hold")]
    Conflict(Condition),
    /// A watch was asked to begin at a revision that is forgotten: list again and watch from there.
    #[error("revision {0} is compacted: list again")]
    Compacted(Revision),
    /// A lease has ended: take another.
    #[error("lease {:x} has ended", .0.0)]
    LeaseLost(Lease),
    /// Reading or writing failed.
    #[error("{0}")]
    Failed(String),
}

/// A store of keys and values with transactions and watches.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>>;

    /// All keys that begin with `prefix`, in order, and the revision they were read at.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Vec<Entry>, Revision)>;

    /// As [`Store::list`], some at a time, for whoever must not hold all of them at once. All are of one moment, whose revision is returned.
    fn pages<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Pages, Revision)>;

    /// Carries out a transaction; when the answer comes it is durable and its revision is returned.
    fn commit(&self, transaction: Transaction) -> Answer<'_, Revision>;

    /// As [`Store::commit`], for what somebody else knows and tells again: when the host crashes the last second of it may be lost, oldest kept first. It
    /// costs a fraction where durability is dear.
    fn commit_soon(&self, transaction: Transaction) -> Answer<'_, Revision>;

    /// Everything that happens to keys with `prefix` after revision `after`, a commit at a time. That `after` is forgotten is said here or by the
    /// first change.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Watch>;

    /// A new lease, which ends when it is not renewed for so long. Whole seconds, at least one.
    fn grant(&self, life: Duration) -> Answer<'_, Lease>;

    /// The lease lives on for as long again.
    fn renew(&self, lease: Lease) -> Answer<'_, ()>;

    /// Ends a lease now; fine when it has ended.
    fn revoke(&self, lease: Lease) -> Answer<'_, ()>;
}
