//! What can be asked: a file for each command, or for a few that are one thought.

pub mod archive;
pub mod attach;
pub mod build;
pub mod builder;
mod care;
pub mod cleanup;
pub mod cluster;
pub mod copy;
pub mod create;
pub mod datapath;
pub mod drops;
mod ends;
pub mod events;
pub mod exec;
pub mod explain;
pub mod exposure;
pub mod files;
pub mod flows;
pub mod image;
pub mod inspect;
pub mod life;
mod limits;
pub mod logs;
pub mod monitor;
mod mounts;
pub mod network;
pub mod policy;
pub mod port;
mod progress;
pub mod prune;
pub mod ps;
pub mod registry;
pub mod run;
pub mod start;
pub mod stats;
pub mod system;
mod top;
pub mod update;
pub mod volume;

use crate::failure::Failure;

/// Does `what` for every name, one after the other; says what failed and goes on. Prints each name that went well when `echo`.
pub async fn each<F>(names: &[String], echo: bool, what: impl Fn(String) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut failed = false;
    for name in names {
        match what(name.clone()).await {
            Ok(()) if echo => crate::output::print(&format!("{name}\n"))?,
            Ok(()) => {}
            Err(failure @ (Failure::Unreachable { .. } | Failure::Code(_))) => return Err(failure),
            Err(failure) => {
                eprintln!("{failure}");
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Code(1)) } else { Ok(()) }
}
