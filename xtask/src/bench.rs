//! `cargo xtask bench`: Sluice beside its peers and a bare veth pair, all in one run, interleaved.
//!
//! Everything happens in namespaces: each engine has a host of its own, so no other engine of this machine is touched, and what a run made goes
//! with it, also when it is interrupted.

mod client;
mod cluster;
mod crowd;
mod engine;
mod exchange;
mod figure;
mod image;
mod interrupt;
mod launch;
mod layers;
mod machine;
mod memory;
mod names;
mod networks;
mod overlay;
mod path;
mod place;
mod profile;
mod programs;
mod publishing;
mod report;
mod sample;
mod scale;
mod site;
mod start;
mod streams;
mod table;
mod timeline;
mod workshop;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::build;
use crate::repository;
use crate::setup::{self, Group};
use crate::step::{self, Doing, Failure, Outcome, say};
use crowd::Crowd;
use engine::Kind;
pub use exchange::Exchange;
use figure::Figure;
use image::Image;
use layers::Layers;
use machine::Machine;
use memory::Memory;
pub use names::Ask;
use overlay::Overlay;
use path::Path;
use publishing::Publishing;
use report::Report;
use sample::Samples;
use scale::Scale;
use site::{Site, Tools};
use start::Start;
use streams::Streams;
use workshop::Workshop;

/// Measure Sluice, its peers and a bare veth pair, interleaved in one run (as root, or with sudo).
#[derive(Args)]
pub struct Bench {
    /// One part by itself, in depth. start: from the command to the end of a container, step by step (docs/start.md); crowd: three hundred
    /// containers at once (docs/crowd.md); streams: a gigabyte through a container, in and out (docs/streams.md); overlay: from host to host, beside the
    /// kernel's VXLAN and Docker's overlay (docs/overlay-speed.md); cluster: a thousand hosts with a
    /// hundred containers each, seen by one more (docs/large-cluster.md); layers: layers of images laid down, beside tar (docs/layers.md).
    #[arg(value_enum)]
    part: Option<Part>,
    /// How often each engine is measured on each path.
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// For how long at a time. Where the machine has other things to do, many short samples find a quiet moment.
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// One short round, to see that everything works; not for figures.
    #[arg(long)]
    quick: bool,
    /// Write the figures to docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Only these: engines (docker, docker-no-proxy, sluice), paths (container-to-container, lan-to-published, host-to-published,
    /// container-to-lan), figures (stream, rtt, conn, udp), start, memory, scale; or, each alone, programs: what a packet costs, dns: how names are told, and ports: ten thousand published ones. May be given several times; the bare veth pair is always
    /// there.
    #[arg(long, num_args = 1.., value_parser = Choice::read)]
    only: Vec<Choice>,
    /// Instead of measuring, profile this path (the figures chosen by --only) with perf, beside the bare veth pair.
    #[arg(long, value_parser = of_path, value_name = "PATH")]
    profile: Option<Path>,
    /// Run the tools in the networks of the containers, but outside of their cgroups and system call filters: what remains is the network.
    #[arg(long, conflicts_with = "write")]
    network_only: bool,
    /// The binaries are here; build nothing.
    #[arg(long, hide = true)]
    binaries: Option<PathBuf>,
}

/// A part that is measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Start,
    Crowd,
    Streams,
    Overlay,
    Cluster,
    Layers,
}

/// A word after `--only`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Engine(Kind),
    Path(Path),
    Figure(Figure),
    Start,
    Memory,
    Scale,
    Programs,
    Names,
    Ports,
}

impl Choice {
    fn read(word: &str) -> Result<Self, String> {
        let engines = Kind::ALL.map(|kind| (kind.key(), Self::Engine(kind)));
        let paths = Path::ALL.map(|path| (path.key(), Self::Path(path)));
        let figures = Figure::ALL.map(|figure| (figure.key(), Self::Figure(figure)));
        engines
            .into_iter()
            .chain(paths)
            .chain(figures)
            .chain([
                ("start", Self::Start),
                ("memory", Self::Memory),
                ("scale", Self::Scale),
                ("programs", Self::Programs),
                ("dns", Self::Names),
                ("ports", Self::Ports),
            ])
            .find_map(|(key, choice)| (key == word).then_some(choice))
            .ok_or_else(|| String::from("no engine, path or figure of this name"))
    }
}

fn of_path(word: &str) -> Result<Path, String> {
    Path::ALL
        .into_iter()
        .find(|path| path.key() == word)
        .ok_or_else(|| format!("one of {}", Path::ALL.map(Path::key).join(", ")))
}

impl Bench {
    /// Builds, measures, shows.
    pub fn run(&self) -> Outcome {
        if self.only.contains(&Choice::Programs) {
            return self.measure_programs();
        }
        if self.part == Some(Part::Layers) {
            return self.measure_layers();
        }
        let binaries = match &self.binaries {
            Some(binaries) => binaries.clone(),
            None => self.build()?,
        };
        if !setup::is_root() {
            return self.run_as_root(&binaries);
        }
        interrupt::watch()?;
        match self.part {
            Some(Part::Start) => return self.measure_start(&binaries),
            Some(Part::Crowd) => return self.measure_crowd(&binaries),
            Some(Part::Streams) => return self.measure_streams(&binaries),
            Some(Part::Overlay) => return self.measure_overlay(&binaries),
            Some(Part::Cluster) => return self.write_page("docs/large-cluster.md", &cluster::measure(&binaries)?),
            // that needs no engine and was done above
            Some(Part::Layers) | None => {}
        }
        let workshop = Workshop::open()?;
        let image = Image::make(workshop.path())?;
        // For full tables alone nobody else has to be started.
        let kinds = if self.only == [Choice::Scale] {
            Vec::new()
        } else {
            self.kinds()
        };
        let mut site = Site::open(&kinds, self.tools(), &workshop, &binaries, &[])?;
        let memory = self.memory(&site, &image)?;
        if self.only.contains(&Choice::Names) {
            let table = names::measure(&site.engines, self.rounds().min(4), self.seconds)?;
            println!("{}", table.text());
            return Ok(());
        }
        if self.only.contains(&Choice::Ports) {
            let engine = site
                .engine(Kind::Sluice)
                .ok_or_else(|| Failure::new("Sluice does not run: there is nothing to measure"))?;
            println!("{}", Publishing::measure(engine, self.rounds())?.table().text());
            return Ok(());
        }
        site.populate(&image)?;
        if let Some(path) = self.profile {
            return self.show_profile(&site, path);
        }
        let mut report = self.measure(&site, memory)?;
        drop(site);
        if self.wants_other(Choice::Scale) && self.kinds().contains(&Kind::Sluice) {
            report.scale = self.scale(&workshop, &image, &binaries, &mut report.failures);
        }
        println!("{}", report.text());
        self.keep(&report)
    }

    /// A container's way, step by step.
    fn measure_start(&self, binaries: &std::path::Path) -> Outcome {
        let workshop = Workshop::open()?;
        let image = Image::make(workshop.path())?;
        let rounds = if self.quick { 4 } else { self.rounds * 3 };
        let site = Site::open(&self.kinds_without_proxy(), self.tools(), &workshop, binaries, &[])?;
        for engine in &site.engines {
            engine.import(image.archive())?;
        }
        let mut found = Start::measure(&site.engines, &image, &workshop, rounds)?;
        drop(site);
        let annex = workshop.annex()?;
        let words = ["--log-level", "debug"].map(String::from);
        let site = Site::open(&[Kind::Sluice], self.tools(), &annex, binaries, &words)?;
        for engine in &site.engines {
            engine.import(image.archive())?;
            found.take_apart(engine, rounds)?;
        }
        drop(site);
        println!("{}", found.text());
        self.write_page("docs/start.md", &found.markdown())
    }

    /// Hundreds of containers.
    fn measure_crowd(&self, binaries: &std::path::Path) -> Outcome {
        let workshop = Workshop::open()?;
        let image = Image::make(workshop.path())?;
        let mut site = Site::open(&[Kind::Sluice], self.tools(), &workshop, binaries, &[])?;
        let engine = site
            .engines
            .first_mut()
            .ok_or_else(|| Failure::new("Sluice does not run: there is nothing to measure"))?;
        // Importing an image takes memory that a daemon which finds its images does not.
        engine.import(image.archive())?;
        engine.restart()?;
        let found = Crowd::measure(engine)?;
        drop(site);
        println!("{}", found.text());
        self.write_page("docs/crowd.md", &found.markdown())
    }

    /// A gigabyte in and out.
    fn measure_streams(&self, binaries: &std::path::Path) -> Outcome {
        let workshop = Workshop::open()?;
        let image = Image::make(workshop.path())?;
        let site = Site::open(&self.kinds_without_proxy(), self.tools(), &workshop, binaries, &[])?;
        for engine in &site.engines {
            engine.import(image.archive())?;
        }
        let found = Streams::measure(&site.engines, self.quick)?;
        drop(site);
        println!("{}", found.text());
        self.write_page("docs/streams.md", &found.markdown())
    }

    /// From one host to another.
    fn measure_overlay(&self, binaries: &std::path::Path) -> Outcome {
        let workshop = Workshop::open()?;
        let image = Image::make(workshop.path())?;
        let found = Overlay::measure(&image, &workshop, binaries, self.rounds(), self.seconds)?;
        println!("{}", found.text());
        self.write_page("docs/overlay-speed.md", &found.markdown())
    }

    /// Layers of images beside `tar -x`.
    fn measure_layers(&self) -> Outcome {
        let programs = match &self.binaries {
            Some(programs) => programs.clone(),
            None => layers::build()?,
        };
        // nobody else may give files away
        if !setup::is_root() {
            return self.run_as_root(&programs);
        }
        interrupt::watch()?;
        let found = Layers::measure(&programs, self.rounds())?;
        println!("{}", found.text());
        self.write_page("docs/layers.md", &found.markdown())
    }

    /// Engines where a proxy has no part in what is measured.
    fn kinds_without_proxy(&self) -> Vec<Kind> {
        let mut kinds = self.kinds();
        kinds.retain(|kind| *kind != Kind::DockerWithoutProxy);
        kinds
    }

    /// Writes a page of the documentation, if that was asked for.
    fn write_page(&self, name: &str, text: &str) -> Outcome {
        if self.write {
            let page = repository::root().join(name);
            fs::write(&page, text).doing(|| format!("write {}", page.display()))?;
            say(format_args!("{} is written", page.display()));
        }
        Ok(())
    }

    /// The programs by themselves: no engine, no host.
    fn measure_programs(&self) -> Outcome {
        if self.only.len() > 1 {
            return Err(Failure::new("programs are measured alone: --only programs"));
        }
        setup::provide(&[Group::Build, Group::Test])?;
        build::ebpf()?;
        programs::run(self.write)
    }

    fn build(&self) -> Outcome<PathBuf> {
        setup::provide(&[Group::Build, Group::Test, Group::Bench])?;
        if !self.kinds().contains(&Kind::Sluice) {
            return Ok(repository::target().join("release"));
        }
        build::ebpf()?;
        build::binaries(true)
    }

    fn run_as_root(&self, binaries: &std::path::Path) -> Outcome {
        say("namespaces and eBPF need root: going on with sudo");
        let own = env::current_exe().doing(|| String::from("find this program"))?;
        let path = format!("PATH={}", env::var("PATH").unwrap_or_default());
        step::run(
            setup::as_root(["env", &path])
                .arg(own)
                .args(env::args_os().skip(1))
                .arg("--binaries")
                .arg(binaries),
        )
    }

    /// What is measured before there are containers. An engine that fails at it may do better on the network, so this is only noted.
    fn memory(&self, site: &Site, image: &Image) -> Outcome<Vec<(Kind, Outcome<Memory>)>> {
        let wanted = self.profile.is_none() && self.wants_other(Choice::Memory);
        if wanted {
            say("the engines come to rest, for their memory");
            thread::sleep(Duration::from_secs(3));
        }
        let mut measured = Vec::new();
        for engine in &site.engines {
            interrupt::check()?;
            let idle = memory::idle(engine);
            engine.import(image.archive())?;
            if wanted {
                measured.push((engine.kind, memory::measure(engine, idle)));
            }
        }
        interrupt::check()?;
        Ok(measured)
    }

    fn measure(&self, site: &Site, memory: Vec<(Kind, Outcome<Memory>)>) -> Outcome<Report> {
        let busy = machine::load();
        if busy > machine::BUSY {
            say(format_args!(
                "load average {busy:.1}: this machine has other things to do, the figures will suffer"
            ));
        }
        let mut report = Report {
            machine: Machine::look(),
            rounds: self.rounds(),
            seconds: self.seconds,
            load: (busy, 0.0),
            samples: Samples::default(),
            launches: Vec::new(),
            memory: Vec::new(),
            scale: None,
            failures: Vec::new(),
        };
        for (kind, memory) in memory {
            match memory {
                Ok(memory) => report.memory.push((kind, memory)),
                Err(failure) => report.failures.push(format!("memory of {kind}: {failure}")),
            }
        }
        let kinds = site.kinds();
        let wanted = self.wanted();
        for round in 0..if wanted.is_empty() { 0 } else { self.rounds() } {
            say(format_args!("round {} of {}", round + 1, self.rounds()));
            for &(path, figure) in &wanted {
                // Nobody is always first.
                let turn = round as usize % kinds.len();
                for &kind in kinds[turn..].iter().chain(&kinds[..turn]) {
                    interrupt::check()?;
                    match self.sample(site, path, figure, kind) {
                        Ok(value) => report.samples.add(round, path, figure, kind, value),
                        Err(failure) => {
                            interrupt::check()?;
                            report
                                .failures
                                .push(format!("{path}, {figure}, {kind}, round {}: {failure}", round + 1));
                        }
                    }
                }
            }
        }
        report.load.1 = machine::load();
        if self.wants_other(Choice::Start) {
            say("docker run --rm IMAGE true");
            match launch::measure(&site.engines, if self.quick { 4 } else { 12 }) {
                Ok(launches) => report.launches = launches,
                Err(failure) => report.failures.push(failure.to_string()),
            }
            interrupt::check()?;
        }
        Ok(report)
    }

    /// With full tables, on a site of its own: Sluice has room for them there.
    fn scale(
        &self,
        workshop: &Workshop,
        image: &Image,
        binaries: &std::path::Path,
        failures: &mut Vec<String>,
    ) -> Option<Scale> {
        let measured = workshop.annex().and_then(|plain| {
            let laden = plain.annex()?;
            let open = |workshop: &Workshop| {
                let mut site = Site::open(&[Kind::Sluice], self.tools(), workshop, binaries, &scale::words())?;
                for engine in &site.engines {
                    engine.import(image.archive())?;
                }
                site.populate(image)?;
                Ok(site)
            };
            Scale::measure(&open(&plain)?, &open(&laden)?, self.rounds(), self.seconds, failures)
        });
        match measured {
            Ok(scale) => Some(scale),
            Err(failure) => {
                failures.push(format!("with full tables: {failure}"));
                None
            }
        }
    }

    /// One sample; a second try when a tool stumbled, as iperf3 does while its server still says goodbye to the client before.
    fn sample(&self, site: &Site, path: Path, figure: Figure, kind: Kind) -> Outcome<f64> {
        site.measure(path, figure, kind, self.seconds).or_else(|_| {
            thread::sleep(Duration::from_millis(500));
            interrupt::check()?;
            site.measure(path, figure, kind, self.seconds)
        })
    }

    fn keep(&self, report: &Report) -> Outcome {
        let json = repository::root().join("target/bench.json");
        fs::create_dir_all(repository::root().join("target"))
            .and_then(|()| fs::write(&json, format!("{:#}\n", report.json())))
            .doing(|| format!("write {}", json.display()))?;
        say(format_args!("all samples are in {}", json.display()));
        self.write_page("docs/benchmarks.md", &report.markdown())
    }

    fn show_profile(&self, site: &Site, path: Path) -> Outcome {
        if !machine::has_perf() {
            return Err(Failure::new("perf is missing (in Debian: apt-get install linux-perf)"));
        }
        let kind = self
            .kinds()
            .into_iter()
            .rev()
            .find(|kind| site.engine(*kind).is_some())
            .ok_or_else(|| Failure::new("no engine to profile"))?;
        let directory = repository::root().join("target");
        for (_, figure) in self.wanted().into_iter().filter(|(other, _)| *other == path) {
            interrupt::check()?;
            println!(
                "{}",
                profile::compare(site, path, figure, kind, self.seconds.max(3), &directory)?.text()
            );
        }
        Ok(())
    }

    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    fn tools(&self) -> Tools {
        if self.network_only {
            Tools::InNetwork
        } else {
            Tools::Inside
        }
    }

    /// The engines, the bare veth pair included.
    fn kinds(&self) -> Vec<Kind> {
        let is_chosen = |kind: Kind| self.only.contains(&Choice::Engine(kind));
        let all = !Kind::ALL.into_iter().any(is_chosen);
        Kind::ALL
            .into_iter()
            .filter(|kind| all || *kind == Kind::Bare || is_chosen(*kind))
            .collect()
    }

    /// The figures on the paths.
    fn wanted(&self) -> Vec<(Path, Figure)> {
        let is_path = |path: Path| self.only.contains(&Choice::Path(path));
        let is_figure = |figure: Figure| self.only.contains(&Choice::Figure(figure));
        let is_other = |choice: &Choice| matches!(choice, Choice::Start | Choice::Memory | Choice::Scale);
        let only_other = self.only.iter().any(is_other);
        let all_paths = !Path::ALL.into_iter().any(is_path);
        let all_figures = !Figure::ALL.into_iter().any(is_figure);
        if only_other && all_paths && all_figures {
            return Vec::new();
        }
        Path::ALL
            .into_iter()
            .filter(|path| all_paths || is_path(*path))
            .flat_map(|path| path.figures().iter().map(move |figure| (path, *figure)))
            .filter(|(_, figure)| all_figures || is_figure(*figure))
            .collect()
    }

    /// Start or memory: named, or nothing but engines is named.
    fn wants_other(&self, choice: Choice) -> bool {
        self.only.contains(&choice) || self.only.iter().all(|choice| matches!(choice, Choice::Engine(_)))
    }
}
