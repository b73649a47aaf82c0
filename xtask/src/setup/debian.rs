//! Packages of Debian.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::step::{self, Doing, Outcome, say};

/// Asked by package scripts before they start a service; 101 is "not allowed".
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Is this a system with apt and dpkg?
pub fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists()
}

/// Is the package installed?
pub fn has(package: &str) -> bool {
    step::output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// Installs packages, and starts none of the services that come with them (a web server and a container engine are among them).
pub fn install(packages: &[&str]) -> Outcome {
    if !is_root() {
        say("packages are installed with sudo");
    }
    // A failing mirror is told by the installation, if it matters: the lists that are there may do.
    if let Err(failure) = step::output(&mut as_root(["apt-get", "update", "-q"])) {
        say(format_args!("the package lists may be old: {failure}"));
    }
    say(format_args!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    ));
    let policy = NoServices::declare()?;
    let installed = step::output(
        as_root([
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
        ])
        .args(packages),
    );
    drop(policy);
    installed.map(drop)
}

/// The command, with sudo unless we are root.
pub fn as_root<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut words = words.into_iter();
    let mut command = match (is_root(), words.next()) {
        (true, Some(program)) => Command::new(program),
        (_, program) => {
            let mut sudo = Command::new("sudo");
            sudo.arg("-E").args(program);
            sudo
        }
    };
    command.args(words);
    command
}

/// Runs this very command again with sudo, and says so. Of the environment these variables are sure to arrive.
pub fn again_as_root(variables: &[(&str, &Path)]) -> Outcome {
    say("this needs root: going on with sudo");
    let own = std::env::current_exe().doing(|| "find this program".into())?;
    let mut command = as_root(["env"]);
    command.arg(format!("PATH={}", std::env::var("PATH").unwrap_or_default()));
    command.args(
        variables
            .iter()
            .map(|(name, value)| format!("{name}={}", value.display())),
    );
    step::run(command.arg(own).args(std::env::args_os().skip(1)))
}

/// Are we root?
pub fn is_root() -> bool {
    step::output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

/// While this lives, packages start no services. Where somebody has a policy already, that one holds.
struct NoServices {
    is_ours: bool,
}

impl NoServices {
    fn declare() -> Outcome<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { is_ours: false });
        }
        say("services that come with packages are not started");
        let script = std::env::temp_dir().join(format!("sluice-policy-{}", std::process::id()));
        fs::write(&script, "#!/bin/sh\nexit 101\n").doing(|| format!("write {}", script.display()))?;
        let installed = step::run(as_root(["install", "-m", "755"]).arg(&script).arg(POLICY));
        let _ = fs::remove_file(&script);
        installed.map(|()| Self { is_ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = as_root(["rm", "-f", POLICY]).stdout(Stdio::null()).status();
        }
    }
}
