//! What happens, told to those who listen.

use jiff::Timestamp;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `container`, `image`, `network`, `volume` or `daemon`.
    pub kind: &'static str,
    /// `create`, `start`, `die`…
    pub action: String,
    /// The id of whom it happened to.
    pub id: String,
    /// `image`, `name`, `exitCode`, labels…
    pub attributes: Vec<(String, String)>,
    /// When.
    pub at: Timestamp,
}

/// Which events a listener wants.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after: the stream ends there.
    pub until: Option<Timestamp>,
    /// `type`, `event`, `container`, `image`, `label`, `network`…; each key's values are alternatives.
    pub filters: Vec<(String, Vec<String>)>,
}
