//! Freezing and thawing, and who would be frozen.

use crate::{Runtime, RuntimeError, off_the_loop};

impl Runtime {
    /// Freezes all processes.
    pub async fn pause(&self, id: &str) -> Result<(), RuntimeError> {
        self.freeze(id, true).await
    }

    /// Thaws them.
    pub async fn resume(&self, id: &str) -> Result<(), RuntimeError> {
        self.freeze(id, false).await
    }

    async fn freeze(&self, id: &str, frozen: bool) -> Result<(), RuntimeError> {
        self.directory(id)?;
        let cgroups = self.cgroups(id);
        off_the_loop(move || cgroups.freeze(frozen)).await
    }

    /// The pids (of the host) of all processes in the container.
    pub async fn pids(&self, id: &str) -> Result<Vec<u32>, RuntimeError> {
        self.directory(id)?;
        let cgroups = self.cgroups(id);
        off_the_loop(move || Ok(cgroups.pids())).await
    }
}
