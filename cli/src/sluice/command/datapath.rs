//! What only Sluice can answer: `sluice status`. Flows and drops have files of their own.

use bytes::Bytes;
use clap::Args;
use serde::de::DeserializeOwned;
use sluice_agent::view;

use super::drops::untold;
use crate::{daemon::Daemon, failure::Failure, output::print, table};

/// `sluice status`
#[derive(Args)]
pub struct Status {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        ask(daemon, "/sluice/v1/status", self.json, status).await
    }
}

/// Prints what the daemon answers, as it is or shown.
pub async fn ask<T: DeserializeOwned>(
    daemon: &Daemon,
    path: &str,
    json: bool,
    show: impl Fn(T) -> String,
) -> Result<(), Failure> {
    let bytes: Bytes = daemon.get_bytes(path).await?;
    if json {
        return print(&(String::from_utf8_lossy(&bytes).trim_end().to_owned() + "\n"));
    }
    print(&show(document(&bytes)?))
}

/// What the daemon has answered.
pub fn document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|why| Failure::Broken(format!("cannot read the daemon's answer: {why}")))
}

/// Of those who hold connections, who is shown: whoever holds most.
const SHOWN: usize = 10;

fn status(status: view::Status) -> String {
    let mut text = format!(
        "Instance: {}\nEndpoints: {}\nRevision: {}\nEpoch: {}\n",
        status.instance, status.endpoints, status.revision, status.epoch
    );
    match status.troubles.is_empty() {
        true => text += "Troubles: none\n",
        false => {
            text += "Troubles:\n";
            status
                .troubles
                .iter()
                .for_each(|trouble| text += &format!(" - {trouble}\n"));
        }
    }
    let mut programs = vec![line(["PROGRAM", "BY", "ATTACHED TO"])];
    programs.extend(status.programs.iter().map(|program| {
        let attached = match program.attached_to.is_empty() {
            true => "-".to_owned(),
            false => program.attached_to.join(", "),
        };
        line([&program.name, &program.by, &attached])
    }));
    let mut tables = vec![line(["TABLE", "ENTRIES", "CAPACITY", "HOLDS"])];
    tables.extend(status.tables.iter().map(|table| {
        line([
            &table.name,
            &table.entries.to_string(),
            &table.capacity.to_string(),
            &table.sentence,
        ])
    }));
    let mut shares = vec![line(["CONNECTIONS OF", "HOLDS", "HALF OPEN"])];
    shares.extend(status.shares.iter().take(SHOWN).map(|share| {
        let (connections, half_open) = (share.connections.to_string(), share.half_open.to_string());
        line([&share.endpoint, &connections, &half_open])
    }));
    text += &format!("Followers of drops: {}\n", status.telling.followers);
    text += untold(&status.telling).trim_start();
    text + "\n" + &table::align(&programs) + "\n" + &table::align(&tables) + "\n" + &table::align(&shares)
}

/// A line of a table.
pub fn line<const CELLS: usize>(cells: [&str; CELLS]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datapath_in_trouble_says_so() {
        let mut about = view::Status {
            instance: "default".into(),
            revision: 3,
            endpoints: 1,
            epoch: 2,
            troubles: vec![],
            tables: vec![view::Table {
                name: "FLOWS".into(),
                sentence: "flows".into(),
                entries: 1,
                capacity: 10,
            }],
            shares: vec![view::Share {
                endpoint: "web".into(),
                connections: 7,
                half_open: 2,
            }],
            programs: vec![view::Program {
                name: "from_nic".into(),
                attached_to: vec!["eth0".into()],
                by: "tcx".into(),
            }],
            telling: view::Telling::default(),
        };
        assert!(status(about.clone()).contains("Troubles: none\n"));
        about.troubles.push("eth1 is gone".into());
        assert!(status(about).contains("Troubles:\n - eth1 is gone\n"));
    }
}
