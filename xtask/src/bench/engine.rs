//! The engines that are measured, each in a host of its own; all are spoken to by the stock docker CLI.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::image;
use super::interrupt;
use super::place::Place;
use super::workshop::Workshop;
use crate::repository;
use crate::step::{self, Doing, Failure, Outcome};

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// No engine: two namespaces joined by a veth pair.
    Bare,
    /// Docker as it is out of the box, with a proxy process for each published port.
    Docker,
    /// Docker with `--userland-proxy=false`.
    DockerWithoutProxy,
    /// Ours.
    Sluice,
}

impl Kind {
    /// All, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Docker, Self::DockerWithoutProxy, Self::Sluice];

    /// As on the command line and in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Docker => "docker",
            Self::DockerWithoutProxy => "docker-no-proxy",
            Self::Sluice => "sluice",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare veth",
            Self::Docker => "Docker",
            Self::DockerWithoutProxy => "Docker, no proxy",
            Self::Sluice => "Sluice",
        })
    }
}

/// A running engine.
pub struct Engine {
    /// Which one.
    pub kind: Kind,
    /// The host it has for itself. Dropped with everything in it, before the directory of the run.
    pub host: Place,
    /// How the daemon is started.
    line: Command,
    daemon: Child,
    directory: PathBuf,
}

impl Engine {
    /// Starts the daemon in `host` and waits until it answers. `binaries`: where Sluice's are; `words`: what the daemon is told besides.
    pub fn start(kind: Kind, host: Place, workshop: &Workshop, binaries: &Path, words: &[String]) -> Outcome<Self> {
        let directory = workshop.path().join(kind.key());
        fs::create_dir_all(&directory).doing(|| format!("make {}", directory.display()))?;
        // Ours, whatever the machine's own daemon is told.
        fs::write(directory.join("docker.json"), "{}").doing(|| format!("write to {}", directory.display()))?;
        let mut line = command(kind, &host, &directory, &workshop.cgroup(kind.key()), binaries);
        line.args(words);
        let daemon = spawn(&mut line, &directory).doing(|| format!("start {kind}"))?;
        let mut engine = Self {
            kind,
            host,
            line,
            daemon,
            directory,
        };
        engine.wait()?;
        Ok(engine)
    }

    /// Kills the daemon and nothing else, starts it again and waits until it answers.
    pub fn restart(&mut self) -> Outcome {
        let is_daemon = |process: &u32| {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            matches!(name.trim_end(), "sluiced" | "dockerd")
        };
        for process in self.host.processes_started().into_iter().filter(is_daemon) {
            let process = nix::unistd::Pid::from_raw(process.cast_signed());
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL)
                .doing(|| format!("kill {}", self.kind))?;
        }
        self.daemon
            .wait()
            .doing(|| format!("wait for the end of {}", self.kind))?;
        self.daemon = spawn(&mut self.line, &self.directory).doing(|| format!("start {} again", self.kind))?;
        self.wait()
    }

    fn wait(&mut self) -> Outcome {
        let start = Instant::now();
        loop {
            interrupt::check()?;
            let answer = step::output(&mut self.docker(&["version"]));
            let Err(failure) = answer else { return Ok(()) };
            let is_dead = !matches!(self.daemon.try_wait(), Ok(None));
            if is_dead || start.elapsed() > START {
                return Err(Failure::new(format!(
                    "{} does not answer: {failure}{}",
                    self.kind,
                    self.log()
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines that the daemon wrote.
    fn log(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(15)..];
        format!("\n  {}", last.join("\n  "))
    }

    /// The docker CLI, speaking to this engine.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new(repository::program("docker").unwrap_or_else(|| "docker".into()));
        docker
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", &self.directory)
            .env_remove("DOCKER_CONTEXT")
            .args(arguments);
        docker
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// All that the daemon has written.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Gives the engine the image of the measuring tools.
    pub fn import(&self, archive: &Path) -> Outcome {
        step::output(self.docker(&["import"]).arg(archive).arg(image::NAME)).map(drop)
    }

    /// Starts a container of that image in the background. What the daemon wrote is part of the failure.
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Outcome {
        let mut docker = self.docker(&["run", "-d", "--name", name]);
        docker.args(options).arg(image::NAME).args(command);
        step::output(&mut docker)
            .map(drop)
            .map_err(|failure| Failure::new(format!("{failure}{}", self.log())))
    }

    /// A program in the network of a container and nothing else of it; the program is still to be named.
    pub fn in_network(&self, name: &str) -> Outcome<Command> {
        let process = step::output(&mut self.docker(&["inspect", "-f", "{{.State.Pid}}", name]))?;
        let mut command = self.host.command("nsenter");
        command.args(["--target", &process, "--net", "--"]);
        Ok(command)
    }

    /// The address of a container in a network.
    pub fn address_in(&self, name: &str, network: &str) -> Outcome<String> {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        step::output(&mut self.docker(&["inspect", "-f", &format, name])).map(|address| address.trim().to_owned())
    }

    /// The address of a container.
    pub fn address(&self, name: &str) -> Outcome<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = step::output(&mut self.docker(&["inspect", "-f", format, name]))?;
        if address.is_empty() {
            return Err(Failure::new(format!("{name} has no address in {}", self.kind)));
        }
        Ok(address)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What we started is nsenter, which waits for the daemon; the daemon ends with the host.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Starts the daemon; what it says goes to the end of its log.
fn spawn(line: &mut Command, directory: &Path) -> std::io::Result<Child> {
    let log = File::options().append(true).create(true).open(directory.join("log"))?;
    let errors = log.try_clone()?;
    line.stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
}

/// In the directory of the run, as `/run` is each host's own and the CLI is in none of them.
fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}

fn command(kind: Kind, host: &Place, directory: &Path, cgroup: &str, binaries: &Path) -> Command {
    let socket = format!("unix://{}", socket(directory).display());
    let data = directory.join("data");
    let mut daemon = match kind {
        Kind::Sluice => host.command(&binaries.join("sluiced").to_string_lossy()),
        _ => host.command("dockerd"),
    };
    daemon.args(["-H", &socket, "--data-root"]).arg(data);
    match kind {
        Kind::Sluice => daemon.args(["--exec-root", "/run/sluice", "--pidfile", "/run/sluice.pid"]),
        _ => daemon
            .args(["--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"])
            .args(["--storage-driver", "overlay2", "--config-file"])
            .arg(directory.join("docker.json")),
    };
    if kind == Kind::DockerWithoutProxy {
        daemon.arg("--userland-proxy=false");
    }
    daemon.arg("--cgroup-parent").arg(match kind {
        Kind::Sluice => cgroup.to_owned(),
        _ => format!("/{cgroup}"),
    });
    daemon
}
