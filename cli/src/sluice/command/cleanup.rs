//! `sluice cleanup`: hands over to `sluiced --cleanup`, which knows what a daemon leaves behind.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;

use crate::{
    daemon::{Address, Daemon},
    failure::Failure,
};

/// Where the daemon's socket is when nobody says otherwise.
const EXEC_ROOT: &str = "/run/sluice";

/// `sluice cleanup`
#[derive(Args)]
pub struct Cleanup {
    /// The instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Its data
    #[arg(long, value_name = "DIRECTORY")]
    data_root: Option<PathBuf>,
    /// Its run-time files
    #[arg(long, value_name = "DIRECTORY")]
    exec_root: Option<PathBuf>,
    /// Its cgroups
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
    /// Its file with options
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Remove its data too, images among it
    #[arg(long)]
    all: bool,
}

impl Cleanup {
    /// `host_said`: was `-H` given? Else the daemon of these directories is asked for; `DOCKER_HOST` may be quite another one.
    pub async fn answer(&self, host_said: bool, daemon: &Daemon) -> Result<(), Failure> {
        let asked = match &self.exec_root {
            _ if host_said => daemon.clone(),
            root => {
                let root = root.as_deref().unwrap_or(Path::new(EXEC_ROOT));
                Daemon::at(Address::Unix(root.join("sluice.sock")))
            }
        };
        match asked.get_bytes("/_ping").await {
            Err(Failure::Unreachable { .. }) => {}
            _ => {
                let why = format!("a daemon is running at {}: stop it first", asked.address());
                return Err(Failure::Usage(why));
            }
        }
        let program = program();
        let mut command = Command::new(&program);
        command.args(self.arguments());
        // does not come back when it works
        let why = command.exec();
        Err(Failure::Usage(format!("cannot run {}: {why}", program.display())))
    }

    fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = vec!["--cleanup".into()];
        let mut add = |name: &str, value: Option<&std::ffi::OsStr>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value.to_owned()]);
            }
        };
        add("--instance", self.instance.as_deref().map(std::ffi::OsStr::new));
        add("--data-root", self.data_root.as_deref().map(AsRef::as_ref));
        add("--exec-root", self.exec_root.as_deref().map(AsRef::as_ref));
        add(
            "--cgroup-parent",
            self.cgroup_parent.as_deref().map(std::ffi::OsStr::new),
        );
        add("--config-file", self.config_file.as_deref().map(AsRef::as_ref));
        arguments.extend(self.all.then(|| "--all".into()));
        arguments
    }
}

/// The daemon that was built with us, else the one of the system.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("sluiced"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "sluiced".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_gets_the_flags_that_were_given() {
        let cleanup = Cleanup {
            instance: Some("two".into()),
            data_root: Some("/d".into()),
            exec_root: None,
            cgroup_parent: None,
            config_file: None,
            all: true,
        };
        assert_eq!(
            cleanup.arguments(),
            ["--cleanup", "--instance", "two", "--data-root", "/d", "--all"]
        );
    }
}
