//! What the loop shares with those who ask.

use std::sync::{Arc, Mutex, PoisonError};

use sluice_datapath_common::config::Config;
use tokio::{
    sync::{Notify, watch},
    task,
};

use crate::{
    AgentError, follow, link::sandbox::Offers, map::pins::Maps, measure::Measures, program::attach::Attacher,
    progress::Progress, promise::Promises, roster::Roster,
};

/// What the loop shares with those who ask.
pub struct Shared {
    /// How far the loop has come.
    pub progress: watch::Sender<Progress>,
    /// Who bears which number.
    pub roster: Mutex<Roster>,
    /// The open tables and programs.
    pub open: Mutex<Option<(Arc<Maps>, Arc<Attacher>)>>,
    /// What the programs were loaded with.
    pub facts: Mutex<Config>,
    /// Flows of endpoints that are gone are left.
    pub endpoints_gone: Notify,
    /// Those who follow the drops.
    pub meeting: follow::Meeting,
    /// Namespaces made for sandboxes to come.
    pub offers: Arc<Offers>,
    /// Held while a round is at work, also when nobody waits for its end any more.
    pub at_work: Arc<Mutex<()>>,
    /// Sandboxes that are made before a record asks for them.
    pub promises: Arc<Promises>,
    /// How long things take.
    pub measures: Arc<Measures>,
}

impl Shared {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            roster: Mutex::default(),
            open: Mutex::new(None),
            facts: Mutex::default(),
            endpoints_gone: Notify::new(),
            meeting: follow::Meeting::default(),
            offers: Arc::default(),
            at_work: Arc::default(),
            promises: Arc::default(),
            measures: Arc::default(),
        }
    }
}

/// Whoever panicked with the lock in hand left a whole value behind: these are replaced, never half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what may block elsewhere.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AgentError> {
    let step = tracing::Span::current();
    task::spawn_blocking(move || step.in_scope(work))
        .await
        .map_err(|error| AgentError::Failed(format!("work on the kernel was cut short: {error}")))
}
