//! A list that comes some entries at a time.

use tokio::sync::mpsc;

use crate::{Entry, StoreError};

/// Entries of one moment, in order. Ends with an error when they cannot be read on; when that is [`StoreError::Compacted`] begin again.
pub struct Pages {
    pub(crate) pages: mpsc::Receiver<Result<Vec<Entry>, StoreError>>,
}

impl Pages {
    /// The next ones; none: that was all.
    pub async fn next(&mut self) -> Option<Result<Vec<Entry>, StoreError>> {
        self.pages.recv().await
    }
}
