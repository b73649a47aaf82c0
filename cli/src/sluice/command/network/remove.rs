//! `sluice network rm` and `prune`

use clap::Args;

use crate::{
    command::each,
    daemon::Daemon,
    failure::Failure,
    output::print,
    query::{filtered, segment},
};

/// `sluice network rm`
#[derive(Args)]
pub struct Remove {
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// `sluice network prune`
#[derive(Args)]
pub struct Prune {
    /// Only those that match: until=24h, label=name=value, label!=name
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask (it never does; for the sake of Docker's command lines)
    #[arg(short, long)]
    force: bool,
}

impl Remove {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        each(&self.networks, true, |name| async move {
            daemon.delete(&format!("/networks/{}", segment(&name))).await.map(drop)
        })
        .await
    }
}

impl Prune {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let query = filtered(&self.filter)?;
        let answer = daemon.post(&format!("/networks/prune{query}")).await?;
        let removed: Vec<&str> = answer["NetworksDeleted"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str())
            .collect();
        if removed.is_empty() {
            return Ok(());
        }
        print(&format!("Deleted Networks:\n{}\n", removed.join("\n")))
    }
}
