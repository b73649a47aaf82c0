//! `cargo xtask bench overlay`: from a container to one on another host, beside the bare underlay, the kernel's own VXLAN device and bridge, and
//! Docker's overlay.
//!
//! Each way has two hosts of its own, made of namespaces, on a cable of its own; all are measured in turn.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, Kind};
use super::figure::{self, Figure};
use super::image::Image;
use super::interrupt;
use super::machine::{self, Machine};
use super::place::Place;
use super::sample::median;
use super::table::Table;
use super::workshop::Workshop;
use crate::step::{self, Doing, Failure, Outcome, say};

/// How long a way may take until it leads somewhere.
const REACH: Duration = Duration::from_secs(30);
/// The network that reaches over both hosts.
const NETWORK: &str = "wide";
/// What encapsulation leaves of the cable's MTU.
const MTU: u32 = 1450;

/// How the two ends are joined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Way {
    /// By the cable, without any encapsulation.
    Underlay,
    /// Behind bridges, by the kernel's VXLAN devices.
    Kernel,
    /// Docker's overlay; in containers.
    Docker,
    /// Ours, the tools in the containers' networks but outside their cgroups.
    Network,
    /// Ours, in containers.
    Sluice,
}

impl Way {
    const ALL: [Self; 5] = [Self::Underlay, Self::Kernel, Self::Docker, Self::Network, Self::Sluice];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Underlay => "bare underlay",
            Self::Kernel => "kernel VXLAN and bridge",
            Self::Docker => "Docker's overlay",
            Self::Network => "Sluice, the network alone",
            Self::Sluice => "Sluice",
        })
    }
}

/// The ratio to the bare underlay that Sluice is to reach.
fn target(figure: Figure) -> f64 {
    match figure {
        Figure::Stream => 0.92,
        Figure::RoundTrip => 1.10,
        Figure::Connections => 0.88,
        Figure::Datagrams => 0.80,
    }
}

/// Everything that was found.
pub struct Overlay {
    samples: BTreeMap<(Way, Row), Vec<(u32, f64)>>,
    machine: Machine,
    load: (f64, f64),
    failures: Vec<String>,
}

/// A figure's place in the table.
type Row = usize;

impl Overlay {
    /// Builds the ways, and measures each of them in every round.
    pub fn measure(
        image: &Image,
        workshop: &Workshop,
        binaries: &path::Path,
        rounds: u32,
        seconds: u32,
    ) -> Outcome<Self> {
        let annex = workshop.annex()?;
        let rig = Rig::build(image, [workshop, &annex], binaries)?;
        let before = machine::load();
        let mut found = Self {
            samples: BTreeMap::new(),
            machine: Machine::look(),
            load: (before, before),
            failures: rig.failures.clone(),
        };
        for round in 0..rounds {
            say(format_args!("round {} of {rounds}", round + 1));
            for (place, figure) in Figure::ALL.into_iter().enumerate() {
                // Nobody is always first.
                let turn = round as usize % rig.ways.len();
                for (way, _) in rig.ways[turn..].iter().chain(&rig.ways[..turn]) {
                    interrupt::check()?;
                    match rig.sample(*way, figure, seconds) {
                        Ok(value) => found.samples.entry((*way, place)).or_default().push((round, value)),
                        Err(failure) => {
                            interrupt::check()?;
                            found
                                .failures
                                .push(format!("{way}, {figure}, round {}: {failure}", round + 1));
                        }
                    }
                }
            }
        }
        found.load.1 = machine::load();
        Ok(found)
    }

    /// For people at a terminal.
    pub fn text(&self) -> String {
        let failures: String = self.failures.iter().map(|failure| format!("  {failure}\n")).collect();
        format!("{}\n{failures}", self.table().text())
    }

    /// `docs/overlay-speed.md`.
    pub fn markdown(&self) -> String {
        let failures: String = self.failures.iter().map(|failure| format!("- {failure}\n")).collect();
        let text = format!(
            "# How fast networks over several hosts are\n\nWritten by `cargo xtask bench overlay --write`; do not edit.\n\n{}\n\n\
             Load average {:.1} before and {:.1} after.{}\n\n{METHOD}\n{}{failures}",
            self.machine.described(),
            self.load.0,
            self.load.1,
            if self.load.0 > machine::BUSY { NOISY } else { "" },
            self.table().markdown(),
        );
        format!("{}\n", text.trim_end())
    }

    fn table(&self) -> Table {
        let ways: Vec<Way> = Way::ALL
            .into_iter()
            .filter(|way| self.samples.keys().any(|(other, _)| other == way))
            .collect();
        let columns = [String::new()]
            .into_iter()
            .chain(ways.iter().map(Way::to_string))
            .chain([String::from("Sluice is to reach")]);
        let mut table = Table::new("From one host to another", columns);
        for (place, figure) in Figure::ALL.into_iter().enumerate() {
            let cells = ways.iter().map(|way| self.cell(*way, place, figure));
            let limit = target(figure);
            let sign = if figure.less_is_better() { "≤" } else { "≥" };
            let mark = self.ratio(Way::Sluice, place, figure).map_or("", |ratio| {
                let holds = if figure.less_is_better() {
                    ratio <= limit
                } else {
                    ratio >= limit
                };
                if holds { " ✓" } else { " ✗" }
            });
            table.row(
                [format!("{figure}, {}", figure.unit())]
                    .into_iter()
                    .chain(cells)
                    .chain([format!("{sign} {limit:.2}{mark}")]),
            );
        }
        table
    }

    /// Best and median, and their ratios to the bare underlay.
    fn cell(&self, way: Way, place: Row, figure: Figure) -> String {
        let Some(best) = self.best(way, place, figure) else {
            return String::from("–");
        };
        let own = &self.samples[&(way, place)];
        let middle = median(own.iter().map(|(_, value)| *value).collect()).unwrap_or(best);
        let values = format!("{} ({})", figure.shown(best), figure.shown(middle));
        if way == Way::Underlay {
            return values;
        }
        let ratios = own.iter().filter_map(|(round, value)| {
            let bare = self.samples.get(&(Way::Underlay, place))?;
            let (_, other) = bare.iter().find(|(other, _)| other == round)?;
            Some(value / other)
        });
        match (self.ratio(way, place, figure), median(ratios.collect())) {
            (Some(ratio), Some(middle)) => format!("{values} ×{ratio:.2} ({middle:.2})"),
            _ => values,
        }
    }

    fn ratio(&self, way: Way, place: Row, figure: Figure) -> Option<f64> {
        Some(self.best(way, place, figure)? / self.best(Way::Underlay, place, figure)?)
    }

    fn best(&self, way: Way, place: Row, figure: Figure) -> Option<f64> {
        let values = self.samples.get(&(way, place))?.iter().map(|(_, value)| *value);
        values.reduce(|a, b| figure.better(a, b))
    }
}

const NOISY: &str = " The machine was busy with other things: read the best figures, and with doubt.";

const METHOD: &str = "\
How to read it: **best (median) ×ratio (median)**, the ratio to the bare underlay: that of the best to the best, and the median of those within each round. The \
tools and figures are those of [benchmarks.md](benchmarks.md); client on CPU 0, server on CPU 1 (round trips: both on one).

Every way has two hosts of its own, made of namespaces, on a veth pair of its own with an MTU of 1500. *Kernel VXLAN and bridge*: on either side a VXLAN device \
and a veth in a bridge, no containers. *Docker's overlay*: dockerd with an etcd of its own, by `--cluster-store`. *Sluice, the network alone*: the tools \
in the containers' networks, outside of their cgroups and system call filters.
";

/// All ways, and the servers on their far ends.
struct Rig {
    ways: Vec<(Way, Ends)>,
    failures: Vec<String>,
    servers: Vec<Child>,
    /// What lives as long as the rig. Engines end before the hosts that they are on.
    engines: Vec<Engine>,
    places: Vec<Place>,
}

/// Where the client runs, and the address of the server.
struct Ends {
    /// A command that takes the client's words.
    client: (Vec<OsString>, Vec<(OsString, OsString)>),
    address: String,
}

impl Rig {
    /// Builds every way that can be had here.
    fn build(image: &Image, workshops: [&Workshop; 2], binaries: &path::Path) -> Outcome<Self> {
        let mut rig = Self {
            ways: Vec::new(),
            failures: Vec::new(),
            servers: Vec::new(),
            engines: Vec::new(),
            places: Vec::new(),
        };
        rig.underlay(image)?;
        rig.kernel(image)?;
        for kind in [Kind::Docker, Kind::Sluice] {
            interrupt::check()?;
            if let Err(failure) = rig.engines(kind, image, workshops, binaries) {
                interrupt::check()?;
                say(format_args!("{kind} is left out: {failure}"));
                rig.failures.push(format!("{kind}: {failure}"));
            }
        }
        Ok(rig)
    }

    /// Two hosts on a cable: 198.19.N.1 and .2.
    fn hosts(number: u8) -> Outcome<[Place; 2]> {
        let hosts = [Place::open()?, Place::open()?];
        hosts[0].join(
            ("eth0", &format!("198.19.{number}.1/24")),
            &hosts[1],
            ("eth0", &format!("198.19.{number}.2/24")),
        )?;
        Ok(hosts)
    }

    fn underlay(&mut self, image: &Image) -> Outcome {
        let [here, there] = Self::hosts(1)?;
        self.serve(there.command(&image.serve().to_string_lossy()))?;
        self.add(Way::Underlay, &here.command("env"), "198.19.1.2")?;
        self.places.extend([here, there]);
        Ok(())
    }

    /// A namespace behind a bridge on either side.
    fn kernel(&mut self, image: &Image) -> Outcome {
        let hosts = Self::hosts(2)?;
        let boxes = [Place::open()?, Place::open()?];
        for (index, (host, inside)) in hosts.iter().zip(&boxes).enumerate() {
            let (own, other) = (index + 1, 2 - index);
            host.join(
                ("port0", "198.18.255.1/32"),
                inside,
                ("eth0", &format!("198.19.250.{own}/24")),
            )?;
            host.shell(&format!(
                "ip addr flush dev port0; ip link add br0 type bridge; \
                 ip link add vx0 type vxlan id 42 local 198.19.2.{own} remote 198.19.2.{other} dstport 4789 noudpcsum; \
                 ip link set vx0 mtu {MTU} master br0 up; ip link set port0 mtu {MTU} master br0; ip link set br0 up"
            ))?;
            inside.shell(&format!("ip link set eth0 mtu {MTU}"))?;
        }
        self.serve(boxes[1].command(&image.serve().to_string_lossy()))?;
        self.add(Way::Kernel, &boxes[0].command("env"), "198.19.250.2")?;
        self.places.extend(hosts);
        self.places.extend(boxes);
        Ok(())
    }

    /// Two daemons with an etcd on the first host.
    fn engines(&mut self, kind: Kind, image: &Image, workshops: [&Workshop; 2], binaries: &path::Path) -> Outcome {
        let number = 3 + kind as u8;
        let address = |index: usize| format!("198.19.{number}.{}", index + 1);
        let hosts = Self::hosts(number)?;
        self.etcd(kind, &hosts[0], &address(0), workshops[0])?;
        let mut engines = Vec::new();
        for (index, (host, workshop)) in hosts.into_iter().zip(workshops).enumerate() {
            let store = format!("etcd://{}:2379", address(0));
            let advertise = match kind {
                Kind::Sluice => address(index),
                _ => format!("{}:2376", address(index)),
            };
            let mut words = ["--cluster-store", &store, "--cluster-advertise", &advertise]
                .map(String::from)
                .to_vec();
            if kind == Kind::Docker {
                // Its hosts hear of each other by this beat only, three times a minute if nobody says otherwise.
                let beat = ["discovery.heartbeat=1", "discovery.ttl=5"];
                words.extend(
                    beat.into_iter()
                        .flat_map(|option| ["--cluster-store-opt", option].map(String::from)),
                );
            }
            let engine = Engine::start(kind, host, workshop, binaries, &words)?;
            engine.import(image.archive())?;
            engines.push(engine);
        }
        let [here, there] = &engines[..] else {
            return Err(Failure::new("there are not two hosts"));
        };
        step::output(&mut here.docker(&["network", "create", "-d", "overlay", NETWORK]))?;
        let on = ["--network", NETWORK];
        there.run("server", &on, &["/serve", figure::server_cpu()])?;
        here.run("client", &on, &["sleep", "1000000"])?;
        let way = if kind == Kind::Sluice { Way::Sluice } else { Way::Docker };
        self.add(
            way,
            &here.docker(&["exec", "client"]),
            &there.address_in("server", NETWORK)?,
        )?;
        if kind == Kind::Sluice {
            there.run("alone", &on, &["sleep", "1000000"])?;
            let mut server = there.in_network("alone")?;
            server.arg(image.serve());
            self.serve(server)?;
            let mut client = here.in_network("client")?;
            client.arg("env");
            self.add(Way::Network, &client, &there.address_in("alone", NETWORK)?)?;
        }
        self.engines.extend(engines);
        Ok(())
    }

    /// A store for two hosts. Docker speaks its older tongue only.
    fn etcd(&mut self, kind: Kind, host: &Place, address: &str, workshop: &Workshop) -> Outcome {
        let mut etcd = host.command("etcd");
        etcd.arg("--data-dir")
            .arg(workshop.path().join(format!("etcd-{}", kind.key())))
            .args(["--listen-client-urls", "http://0.0.0.0:2379"])
            .args(["--advertise-client-urls", &format!("http://{address}:2379")])
            .args(["--unsafe-no-fsync", "--logger", "zap", "--log-level", "error"]);
        if kind != Kind::Sluice {
            etcd.arg("--enable-v2");
        }
        let etcd = quiet(&mut etcd).spawn().doing(|| String::from("start etcd"))?;
        self.servers.push(etcd);
        let begun = Instant::now();
        while host
            .shell(&format!(
                "ETCDCTL_API=3 etcdctl --endpoints http://{address}:2379 get /there"
            ))
            .is_err()
        {
            interrupt::check()?;
            if begun.elapsed() > REACH {
                return Err(Failure::new("etcd does not answer"));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Starts the servers with this command.
    fn serve(&mut self, mut command: Command) -> Outcome {
        command.arg(figure::server_cpu());
        let server = quiet(&mut command)
            .spawn()
            .doing(|| String::from("start the servers"))?;
        self.servers.push(server);
        Ok(())
    }

    /// Enters a way when it leads somewhere.
    fn add(&mut self, way: Way, client: &Command, address: &str) -> Outcome {
        let ends = Ends {
            client: taken_apart(client),
            address: address.to_owned(),
        };
        let knock: Vec<String> = format!("iperf3 --client {address} --bytes 1K --connect-timeout 2000")
            .split(' ')
            .map(str::to_owned)
            .collect();
        let begun = Instant::now();
        while let Err(failure) = step::output(&mut ends.command(&knock)) {
            interrupt::check()?;
            if begun.elapsed() > REACH {
                return Err(Failure::new(format!("{way} leads nowhere: {failure}")));
            }
            thread::sleep(Duration::from_millis(200));
        }
        self.ways.push((way, ends));
        Ok(())
    }

    /// One sample; a second try when a tool stumbled.
    fn sample(&self, way: Way, figure: Figure, seconds: u32) -> Outcome<f64> {
        let (_, ends) = self
            .ways
            .iter()
            .find(|(other, _)| *other == way)
            .ok_or_else(|| Failure::new("there is no such way"))?;
        let once = || {
            figure.read(&step::output(
                &mut ends.command(&figure.command(&ends.address, seconds)),
            )?)
        };
        once().or_else(|_| {
            thread::sleep(Duration::from_millis(500));
            interrupt::check()?;
            once()
        })
    }
}

impl Ends {
    fn command(&self, words: &[String]) -> Command {
        let (own, environment) = &self.client;
        let mut command = Command::new(&own[0]);
        command.args(&own[1..]).envs(environment.iter().cloned()).args(words);
        command
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The words of a command, and what it adds to the environment.
fn taken_apart(command: &Command) -> (Vec<OsString>, Vec<(OsString, OsString)>) {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let environment = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    (words.map(OsString::from).collect(), environment.collect())
}

/// A program in the background that says nothing. Ctrl-C is for us; we tidy up.
fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
}
