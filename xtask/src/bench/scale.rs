//! Does size matter? The same paths with few and with many published ports, and with many live flows. A figure is not to get worse from the
//! smallest to the largest.

use std::collections::HashMap;
use std::fmt;

use super::engine::{Engine, Kind};
use super::exchange;
use super::figure::Figure;
use super::interrupt;
use super::networks::Networks;
use super::path::Path;
use super::publishing::Publishing;
use super::sample::median;
use super::site::Site;
use super::table::Table;
use crate::step::{self, Doing, Failure, Outcome, say};

/// How much worse a figure may be under a burden, as a ratio to the one without.
const TOLERANCE: f64 = 0.05;
/// The first of the ports that a burden publishes.
const FIRST_PORT: u32 = 20_000;
/// How many flows Sluice has room for: those of the largest burden, and those of the tools.
const ROOM: u32 = 600_000;
/// The container that publishes or exposes them.
const BURDEN: &str = "burden";
/// The one that is linked to it.
const PARTNER: &str = "partner";

/// What the tables hold besides what is measured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Burden {
    /// So many published ports, each asked for by itself.
    Ports(u32),
    /// So many ports that a link opens from one container to another: without links the containers of this site may not speak to each other.
    Links(u32),
    /// So many answered flows of UDP between two containers.
    Flows(u32),
}

impl Burden {
    const ALL: [Self; 4] = [
        Self::Ports(1_000),
        Self::Ports(10_000),
        Self::Links(1_000),
        Self::Flows(500_000),
    ];
}

impl fmt::Display for Burden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(ports) => write!(f, "{ports} published ports"),
            Self::Links(links) => write!(f, "{links} links"),
            Self::Flows(flows) => write!(f, "{flows} live flows"),
        }
    }
}

/// What its daemon is told for that.
pub fn words() -> Vec<String> {
    let room = ROOM.to_string();
    ["--flows", &room, "--flows-per-container", &room, "--icc=false"]
        .map(String::from)
        .to_vec()
}

/// What is measured under each burden.
const WANTED: [(Path, Figure); 5] = [
    (Path::Containers, Figure::RoundTrip),
    (Path::Containers, Figure::Connections),
    (Path::Published, Figure::RoundTrip),
    (Path::Published, Figure::Connections),
    (Path::Outward, Figure::Connections),
];

/// How often, while a burden lies there, each figure is measured with and without it.
const TURNS: u32 = 3;

/// What was found.
#[derive(Default)]
pub struct Scale {
    /// Without the burden and with it, one right after the other.
    pairs: HashMap<(Burden, Path, Figure), Vec<(f64, f64)>>,
    /// How long ports took to be published.
    publishing: Publishing,
    /// How long many networks took to come and go.
    networks: Networks,
}

impl Scale {
    /// Measures on two sites that are alike, the second of which bears the burdens: on a machine that is not our own only what is measured within two
    /// seconds can be compared.
    pub fn measure(plain: &Site, laden: &Site, rounds: u32, seconds: u32, failures: &mut Vec<String>) -> Outcome<Self> {
        let mut scale = Self::default();
        let Some(engine) = laden.engine(Kind::Sluice) else {
            return Err(Failure::new("Sluice does not run: its size cannot be measured"));
        };
        for round in 0..rounds {
            say(format_args!("round {} of {rounds}, with full tables", round + 1));
            for burden in Burden::ALL {
                interrupt::check()?;
                let measured = burden
                    .lay(engine)
                    .and_then(|()| scale.compare(plain, laden, burden, seconds));
                burden.lift(engine);
                if let Err(failure) = measured {
                    interrupt::check()?;
                    failures.push(format!("with {burden}, round {}: {failure}", round + 1));
                }
            }
        }
        match Publishing::measure(engine, rounds) {
            Ok(publishing) => scale.publishing = publishing,
            Err(failure) => failures.push(format!("with many ports: {failure}")),
        }
        match Networks::measure(engine) {
            Ok(networks) => scale.networks = networks,
            Err(failure) => failures.push(format!("with many networks: {failure}")),
        }
        Ok(scale)
    }

    /// How long many networks took to come and go.
    pub fn networks(&self) -> Table {
        self.networks.table()
    }

    fn compare(&mut self, plain: &Site, laden: &Site, burden: Burden, seconds: u32) -> Outcome {
        for turn in 0..TURNS {
            for (path, figure) in WANTED {
                interrupt::check()?;
                let measure = |site: &Site| site.measure(path, figure, Kind::Sluice, seconds);
                // neither is always the first
                let pair = if turn % 2 == 0 {
                    let without = measure(plain)?;
                    (without, measure(laden)?)
                } else {
                    let with = measure(laden)?;
                    (measure(plain)?, with)
                };
                self.pairs.entry((burden, path, figure)).or_default().push(pair);
            }
        }
        Ok(())
    }

    /// A row for each path and figure, a column for each burden.
    pub fn table(&self) -> Table {
        let columns = [String::new(), String::from("nothing else")]
            .into_iter()
            .chain(Burden::ALL.map(|burden| burden.to_string()))
            .chain([String::from("is to stay")]);
        let title = "With full tables, Sluice alone: the best, and the median of the ratios to what was measured beside it without them";
        let mut table = Table::new(title, columns);
        for (path, figure) in WANTED {
            let pairs = |burden| self.pairs.get(&(burden, path, figure)).into_iter().flatten().copied();
            let best = |values: &mut dyn Iterator<Item = f64>| values.reduce(|a, b| figure.better(a, b));
            let Some(alone) = best(&mut Burden::ALL.into_iter().flat_map(pairs).map(|(without, _)| without)) else {
                continue;
            };
            let mut worst: f64 = 1.0;
            let cells: Vec<String> = Burden::ALL
                .into_iter()
                .map(|burden| {
                    let ratio = median(pairs(burden).map(|(without, with)| with / without).collect());
                    let (Some(best), Some(ratio)) = (best(&mut pairs(burden).map(|(_, with)| with)), ratio) else {
                        return String::from("–");
                    };
                    worst = worst.min(if figure.less_is_better() { 1.0 / ratio } else { ratio });
                    format!("{} ×{ratio:.2}", figure.shown(best))
                })
                .collect();
            let mark = if worst >= 1.0 - TOLERANCE { "✓" } else { "✗" };
            table.row(
                [format!("{path}: {figure}, {}", figure.unit()), figure.shown(alone)]
                    .into_iter()
                    .chain(cells)
                    .chain([format!("within {:.0} % {mark}", TOLERANCE * 100.0)]),
            );
        }
        table
    }

    /// How long ports took to be published.
    pub fn publishing(&self) -> Table {
        self.publishing.table()
    }
}

impl Burden {
    /// Lays it on the tables.
    fn lay(self, engine: &Engine) -> Outcome {
        match self {
            Self::Ports(ports) => {
                let published: Vec<String> = (FIRST_PORT..FIRST_PORT + ports)
                    .flat_map(|port| [String::from("-p"), format!("{port}:{port}")])
                    .collect();
                let published: Vec<&str> = published.iter().map(String::as_str).collect();
                engine.run(BURDEN, &published, &["sleep", "1000000"])?;
            }
            Self::Links(links) => {
                let exposed = format!("{FIRST_PORT}-{}", FIRST_PORT + links - 1);
                engine.run(BURDEN, &["--expose", &exposed], &["sleep", "1000000"])?;
                engine.run(PARTNER, &["--link", BURDEN], &["sleep", "1000000"])?;
            }
            Self::Flows(flows) => lay_flows(engine, flows)?,
        }
        Ok(())
    }

    /// Takes it off again. Flows die with the container.
    fn lift(self, engine: &Engine) {
        // What is not there cannot be removed, and need not.
        let _ = step::output(&mut engine.docker(&["rm", "--force", PARTNER, BURDEN]));
    }
}

/// Has two containers exchange datagrams: their flows end with them.
fn lay_flows(engine: &Engine, flows: u32) -> Outcome {
    engine.run(
        BURDEN,
        &["--expose", &exchange::answering_ports()],
        &["sleep", "1000000"],
    )?;
    engine.run(PARTNER, &["--link", BURDEN], &["sleep", "1000000"])?;
    let process = |name: &str| step::output(&mut engine.docker(&["inspect", "-f", "{{.State.Pid}}", name]));
    let own = std::env::current_exe().doing(|| String::from("find this program"))?;
    let mut exchange = engine.host.command(&own.to_string_lossy());
    exchange.args(["exchange", "--flows", &flows.to_string()]);
    exchange.args(["--from", &process(PARTNER)?, "--to", &process(BURDEN)?]);
    exchange.args(["--address", &engine.address(BURDEN)?]);
    step::output(&mut exchange).map(drop)
}
