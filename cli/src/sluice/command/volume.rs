//! `sluice volume`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    command::{
        each,
        inspect::{self, Kind},
    },
    daemon::Daemon,
    failure::Failure,
    listing::{Listing, Row, row},
    measure,
    output::print,
    query::{filtered, segment},
};

const LISTING: Listing = Listing {
    table: "{{.Driver}}\t{{.Name}}",
    headings: &[
        ("Driver", "DRIVER"),
        ("Labels", "LABELS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
    ],
};

/// `sluice volume`
#[derive(Subcommand)]
pub enum Volume {
    /// Make a volume
    Create(Create),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Print all about volumes
    Inspect(Inspect),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Remove volumes that no container has
    Prune(Prune),
}

/// `sluice volume create`
#[derive(Args)]
pub struct Create {
    /// Its driver
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// A label, NAME=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// An option of the driver, NAME=VALUE
    #[arg(short, long)]
    opt: Vec<String>,
    /// Its name; one is made up otherwise
    name: Option<String>,
}

/// `sluice volume ls`
#[derive(Args)]
pub struct Ls {
    /// Only those that match, as name=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, `table TEMPLATE` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

/// `sluice volume inspect`
#[derive(Args)]
pub struct Inspect {
    /// `json` or a Go template
    #[arg(short, long)]
    format: Option<String>,
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// `sluice volume rm`
#[derive(Args)]
pub struct Rm {
    /// One that is not there is no error
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// `sluice volume prune`
#[derive(Args)]
pub struct Prune {
    /// Those with a name too
    #[arg(short, long)]
    all: bool,
    /// Only those that match, as label=value
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Accepted for likeness with docker: nothing is asked
    #[arg(short, long)]
    force: bool,
}

impl Volume {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.answer(daemon).await,
            Self::Ls(ls) => ls.answer(daemon).await,
            Self::Inspect(Inspect { format, volumes }) => {
                inspect::show(daemon, volumes, format.as_deref(), Some(Kind::Volume)).await
            }
            Self::Rm(Rm { force, volumes }) => {
                let force = if *force { "?force=1" } else { "" };
                each(volumes, true, |name| async move {
                    daemon
                        .delete(&format!("/volumes/{}{force}", segment(&name)))
                        .await
                        .map(drop)
                })
                .await
            }
            Self::Prune(prune) => prune.answer(daemon).await,
        }
    }
}

impl Create {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let body = json!({
            "Name": self.name.as_deref().unwrap_or_default(),
            "Driver": self.driver,
            "DriverOpts": pairs(&self.opt),
            "Labels": pairs(&self.label),
        });
        let made = daemon.post_json("/volumes/create", &body).await?;
        print(&format!("{}\n", made["Name"].as_str().unwrap_or_default()))
    }
}

impl Ls {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let list = daemon.get(&format!("/volumes{}", filtered(&self.filter)?)).await?;
        let mut volumes: Vec<&Value> = list["Volumes"].as_array().into_iter().flatten().collect();
        volumes.sort_by_key(|volume| volume["Name"].as_str().unwrap_or_default());
        let rows: Vec<Row> = volumes.into_iter().map(shown).collect();
        let format = match (self.quiet, &self.format) {
            (true, None) => Some("{{.Name}}"),
            (_, format) => format.as_deref(),
        };
        print(&LISTING.show(format, &rows)?)
    }
}

impl Prune {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let mut wanted = self.filter.clone();
        if self.all {
            wanted.push("all=true".to_owned());
        }
        let pruned = daemon.post(&format!("/volumes/prune{}", filtered(&wanted)?)).await?;
        let names: Vec<&str> = pruned["VolumesDeleted"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !names.is_empty() {
            print(&format!("Deleted Volumes:\n{}\n\n", names.join("\n")))?;
        }
        let bytes = pruned["SpaceReclaimed"].as_u64().unwrap_or(0);
        print(&format!("Total reclaimed space: {}\n", measure::size(bytes)))
    }
}

fn shown(volume: &Value) -> Row {
    let text = |name: &str| volume[name].as_str().unwrap_or_default().to_owned();
    let labels = volume["Labels"].as_object().into_iter().flatten();
    let labels = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let mut row = row([
        ("Driver", text("Driver")),
        ("Labels", labels.collect::<Vec<_>>().join(",")),
        ("Mountpoint", text("Mountpoint")),
        ("Name", text("Name")),
        ("Scope", text("Scope")),
    ]);
    row.insert("LabelMap".into(), volume["Labels"].clone());
    row
}

fn pairs(texts: &[String]) -> Value {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), json!(value))
    };
    Value::Object(texts.iter().map(pair).collect())
}
