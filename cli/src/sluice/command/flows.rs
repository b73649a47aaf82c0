//! `sluice flows`: who speaks to whom.

use clap::Args;
use sluice_agent::view::{Flow, Peer};

use super::{
    datapath::{ask, line},
    ends::Ends,
};
use crate::{daemon::Daemon, failure::Failure, measure, query::query, table};

/// `sluice flows`
#[derive(Args)]
pub struct Flows {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ends: Ends,
    /// Only in this state: unanswered, established, closing or closed
    #[arg(short, long)]
    state: Vec<String>,
    /// What comes first: idle (those used last), bytes, packets or age (the youngest)
    #[arg(long, value_name = "BY")]
    sort: Option<String>,
    /// Only so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Those that carried most, ten of them or so many
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "10", conflicts_with_all = ["sort", "limit"])]
    top: Option<usize>,
}

impl Flows {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        ask(daemon, &self.path(), self.json, |found: Vec<Flow>| flows(&found)).await
    }

    fn path(&self) -> String {
        let mut pairs: Vec<(&str, &str)> = self.ends.pairs().collect();
        pairs.extend(self.state.iter().map(|state| ("state", state.as_str())));
        let sort = self.top.map(|_| "bytes").or(self.sort.as_deref());
        pairs.extend(sort.map(|sort| ("sort", sort)));
        let limit = self.top.or(self.limit).map(|limit| limit.to_string());
        pairs.extend(limit.as_deref().map(|limit| ("limit", limit)));
        format!("/sluice/v1/flows{}", query(&pairs))
    }
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

/// The few that matter at a glance: protocol, ends, state, and what was carried.
pub fn cells(flow: &Flow) -> [String; 6] {
    let to = flow.translated_to.as_ref().unwrap_or(&flow.to);
    [
        flow.protocol.clone(),
        peer(&flow.from),
        peer(to),
        flow.state.clone(),
        measure::size(flow.bytes),
        measure::size(flow.reply_bytes),
    ]
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flows: Flows,
    }

    #[test]
    fn what_is_wanted_is_asked_of_the_daemon() {
        let path = |arguments: &str| {
            let words = std::iter::once("flows").chain(arguments.split_whitespace());
            Command::parse_from(words).flows.path()
        };
        assert_eq!(path(""), "/sluice/v1/flows");
        assert_eq!(
            path("-c web --top"),
            "/sluice/v1/flows?container=web&sort=bytes&limit=10"
        );
        assert_eq!(
            path("--top 3 -s closed"),
            "/sluice/v1/flows?state=closed&sort=bytes&limit=3"
        );
        assert_eq!(path("--sort age --limit 2"), "/sluice/v1/flows?sort=age&limit=2");
    }

    fn peer_of(address: &str, port: u16, name: &str) -> Peer {
        Peer {
            address: address.parse().unwrap(),
            port,
            name: name.into(),
            container: String::new(),
            network: String::new(),
            labels: Default::default(),
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
}
