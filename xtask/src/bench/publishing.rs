//! How long it takes to publish ten thousand ports: by themselves or as a range, by the docker CLI, which spells out every port of a range, and by
//! the engine alone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::client;
use super::engine::Engine;
use super::image;
use super::interrupt;
use super::sample::median;
use super::table::Table;
use crate::step::{self, Outcome, say};

/// Milliseconds in which ten thousand are to be published.
const LIMIT: f64 = 100.0;
/// The container that publishes them.
const NAME: &str = "publisher";
/// The first of the host's ports.
const FIRST: u32 = 20_000;

/// What is published.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Wish {
    Nothing,
    /// So many ports as one range.
    Range(u32),
    /// So many, each asked for by itself.
    Singles(u32),
}

const WISHES: [Wish; 4] = [
    Wish::Nothing,
    Wish::Range(1_000),
    Wish::Range(10_000),
    Wish::Singles(10_000),
];

/// What was found, milliseconds.
#[derive(Default)]
pub struct Publishing {
    by_cli: BTreeMap<Wish, Vec<f64>>,
    by_engine: BTreeMap<Wish, Vec<f64>>,
}

impl Publishing {
    /// Starts a container for each wish, one after the other, so many times.
    pub fn measure(engine: &Engine, rounds: u32) -> Outcome<Self> {
        say("ten thousand published ports");
        let mut found = Self::default();
        for _ in 0..rounds {
            for wish in WISHES {
                interrupt::check()?;
                let took = timed(engine, || wish.by_cli(engine))?;
                found.by_cli.entry(wish).or_default().push(took);
                let body = wish.body();
                let took = timed(engine, || by_engine(engine, &body))?;
                found.by_engine.entry(wish).or_default().push(took);
            }
        }
        Ok(found)
    }

    /// A row for each wish.
    pub fn table(&self) -> Table {
        let columns = [
            "",
            "docker run -d, ms: median (best)",
            "create and start without the CLI, ms",
            "is to be",
        ];
        let mut table = Table::new("Publishing ports", columns.map(String::from));
        for (wish, by_cli) in &self.by_cli {
            let (Some(by_cli), Some(by_engine)) =
                (summary(by_cli), self.by_engine.get(wish).and_then(|all| summary(all)))
            else {
                continue;
            };
            let target = match wish {
                Wish::Range(_) => format!("< {LIMIT:.0} {}", if by_engine.0 < LIMIT { "✓" } else { "✗" }),
                _ => String::new(),
            };
            let shown = |(median, best): (f64, f64)| format!("{median:.0} ({best:.0})");
            table.row([wish.to_string(), shown(by_cli), shown(by_engine), target]);
        }
        table
    }
}

impl Wish {
    /// Host's and container's ports.
    fn ports(self) -> impl Iterator<Item = (u32, u32)> {
        let count = match self {
            Self::Nothing => 0,
            Self::Range(count) | Self::Singles(count) => count,
        };
        (0..count).map(|offset| (FIRST + offset, FIRST + offset))
    }

    fn by_cli(self, engine: &Engine) -> Outcome {
        let words: Vec<String> = match self {
            Self::Nothing => Vec::new(),
            Self::Range(count) => {
                let range = format!("{FIRST}-{}", FIRST + count - 1);
                vec![String::from("-p"), format!("{range}:{range}")]
            }
            Self::Singles(_) => {
                let each = self.ports().map(|(host, container)| format!("{host}:{container}"));
                each.flat_map(|port| [String::from("-p"), port]).collect()
            }
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        engine.run(NAME, &words, &["sleep", "1000000"])
    }

    /// What the CLI makes of it.
    fn body(self) -> String {
        let (mut exposed, mut bound) = (Map::new(), Map::new());
        for (host, container) in self.ports() {
            let name = format!("{container}/tcp");
            exposed.insert(name.clone(), json!({}));
            bound.insert(name, json!([{"HostIp": "", "HostPort": host.to_string()}]));
        }
        json!({
            "Image": image::NAME,
            "Cmd": ["sleep", "1000000"],
            "ExposedPorts": Value::Object(exposed),
            "HostConfig": {"PortBindings": Value::Object(bound)},
        })
        .to_string()
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no port"),
            Self::Range(count) => write!(f, "{count} ports as a range"),
            Self::Singles(count) => write!(f, "{count} ports, each by itself"),
        }
    }
}

fn by_engine(engine: &Engine, body: &str) -> Outcome {
    let socket = engine.socket();
    let path = format!("/containers/create?name={NAME}");
    let id = client::id_in(&client::ask(&socket, "POST", &path, body)?.text()?)?;
    client::ask(&socket, "POST", &format!("/containers/{id}/start"), "")?.text()?;
    Ok(())
}

/// Milliseconds that the container takes to start; it is removed afterwards.
fn timed(engine: &Engine, start: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let begun = Instant::now();
    let started = start();
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    // also after a failure: others are measured in this place
    let removed = step::output(&mut engine.docker(&["rm", "--force", NAME]));
    started?;
    removed?;
    Ok(took)
}

/// Median and best.
fn summary(all: &[f64]) -> Option<(f64, f64)> {
    let best = all.iter().copied().reduce(f64::min)?;
    Some((median(all.to_vec())?, best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_spelt_out_as_the_cli_does_it() {
        let body: Value = serde_json::from_str(&Wish::Range(3).body()).unwrap();
        assert_eq!(body["HostConfig"]["PortBindings"]["20002/tcp"][0]["HostPort"], "20002");
        assert_eq!(body["ExposedPorts"].as_object().unwrap().len(), 3);
    }
}
