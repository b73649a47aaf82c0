//! What a run found: as tables for people, as JSON, as the page of the documentation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::engine::Kind;
use super::figure::Figure;
use super::launch::Launch;
use super::machine::{BUSY, Machine};
use super::memory::Memory;
use super::path::Path;
use super::sample::{Samples, Summary};
use super::scale::Scale;
use super::table::Table;

/// `docker run --rm true` by Sluice, ms.
const LAUNCH_TARGET: f64 = 40.0;
/// Ten of them at once, ms.
const TOGETHER_TARGET: f64 = 250.0;
/// Sluice without containers, MiB.
const IDLE_TARGET: f64 = 20.0;
/// What a container adds in processes, MiB.
const SHIM_TARGET: f64 = 0.5;

/// A whole run.
pub struct Report {
    /// What it ran on.
    pub machine: Machine,
    /// How often each was measured.
    pub rounds: u32,
    /// For how long each, seconds.
    pub seconds: u32,
    /// Load average before the first round and after the last.
    pub load: (f64, f64),
    /// The network.
    pub samples: Samples,
    /// Start-up.
    pub launches: Vec<Launch>,
    /// Memory.
    pub memory: Vec<(Kind, Memory)>,
    /// With full tables.
    pub scale: Option<Scale>,
    /// What could not be measured, in sentences.
    pub failures: Vec<String>,
}

impl Report {
    /// For people at a terminal.
    pub fn text(&self) -> String {
        let mut text: String = self.tables().iter().map(Table::text).collect();
        text.push_str("\nbest (median) ×ratio of the best to the bare veth pair's best (median of the ratios of each round); ✓ and ✗ are about Sluice's best\n");
        for failure in &self.failures {
            text.push_str(&format!("not measured: {failure}\n"));
        }
        text
    }

    /// `docs/benchmarks.md`.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Benchmarks\n\n\
             Written by `cargo xtask bench --write`; do not edit.\n\n\
             {}\n\n\
             {} rounds; in each round every engine was measured once on every path, one after the other, for {} s. \
             Load average {:.1} before and {:.1} after.{}\n\n{METHOD}\n",
            self.machine.described(),
            self.rounds,
            self.seconds,
            self.load.0,
            self.load.1,
            if self.load.0 > BUSY { NOISY } else { "" },
        );
        text.push_str("## Figures\n\n");
        for table in self.tables() {
            text.push_str(&table.markdown());
        }
        if !self.failures.is_empty() {
            text.push_str("### Not measured\n\n");
            for failure in &self.failures {
                text.push_str(&format!("- {failure}\n"));
            }
        }
        format!("{}\n", text.trim_end())
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<Table> = Path::ALL.into_iter().map(|path| self.path(path)).collect();
        tables.push(self.start());
        tables.push(self.memory());
        tables.extend(
            self.scale
                .iter()
                .flat_map(|scale| [scale.table(), scale.publishing(), scale.networks()]),
        );
        tables.retain(|table| !table.is_empty());
        tables
    }

    fn path(&self, path: Path) -> Table {
        let kinds = self.samples.kinds();
        let columns = [String::new()]
            .into_iter()
            .chain(kinds.iter().map(Kind::to_string))
            .chain([String::from("Sluice is to reach")]);
        let mut table = Table::new(path.to_string(), columns);
        for &figure in path.figures().iter().filter(|figure| self.samples.has(path, **figure)) {
            let summaries: Vec<_> = kinds
                .iter()
                .map(|kind| (*kind, self.samples.summary(path, figure, *kind)))
                .collect();
            let sluice = summaries
                .iter()
                .find(|(kind, _)| *kind == Kind::Sluice)
                .and_then(|(_, summary)| summary.as_ref()?.ratio);
            let cells = summaries.iter().map(|(kind, summary)| {
                summary
                    .as_ref()
                    .map_or_else(|| String::from("–"), |found| cell(figure, *kind, found))
            });
            table.row(
                [format!("{figure}, {}", figure.unit())]
                    .into_iter()
                    .chain(cells)
                    .chain([target(path, figure, sluice)]),
            );
        }
        table
    }

    fn start(&self) -> Table {
        let columns = ["", "one, ms: median (best)", "ten at once, ms", "Sluice is to reach"];
        let mut table = Table::new("docker run --rm IMAGE true", columns.map(String::from));
        for launch in &self.launches {
            let Some(median) = launch.median() else { continue };
            let best = launch.single.iter().copied().reduce(f64::min).unwrap_or(median);
            table.row([
                launch.kind.to_string(),
                format!("{median:.0} ({best:.0})"),
                launch
                    .median_together()
                    .map_or_else(|| String::from("–"), |median| format!("{median:.0}")),
                below(
                    launch.kind,
                    &[
                        (median, LAUNCH_TARGET, "ms"),
                        (launch.median_together().unwrap_or(f64::INFINITY), TOGETHER_TARGET, "ms"),
                    ],
                ),
            ]);
        }
        table
    }

    fn memory(&self) -> Table {
        let columns = [
            "",
            "engine without containers, MiB",
            "processes of each container, MiB",
            "Sluice is to reach",
        ];
        let mut table = Table::new("Memory (PSS)", columns.map(String::from));
        for (kind, memory) in &self.memory {
            table.row([
                kind.to_string(),
                format!("{:.1}", memory.idle),
                format!("{:.2}", memory.per_container),
                below(
                    *kind,
                    &[
                        (memory.idle, IDLE_TARGET, "MiB"),
                        (memory.per_container, SHIM_TARGET, "MiB"),
                    ],
                ),
            ]);
        }
        table
    }

    /// Everything, also each sample.
    pub fn json(&self) -> Value {
        let mut paths = BTreeMap::new();
        for path in Path::ALL {
            for figure in Figure::ALL {
                for kind in self.samples.kinds() {
                    let Some(found) = self.samples.summary(path, figure, kind) else {
                        continue;
                    };
                    let values: &mut BTreeMap<_, BTreeMap<_, _>> = paths.entry(path.key()).or_default();
                    values.entry(figure.key()).or_default().insert(
                        kind.key(),
                        json!({
                            "unit": figure.unit(),
                            "samples": found.values,
                            "best": found.best,
                            "median": found.median,
                            "ratio": found.ratio,
                            "median_ratio": found.median_ratio,
                            "target": (kind == Kind::Sluice).then(|| path.target(figure)).flatten(),
                        }),
                    );
                }
            }
        }
        let launches: BTreeMap<_, _> = self
            .launches
            .iter()
            .map(|launch| {
                (
                    launch.kind.key(),
                    json!({ "one_ms": launch.single, "ten_ms": launch.together }),
                )
            })
            .collect();
        let memory: BTreeMap<_, _> = self
            .memory
            .iter()
            .map(|(kind, memory)| {
                let value = json!({ "idle_mib": memory.idle, "per_container_mib": memory.per_container });
                (kind.key(), value)
            })
            .collect();
        json!({
            "machine": self.machine.json(),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "load": [self.load.0, self.load.1],
            "paths": paths,
            "run_true": launches,
            "memory": memory,
            "failures": self.failures,
        })
    }
}

const NOISY: &str = " The machine was busy with other things: ratios of streams and connections, even those above 1, mean little in this run.";

const METHOD: &str = "\
How to read it: **best (median) ×ratio (median)**, where the ratio is that of the best to the best of a bare veth pair between two namespaces in \
the same run, and its median is that of the ratios within each round. Noise only ever slows things, so the best is the figure to read and the median shows how noisy the run was. Round trips are to be trusted \
to a few per cent, the others to ten.

- Each engine has a host of its own, made of namespaces, on a veth pair to a namespace that stands for the LAN. Engines are driven by the same \
  docker CLI and run the same image; clients in containers are started by `docker exec`.
- TCP stream: iperf3, one stream, client on CPU 0, server on CPU 1; received.
- Half a round trip: sockperf ping-pong over TCP, both ends on one CPU, as sockperf prints it: the cost of the path without the wake-up of \
  another CPU.
- New connections: wrk with 16 connections at a time against one nginx worker, which answers six bytes and closes; client on CPU 0, server on \
  CPU 1.
- UDP: iperf3, datagrams of 64 bytes as fast as they can be sent; received.
- Memory: proportional set size of all processes of the engine (for Docker, dockerd and containerd), freshly started; what each of five \
  containers with one published port adds in processes (shims, proxies).
- With full tables: the best of each burden beside the best without, in a run of its own, where containers may speak to each other by links only \
  (`--icc=false`). Ports are published one by one; links are a container with so many exposed ports, and another that is linked to it; flows are answered \
  datagrams between two containers.
";

fn cell(figure: Figure, kind: Kind, found: &Summary) -> String {
    let values = format!("{} ({})", figure.shown(found.best), figure.shown(found.median));
    match found.ratio {
        Some(ratio) if kind != Kind::Bare => {
            let median = found.median_ratio.unwrap_or(ratio);
            format!("{values} ×{ratio:.2} ({median:.2})")
        }
        _ => values,
    }
}

fn target(path: Path, figure: Figure, ratio: Option<f64>) -> String {
    let Some(target) = path.target(figure) else {
        return String::new();
    };
    let less = figure.less_is_better();
    // As it is shown: a ratio that reads as the target has reached it.
    let reached = ratio
        .map(|ratio| (ratio * 100.0).round() / 100.0)
        .map(|ratio| match less {
            true => ratio <= target,
            false => ratio >= target,
        });
    format!("{} {target:.2}{}", if less { "≤" } else { "≥" }, mark(reached))
}

/// Targets of Sluice: value, limit, unit.
fn below(kind: Kind, targets: &[(f64, f64, &str)]) -> String {
    if kind != Kind::Sluice {
        return String::new();
    }
    let marks: Vec<String> = targets
        .iter()
        .map(|(value, limit, unit)| format!("< {limit} {unit}{}", mark(Some(value < limit))))
        .collect();
    marks.join(", ")
}

fn mark(reached: Option<bool>) -> &'static str {
    match reached {
        Some(true) => " ✓",
        Some(false) => " ✗",
        None => "",
    }
}
