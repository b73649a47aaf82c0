//! Lists, a page at a time, all at one revision.

use etcd_client::GetOptions;
use tokio::sync::mpsc;

use super::{Etcd, end_of, entry, is_compacted, revision};
use crate::{Entry, Pages, Revision, StoreError};

/// Keys of one answer. Records are some kilobytes each at most.
const PAGE: i64 = 500;
/// Pages that may wait for the reader, so that etcd works on the next one meanwhile.
const WAITING: usize = 1;

/// A list that is being read.
struct Reading {
    etcd: Etcd,
    what: String,
    /// What comes next; none: that was all.
    from: Option<Vec<u8>>,
    end: Vec<u8>,
    /// The revision that all is read at; 0: the present one, to begin with.
    at: i64,
}

/// See [`crate::Store::list`]; fails with [`StoreError::Compacted`] when etcd forgets the revision meanwhile.
pub(super) async fn all(etcd: &Etcd, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
    let mut reading = Reading::of(etcd, prefix);
    let mut entries = Vec::new();
    while let Some(page) = reading.next().await? {
        entries.extend(page);
    }
    Ok((entries, revision(reading.at)))
}

/// See [`crate::Store::pages`].
pub(super) async fn pages(etcd: &Etcd, prefix: &str) -> Result<(Pages, Revision), StoreError> {
    let mut reading = Reading::of(etcd, prefix);
    let (sender, pages) = mpsc::channel(WAITING);
    let first = reading.next().await?;
    let at = revision(reading.at);
    tokio::spawn(async move {
        let mut page = Ok(first);
        // until all is read, or nobody reads on
        while let Some(told) = page.transpose() {
            let is_last = told.is_err();
            if sender.send(told).await.is_err() || is_last {
                return;
            }
            page = reading.next().await;
        }
    });
    Ok((Pages { pages }, at))
}

impl Reading {
    fn of(etcd: &Etcd, prefix: &str) -> Self {
        let from = etcd.full(prefix).into_bytes();
        Self {
            etcd: etcd.clone(),
            what: format!("list {prefix}"),
            end: end_of(&from),
            from: Some(from),
            at: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError> {
        let Some(from) = self.from.take() else { return Ok(None) };
        let options = GetOptions::new()
            .with_range(self.end.clone())
            .with_limit(PAGE)
            .with_revision(self.at);
        let mut reader = self.etcd.reader();
        let asked = async { Ok(reader.get(from, Some(options)).await) };
        let page = match self.etcd.ask(&self.what, asked).await? {
            Err(error) if is_compacted(&error) => return Err(StoreError::Compacted(revision(self.at))),
            Err(error) => return Err(self.etcd.failed(&self.what, &error)),
            Ok(page) => page,
        };
        if self.at == 0 {
            self.at = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        if let Some(last) = page.kvs().last().filter(|_| page.more()) {
            self.from = Some([last.key(), &[0]].concat());
        }
        page.kvs()
            .iter()
            .map(|found| entry(&self.etcd.prefix, found))
            .collect::<Result<_, _>>()
            .map(Some)
    }
}
