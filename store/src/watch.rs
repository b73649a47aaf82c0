//! A stream of changes.

use tokio::sync::mpsc;

use crate::{Event, Revision, StoreError};

/// A commit as a watcher sees it.
pub type Change = (Revision, Vec<Event>);

/// Changes from some revision on, a commit at a time. Ends with an error when the watcher fell too far behind: list again, watch again.
pub struct Watch {
    pub(crate) changes: mpsc::Receiver<Result<Change, StoreError>>,
}

impl Watch {
    /// The next commit that touched the watched keys; none: the store is closed.
    pub async fn next(&mut self) -> Option<Result<Change, StoreError>> {
        self.changes.recv().await
    }
}
