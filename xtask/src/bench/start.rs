//! `cargo xtask bench start`: how long a container takes from the command to its end, beside Docker, and where the time goes, step by step.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use super::client;
use super::engine::{Engine, Kind};
use super::image::{self, Image};
use super::interrupt;
use super::launch;
use super::machine::{self, Machine};
use super::place::Place;
use super::sample::median;
use super::table::Table;
use super::timeline::{self, Row};
use super::workshop::Workshop;
use crate::repository;
use crate::step::{self, Doing, Outcome, say};

/// Milliseconds `docker run --rm true` is to take, alone.
const ALONE: f64 = 40.0;
/// And ten at once.
const TOGETHER: f64 = 250.0;
/// Create, start, wait and remove, without the docker CLI.
const INSIDE: f64 = 15.0;

/// Samples in milliseconds, by what was measured.
#[derive(Default)]
pub struct Figures(Vec<(String, Vec<f64>)>);

impl Figures {
    fn add(&mut self, what: &str, value: f64) {
        match self.0.iter_mut().find(|(other, _)| other == what) {
            Some((_, values)) => values.push(value),
            None => self.0.push((what.to_owned(), vec![value])),
        }
    }

    fn median(&self, what: &str) -> Option<f64> {
        let (_, values) = self.0.iter().find(|(other, _)| other == what)?;
        median(values.clone())
    }

    fn shown(&self, what: &str) -> String {
        let Some((_, values)) = self.0.iter().find(|(other, _)| other == what) else {
            return String::from("–");
        };
        let least = values.iter().copied().reduce(f64::min).unwrap_or_default();
        let median = median(values.clone()).unwrap_or_default();
        format!("{median:.1} ({least:.1})")
    }
}

const RUN: &str = "`docker run --rm true`";
const TEN: &str = "ten of them at once";
const CLI: &str = "the docker CLI alone (`docker version`)";
const STEPS: [&str; 3] = ["create", "start", "wait until it has ended and is removed"];
const ALL_STEPS: &str = "without the CLI: create, start, wait, remove (`--rm`)";
const RUNC: &str = "runc, without a network and an engine";

/// Everything that was found.
pub struct Start {
    engines: Vec<(Kind, Figures)>,
    runc: Figures,
    rows: Vec<Row>,
    runs: usize,
    machine: Machine,
    load: (f64, f64),
}

impl Start {
    /// Measures: every engine in turn, `rounds` times.
    pub fn measure(engines: &[Engine], image: &Image, workshop: &Workshop, rounds: u32) -> Outcome<Self> {
        let before = machine::load();
        let mut found: Vec<(Kind, Figures)> = engines.iter().map(|engine| (engine.kind, Figures::default())).collect();
        let runc = Runc::prepare(image, workshop)?;
        let mut alone = Figures::default();
        for engine in engines {
            launch::single(engine)?;
        }
        for round in 0..rounds {
            for (engine, (_, figures)) in engines.iter().zip(&mut found) {
                interrupt::check()?;
                figures.add(RUN, launch::single(engine)?);
                figures.add(
                    CLI,
                    milliseconds(|| step::output(&mut engine.docker(&["version"])).map(drop))?,
                );
                through_the_api(engine, figures)?;
                if round % 3 == 0 {
                    figures.add(TEN, launch::together(engine)?);
                }
            }
            if let Some(runc) = &runc {
                alone.add(RUNC, runc.run(round)?);
            }
        }
        Ok(Self {
            engines: found,
            runc: alone,
            rows: Vec::new(),
            runs: 0,
            machine: Machine::look(),
            load: (before, machine::load()),
        })
    }

    /// Takes `docker run --rm true` apart, on a Sluice that tells of its steps.
    pub fn take_apart(&mut self, engine: &Engine, rounds: u32) -> Outcome {
        for _ in 0..3 {
            launch::single(engine)?;
        }
        let mut bounds = Vec::new();
        for _ in 0..rounds {
            interrupt::check()?;
            let first = timeline::now();
            launch::single(engine)?;
            bounds.push((first, timeline::now()));
        }
        let steps: Vec<timeline::Step> = engine.log_text().lines().filter_map(timeline::read).collect();
        let runs: Vec<_> = bounds
            .into_iter()
            .map(|(first, last)| {
                let mut own: Vec<_> = steps
                    .iter()
                    .filter(|step| step.begun >= first && step.begun < last)
                    .cloned()
                    .collect();
                own.sort_by_key(|step| step.begun);
                let heard = own.iter().map(|step| step.begun).min().unwrap_or(last);
                let told = own
                    .iter()
                    .map(|step| step.begun + step.took)
                    .filter(|end| *end <= last)
                    .max()
                    .unwrap_or(last);
                let cli = |name: &str, begun, ended| timeline::Step {
                    path: vec![name.to_owned()],
                    begun,
                    took: ended - begun,
                };
                own.insert(0, cli("(the CLI, until it asks)", first, heard));
                own.push(cli("(the CLI, after the last step)", told, last));
                (first, own)
            })
            .collect();
        self.runs = runs.len();
        self.rows = timeline::sum_up(&runs);
        // What comes by chance, like a check every ten seconds, is no step of a run.
        self.rows.retain(|row| row.runs * 2 > self.runs);
        Ok(())
    }

    /// For people at a terminal.
    pub fn text(&self) -> String {
        [self.whole(), self.apart()].iter().map(Table::text).collect()
    }

    /// `docs/start.md`.
    pub fn markdown(&self) -> String {
        let text = format!(
            "# From the command to the end of a container\n\nWritten by `cargo xtask bench start --write`; do not edit.\n\n{}\n\n\
             Load average {:.1} before and {:.1} after.{}\n\n{METHOD}\n{}{}",
            self.machine.described(),
            self.load.0,
            self.load.1,
            if self.load.0 > machine::BUSY { NOISY } else { "" },
            self.whole().markdown(),
            self.apart().markdown(),
        );
        format!("{}\n", text.trim_end())
    }

    fn whole(&self) -> Table {
        let columns = [String::from("milliseconds: median (best)")]
            .into_iter()
            .chain(self.engines.iter().map(|(kind, _)| kind.to_string()))
            .chain([String::from("Sluice is to reach")]);
        let mut table = Table::new("The whole", columns);
        let steps = STEPS.map(|step| format!("… {step}"));
        let what = [RUN, TEN, CLI, ALL_STEPS]
            .into_iter()
            .chain(steps.iter().map(String::as_str));
        for what in what {
            let limit = match what {
                RUN => Some(ALONE),
                TEN => Some(TOGETHER),
                ALL_STEPS => Some(INSIDE),
                _ => None,
            };
            let own = self.engines.iter().find(|(kind, _)| *kind == Kind::Sluice);
            let own = own.and_then(|(_, figures)| figures.median(what));
            let target = limit.map_or_else(String::new, |limit| {
                let mark = own.map_or("", |own| if own < limit { " ✓" } else { " ✗" });
                format!("< {limit:.0}{mark}")
            });
            let cells = self.engines.iter().map(|(_, figures)| figures.shown(what));
            table.row([what.to_owned()].into_iter().chain(cells).chain([target]));
        }
        if self.runc.median(RUNC).is_some() {
            let cells = self.engines.iter().skip(1).map(|_| String::new());
            let row = [RUNC.to_owned(), self.runc.shown(RUNC)].into_iter().chain(cells);
            table.row(row.chain([String::new()]));
        }
        table
    }

    fn apart(&self) -> Table {
        let columns = ["step", "begins at, ms", "takes, ms", "the least, ms"].map(String::from);
        let mut table = Table::new(format!("{RUN} by Sluice, step by step"), columns);
        for row in &self.rows {
            let name = row.path.last().map(String::as_str).unwrap_or_default();
            let depth = "· ".repeat(row.path.len() - 1);
            table.row([
                format!("{depth}{name}"),
                format!("{:.1}", row.begun),
                format!("{:.2}", row.took),
                format!("{:.2}", row.least),
            ]);
        }
        table
    }
}

const NOISY: &str = " The machine was busy with other things: read the best figures, and the order of the steps.";

const METHOD: &str = "\
Each engine has a host of its own, made of namespaces, and runs the same image; every round measures each of them once. *Ten at once* are ten \
docker CLIs started together, until the last has ended. *Without the CLI*: the same requests over the engine's socket, one after the other; \
*start* ends when the process runs.

The steps are those that the daemon tells of with `--log-level debug`, which costs a little by itself. Those that stand at the same time go on \
beside each other. A step in `…` is a request as the daemon answers it; that of `wait` has its answer's head at once and its body at the end. \
`start`, `remove` and so on are the engine's stories, `round` a round of the agent: the first makes the endpoint, the second takes it away.
";

/// Create, start, wait and remove by three requests: the engine removes.
fn through_the_api(engine: &Engine, figures: &mut Figures) -> Outcome {
    let socket = engine.socket();
    let body = json!({"Image": image::NAME, "Cmd": ["true"], "HostConfig": {"AutoRemove": true}}).to_string();
    let begun = Instant::now();
    let mut last = 0.0;
    let mut lap = |figures: &mut Figures, step: &str| {
        let now = begun.elapsed().as_secs_f64() * 1000.0;
        figures.add(&format!("… {step}"), now - last);
        last = now;
    };
    let id = client::id_in(&client::ask(&socket, "POST", "/containers/create", &body)?.text()?)?;
    lap(figures, STEPS[0]);
    let waiting = client::ask(&socket, "POST", &format!("/containers/{id}/wait?condition=removed"), "")?;
    client::ask(&socket, "POST", &format!("/containers/{id}/start"), "")?.text()?;
    lap(figures, STEPS[1]);
    waiting.text()?;
    lap(figures, STEPS[2]);
    figures.add(ALL_STEPS, begun.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

fn milliseconds(work: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// The runtime by itself, in a place of its own.
struct Runc {
    place: Place,
    bundle: String,
    state: String,
}

impl Runc {
    /// A bundle of the image's files; none: there is no runc here.
    fn prepare(image: &Image, workshop: &Workshop) -> Outcome<Option<Self>> {
        if repository::program("runc").is_none() {
            say("runc is left out: it is not installed");
            return Ok(None);
        }
        let bundle = workshop.path().join("bundle");
        fs::create_dir_all(&bundle).doing(|| format!("make {}", bundle.display()))?;
        step::output(Command::new("runc").args(["spec", "--bundle"]).arg(&bundle))?;
        let config = bundle.join("config.json");
        let text = fs::read_to_string(&config).doing(|| format!("read {}", config.display()))?;
        let mut spec: serde_json::Value =
            serde_json::from_str(&text).doing(|| String::from("understand runc's spec"))?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["true"]);
        spec["root"]["path"] = json!(image.root());
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/true", workshop.cgroup("runc")));
        fs::write(&config, spec.to_string()).doing(|| format!("write {}", config.display()))?;
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        Ok(Some(Self {
            place: Place::open()?,
            bundle: shown(&bundle),
            state: shown(&workshop.path().join("runc")),
        }))
    }

    fn run(&self, round: u32) -> Outcome<f64> {
        let name = format!("true-{round}");
        let mut command = self.place.command("runc");
        command.args(["--root", &self.state, "run", "--bundle", &self.bundle, &name]);
        milliseconds(|| step::output(&mut command).map(drop))
    }
}
