//! The usual beginning of a test.

use std::net::TcpStream;

use crate::{Daemon, Docker, Host, Lab, Ran, eventually};

/// Starts the daemon on the lab's host with these flags and gives it the image `busybox`.
///
/// # Panics
/// If it does not answer.
#[track_caller]
pub fn start(lab: &Lab, flags: &str) -> Daemon {
    let daemon = Daemon::start(&lab.host, flags);
    daemon.docker().import(&crate::busybox(), "busybox", &["CMD [\"sh\"]"]);
    daemon
}

impl Docker {
    /// Runs a shell script in a container of the image `busybox`, with these flags of `docker run`.
    pub fn sh(&self, flags: &str, script: &str) -> Ran {
        let mut words = vec!["run"];
        words.extend(flags.split_whitespace());
        words.extend(["busybox", "sh", "-c", script]);
        self.words(&words)
    }

    /// Imports the image `web` too: nginx, from Debian, at port 80.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn import_web(&self) {
        let changes = ["CMD [\"nginx\", \"-g\", \"daemon off;\"]", "EXPOSE 80"];
        self.import(&crate::web(), "web", &changes);
    }

    /// Runs a container of the image `web` with this name and these flags, and waits until its server listens.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn run_web(&self, name: &str, flags: &str) {
        self.ok(&format!("run -d --name {name} {flags} web"));
        self.wait_for_web(name);
    }

    /// Waits until the server in a container of the image `web` listens.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_for_web(&self, name: &str) {
        let pid = self.pid(name);
        let listens = || Host::within(pid, || TcpStream::connect("127.0.0.1:80").is_ok());
        eventually(&format!("the server in {name} listens"), 10, listens);
    }

    /// Fetches a page from within a container that has busybox: its last line. Not with busybox's wget: that of Debian, which is linked statically,
    /// crashes when it looks for the number of the port `http`.
    ///
    /// # Panics
    /// If docker could not run the client.
    #[track_caller]
    pub fn fetch_from(&self, name: &str, address: &str, port: u16) -> String {
        let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port} | tail -n 1");
        self.words(&["exec", name, "sh", "-c", &script]).ok()
    }

    /// The process of a container.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn pid(&self, name: &str) -> u32 {
        self.inspect(name, "{{.State.Pid}}")
            .parse()
            .ok()
            .filter(|pid| *pid != 0)
            .unwrap_or_else(|| panic!("{name} does not run: {}", self.inspect(name, "{{json .State}}")))
    }
}
