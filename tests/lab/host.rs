//! A host: what a machine has of its own, without the machine.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::Flock;
use nix::sys::signal::SigSet;

use crate::namespaces::Namespaces;
use crate::{Ran, cgroup, files, leftovers, patience};

/// A machine made of namespaces. A clone is the same machine; it goes with the last of them.
#[derive(Clone)]
pub struct Host {
    machine: Arc<Machine>,
}

/// What the clones share.
struct Machine {
    name: String,
    directory: PathBuf,
    namespaces: Namespaces,
    /// By writing to it a process joins the cgroup.
    door: File,
    _lock: Flock<File>,
}

impl Host {
    /// A host with nothing but `lo`, which is up.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        leftovers::remove();
        let name = format!("lab-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = files::root().join(&name);
        files::make(&directory);
        let lock = leftovers::claim(&directory);
        let namespaces = Namespaces::make(&name);
        let door = cgroup::make(&name);
        let host = Self {
            machine: Arc::new(Machine {
                name,
                directory,
                namespaces,
                door,
                _lock: lock,
            }),
        };
        host.run("ip link set lo up");
        host
    }

    /// Its name, also of its cgroups and its directory.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// A directory on a real file system, which goes with the host.
    pub fn directory(&self) -> &Path {
        &self.machine.directory
    }

    /// A program in the host, not yet started. It ends with the host at the latest.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let machine = self.machine.clone();
        let enter = move || {
            (&machine.door).write_all(b"0")?;
            machine.namespaces.enter()?;
            // Whoever holds signals back here does not mean the programs in the host.
            SigSet::all().thread_unblock()?;
            Ok(())
        };
        // SAFETY: between fork and exec only write(2), setns(2) and sigprocmask(2) are called, on what was opened before; nothing is allocated.
        unsafe { command.pre_exec(enter) };
        command
            .current_dir("/")
            .env("HOME", &self.machine.directory)
            .env("DOCKER_CONFIG", self.machine.directory.join("docker-config"));
        command
    }

    /// Runs a line of shell in the host, for at most a minute.
    pub fn shell(&self, script: &str) -> Ran {
        Ran::command(self.command("/bin/sh").arg("-c").arg(script), &[], patience(60))
    }

    /// Runs a line of shell that must succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        self.shell(script).ok()
    }

    /// Starts a line of shell in the background; its output goes to `<directory>/<log>`.
    pub fn spawn(&self, log: &str, script: &str) -> Background {
        let path = self.machine.directory.join(log);
        let output = File::create(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        let errors = output
            .try_clone()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut command = self.command("/bin/sh");
        command
            .arg("-c")
            .arg(format!("exec {script}"))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start `{script}`: {error}"));
        Background { child, log: path }
    }

    /// Runs the closure in the host's namespaces, on a thread of its own (for many connections, for `/run` as the host sees it).
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.machine.namespaces.inside(work)
    }

    /// Runs the closure in the network namespace of a process (of a container), on a thread of its own.
    pub fn within<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
        Namespaces::within(pid, work)
    }

    /// A line of shell that opens a shell in the host, for as long as this program runs.
    pub fn door(&self) -> String {
        self.machine.namespaces.door()
    }

    /// Joins this host and another by a cable between two devices.
    pub fn connect(&self, device: &str, other: &Host, others_device: &str) {
        let there = other.machine.namespaces.net_path();
        self.run(&format!(
            "ip link add {device} type veth peer name {others_device} netns {there}"
        ));
        self.run(&format!("ip link set {device} up"));
        other.run(&format!("ip link set {others_device} up"));
    }

    /// The processes of the host, containers included, by number and command line.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let groups = cgroup::all(&self.machine.name)
            .into_iter()
            .filter(|group| group.starts_with(cgroup::unified()));
        let pids = groups.flat_map(|group| cgroup::processes(&group));
        pids.filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some((
                pid,
                String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned(),
            ))
        })
        .collect()
    }

    /// The cgroups at the top of each hierarchy that belong to the host.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        cgroup::all(&self.machine.name)
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        cgroup::remove(&self.name);
        if std::env::var_os("SLUICE_LAB_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Machine {
    /// Shows the ends of the logs of a test that failed.
    fn tell(&self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for path in entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
        {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(40);
            eprintln!("--- the end of {}\n{}", path.display(), lines[from..].join("\n"));
        }
    }
}

/// A program in the background. It is killed when this goes.
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and returns its exit code (none when it was killed).
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        crate::eventually("a program in the background ends", 120, || {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    code = status.code();
                    true
                }
                _ => false,
            }
        });
        code
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, killpg};
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = killpg(
                nix::unistd::Pid::from_raw(self.child.id().cast_signed()),
                Signal::SIGKILL,
            );
            let _ = self.child.wait();
        }
    }
}
