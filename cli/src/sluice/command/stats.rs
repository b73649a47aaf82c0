//! `sluice stats`

use clap::Args;
use futures_util::future::join_all;
use serde_json::Value;

use crate::{
    daemon::Daemon,
    failure::Failure,
    listing::{Listing, Row, row, short},
    measure,
    output::print,
    query::segment,
};

const LISTING: Listing = Listing {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headings: &[
        ("BlockIO", "BLOCK I/O"),
        ("CPUPerc", "CPU %"),
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("MemPerc", "MEM %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("Name", "NAME"),
        ("NetIO", "NET I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// What a terminal takes for "begin anew at the top".
const CLEAR: &str = "\x1b[2J\x1b[H";

/// `sluice stats`
#[derive(Args)]
pub struct Stats {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// `table`, `json`, `table TEMPLATE` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Once, not every second
    #[arg(long)]
    no_stream: bool,
    /// Do not cut anything off
    #[arg(long)]
    no_trunc: bool,
    /// These; else all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Stats {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        loop {
            // each answer takes the second that the daemon needs to compare
            let names = self.names(daemon).await?;
            let asked = names.iter().map(|name| self.measure(daemon, name));
            let mut rows = Vec::new();
            for row in join_all(asked).await {
                match row {
                    // it went while we asked, and was not named
                    Err(failure) if failure.is_missing() && self.containers.is_empty() => {}
                    row => rows.push(row?),
                }
            }
            let text = LISTING.show(self.format.as_deref(), &rows)?;
            if self.no_stream {
                return print(&text);
            }
            print(&format!("{CLEAR}{text}"))?;
            if names.is_empty() {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }

    async fn names(&self, daemon: &Daemon) -> Result<Vec<String>, Failure> {
        if !self.containers.is_empty() {
            return Ok(self.containers.clone());
        }
        let all = if self.all { "?all=1" } else { "" };
        let list = daemon.get(&format!("/containers/json{all}")).await?;
        let ids = list.as_array().into_iter().flatten();
        Ok(ids
            .filter_map(|container| container["Id"].as_str())
            .map(str::to_owned)
            .collect())
    }

    async fn measure(&self, daemon: &Daemon, name: &str) -> Result<Row, Failure> {
        let stats = daemon
            .get(&format!("/containers/{}/stats?stream=0", segment(name)))
            .await?;
        let id = stats["id"].as_str().unwrap_or_default();
        let name = stats["name"].as_str().unwrap_or_default().trim_start_matches('/');
        let id = if self.no_trunc { id } else { short(id) }.to_owned();
        let mut fields = row([("Container", id.clone()), ("ID", id), ("Name", name.to_owned())]);
        fields.extend(figures(&stats));
        Ok(fields)
    }
}

/// The figures of a measurement, worked out as docker does.
fn figures(stats: &Value) -> Row {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let (cpu, before, memory) = (&stats["cpu_stats"], &stats["precpu_stats"], &stats["memory_stats"]);
    let used = number(&cpu["cpu_usage"]["total_usage"]) - number(&before["cpu_usage"]["total_usage"]);
    let passed = number(&cpu["system_cpu_usage"]) - number(&before["system_cpu_usage"]);
    let percent = if used > 0.0 && passed > 0.0 {
        used / passed * number(&cpu["online_cpus"]) * 100.0
    } else {
        0.0
    };
    // pages that can be dropped at once are not counted as used
    let detail = &memory["stats"];
    let droppable = detail["total_inactive_file"]
        .as_u64()
        .or(detail["inactive_file"].as_u64());
    let usage = memory["usage"].as_u64().unwrap_or_default();
    let usage = usage.saturating_sub(droppable.filter(|bytes| *bytes < usage).unwrap_or_default());
    let limit = memory["limit"].as_u64().unwrap_or_default();
    let share = if limit == 0 {
        0.0
    } else {
        usage as f64 / limit as f64 * 100.0
    };
    let devices = stats["networks"].as_object().into_iter().flatten();
    let (received, sent) = devices.fold((0, 0), |(received, sent), (_, device)| {
        let bytes = |name: &str| device[name].as_u64().unwrap_or_default();
        (received + bytes("rx_bytes"), sent + bytes("tx_bytes"))
    });
    let block = |wanted: &str| -> u64 {
        let entries = stats["blkio_stats"]["io_service_bytes_recursive"].as_array();
        let entries = entries.into_iter().flatten().filter(|entry| entry["op"] == wanted);
        entries.filter_map(|entry| entry["value"].as_u64()).sum()
    };
    row([
        ("CPUPerc", format!("{percent:.2}%")),
        (
            "MemUsage",
            format!("{} / {}", measure::binary_size(usage), measure::binary_size(limit)),
        ),
        ("MemPerc", format!("{share:.2}%")),
        (
            "NetIO",
            format!("{} / {}", measure::size(received), measure::size(sent)),
        ),
        (
            "BlockIO",
            format!("{} / {}", measure::size(block("read")), measure::size(block("write"))),
        ),
        (
            "PIDs",
            stats["pids_stats"]["current"].as_u64().unwrap_or_default().to_string(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_worked_out_as_docker_does() {
        let stats = json!({
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_000_000, "limit": 8_388_608, "stats": {"inactive_file": 902_848}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 20}, "eth1": {"rx_bytes": 500, "tx_bytes": 0}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 4096}, {"op": "write", "value": 0}]},
            "pids_stats": {"current": 3},
        });
        let row = figures(&stats);
        let show = |name: &str| row[name].as_str().unwrap().to_owned();
        assert_eq!(
            (show("CPUPerc"), show("MemPerc"), show("PIDs")),
            ("40.00%".into(), "25.00%".into(), "3".into())
        );
        assert_eq!(show("MemUsage"), "2MiB / 8MiB");
        assert_eq!(
            (show("NetIO"), show("BlockIO")),
            ("1.5kB / 20B".into(), "4.1kB / 0B".into())
        );
        assert_eq!(figures(&json!({}))["CPUPerc"], "0.00%");
    }
}
