//! The page of figures is written from what is really told.

use std::{fmt::Write, path::PathBuf};

use sluice_engine::{Direction, PolicyVerdict, Traffic};
use sluice_model::Host;

use super::*;

/// Set to write the page instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";

fn figures() -> Figures {
    let untold = view::Untold {
        time: jiff::Timestamp::UNIX_EPOCH,
        reason: "no_route".to_owned(),
        number: 1,
        too_many: 3,
        lost: 2,
    };
    let direction = Direction {
        bytes: 1000,
        packets: 10,
        ..Direction::default()
    };
    Figures {
        status: view::Status {
            instance: "default".to_owned(),
            revision: 7,
            endpoints: 2,
            epoch: 1,
            troubles: vec!["a sentence".to_owned()],
            tables: vec![view::Table {
                name: "FLOWS4".to_owned(),
                sentence: String::new(),
                entries: 5,
                capacity: 100,
            }],
            shares: vec![view::Share {
                endpoint: "web".to_owned(),
                connections: 4,
                half_open: -1,
            }],
            programs: Vec::new(),
            telling: view::Telling {
                untold: vec![untold],
                ..view::Telling::default()
            },
        },
        drops: ["web", "db"]
            .map(|endpoint| view::Drop {
                reason: "no_route".to_owned(),
                sentence: String::new(),
                direction: "from_container".to_owned(),
                endpoint: endpoint.to_owned(),
                packets: 2,
                bytes: 200,
            })
            .into(),
        carried: vec![Carried {
            endpoint: "e".to_owned(),
            container: "web".to_owned(),
            network: "bridge".to_owned(),
            traffic: Traffic {
                received: direction,
                sent: direction,
            },
        }],
        verdicts: vec![PolicyVerdict {
            policy: "db".to_owned(),
            direction: sluice_policy::Direction::Ingress,
            verdict: "denied",
            count: view::Count { packets: 3, bytes: 180 },
        }],
        containers: [("running", 2), ("paused", 0), ("stopped", 1)],
        cluster: Some(ClusterStatus {
            host: None,
            id: "id".to_owned(),
            advertise: Vec::new(),
            lease: Some(1),
            lease_seconds: 10,
            prefix: String::new(),
            members: Vec::new(),
            revision: 9,
            reached: None,
            present: Some(9),
            behind: Some(0),
            trouble: None,
            hosts: Vec::<(Host, usize)>::new(),
        }),
    }
}

fn text(figures: &Figures) -> String {
    let measures = Measures::default();
    measures.answered("GET", "/info", Duration::from_millis(3));
    measures.text(figures, Registry::with_prefix(PREFIX)).unwrap()
}

#[test]
fn drops_are_told_by_reason_and_direction_whosever_they_were() {
    let text = text(&figures());
    let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    has("sluice_dropped_packets_total{reason=\"no_route\",direction=\"from_container\"} 4");
    has("sluice_table_entries{table=\"FLOWS4\"} 5");
    has("sluice_connections 4");
    has("sluice_half_open_connections 0");
    has("sluice_containers{state=\"running\"} 2");
    has("sluice_endpoint_sent_bytes_total{container=\"web\",network=\"bridge\"} 1000");
    has("sluice_network_received_packets_total{network=\"bridge\"} 10");
    has("sluice_policy_packets_total{policy=\"db\",direction=\"ingress\",verdict=\"denied\"} 3");
    has("sluice_cluster_lease_held 1");
    has("sluice_untold_drops_total{reason=\"no_route\",why=\"too_many\"} 3");
    has("sluice_api_seconds_count{method=\"GET\",path=\"/info\"} 1");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn of_more_endpoints_than_can_be_kept_apart_the_least_are_told_as_one() {
    let mut figures = figures();
    let one = figures.carried[0].clone();
    figures.carried = (0..ENDPOINTS as u64 + 20)
        .map(|number| {
            let mut carried = one.clone();
            carried.endpoint = number.to_string();
            carried.container = format!("web{number}");
            carried.traffic.sent.bytes = number;
            carried
        })
        .collect();
    let text = text(&figures);
    let told = text
        .lines()
        .filter(|line| line.starts_with("sluice_endpoint_sent_bytes_total{"))
        .count();
    assert_eq!(told, ENDPOINTS + 1);
    let rest: u64 = (0..20).sum();
    let line = format!("sluice_endpoint_sent_bytes_total{{container=\"\",network=\"\"}} {rest}");
    assert!(text.contains(&line), "{text}");
}

#[test]
fn of_more_documents_than_can_be_kept_apart_the_last_are_told_as_one() {
    let mut figures = figures();
    let one = figures.verdicts[0].clone();
    let number = |number: usize| PolicyVerdict {
        policy: format!("policy{number:04}"),
        ..one.clone()
    };
    figures.verdicts = (0..POLICIES + 5).map(number).collect();
    let text = text(&figures);
    let told = text
        .lines()
        .filter(|line| line.starts_with("sluice_policy_packets_total{"));
    assert_eq!(told.count(), POLICIES + 1);
    let rest = "sluice_policy_packets_total{policy=\"\",direction=\"ingress\",verdict=\"denied\"} 15";
    assert!(text.contains(rest), "{text}");
}

#[test]
fn the_page_of_figures_is_true() {
    let mut page = format!(
        "# Figures for Prometheus\n\n\
         <!-- Written by a test from what is told: `{UPDATE}=1 cargo test -p sluice-api`. -->\n\n\
         `GET /metrics` on the API's socket, and on `--metrics-addr ADDRESS:PORT` where the daemon is told so (it shows figures only, to everybody who reaches it), in \
         the text of OpenMetrics 1.0. `dist/prometheus-rules.yml` has alerts, `dist/grafana-dashboard.json` a board to look at. Those of `cluster` are there on a \
         host that shares networks with others. The {ENDPOINTS} endpoints that carry most are told one by one, the rest as one whose labels are empty.\n\n\
         | name | kind | labels | what it is |\n|---|---|---|---|\n"
    );
    let mut kept = Registry::with_prefix(PREFIX);
    sluice_agent::Measures::default().register(&mut kept);
    let measures = Measures::default();
    measures.answered("GET", "/info", Duration::from_millis(3));
    let text = measures.text(&figures(), kept).unwrap();
    let field = |prefix: &str, name: &str| {
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# {prefix} {name} ")));
        found.unwrap_or_default().to_owned()
    };
    for name in text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
    {
        let kind = field("TYPE", name);
        let shown = match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        let sample = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once('{'))
            .map_or("", |(_, labels)| labels.split('}').next().unwrap_or_default());
        let labels: Vec<&str> = sample
            .split("\",")
            .filter_map(|label| label.split_once('=').map(|(name, _)| name))
            .filter(|name| *name != "le")
            .collect();
        let help = field("HELP", name);
        let labels = labels.join(", ");
        writeln!(page, "| `{shown}` | {kind} | {labels} | {help} |").unwrap();
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md is stale: run `{UPDATE}=1 cargo test -p sluice-api`"
    );
}
