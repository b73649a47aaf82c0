//! What can go wrong with an image, by kind: who asks decides by the kind, the words are for people (Docker's, where clients match on them).

use std::{fmt::Display, io, path::Path};

use nix::errno::Errno;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image of this name or id.
    #[error("No such image: {0}")]
    NotFound(String),
    /// A registry has no such thing, or does not show it to us.
    #[error("{0}")]
    Missing(String),
    /// A registry wants to know who we are, or does not believe it.
    #[error("{0}")]
    Unauthorized(String),
    /// A registry did not answer, or broke off.
    #[error("{0}")]
    Unreachable(String),
    /// The name is not a valid reference, a digest is malformed, a change instruction is unknown…
    #[error("{0}")]
    Invalid(String),
    /// The archive is damaged or hostile.
    #[error("{0}")]
    BadArchive(String),
    /// In use, or ambiguous.
    #[error("{0}")]
    Conflict(String),
    /// Reading or writing here failed: what, on what, why.
    #[error("{0}")]
    Failed(String),
}

impl ImageError {
    /// `what` on `path` did not work.
    pub(crate) fn failed(what: &str, path: &Path, why: impl Display) -> Self {
        Self::Failed(format!("{what} {}: {why}", path.display()))
    }

    /// The archive could not be read on: truncated, bad gzip, over a limit, or the client went away.
    pub(crate) fn reading(why: &io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::UnexpectedEof => Self::BadArchive("archive is truncated: unexpected EOF".into()),
            _ => Self::BadArchive(format!("cannot read archive: {why}")),
        }
    }

    /// An entry could not be laid down. What only a damaged or hostile archive asks for is its fault; the rest is this machine's.
    pub(crate) fn placing(what: &str, name: &[u8], why: Errno) -> Self {
        let name = String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
        let sentence = format!("cannot {what} {name:?} of the archive: {}", why.desc());
        match why {
            Errno::ENAMETOOLONG
            | Errno::ELOOP
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EXDEV
            | Errno::EEXIST
            | Errno::ENOENT
            | Errno::EPERM
            | Errno::EMLINK
            | Errno::EFBIG
            | Errno::EINVAL => Self::BadArchive(sentence),
            _ => Self::Failed(sentence),
        }
    }
}
