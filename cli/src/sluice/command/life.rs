//! The life of containers, from stop to removal.

use clap::Args;
use serde_json::Value;

use crate::{
    command::each,
    daemon::Daemon,
    failure::Failure,
    output::print,
    query::{query, segment},
    table,
};

/// Docker sets the list of processes wider than all others.
const TOP_CELL: usize = 20;

/// `sluice stop`
#[derive(Args)]
pub struct Stop {
    /// Seconds to wait before killing; -1 waits for ever
    #[arg(short = 't', long = "timeout", visible_alias = "time", allow_hyphen_values = true)]
    timeout: Option<i64>,
    /// Signal to send first
    #[arg(short, long)]
    signal: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `sluice restart`
#[derive(Args)]
pub struct Restart {
    #[command(flatten)]
    stop: Stop,
}

/// `sluice kill`
#[derive(Args)]
pub struct Kill {
    /// Signal to send
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `sluice pause`
#[derive(Args)]
pub struct Pause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `sluice unpause`
#[derive(Args)]
pub struct Unpause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `sluice wait`
#[derive(Args)]
pub struct Wait {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `sluice rm`
#[derive(Args)]
pub struct Rm {
    /// Kill it first when it runs
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `sluice rename`
#[derive(Args)]
pub struct Rename {
    container: String,
    new_name: String,
}

/// `sluice top`
#[derive(Args)]
pub struct Top {
    /// Its processes; without one, all endpoints live: what they carry and what of it dies
    container: Option<String>,
    /// Options of ps
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Stop {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        self.order(daemon, "stop").await
    }

    async fn order(&self, daemon: &Daemon, verb: &str) -> Result<(), Failure> {
        let timeout = self.timeout.map(|seconds| seconds.to_string());
        let pairs = [("t", timeout.as_deref()), ("signal", self.signal.as_deref())];
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        order(daemon, &self.containers, verb, &query(&pairs)).await
    }
}

impl Restart {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        self.stop.order(daemon, "restart").await
    }
}

impl Kill {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        order(daemon, &self.containers, "kill", &query(&[("signal", &self.signal)])).await
    }
}

impl Pause {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        order(daemon, &self.containers, "pause", "").await
    }
}

impl Unpause {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        order(daemon, &self.containers, "unpause", "").await
    }
}

impl Wait {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        each(&self.containers, false, async |name| {
            let ended = daemon.post(&format!("/containers/{}/wait", segment(&name))).await?;
            print(&format!("{}\n", status_code(&ended)?))
        })
        .await
    }
}

impl Rm {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let flag = |on: bool| if on { "1" } else { "0" };
        let query = query(&[("force", flag(self.force)), ("v", flag(self.volumes))]);
        each(&self.containers, false, async |name| {
            match daemon.delete(&format!("/containers/{}{query}", segment(&name))).await {
                Ok(_) => print(&format!("{name}\n")),
                // by force, what is not there is told and no failure, as docker has it
                Err(failure) if self.force && failure.is_missing() => {
                    eprintln!("{failure}");
                    Ok(())
                }
                Err(failure) => Err(failure),
            }
        })
        .await
    }
}

impl Rename {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let query = query(&[("name", &self.new_name)]);
        daemon
            .post(&format!("/containers/{}/rename{query}", segment(&self.container)))
            .await
            .map(drop)
    }
}

impl Top {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let Some(container) = &self.container else {
            return super::top::show(daemon).await;
        };
        let options = self.options.join(" ");
        let query = if options.is_empty() {
            String::new()
        } else {
            query(&[("ps_args", &options)])
        };
        let list = daemon
            .get(&format!("/containers/{}/top{query}", segment(container)))
            .await?;
        let line = |cells: &Value| -> Vec<String> {
            let cells = cells.as_array().into_iter().flatten();
            cells.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut lines = vec![line(&list["Titles"])];
        lines.extend(list["Processes"].as_array().into_iter().flatten().map(line));
        print(&table::align_from(&lines, TOP_CELL))
    }
}

async fn order(daemon: &Daemon, containers: &[String], verb: &str, query: &str) -> Result<(), Failure> {
    each(containers, true, async |name| {
        daemon
            .post(&format!("/containers/{}/{verb}{query}", segment(&name)))
            .await
            .map(drop)
    })
    .await
}

/// The exit code in the answer to a wait.
pub fn status_code(ended: &Value) -> Result<i32, Failure> {
    if let Some(message) = ended["Error"]["Message"].as_str().filter(|message| !message.is_empty()) {
        return Err(Failure::Broken(format!("error waiting for container: {message}")));
    }
    let code = ended["StatusCode"].as_i64().and_then(|code| i32::try_from(code).ok());
    code.ok_or_else(|| Failure::Broken("the daemon did not tell the exit code".into()))
}
