//! `sluice port`

use clap::Args;
use serde_json::Value;

use crate::{daemon::Daemon, failure::Failure, output::print, query::segment};

/// `sluice port`
#[derive(Args)]
pub struct Port {
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

impl Port {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let about = daemon
            .get(&format!("/containers/{}/json", segment(&self.container)))
            .await?;
        let ports = &about["NetworkSettings"]["Ports"];
        match &self.port {
            None => {
                let lines = ports.as_object().into_iter().flatten().flat_map(|(port, bindings)| {
                    addresses(bindings).map(move |address| (number(port), format!("{port} -> {address}\n")))
                });
                let mut lines: Vec<(u32, String)> = lines.collect();
                lines.sort();
                print(&lines.into_iter().map(|(_, line)| line).collect::<String>())
            }
            Some(port) => {
                let port = if port.contains('/') {
                    port.clone()
                } else {
                    format!("{port}/tcp")
                };
                let lines: String = addresses(&ports[&port]).map(|address| address + "\n").collect();
                if lines.is_empty() {
                    let why = format!("Error: No public port '{port}' published for {}", self.container);
                    return Err(Failure::Usage(why));
                }
                print(&lines)
            }
        }
    }
}

fn addresses(bindings: &Value) -> impl Iterator<Item = String> {
    bindings.as_array().into_iter().flatten().map(|binding| {
        let text = |name: &str| binding[name].as_str().unwrap_or_default();
        match text("HostIp") {
            v6 if v6.contains(':') => format!("[{v6}]:{}", text("HostPort")),
            v4 => format!("{v4}:{}", text("HostPort")),
        }
    })
}

fn number(port: &str) -> u32 {
    port.split('/')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_default()
}
