//! Makes the kernel of this host agree with the store.
//!
//! One loop ([`reconcile`]): watch, compare what is desired with what is there, apply the difference. A start is the same path as any other
//! round: pinned maps, programs and links are taken over, never detached while they work. No other code writes a table.

pub mod view;

use std::{net::Ipv4Addr, path::PathBuf};

use sluice_store::{Revision, SharedStore};

/// Facts about this instance.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance's name; `default` is the one whose devices are `sluice0`/`sluice0-dp`.
    pub instance: String,
    /// Where bpffs is or will be mounted, `/sys/fs/bpf`.
    pub bpffs: PathBuf,
    /// Directory of namespace files, `<exec-root>/netns`.
    pub netns_dir: PathBuf,
    /// May containers reach the world (`--ip-forward`)?
    pub ip_forward: bool,
}

/// The loop and its tables.
pub struct Agent;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What was tried, on what, why it failed, what to do.
    #[error("{0}")]
    Failed(String),
}

impl Agent {
    /// Mounts bpffs where there is none, opens or makes tables and devices, loads and attaches (or atomically replaces) programs, reconciles
    /// with the store once, then goes on in the background.
    pub async fn start(_config: Config, _store: SharedStore) -> Result<Self, AgentError> {
        todo!()
    }

    /// Returns when everything up to this revision of the store is real on this host; the error is that of the endpoints and sandboxes named
    /// in `subjects` (ids), if one of them could not be made.
    pub async fn settled(&self, _revision: Revision, _subjects: &[&str]) -> Result<(), AgentError> {
        todo!()
    }

    /// The MTU that a new network of this host should have: that of the default route's device, 1500 without one.
    pub async fn default_mtu(&self) -> u32 {
        todo!()
    }

    /// Prefixes that the host has addresses in or routes to, so that a free one can be chosen (the default route not among them).
    pub async fn occupied_prefixes(&self) -> Result<Vec<ipnet::IpNet>, AgentError> {
        todo!()
    }

    /// All addresses of the host, for what binds to them.
    pub async fn host_addresses(&self) -> Result<Vec<Ipv4Addr>, AgentError> {
        todo!()
    }

    /// Everything of the flow tables, with names.
    pub async fn flows(&self) -> Result<Vec<view::Flow>, AgentError> {
        todo!()
    }

    /// Drops since the tables were made, by reason, direction and endpoint.
    pub async fn drops(&self) -> Result<Vec<view::Drop>, AgentError> {
        todo!()
    }

    /// How the datapath is.
    pub async fn status(&self) -> Result<view::Status, AgentError> {
        todo!()
    }

    /// Ends the loop. Containers' traffic goes on.
    pub async fn stop(self) {
        todo!()
    }
}

/// Removes everything of an instance from the kernel: programs, pins, devices, namespaces. For `--cleanup`, with no agent running.
pub async fn cleanup(_config: &Config) -> Result<(), AgentError> {
    todo!()
}
