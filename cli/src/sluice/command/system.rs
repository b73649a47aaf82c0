//! The daemon itself: versions, facts, a sign of life.

mod df;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    daemon::Daemon,
    failure::Failure,
    measure,
    output::print,
    template::{Missing, Template},
};

/// `sluice version`
#[derive(Args)]
pub struct Version {
    /// `json` or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// `sluice info`
#[derive(Args)]
pub struct Info {
    /// `json` or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// `sluice ping`
#[derive(Args)]
pub struct Ping {}

/// `sluice system`
#[derive(Subcommand)]
pub enum System {
    /// Print what takes how much room
    Df(df::Df),
}

impl System {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        match self {
            Self::Df(df) => df.answer(daemon).await,
        }
    }
}

impl Version {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let client = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": daemon.version(),
            "APIVersion": daemon.version(),
            "Os": std::env::consts::OS,
            "Arch": architecture(),
            "Context": daemon.address().to_string(),
        });
        // the client's half is told also when nobody answers
        let (server, failure) = match daemon.get("/version").await {
            Ok(mut server) => {
                // as docker's templates call it
                server["APIVersion"] = server["ApiVersion"].clone();
                (server, None)
            }
            Err(failure) => (Value::Null, Some(failure)),
        };
        match self.format.as_deref() {
            None => {
                let mut text = "Client:\n".to_owned() + &half(&client);
                if !server.is_null() {
                    let name = server["Platform"]["Name"]
                        .as_str()
                        .filter(|name| !name.is_empty())
                        .unwrap_or("Sluice");
                    text += &format!("\nServer: {name}\n{}", half(&server));
                }
                print(&text)?;
            }
            Some(format) => print(&filled(format, &json!({"Client": client, "Server": server}))?)?,
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Info {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let info = daemon.get("/info").await?;
        match self.format.as_deref() {
            None => print(&facts(&info)),
            Some(format) => print(&filled(format, &info)?),
        }
    }
}

impl Ping {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let answer = daemon.get_bytes("/_ping").await?;
        print(&format!("{}\n", String::from_utf8_lossy(&answer).trim()))
    }
}

fn half(about: &Value) -> String {
    let lines = [
        ("Version", "Version"),
        ("API version", "ApiVersion"),
        ("Minimum API version", "MinAPIVersion"),
        ("Git commit", "GitCommit"),
        ("Built", "BuildTime"),
        ("Kernel version", "KernelVersion"),
        ("Context", "Context"),
    ];
    let mut text = String::new();
    for (label, name) in lines {
        if let Some(value) = about[name].as_str().filter(|value| !value.is_empty()) {
            text += &format!(" {:<21}{value}\n", format!("{label}:"));
        }
    }
    if let (Some(os), Some(arch)) = (about["Os"].as_str(), about["Arch"].as_str()) {
        text += &format!(" {:<21}{os}/{arch}\n", "OS/Arch:");
    }
    text
}

fn facts(info: &Value) -> String {
    let lines = [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Default Runtime", "DefaultRuntime"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Name", "Name"),
        ("ID", "ID"),
        ("Data Root Dir", "DockerRootDir"),
        ("Live Restore Enabled", "LiveRestoreEnabled"),
    ];
    let mut text = String::new();
    for (label, name) in lines {
        let value = match &info[name] {
            Value::Null => continue,
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        text += &format!("{label}: {value}\n");
        if name == "NCPU"
            && let Some(bytes) = info["MemTotal"].as_u64()
        {
            text += &format!("Total Memory: {}\n", measure::binary_size(bytes));
        }
    }
    for warning in info["Warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        text += &format!("{warning}\n");
    }
    text
}

fn filled(format: &str, data: &Value) -> Result<String, Failure> {
    let format = if format == "json" { "{{json .}}" } else { format };
    Ok(Template::parse(format)?.fill(data, Missing::NoValue)? + "\n")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
