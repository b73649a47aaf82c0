//! `sluice cluster`: the hosts that share networks.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::{daemon::Daemon, failure::Failure, output::print, table};

/// The hosts that share networks
#[derive(Subcommand)]
pub enum Cluster {
    /// Print hosts, leases, how far this host has come, and how etcd is
    Status(Status),
}

/// `sluice cluster status`
#[derive(Args)]
pub struct Status {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Cluster {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let Self::Status(status) = self;
        let document = daemon.get("/sluice/v1/cluster").await?;
        match status.json {
            true => print(&format!("{document}\n")),
            false => print(&show(&document)),
        }
    }
}

fn show(document: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut shown = format!(
        "Host: {}\nJoined: {}\nLease: {} ({} s)\nRevision: {} of {} in etcd\nBehind: {}\n",
        text(&document["id"]),
        if document["lease"].is_null() { "no" } else { "yes" },
        text(&document["lease"]),
        text(&document["lease_seconds"]),
        text(&document["revision"]),
        text(&document["present"]),
        match &document["behind"] {
            Value::Null => "not known, etcd does not answer".to_owned(),
            behind => format!("{behind} changes"),
        },
    );
    if let Some(trouble) = document["trouble"].as_str() {
        shown += &format!("Trouble: {trouble}\n");
    }
    let rows = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let mut hosts = vec![
        ["HOST", "ID", "ADDRESSES", "PORT", "ENDPOINTS", "VERSION", "SINCE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for host in rows("hosts") {
        let addresses: Vec<String> = host["addresses"].as_array().into_iter().flatten().map(text).collect();
        hosts.push(vec![
            text(&host["name"]),
            text(&host["id"]),
            addresses.join(", "),
            text(&host["vxlan_port"]),
            text(&host["endpoints"]),
            text(&host["version"]),
            text(&host["since"]),
        ]);
    }
    let mut members = vec![["ETCD", "STATE", "VERSION", "SIZE"].map(str::to_owned).to_vec()];
    for member in rows("members") {
        let state = match (
            member["error"].as_str(),
            member["leads"].as_bool(),
            member["has_leader"].as_bool(),
        ) {
            (Some(error), ..) => format!("no answer: {error}"),
            (None, Some(true), _) => "leader".to_owned(),
            (None, _, Some(true)) => "follower".to_owned(),
            _ => "no leader".to_owned(),
        };
        members.push(vec![
            text(&member["address"]),
            state,
            text(&member["version"]),
            text(&member["bytes"]),
        ]);
    }
    shown + "\n" + &table::align(&hosts) + "\n" + &table::align(&members)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hosts_and_members_are_shown_in_columns() {
        let shown = show(&json!({
            "id": "a", "lease": "2f", "lease_seconds": 30, "revision": 7, "present": 9, "behind": 2, "trouble": null,
            "hosts": [{"id": "a", "name": "one", "addresses": ["10.0.0.1", "fd00::1"], "vxlan_port": 4789, "endpoints": 3,
                "version": "0.1.0", "since": "2026-01-01T00:00:00Z"}],
            "members": [
                {"address": "http://h1:2379", "version": "3.4.23", "leads": true, "has_leader": true, "bytes": 20480},
                {"address": "http://h2:2379", "error": "no answer for 1 s"},
            ],
        }));
        for line in [
            "Joined: yes",
            "Revision: 7 of 9 in etcd",
            "Behind: 2 changes",
            "10.0.0.1, fd00::1",
            "leader",
            "no answer for 1 s",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
        assert!(!shown.contains("Trouble"));
    }
}
