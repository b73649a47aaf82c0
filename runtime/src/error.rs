//! What can go wrong, for callers and across processes.

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// There is no container of this id.
    #[error("no container {0} in the runtime's directory")]
    NoSuchContainer(String),
    /// The program to run was not found in the container (Docker's exit code 127).
    #[error("{0}")]
    CommandNotFound(String),
    /// The program could not be executed (Docker's exit code 126).
    #[error("{0}")]
    CommandNotExecutable(String),
    /// There is no such user or group in the container's files; Docker's words.
    #[error("{0}")]
    NoSuchUser(String),
    /// The shim is there and does not answer: it is stopped, or waits for a disk.
    #[error("the shim of container {0} has not answered in time; is the disk of its log stuck?")]
    Unanswered(String),
    /// Anything else: what was tried, on what, why it failed.
    #[error("{0}")]
    Failed(String),
}

impl RuntimeError {
    /// As bytes for another process: one that tells the kind, then the words.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, words) = match self {
            Self::Failed(words) => (0, words),
            Self::CommandNotFound(words) => (1, words),
            Self::CommandNotExecutable(words) => (2, words),
            Self::NoSuchContainer(words) => (3, words),
            Self::NoSuchUser(words) => (4, words),
            Self::Unanswered(words) => (5, words),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(words.as_bytes());
        bytes
    }

    /// The reverse of [`encode`](Self::encode).
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (kind, words) = bytes.split_first().unwrap_or((&0, b"the other side gave no reason"));
        let words = String::from_utf8_lossy(words).into_owned();
        match kind {
            1 => Self::CommandNotFound(words),
            2 => Self::CommandNotExecutable(words),
            3 => Self::NoSuchContainer(words),
            4 => Self::NoSuchUser(words),
            5 => Self::Unanswered(words),
            _ => Self::Failed(words),
        }
    }

    /// What a shell would exit with.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound(_) => 127,
            Self::CommandNotExecutable(_) => 126,
            _ => 125,
        }
    }
}
