//! A place: namespaces of network, mounts, name and processes, held by a first process that lives as long as this program does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::step::{self, Doing, Failure, Outcome};

/// Run by the first process, with the place's name. It gives the place that name, a `/run`, a bpffs and a `/sys` of its own, adopts and reaps orphans as an init does, and ends,
/// and with it everything in the place, when its standard input is closed: by us, or by the kernel when we are no more.
const FIRST: &str = r"
set -e
mount -t tmpfs tmpfs /run
mkdir /run/cgroup
mount --move /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --move /run/cgroup /sys/fs/cgroup
rmdir /run/cgroup
mount -t bpf bpf /sys/fs/bpf
echo $1 > /proc/sys/kernel/hostname
ip link set lo up
exec 3<&0
cat <&3 &
echo ready
wait $!
";

/// A machine's worth of namespaces. Everything in it ends when it is dropped.
pub struct Place {
    unshare: Child,
    /// Its own processes.
    holders: Vec<u32>,
}

impl Place {
    /// A place with nothing but `lo`, which is up.
    pub fn open() -> Outcome<Self> {
        /// Hosts that speak to each other are told apart by their names.
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let name = format!("host{}", OPENED.fetch_add(1, Ordering::Relaxed));
        let mut unshare = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["sh", "-c", FIRST, "sh", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us; we tidy up.
            .process_group(0)
            .spawn()
            .doing(|| String::from("start unshare"))?;
        let mut line = String::new();
        if let Some(said) = unshare.stdout.take() {
            BufReader::new(said)
                .read_line(&mut line)
                .doing(|| String::from("wait for a new namespace"))?;
        }
        let mut place = Self {
            unshare,
            holders: Vec::new(),
        };
        if line.trim_end() != "ready" {
            return Err(Failure::new("could not make a host of namespaces"));
        }
        place.holders = place.processes();
        Ok(place)
    }

    /// A program in this place, not yet started.
    pub fn command(&self, program: &str) -> Command {
        let process = self.unshare.id();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={process}"))
            .args(["--net", "--mount", "--uts"])
            .arg(format!("--pid=/proc/{process}/ns/pid_for_children"))
            .args(["--", program]);
        command
    }

    /// Runs a line of shell.
    pub fn shell(&self, line: &str) -> Outcome<String> {
        step::output(self.command("sh").args(["-e", "-c", line]))
    }

    /// Joins two places by a cable: the name and address (with prefix) of this end, then of the other. Everything of the cable is as the kernel makes it.
    pub fn join(
        &self,
        (device, address): (&str, &str),
        other: &Self,
        (far_device, far_address): (&str, &str),
    ) -> Outcome {
        // By the outer number of the process, so from the outside, with our /proc.
        step::output(
            Command::new("nsenter")
                .arg(format!("--net=/proc/{}/ns/net", self.unshare.id()))
                .args(["ip", "link", "add", device, "type", "veth", "peer", "name", far_device])
                .args(["netns", &other.unshare.id().to_string()]),
        )?;
        self.shell(&format!("ip addr add {address} dev {device}; ip link set {device} up"))?;
        other.shell(&format!(
            "ip addr add {far_address} dev {far_device}; ip link set {far_device} up"
        ))?;
        Ok(())
    }

    /// The processes started in this place, not those of namespaces below it: an engine, without what runs in its containers.
    pub fn processes_started(&self) -> Vec<u32> {
        let mut processes = self.processes();
        processes.retain(|process| !self.holders.contains(process));
        processes
    }

    fn processes(&self) -> Vec<u32> {
        let namespace = |path: PathBuf| fs::read_link(path).ok();
        let Some(ours) = namespace(format!("/proc/{}/ns/pid_for_children", self.unshare.id()).into()) else {
            return Vec::new();
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|process: &u32| namespace(format!("/proc/{process}/ns/pid").into()).as_ref() == Some(&ours))
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.unshare.stdin.take());
        for _ in 0..100 {
            if !matches!(self.unshare.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}
