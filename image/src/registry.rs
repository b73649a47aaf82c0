//! Speaks with registries: Docker's Registry HTTP API V2, which OCI calls distribution.
//!
//! HTTP is `ureq`'s, which blocks as all of this crate does, over one TLS stack (rustls with ring). `oci-client` was looked at: it is asynchronous over
//! reqwest, hashes what it has read only at the end of a blob and does not go on with one that broke off; streaming it into the unpacking of a layer
//! would need a runtime and a bridge here, and bring second versions of crates that are in the tree.
//!
//! * [`options`]: which registry is reached how: mirrors, certificates, those that may go without TLS;
//! * [`proxy`], [`tls`]: what lies on the way to it, and whom it may show itself as;
//! * [`session`]: one registry, one repository, one pair of credentials: challenges and tokens;
//! * [`blob`]: a blob as a stream that goes on where it broke off;
//! * [`document`]: manifests, lists of them, configurations, each held against its digest;
//! * [`trouble`]: what registries say when they refuse, in Docker's words.

pub(crate) mod blob;
pub(crate) mod challenge;
pub(crate) mod document;
pub(crate) mod options;
pub(crate) mod proxy;
pub(crate) mod session;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tls;
pub(crate) mod trouble;

pub use options::RegistryOptions;
pub use session::Credentials;

/// Who is told how a transfer goes, and can end it.
pub trait Listener: Sync {
    /// Something happened.
    fn hear(&self, news: News);
    /// Nobody listens any more: the transfer ends.
    fn is_gone(&self) -> bool;
}

/// What happened in a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A sentence; of a layer (its short digest) or a tag, when there is an id.
    Status {
        /// Layer or tag.
        id: Option<String>,
        /// What to say.
        text: String,
    },
    /// Bytes on their way.
    Progress {
        /// The layer.
        id: String,
        /// `Downloading`, `Pushing`.
        doing: &'static str,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A tag was pushed.
    Pushed {
        /// The tag.
        tag: String,
        /// Digest of its manifest.
        digest: String,
        /// Bytes of its manifest.
        size: u64,
    },
}

impl News {
    pub(crate) fn of(id: &str, text: impl Into<String>) -> Self {
        Self::Status {
            id: Some(id.into()),
            text: text.into(),
        }
    }

    pub(crate) fn word(text: impl Into<String>) -> Self {
        Self::Status {
            id: None,
            text: text.into(),
        }
    }
}
