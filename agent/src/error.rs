//! What can go wrong.

use std::io;

use sluice_store::StoreError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What was tried, on what, why it failed, what to do.
    #[error("{0}")]
    Failed(String),
    /// The programs are not part of this binary.
    #[error("this binary was built without the eBPF object: run `cargo xtask build`")]
    NoObject,
    /// The kernel refused a program. What was attached before goes on.
    #[error("the kernel refused the eBPF program {program}: {why}\n{log}")]
    Refused {
        /// Its name.
        program: String,
        /// The kernel's error.
        why: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// The loop has ended.
    #[error("the agent has stopped")]
    Stopped,
    /// The store.
    #[error("reading the desired state: {0}")]
    Store(#[from] StoreError),
}

/// Adds to an error what was tried.
pub(crate) trait Tried<T> {
    /// `what` is a participle: "making the veth …".
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, AgentError>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, AgentError> {
        self.map_err(|error| AgentError::Failed(format!("{}: {error}", what())))
    }
}
