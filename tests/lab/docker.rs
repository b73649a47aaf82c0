//! The stock docker CLI in a host.

use std::process::Command;
use std::time::Duration;

use crate::{Host, Ran, patience};

/// `docker`, speaking to one daemon.
#[derive(Clone)]
pub struct Docker {
    host: Host,
    address: String,
    version: Option<String>,
}

impl Docker {
    /// For the daemon at this address (`DOCKER_HOST`).
    pub fn new(host: &Host, address: &str) -> Self {
        Self {
            host: host.clone(),
            address: address.into(),
            version: None,
        }
    }

    /// The same, held to a version of the API (`DOCKER_API_VERSION`).
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The command with these words, not yet started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.host.command("docker");
        command
            .env("DOCKER_HOST", &self.address)
            .env_remove("DOCKER_API_VERSION")
            .args(words);
        if let Some(version) = &self.version {
            command.env("DOCKER_API_VERSION", version);
        }
        command
    }

    /// Runs it with the words of the line, which are split at blanks, and lets it take a minute.
    pub fn run(&self, line: &str) -> Ran {
        self.words(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs it with these very words.
    pub fn words(&self, words: &[&str]) -> Ran {
        self.fed(words, &[])
    }

    /// Runs it with something on its standard input.
    pub fn fed(&self, words: &[&str], input: &[u8]) -> Ran {
        Ran::command(&mut self.command(words), input, self.limit())
    }

    fn limit(&self) -> Duration {
        patience(60)
    }

    /// Runs the line, which must succeed; returns what it printed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }

    /// Imports a tar as an image of this name, with `docker import` and these changes.
    #[track_caller]
    pub fn import(&self, tar: &std::path::Path, name: &str, changes: &[&str]) {
        let tar = tar.display().to_string();
        let mut words = vec!["import"];
        for change in changes {
            words.extend(["--change", change]);
        }
        words.extend([tar.as_str(), name]);
        self.words(&words).ok();
    }

    /// What `docker inspect --format` says of a thing.
    #[track_caller]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.words(&["inspect", "--format", format, name]).ok()
    }

    /// The address of a container in the default network.
    #[track_caller]
    pub fn address(&self, name: &str) -> String {
        self.inspect(name, "{{.NetworkSettings.Networks.bridge.IPAddress}}")
    }
}
