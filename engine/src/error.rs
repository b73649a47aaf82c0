//! What can go wrong, by kind. Kinds meet HTTP numbers in the api, nowhere else.

/// What kind of trouble it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request is malformed (400).
    Invalid,
    /// There is no such thing (404).
    NotFound,
    /// It contradicts what is (409).
    Conflict,
    /// The container's command was not found or can't be executed (400 in the API of `start`, 127 or 126 in the CLI).
    Command,
    /// Not offered by this version (501).
    NotOffered,
    /// Something here failed (500).
    Failed,
}

/// Trouble: its kind, and a sentence in Docker's words where clients match on them.
#[derive(Debug, thiserror::Error)]
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
        Self { kind, message: message.into() }
    }
}
