//! Who stands where. A LAN, a host for each engine on a cable to it, and two plain namespaces on a cable between them: the bare veth pair.
//!
//! All cables are veth pairs as the kernel makes them, so MTU and offloads are the same. The addresses are those set aside for measurements.

use std::mem;
use std::os::unix::process::CommandExt;
use std::path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, Kind};
use super::figure::{self, Figure};
use super::image::Image;
use super::interrupt;
use super::path::Path;
use super::place::Place;
use super::workshop::Workshop;
use crate::step::{self, Doing, Failure, Outcome, say};

/// What the server offers: iperf3, sockperf, nginx.
const PUBLISHED: [&str; 6] = ["-p", "5201:5201", "-p", "11111:11111", "-p", "8080:8080"];

/// How long the server of an engine may take until it can be reached.
const REACH: Duration = Duration::from_secs(10);

/// Where the tools run whose place is in a container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// In the container, as its processes.
    Inside,
    /// In its network only, without its cgroups and its filter of system calls.
    InNetwork,
}

/// Everything that is measured between.
pub struct Site {
    /// The engines that run; those that could not be started are not among them.
    pub engines: Vec<Engine>,
    unreachable: Vec<(Kind, Path, String)>,
    servers: Vec<Child>,
    tools: Tools,
    here: Place,
    there: Place,
    lan: Place,
}

const BARE: &str = "198.18.0.2";

fn host_address(kind: Kind) -> String {
    format!("198.18.{}.1", kind as u8)
}

fn lan_address(kind: Kind) -> String {
    format!("198.18.{}.2", kind as u8)
}

impl Site {
    /// Starts the engines, without any container, and imports nothing yet: so is an idle daemon. What cannot be started is said and left out.
    pub fn open(
        kinds: &[Kind],
        tools: Tools,
        workshop: &Workshop,
        binaries: &path::Path,
        words: &[String],
    ) -> Outcome<Self> {
        let (here, there, lan) = (Place::open()?, Place::open()?, Place::open()?);
        here.join(("eth0", "198.18.0.1/24"), &there, ("eth0", &format!("{BARE}/24")))?;
        let mut site = Self {
            engines: Vec::new(),
            unreachable: Vec::new(),
            servers: Vec::new(),
            tools,
            here,
            there,
            lan,
        };
        for &kind in kinds.iter().filter(|&&kind| kind != Kind::Bare) {
            interrupt::check()?;
            let host = Place::open()?;
            host.join(
                ("eth0", &format!("{}/24", host_address(kind))),
                &site.lan,
                (kind.key(), &format!("{}/24", lan_address(kind))),
            )?;
            host.shell(&format!("ip route add default via {}", lan_address(kind)))?;
            match Engine::start(kind, host, workshop, binaries, words) {
                Ok(engine) => site.engines.push(engine),
                Err(failure) => say(format_args!("{kind} is left out: {failure}")),
            }
        }
        Ok(site)
    }

    /// Starts the servers in the LAN, in the bare namespace and in a container of each engine, and a container for the clients.
    pub fn populate(&mut self, image: &Image) -> Outcome {
        for place in [&self.there, &self.lan] {
            let server = serve(place.command(&image.serve().to_string_lossy()))?;
            self.servers.push(server);
        }
        for engine in mem::take(&mut self.engines) {
            match self.furnish(&engine, image) {
                Ok(()) => self.engines.push(engine),
                Err(failure) => {
                    interrupt::check()?;
                    say(format_args!("{} is left out: {failure}", engine.kind));
                }
            }
        }
        Ok(())
    }

    fn furnish(&mut self, engine: &Engine, image: &Image) -> Outcome {
        let server: &[&str] = match self.tools {
            Tools::Inside => &["/serve", figure::server_cpu()],
            Tools::InNetwork => &["sleep", "1000000"],
        };
        engine.run("server", &PUBLISHED, server)?;
        // Where containers may speak to each other without a link it opens nothing.
        engine.run("client", &["--link", "server"], &["sleep", "1000000"])?;
        if self.tools == Tools::InNetwork {
            let mut command = engine.in_network("server")?;
            command.arg(image.serve());
            self.servers.push(serve(command)?);
        }
        for path in Path::ALL {
            if let Err(failure) = self.reach(engine, path) {
                interrupt::check()?;
                self.unreachable.push((engine.kind, path, failure.to_string()));
            }
        }
        Ok(())
    }

    /// Waits until the path leads somewhere.
    fn reach(&self, engine: &Engine, path: Path) -> Outcome {
        let start = Instant::now();
        loop {
            interrupt::check()?;
            let (client, address) = self.ends(path, Some(engine))?;
            let knock = format!("iperf3 --client {address} --bytes 1K --connect-timeout 2000");
            let words: Vec<String> = knock.split(' ').map(str::to_owned).collect();
            let answer = step::output(&mut client.command(&words)?);
            match answer {
                Ok(_) => return Ok(()),
                Err(failure) if start.elapsed() > REACH => {
                    return Err(Failure::new(format!("it leads nowhere: {failure}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The engine of this kind.
    pub fn engine(&self, kind: Kind) -> Option<&Engine> {
        self.engines.iter().find(|engine| engine.kind == kind)
    }

    /// What can be measured: the bare veth pair and the engines that run.
    pub fn kinds(&self) -> Vec<Kind> {
        [Kind::Bare]
            .into_iter()
            .chain(self.engines.iter().map(|engine| engine.kind))
            .collect()
    }

    /// Where a path begins and the address it leads to; without an engine, the two ends of the bare veth pair.
    fn ends<'a>(&'a self, path: Path, engine: Option<&'a Engine>) -> Outcome<(Client<'a>, String)> {
        let Some(engine) = engine else {
            return Ok((Client::Place(&self.here), BARE.to_owned()));
        };
        Ok(match path {
            Path::Containers => (self.container(engine), engine.address("server")?),
            Path::Published => (Client::Place(&self.lan), host_address(engine.kind)),
            Path::Local => (Client::Place(&engine.host), String::from("127.0.0.1")),
            Path::Outward => (self.container(engine), lan_address(engine.kind)),
        })
    }

    fn container<'a>(&self, engine: &'a Engine) -> Client<'a> {
        match self.tools {
            Tools::Inside => Client::Container(engine),
            Tools::InNetwork => Client::Network(engine),
        }
    }

    /// Measures once.
    pub fn measure(&self, path: Path, figure: Figure, kind: Kind, seconds: u32) -> Outcome<f64> {
        let is_it = |entry: &&(Kind, Path, String)| (entry.0, entry.1) == (kind, path);
        if let Some((_, _, failure)) = self.unreachable.iter().find(is_it) {
            return Err(Failure::new(failure.clone()));
        }
        figure.read(&step::output(&mut self.client(path, figure, kind, seconds)?)?)
    }

    /// The client, not yet started.
    pub fn client(&self, path: Path, figure: Figure, kind: Kind, seconds: u32) -> Outcome<Command> {
        let (client, address) = self.ends(path, self.engine(kind))?;
        client.command(&figure.command(&address, seconds))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Starts the servers with this command.
fn serve(mut command: Command) -> Outcome<Child> {
    command
        .arg(figure::server_cpu())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .doing(|| String::from("start the servers"))
}

/// Where a client runs.
enum Client<'a> {
    /// In a namespace.
    Place(&'a Place),
    /// In the container `client` of an engine.
    Container(&'a Engine),
    /// In the network of that container.
    Network(&'a Engine),
}

impl Client<'_> {
    /// The command there, not yet started.
    fn command(&self, words: &[String]) -> Outcome<Command> {
        let mut command = match self {
            Self::Place(place) => place.command("env"),
            Self::Container(engine) => engine.docker(&["exec", "client"]),
            Self::Network(engine) => engine.in_network("client")?,
        };
        command.args(words);
        Ok(command)
    }
}
