//! Who stands where. A LAN, a host for each engine on a cable to it, and two plain namespaces on a cable between them: the bare veth pair.
//!
//! All cables are veth pairs as the kernel makes them, so MTU and offloads are the same. The addresses are those set aside for measurements.

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

/// Everything that is measured between.
pub struct Site {
    /// The engines that run; those that could not be started are not among them.
    pub engines: Vec<Engine>,
    servers: Vec<Child>,
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
    pub fn open(kinds: &[Kind], workshop: &Workshop, binaries: &path::Path) -> Outcome<Self> {
        let (here, there, lan) = (Place::open()?, Place::open()?, Place::open()?);
        here.join(("eth0", "198.18.0.1/24"), &there, ("eth0", &format!("{BARE}/24")))?;
        let mut site = Self {
            engines: Vec::new(),
            servers: Vec::new(),
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
            match Engine::start(kind, host, workshop, binaries) {
                Ok(engine) => site.engines.push(engine),
                Err(failure) => say(format_args!("{kind} is left out: {failure}")),
            }
        }
        Ok(site)
    }

    /// Starts the servers in the LAN, in the bare namespace and in a container of each engine, and a container for the clients.
    pub fn populate(&mut self, image: &Image) -> Outcome {
        for place in [&self.there, &self.lan] {
            let server = place
                .command(&image.serve().to_string_lossy())
                .arg(figure::server_cpu())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .doing(|| String::from("start the servers"))?;
            self.servers.push(server);
        }
        let mut index = 0;
        while let Some(engine) = self.engines.get(index) {
            match self.furnish(engine) {
                Ok(()) => index += 1,
                Err(failure) => {
                    interrupt::check()?;
                    say(format_args!("{} is left out: {failure}", engine.kind));
                    self.engines.remove(index);
                }
            }
        }
        Ok(())
    }

    fn furnish(&self, engine: &Engine) -> Outcome {
        engine.run("server", &PUBLISHED, &["/serve", figure::server_cpu()])?;
        engine.run("client", &[], &["sleep", "1000000"])?;
        for path in Path::ALL {
            self.reach(engine, path)?;
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
            let answer = client.run(&knock.split(' ').map(str::to_owned).collect::<Vec<_>>());
            match answer {
                Ok(_) => return Ok(()),
                Err(failure) if start.elapsed() > REACH => {
                    return Err(Failure::new(format!("{path} leads nowhere: {failure}")));
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
            Path::Containers => (Client::Container(engine), engine.address("server")?),
            Path::Published => (Client::Place(&self.lan), host_address(engine.kind)),
            Path::Local => (Client::Place(&engine.host), String::from("127.0.0.1")),
            Path::Outward => (Client::Container(engine), lan_address(engine.kind)),
        })
    }

    /// Measures once.
    pub fn measure(&self, path: Path, figure: Figure, kind: Kind, seconds: u32) -> Outcome<f64> {
        let (client, command) = self.client(path, figure, kind, seconds)?;
        figure.read(&client.run(&command)?)
    }

    /// The client and its command, not yet started.
    pub fn client(&self, path: Path, figure: Figure, kind: Kind, seconds: u32) -> Outcome<(Client<'_>, Vec<String>)> {
        let (client, address) = self.ends(path, self.engine(kind))?;
        Ok((client, figure.command(&address, seconds)))
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

/// Where a client runs.
pub enum Client<'a> {
    /// In a namespace.
    Place(&'a Place),
    /// In the container `client` of an engine.
    Container(&'a Engine),
}

impl Client<'_> {
    /// The command there, not yet started.
    pub fn command(&self, words: &[String]) -> Command {
        let [program, arguments @ ..] = words else {
            return Command::new("true");
        };
        match self {
            Self::Place(place) => {
                let mut command = place.command(program);
                command.args(arguments);
                command
            }
            Self::Container(engine) => {
                let mut command = engine.docker(&["exec", "client"]);
                command.args(words);
                command
            }
        }
    }

    fn run(&self, words: &[String]) -> Outcome<String> {
        step::output(&mut self.command(words))
    }
}
