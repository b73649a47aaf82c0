//! What only Sluice can answer: `sluice status`, `sluice flows`. `sluice drops` has a file of its own.

use bytes::Bytes;
use clap::Args;
use serde::de::DeserializeOwned;
use sluice_agent::view::{self, Flow, Peer};

use super::drops::untold;
use crate::{daemon::Daemon, failure::Failure, measure, output::print, table};

/// `sluice status`
#[derive(Args)]
pub struct Status {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// `sluice flows`
#[derive(Args)]
pub struct Flows {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        ask(daemon, "/sluice/v1/status", self.json, status).await
    }
}

impl Flows {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        ask(daemon, "/sluice/v1/flows", self.json, |flows: Vec<Flow>| {
            self::flows(&flows)
        })
        .await
    }
}

/// Prints what the daemon answers, as it is or shown.
pub async fn ask<T: DeserializeOwned>(
    daemon: &Daemon,
    path: &str,
    json: bool,
    show: impl Fn(T) -> String,
) -> Result<(), Failure> {
    let bytes: Bytes = daemon.get_bytes(path).await?;
    if json {
        return print(&(String::from_utf8_lossy(&bytes).trim_end().to_owned() + "\n"));
    }
    print(&show(document(&bytes)?))
}

/// What the daemon has answered.
pub fn document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|why| Failure::Broken(format!("cannot read the daemon's answer: {why}")))
}

/// Of those who hold connections, who is shown: whoever holds most.
const SHOWN: usize = 10;

fn status(status: view::Status) -> String {
    let mut text = format!(
        "Instance: {}\nEndpoints: {}\nRevision: {}\nEpoch: {}\n",
        status.instance, status.endpoints, status.revision, status.epoch
    );
    match status.troubles.is_empty() {
        true => text += "Troubles: none\n",
        false => {
            text += "Troubles:\n";
            status
                .troubles
                .iter()
                .for_each(|trouble| text += &format!(" - {trouble}\n"));
        }
    }
    let mut programs = vec![line(["PROGRAM", "BY", "ATTACHED TO"])];
    programs.extend(status.programs.iter().map(|program| {
        let attached = match program.attached_to.is_empty() {
            true => "-".to_owned(),
            false => program.attached_to.join(", "),
        };
        line([&program.name, &program.by, &attached])
    }));
    let mut tables = vec![line(["TABLE", "ENTRIES", "CAPACITY", "HOLDS"])];
    tables.extend(status.tables.iter().map(|table| {
        line([
            &table.name,
            &table.entries.to_string(),
            &table.capacity.to_string(),
            &table.sentence,
        ])
    }));
    let mut shares = vec![line(["CONNECTIONS OF", "HOLDS", "HALF OPEN"])];
    shares.extend(status.shares.iter().take(SHOWN).map(|share| {
        let (connections, half_open) = (share.connections.to_string(), share.half_open.to_string());
        line([&share.endpoint, &connections, &half_open])
    }));
    text += &format!("Followers of drops: {}\n", status.telling.followers);
    text += untold(&status.telling).trim_start();
    text + "\n" + &table::align(&programs) + "\n" + &table::align(&tables) + "\n" + &table::align(&shares)
}

fn flows(flows: &[Flow]) -> String {
    let mut lines = vec![line([
        "PROTOCOL",
        "FROM",
        "TO",
        "TRANSLATED",
        "STATE",
        "TOWARDS",
        "SENT",
        "RECEIVED",
        "AGE",
        "IDLE",
    ])];
    lines.extend(flows.iter().map(|flow| {
        let translated = match (&flow.translated_from, &flow.translated_to) {
            (None, None) => "-".to_owned(),
            (from, to) => {
                let from = from.as_ref().map(|peer| format!("from {}", address(peer)));
                let to = to.as_ref().map(|peer| format!("to {}", self::peer(peer)));
                from.into_iter().chain(to).collect::<Vec<_>>().join(" ")
            }
        };
        let sent = format!("{} ({})", flow.packets, measure::size(flow.bytes));
        let received = format!("{} ({})", flow.reply_packets, measure::size(flow.reply_bytes));
        line([
            &flow.protocol,
            &peer(&flow.from),
            &peer(&flow.to),
            &translated,
            &flow.state,
            &flow.towards,
            &sent,
            &received,
            &seconds(flow.age),
            &seconds(flow.idle),
        ])
    }));
    table::align(&lines)
}

/// `web (172.17.0.2:80)`, or the address alone.
fn peer(peer: &Peer) -> String {
    match peer.name.is_empty() {
        true => address(peer),
        false => format!("{} ({})", peer.name, address(peer)),
    }
}

fn address(peer: &Peer) -> String {
    match (peer.address, peer.port) {
        (address, 0) => address.to_string(),
        (address, port) => std::net::SocketAddr::new(address, port).to_string(),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 60.0 => format!("{seconds:.1}s"),
        seconds if seconds < 3600.0 => format!("{}m{}s", seconds as u64 / 60, seconds as u64 % 60),
        seconds => format!("{}h{}m", seconds as u64 / 3600, seconds as u64 % 3600 / 60),
    }
}

/// A line of a table.
pub fn line<const CELLS: usize>(cells: [&str; CELLS]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_of(address: &str, port: u16, name: &str) -> Peer {
        Peer {
            address: address.parse().unwrap(),
            port,
            name: name.into(),
        }
    }

    #[test]
    fn a_flow_is_a_line_with_names_and_translation() {
        let flow = Flow {
            protocol: "tcp".into(),
            from: peer_of("10.0.0.9", 40000, ""),
            to: peer_of("10.0.0.1", 8080, "host"),
            translated_from: None,
            translated_to: Some(peer_of("172.17.0.2", 80, "web")),
            state: "established".into(),
            towards: "container".into(),
            packets: 5,
            bytes: 1500,
            reply_packets: 4,
            reply_bytes: 90_000,
            age: 75.0,
            idle: 0.25,
        };
        let text = flows(&[flow]);
        let line = text.lines().nth(1).unwrap();
        for part in [
            "tcp ",
            "10.0.0.9:40000 ",
            "host (10.0.0.1:8080)",
            "to web (172.17.0.2:80)",
            "5 (1.5kB)",
            "4 (90kB)",
            "1m15s",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }

    #[test]
    fn a_datapath_in_trouble_says_so() {
        let mut about = view::Status {
            instance: "default".into(),
            revision: 3,
            endpoints: 1,
            epoch: 2,
            troubles: vec![],
            tables: vec![view::Table {
                name: "FLOWS".into(),
                sentence: "flows".into(),
                entries: 1,
                capacity: 10,
            }],
            shares: vec![view::Share {
                endpoint: "web".into(),
                connections: 7,
                half_open: 2,
            }],
            programs: vec![view::Program {
                name: "from_nic".into(),
                attached_to: vec!["eth0".into()],
                by: "tcx".into(),
            }],
            telling: view::Telling::default(),
        };
        assert!(status(about.clone()).contains("Troubles: none\n"));
        about.troubles.push("eth1 is gone".into());
        assert!(status(about).contains("Troubles:\n - eth1 is gone\n"));
    }
}
