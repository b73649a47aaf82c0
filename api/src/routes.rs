//! A file per Docker resource. Each function turns path, query and body into words of the engine and its answer into wire; nothing else.

pub(crate) mod build;
pub(crate) mod container;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod policy;
pub(crate) mod sluice;
pub(crate) mod system;
pub(crate) mod volume;

use std::sync::Arc;

use sluice_engine::Engine;

/// What every route has at hand.
pub(crate) type State = axum::extract::State<Arc<Engine>>;
