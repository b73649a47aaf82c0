//! `sluice prune`

use std::io::{BufRead, Write};

use clap::Args;

use crate::{
    daemon::Daemon,
    failure::Failure,
    measure,
    output::print,
    query::{filters, query},
};

/// `sluice prune`
#[derive(Args)]
pub struct Prune {
    /// Only those that match, as name=value: until, label, label!
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        if !self.force && !agrees()? {
            return Ok(());
        }
        let filters = filters(&self.filter)?;
        let pairs: Vec<_> = filters.iter().map(|filters| ("filters", filters.as_str())).collect();
        let pruned = daemon.post(&format!("/containers/prune{}", query(&pairs))).await?;
        let ids = pruned["ContainersDeleted"].as_array().into_iter().flatten();
        let ids: Vec<&str> = ids.filter_map(serde_json::Value::as_str).collect();
        let mut text = String::new();
        if !ids.is_empty() {
            text = format!("Deleted Containers:\n{}\n\n", ids.join("\n"));
        }
        let bytes = pruned["SpaceReclaimed"].as_u64().unwrap_or_default();
        print(&format!("{text}Total reclaimed space: {}\n", measure::size(bytes)))
    }
}

/// Asks the person; nothing said is a no.
fn agrees() -> Result<bool, Failure> {
    print("WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ")?;
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|why| Failure::Usage(format!("cannot read the answer: {why}")))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
