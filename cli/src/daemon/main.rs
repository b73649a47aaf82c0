//! `sluiced`, the daemon: reads what it is told, starts the rooms in their order, opens its sockets, and waits for the end.
//!
//! It decides nothing. Containers and their traffic outlive it, whichever way it ends.

mod allocator;
mod cleanup;
mod cluster;
mod flow_log;
mod instance;
mod limits;
mod log;
mod options;
mod pidfile;
mod remap;
mod rest;
mod serve;
mod settings;
mod sockets;
mod supervisor;
mod value;

use std::process::ExitCode;

use clap::Parser;

use options::Flags;
use settings::Settings;

/// Why the daemon ends: a sentence that says what was tried, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Trouble(String);

impl Trouble {
    /// Something failed.
    fn new(tried: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self(format!("cannot {tried}: {why}"))
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match tell(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("sluiced: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn tell(flags: Flags) -> Result<(), Trouble> {
    let cleanup = flags.cleanup.then_some(cleanup::Extent::of(flags.all));
    let settings = Settings::new(flags)?;
    log::begin(settings.log_level);
    allocator::keep_small();
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("sluiced")
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(|why| Trouble::new("start the daemon's threads", why))?;
    let ended = match cleanup {
        Some(extent) => runtime.block_on(cleanup::cleanup(&settings, extent)),
        None => runtime.block_on(serve::serve(settings)),
    };
    // Whoever is still attached is not waited for.
    runtime.shutdown_background();
    ended
}
