//! `sluice network`

mod create;
mod join;
mod remove;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::{
    command::inspect::{self, Kind},
    daemon::Daemon,
    failure::Failure,
    listing::{Listing, Row, row, short},
    output::print,
    query::filtered,
};

const LISTING: Listing = Listing {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headings: &[
        ("CreatedAt", "CREATED AT"),
        ("Driver", "DRIVER"),
        ("ID", "NETWORK ID"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("Name", "NAME"),
        ("Scope", "SCOPE"),
    ],
};

/// `sluice network`
#[derive(Subcommand)]
pub enum Network {
    /// Put a container on a network
    Connect(join::Connect),
    /// Make a network
    Create(create::Create),
    /// Take a container off a network
    Disconnect(join::Disconnect),
    /// Remove networks that nobody is on
    Prune(remove::Prune),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(remove::Remove),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Print all about networks
    Inspect(Inspect),
}

/// `sluice network ls`
#[derive(Args)]
pub struct Ls {
    /// Only those that match, as name=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, `table TEMPLATE` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not cut anything off
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

/// `sluice network inspect`
#[derive(Args)]
pub struct Inspect {
    /// `json` or a Go template
    #[arg(short, long)]
    format: Option<String>,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

impl Network {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        match self {
            Self::Connect(connect) => connect.answer(daemon).await,
            Self::Create(create) => create.answer(daemon).await,
            Self::Disconnect(disconnect) => disconnect.answer(daemon).await,
            Self::Prune(prune) => prune.answer(daemon).await,
            Self::Rm(remove) => remove.answer(daemon).await,
            Self::Ls(ls) => ls.answer(daemon).await,
            Self::Inspect(Inspect { format, networks }) => {
                inspect::show(daemon, networks, format.as_deref(), Some(Kind::Network)).await
            }
        }
    }
}

impl Ls {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let list = daemon.get(&format!("/networks{}", filtered(&self.filter)?)).await?;
        let mut networks: Vec<&Value> = list.as_array().into_iter().flatten().collect();
        networks.sort_by_key(|network| network["Name"].as_str().unwrap_or_default());
        let rows: Vec<Row> = networks.into_iter().map(|network| self.row(network)).collect();
        let format = match (self.quiet, &self.format) {
            (true, None) => Some("{{.ID}}"),
            (_, format) => format.as_deref(),
        };
        print(&LISTING.show(format, &rows)?)
    }

    fn row(&self, network: &Value) -> Row {
        let text = |name: &str| network[name].as_str().unwrap_or_default().to_owned();
        let flag = |name: &str, otherwise: bool| network[name].as_bool().unwrap_or(otherwise).to_string();
        let labels = network["Labels"].as_object().into_iter().flatten();
        let labels = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
        let id = text("Id");
        let mut row = row([
            ("ID", if self.no_trunc { id } else { short(&id).to_owned() }),
            ("Name", text("Name")),
            ("Driver", text("Driver")),
            ("Scope", text("Scope")),
            ("CreatedAt", text("Created")),
            ("Internal", flag("Internal", false)),
            ("IPv4", flag("EnableIPv4", true)),
            ("IPv6", flag("EnableIPv6", false)),
            ("Labels", labels.collect::<Vec<_>>().join(",")),
        ]);
        row.insert("LabelMap".into(), network["Labels"].clone());
        row
    }
}
