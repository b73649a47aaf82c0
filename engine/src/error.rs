//! What can go wrong, by kind. Kinds meet HTTP numbers in the api, nowhere else.

use sluice_agent::AgentError;
use sluice_image::ImageError;
use sluice_runtime::RuntimeError;
use sluice_store::StoreError;

/// What kind of trouble it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request is malformed (400).
    Invalid,
    /// There is no such thing (404).
    NotFound,
    /// It contradicts what is (409).
    Conflict,
    /// It may not be done to this, or not now (403).
    Forbidden,
    /// The container's command was not found or can't be executed (400 in the API of `start`, 127 or 126 in the CLI).
    Command,
    /// Who asks is not believed (401).
    Unauthorized,
    /// Not offered by this version (501).
    NotOffered,
    /// Something here failed (500).
    Failed,
}

/// Trouble: its kind, and a sentence in Docker's words where clients match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// The kind.
    pub kind: Kind,
    /// The sentence.
    pub message: String,
}

impl EngineError {
    /// Trouble of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }

    pub(crate) fn not_offered(message: impl Into<String>) -> Self {
        Self::new(Kind::NotOffered, message)
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The same trouble, with what was being done before it.
    pub(crate) fn within(self, doing: &str) -> Self {
        Self {
            kind: self.kind,
            message: format!("{doing}: {}", self.message),
        }
    }
}

/// Trouble with a file of ours: what was tried on what.
pub(crate) fn io(doing: &str, path: &std::path::Path, why: &std::io::Error) -> EngineError {
    EngineError::failed(format!("cannot {doing} {}: {why}", path.display()))
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        let kind = if matches!(error, StoreError::Conflict(_)) {
            Kind::Conflict
        } else {
            Kind::Failed
        };
        Self::new(kind, error.to_string())
    }
}

impl From<AgentError> for EngineError {
    fn from(error: AgentError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<ImageError> for EngineError {
    fn from(error: ImageError) -> Self {
        let kind = match error {
            ImageError::NotFound(_) | ImageError::Missing(_) => Kind::NotFound,
            ImageError::Unauthorized(_) => Kind::Unauthorized,
            ImageError::Invalid(_) | ImageError::BadArchive(_) => Kind::Invalid,
            ImageError::Conflict(_) => Kind::Conflict,
            _ => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<RuntimeError> for EngineError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::CommandNotFound(why) | RuntimeError::CommandNotExecutable(why) => Self::new(
                Kind::Command,
                format!("failed to create task for container: unable to start container process: {why}"),
            ),
            RuntimeError::NoSuchUser(why) => Self::invalid(why),
            RuntimeError::NoSuchContainer(id) => Self::not_found(format!("No such container: {id}")),
            other => Self::failed(other.to_string()),
        }
    }
}
