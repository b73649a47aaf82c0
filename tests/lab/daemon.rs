//! The daemon in a host: ours, or the stock engine as a measure of ours.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Background;
use crate::{Docker, Host, Ran, eventually, files, patience};

/// Which daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// `sluiced`
    Sluice,
    /// `dockerd`, from Debian
    Docker,
}

impl Engine {
    /// Is it ours? To be asked before a daemon is started with flags that only ours knows.
    pub fn is_ours() -> bool {
        Self::under_test() == Self::Sluice
    }

    /// Ours, unless `SLUICE_LAB_ENGINE=docker` asks for the other: a test of Docker's behaviour that the stock engine fails is a wrong test.
    pub fn under_test() -> Self {
        if std::env::var_os("SLUICE_LAB_ENGINE").is_some_and(|name| name == "docker") {
            Self::Docker
        } else {
            Self::Sluice
        }
    }
}

/// A running daemon.
pub struct Daemon {
    host: Host,
    engine: Engine,
    instance: String,
    flags: String,
    /// `NAME=value NAME=value`
    environment: String,
    program: Option<Background>,
}

impl Daemon {
    /// Starts the daemon of the default instance and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn start(host: &Host, flags: &str) -> Self {
        Self::start_instance(host, "default", flags)
    }

    /// Starts the daemon of another instance, with directories of its own.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn start_instance(host: &Host, instance: &str, flags: &str) -> Self {
        Self::start_engine(host, Engine::under_test(), instance, flags)
    }

    /// Starts this daemon.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn start_engine(host: &Host, engine: Engine, instance: &str, flags: &str) -> Self {
        let mut daemon = Self {
            host: host.clone(),
            engine,
            instance: instance.into(),
            flags: flags.into(),
            environment: String::new(),
            program: None,
        };
        daemon.boot();
        daemon
    }

    /// Starts it again with these variables (`NAME=value NAME=value`) in its environment.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn boot_with(&mut self, environment: &str) {
        self.stop();
        self.environment = environment.into();
        self.boot();
    }

    /// Is it ours? What only we promise is not asked of the stock engine.
    pub fn is_ours(&self) -> bool {
        self.engine == Engine::Sluice
    }

    /// The host it runs in.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts it (again) and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn boot(&mut self) {
        let log = format!("daemon-{}.log", self.instance);
        self.program = Some(self.host.spawn(&log, &self.line("")));
        let socket = self.socket();
        eventually("the daemon answers", 30, || {
            assert!(self.is_alive(), "the daemon ended at once:\n{}", self.log());
            self.host.inside(|| UnixStream::connect(&socket).is_ok())
        });
    }

    /// What it is started with from now on.
    pub fn set_flags(&mut self, flags: &str) {
        self.flags = flags.into();
    }

    /// The daemon's own clean-up, after it was stopped: `sluiced --cleanup`.
    pub fn clean_up(&self) -> Ran {
        self.host.shell(&self.line("--cleanup"))
    }

    /// The command line of this instance.
    fn line(&self, more: &str) -> String {
        let (program, more) = match self.engine {
            Engine::Sluice => (
                files::binary("sluiced").display().to_string(),
                format!("--instance {} {more}", self.instance),
            ),
            Engine::Docker => ("dockerd".into(), String::new()),
        };
        format!(
            "env {} {program} --data-root {} --exec-root {} --pidfile {}/daemon.pid -H unix://{} --cgroup-parent {}-{} --log-level {} {} {more}",
            self.environment,
            self.data_root().display(),
            self.exec_root().display(),
            self.exec_root().display(),
            self.socket().display(),
            self.host.name(),
            self.instance,
            if self.engine == Engine::Sluice { "debug" } else { "info" },
            self.flags,
        )
    }

    /// Where it keeps what lasts.
    pub fn data_root(&self) -> PathBuf {
        self.host.directory().join(format!("data-{}", self.instance))
    }

    /// Where it keeps what goes with a reboot, in the host's view.
    pub fn exec_root(&self) -> PathBuf {
        let name = if self.engine == Engine::Docker {
            "docker"
        } else {
            "sluice"
        };
        let instance = if self.instance == "default" {
            String::new()
        } else {
            format!("-{}", self.instance)
        };
        format!("/run/{name}{instance}").into()
    }

    /// Its socket, in the host's view.
    pub fn socket(&self) -> PathBuf {
        self.exec_root().join(if self.engine == Engine::Docker {
            "docker.sock"
        } else {
            "sluice.sock"
        })
    }

    /// The stock CLI, speaking to it.
    pub fn docker(&self) -> Docker {
        Docker::new(&self.host, &format!("unix://{}", self.socket().display()))
    }

    /// Our own CLI, speaking to it: the line after `sluice`.
    pub fn sluice(&self, line: &str) -> Ran {
        let sluice = files::binary("sluice");
        self.host.shell(&format!(
            "exec {} -H unix://{} {line}",
            sluice.display(),
            self.socket().display()
        ))
    }

    /// Its process number.
    ///
    /// # Panics
    /// If it was stopped.
    pub fn pid(&self) -> u32 {
        self.program
            .as_ref()
            .map(Background::pid)
            .unwrap_or_else(|| panic!("the daemon was stopped"))
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        self.program.as_ref().map(Background::said).unwrap_or_default()
    }

    /// Is the process there?
    pub fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().is_empty() && !rest.trim_start().starts_with('Z'))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// TERM, and waits for its end; returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        let mut program = self.program.take()?;
        let _ = kill(Pid::from_raw(program.pid().cast_signed()), signal);
        program.wait()
    }

    /// An HTTP request to the socket, with `curl`: the status and the body.
    ///
    /// # Panics
    /// If there is no answer.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut curl = self.host.command("curl");
        curl.args([
            "-sS",
            "-X",
            method,
            "-H",
            "Content-Type: application/json",
            "-w",
            "\n%{http_code}",
            "--unix-socket",
        ]);
        curl.arg(self.socket()).arg(format!("http://sluice{path}"));
        if !body.is_empty() {
            curl.args(["--data-binary", "@-"]);
        }
        let answer = Ran::command(&mut curl, body.as_bytes(), patience(60)).ok();
        let (body, code) = answer.rsplit_once('\n').unwrap_or(("", &answer));
        (code.trim().parse().unwrap_or(0), body.to_owned())
    }
}
