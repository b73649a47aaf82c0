//! `sluice builder`: what builds leave behind.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::{
    daemon::Daemon,
    failure::Failure,
    measure,
    output::print,
    query::{filters, query},
};

/// `sluice builder`
#[derive(Subcommand)]
pub enum Builder {
    /// Remove what builds left and nothing stands on
    Prune(Prune),
}

/// `sluice builder prune`
#[derive(Args)]
pub struct Prune {
    /// The next build also makes every step again
    #[arg(short, long)]
    all: bool,
    /// Only those that match, as until=24h
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Accepted for likeness with docker: nothing is asked
    #[arg(short, long)]
    force: bool,
}

impl Builder {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let Self::Prune(Prune { all, filter, .. }) = self;
        let filters = filters(filter)?;
        let mut asked: Vec<_> = filters.iter().map(|filters| ("filters", filters.as_str())).collect();
        if *all {
            asked.push(("all", "1"));
        }
        let pruned = daemon.post(&format!("/build/prune{}", query(&asked))).await?;
        let ids = pruned["CachesDeleted"].as_array().into_iter().flatten();
        let ids: Vec<&str> = ids.filter_map(Value::as_str).collect();
        if !ids.is_empty() {
            print(&format!("Deleted build cache objects:\n{}\n\n", ids.join("\n")))?;
        }
        let bytes = pruned["SpaceReclaimed"].as_u64().unwrap_or_default();
        print(&format!("Total reclaimed space: {}\n", measure::size(bytes)))
    }
}
