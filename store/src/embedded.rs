//! The store of a single host: redb, one file.

use std::path::Path;

use crate::{Answer, Entry, Revision, Store, StoreError, Transaction, Watch};

/// A redb file.
pub struct Embedded;

impl Embedded {
    /// Opens the file, or makes it.
    pub fn open(_path: &Path) -> Result<Self, StoreError> {
        todo!()
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, _key: &'a str) -> Answer<'a, Option<Entry>> {
        todo!()
    }

    fn list<'a>(&'a self, _prefix: &'a str) -> Answer<'a, (Vec<Entry>, Revision)> {
        todo!()
    }

    fn commit(&self, _transaction: Transaction) -> Answer<'_, Revision> {
        todo!()
    }

    fn watch<'a>(&'a self, _prefix: &'a str, _after: Revision) -> Answer<'a, Watch> {
        todo!()
    }
}
