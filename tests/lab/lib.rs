//! Hosts made of namespaces, a LAN between them, and what people do there: start a daemon, type `docker`, fetch a page.
//!
//! A [`Host`] has a network, a mount and a UTS namespace, a `/run`, a bpffs, a directory and a cgroup of its own. All of it goes when the value
//! goes, also when a test panics; what a killed run left behind is removed by the next one.

mod cgroup;
mod cluster;
mod daemon;
mod docker;
mod files;
mod host;
mod image;
mod leftovers;
mod loss;
mod namespaces;
mod network;
mod patience;
mod proxy;
mod ran;
mod ready;
mod registry;
mod snapshot;
mod terminal;
mod watch;

pub use cluster::{Cluster, Frozen};
pub use daemon::{Daemon, Engine};
pub use docker::Docker;
pub use files::binary;
pub use host::{Background, Host};
pub use image::{busybox, corpus, flask, forget_images, getent, redis, web};
pub use loss::Loss;
pub use network::{HOST, INTERNET, LAN, Lab, SECOND};
pub use patience::{eventually, patience};
pub use proxy::Proxy;
pub use ran::Ran;
pub use ready::start;
pub use registry::{Guard, Registry, Way};
pub use snapshot::Snapshot;
pub use terminal::Terminal;
pub use watch::Watch;

/// Says that the test cannot run here and why; `cargo xtask test` counts it as skipped, not as passed.
pub fn skipped(why: &str) {
    use std::io::Write;
    println!("skipped: {why}");
    let Some(path) = std::env::var_os("SLUICE_SKIPPED") else {
        return;
    };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
        let _ = writeln!(file, "{test}: {why}");
    }
}
