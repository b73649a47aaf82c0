//! `sluice exposure`: what of this host's containers is reached from where, and what the host's firewall believes of it.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use sluice_agent::{
    firewall::Belief,
    view::{self, Clients, Disbelief, Opening},
};

use super::datapath::{ask, line};
use crate::{daemon::Daemon, failure::Failure, table};

/// `sluice exposure`
#[derive(Args)]
pub struct Exposure {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Exposure {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        ask(daemon, "/sluice/v1/exposure", self.json, |found: view::Exposure| {
            show(&found)
        })
        .await
    }
}

fn show(found: &view::Exposure) -> String {
    let mut lines = vec![line([
        "CONTAINER",
        "NETWORK",
        "REACHED AT",
        "LEADS TO",
        "FROM",
        "FIREWALL",
    ])];
    let is_there = !found.firewalls.is_empty() || !found.unread.is_empty();
    lines.extend(found.openings.iter().map(|opening| {
        line([
            &whose(opening),
            &opening.network,
            &place(opening),
            &goal(opening),
            &clients(&opening.clients),
            &opinion(opening, is_there),
        ])
    }));
    let mut text = table::align(&lines);
    let notes = found.warnings.iter().chain(&found.unread);
    for (index, note) in notes.enumerate() {
        text += if index == 0 { "\n" } else { "" };
        text += &format!("WARNING: {note}.\n");
    }
    text
}

/// The container, and its host when it is another.
fn whose(opening: &Opening) -> String {
    match &opening.host {
        None => opening.container.clone(),
        Some(host) => format!("{} on {host}", opening.container),
    }
}

fn place(opening: &Opening) -> String {
    match opening.every_host {
        false => address(opening),
        true => format!("{} of every host", address(opening)),
    }
}

fn address(opening: &Opening) -> String {
    let ports = match opening.port {
        None => "*".to_owned(),
        Some(port) => range(port, opening.count),
    };
    let protocol = opening.protocol.as_deref().unwrap_or("*");
    match opening.address {
        IpAddr::V4(address) => format!("{address}:{ports}/{protocol}"),
        IpAddr::V6(address) => format!("[{address}]:{ports}/{protocol}"),
    }
}

fn goal(opening: &Opening) -> String {
    match opening.container_port {
        None => "*".to_owned(),
        Some(port) => range(port, opening.count),
    }
}

fn range(port: u16, count: u16) -> String {
    match count {
        0 | 1 => port.to_string(),
        count => format!("{port}-{}", port.saturating_add(count - 1)),
    }
}

fn clients(clients: &Clients) -> String {
    let list = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match clients {
        Clients::Host => "this host".to_owned(),
        Clients::Everybody => "everywhere".to_owned(),
        Clients::Sources(nets) => format!("this host, {}", list(nets)),
        Clients::Routed => "who has a route".to_owned(),
        Clients::RoutedSources(nets) if nets.is_empty() => "nobody".to_owned(),
        Clients::RoutedSources(nets) => format!("{}, with a route", list(nets)),
        Clients::Wire(device) => format!("the wire of {device}"),
        Clients::Firewall => "where the firewall lets in".to_owned(),
    }
}

/// What the host's firewall believes of it.
fn opinion(opening: &Opening, is_there: bool) -> String {
    if !opening.passes_firewall {
        return "-".to_owned();
    }
    if !is_there {
        return "none".to_owned();
    }
    if opening.beliefs.is_empty() {
        return "open".to_owned();
    }
    let mut parts: Vec<String> = Vec::new();
    for Disbelief { firewall, belief, .. } in &opening.beliefs {
        let devices: Vec<&str> = opening
            .beliefs
            .iter()
            .filter(|other| other.belief == *belief && other.firewall == *firewall)
            .map(|other| other.device.as_str())
            .collect();
        let word = match belief {
            Belief::Open => continue,
            Belief::Limited => "limited",
            Belief::Unclear => "unclear",
            Belief::Closed => "CLOSED",
        };
        let part = format!("{word} by {firewall} at {}", devices.join(", "));
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening {
        Opening {
            container: "web".into(),
            container_id: "1".repeat(64),
            network: "bridge".into(),
            host: None,
            every_host: false,
            address: "0.0.0.0".parse().unwrap(),
            protocol: Some("tcp".into()),
            port: Some(8080),
            count: 1,
            container_port: Some(80),
            clients: Clients::Everybody,
            passes_firewall: true,
            beliefs: vec![],
        }
    }

    #[test]
    fn an_opening_is_a_line_and_a_firewall_that_is_mistaken_a_warning() {
        let closed = |device: &str| Disbelief {
            firewall: "ufw".into(),
            belief: Belief::Closed,
            device: device.into(),
        };
        let found = view::Exposure {
            firewalls: vec!["ufw".into()],
            unread: vec![],
            openings: vec![
                Opening {
                    beliefs: vec![closed("eth0"), closed("eth1")],
                    ..opening()
                },
                Opening {
                    address: "::1".parse().unwrap(),
                    count: 3,
                    clients: Clients::Host,
                    passes_firewall: false,
                    ..opening()
                },
                Opening {
                    protocol: None,
                    port: None,
                    container_port: None,
                    clients: Clients::Wire("br0".into()),
                    passes_firewall: false,
                    ..opening()
                },
                Opening {
                    clients: Clients::Sources(vec!["192.0.2.0/24".parse().unwrap()]),
                    ..opening()
                },
                Opening {
                    host: Some("second".into()),
                    every_host: true,
                    ..opening()
                },
            ],
            warnings: vec!["web: ufw is mistaken".into()],
        };
        let text = show(&found);
        let lines: Vec<&str> = text.lines().collect();
        for (line, parts) in [
            (
                1,
                &["0.0.0.0:8080/tcp", " 80 ", "everywhere", "CLOSED by ufw at eth0, eth1"][..],
            ),
            (2, &["[::1]:8080-8082/tcp", " 80-82 ", "this host", "-"]),
            (3, &["0.0.0.0:*/*", " * ", "the wire of br0"]),
            (4, &["this host, 192.0.2.0/24", "open"]),
            (5, &["web on second", "0.0.0.0:8080/tcp of every host", "everywhere"]),
        ] {
            for part in parts {
                assert!(lines[line].contains(part), "{part}: {}", lines[line]);
            }
        }
        assert!(text.ends_with("\n\nWARNING: web: ufw is mistaken.\n"), "{text}");
    }

    #[test]
    fn without_a_firewall_there_is_no_opinion() {
        let found = view::Exposure {
            openings: vec![opening()],
            ..Default::default()
        };
        assert!(show(&found).trim_end().ends_with("none"));
    }
}
