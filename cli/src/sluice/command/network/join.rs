//! `sluice network connect` and `disconnect`

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{daemon::Daemon, failure::Failure, query::segment};

/// `sluice network connect`
#[derive(Args)]
pub struct Connect {
    /// A further name in the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// An option of the driver, as name=value
    #[arg(long, value_name = "OPTION")]
    driver_opt: Vec<String>,
    /// Of several networks the one with the greatest leads everywhere else
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    gw_priority: Option<i64>,
    /// Its IPv4 address there
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Its IPv6 address there
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    #[arg(value_name = "NETWORK")]
    network: String,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `sluice network disconnect`
#[derive(Args)]
pub struct Disconnect {
    /// Also a container that is gone
    #[arg(short, long)]
    force: bool,
    #[arg(value_name = "NETWORK")]
    network: String,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Connect {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let mut place = Map::new();
        let mut addresses = Map::new();
        for (member, address) in [("IPv4Address", &self.ip), ("IPv6Address", &self.ip6)] {
            if let Some(address) = address {
                addresses.insert(member.to_owned(), json!(address));
            }
        }
        if !addresses.is_empty() {
            place.insert("IPAMConfig".to_owned(), Value::Object(addresses));
        }
        if !self.alias.is_empty() {
            place.insert("Aliases".to_owned(), json!(self.alias));
        }
        if let Some(priority) = self.gw_priority {
            place.insert("GwPriority".to_owned(), json!(priority));
        }
        if !self.driver_opt.is_empty() {
            let pairs = self
                .driver_opt
                .iter()
                .map(|text| text.split_once('=').unwrap_or((text, "")));
            let options: Map<String, Value> = pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect();
            place.insert("DriverOpts".to_owned(), Value::Object(options));
        }
        let body = json!({ "Container": self.container, "EndpointConfig": place });
        let path = format!("/networks/{}/connect", segment(&self.network));
        daemon.post_json(&path, &body).await.map(drop)
    }
}

impl Disconnect {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let body = json!({ "Container": self.container, "Force": self.force });
        let path = format!("/networks/{}/disconnect", segment(&self.network));
        daemon.post_json(&path, &body).await.map(drop)
    }
}
