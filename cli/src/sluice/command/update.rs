//! `sluice update`

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{command::each, daemon::Daemon, failure::Failure, measure, query::segment};

/// `sluice update`
#[derive(Args)]
pub struct Update {
    /// Share of the block devices, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota, microseconds
    #[arg(long)]
    cpu_period: Option<i64>,
    /// CPU time in each period, microseconds
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Relative weight of its CPU time
    #[arg(short = 'c', long)]
    cpu_shares: Option<i64>,
    /// CPUs, e.g. 1.5
    #[arg(long)]
    cpus: Option<f64>,
    /// CPUs it may use, e.g. 0-1
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Memory, e.g. 512m
    #[arg(short, long)]
    memory: Option<String>,
    /// Memory it shrinks to when the host runs short
    #[arg(long)]
    memory_reservation: Option<String>,
    /// Memory and swap; -1: as much swap as there is
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Processes; -1: no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// `no`, `always`, `unless-stopped` or `on-failure[:TRIES]`
    #[arg(long)]
    restart: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Update {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let wish = self.wish()?;
        if wish.is_empty() {
            return Err(Failure::Usage(
                "you must provide one or more flags when using this command".into(),
            ));
        }
        let wish = Value::Object(wish);
        each(&self.containers, true, async |name| {
            let path = format!("/containers/{}/update", segment(&name));
            let answer = daemon.post_json(&path, &wish).await?;
            for warning in answer["Warnings"].as_array().into_iter().flatten() {
                eprintln!("WARNING: {}", warning.as_str().unwrap_or_default());
            }
            Ok(())
        })
        .await
    }

    fn wish(&self) -> Result<Map<String, Value>, Failure> {
        let bytes = |text: &Option<String>| match text.as_deref() {
            None => Ok(None),
            Some("-1") => Ok(Some(-1)),
            Some(text) => measure::parse_bytes(text).map(Some),
        };
        let given = [
            ("BlkioWeight", self.blkio_weight.map(Value::from)),
            ("CpuPeriod", self.cpu_period.map(Value::from)),
            ("CpuQuota", self.cpu_quota.map(Value::from)),
            ("CpuShares", self.cpu_shares.map(Value::from)),
            (
                "NanoCpus",
                self.cpus.map(|cpus| Value::from((cpus * 1e9).round() as i64)),
            ),
            ("CpusetCpus", self.cpuset_cpus.clone().map(Value::from)),
            ("CpusetMems", self.cpuset_mems.clone().map(Value::from)),
            ("Memory", bytes(&self.memory)?.map(Value::from)),
            ("MemoryReservation", bytes(&self.memory_reservation)?.map(Value::from)),
            ("MemorySwap", bytes(&self.memory_swap)?.map(Value::from)),
            ("PidsLimit", self.pids_limit.map(Value::from)),
            ("RestartPolicy", self.restart.as_deref().map(policy).transpose()?),
        ];
        let given = given.into_iter();
        Ok(given
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect())
    }
}

/// `on-failure:3`
fn policy(text: &str) -> Result<Value, Failure> {
    let (name, tries) = text.split_once(':').unwrap_or((text, "0"));
    let tries: i64 = tries
        .parse()
        .map_err(|_| Failure::Usage("invalid restart policy format: maximum retry count must be an integer".into()))?;
    Ok(json!({ "Name": name, "MaximumRetryCount": tries }))
}
