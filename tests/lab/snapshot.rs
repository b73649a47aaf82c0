//! What is on a host: taken before and after, to be compared.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Host, patience};

/// What can be left behind, by kind.
#[derive(PartialEq, Eq, Debug, Clone)]
pub struct Snapshot {
    parts: BTreeMap<&'static str, Vec<String>>,
}

impl Snapshot {
    /// Devices, addresses, routes, namespaces, mounts, cgroups, pins and processes of the host.
    pub fn take(host: &Host) -> Self {
        let lines = |script: &str| {
            let mut lines: Vec<String> = host.run(script).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let cgroups = host
            .cgroups()
            .into_iter()
            .map(|path| format!("{} {:?}", path.display(), below(&path)));
        let own = |line: &String| line.ends_with("sh -c") || line.is_empty();
        let processes = host
            .processes()
            .into_iter()
            .map(|(pid, line)| format!("{pid} {line}"))
            .filter(|line| !own(line));
        let parts = BTreeMap::from([
            ("devices", lines("ip -o link | cut -d: -f2")),
            ("addresses", lines("ip -o -4 address | awk '{print $2, $4}'")),
            ("routes", lines("ip -4 route show table all")),
            // of one link only they come and go by themselves
            (
                "addresses of IPv6",
                lines("ip -o -6 address show scope global | awk '{print $2, $4}'"),
            ),
            (
                "routes of IPv6",
                lines("ip -6 route show table all | grep -v -e fe80 -e ff00 || true"),
            ),
            ("rules", lines("ip -4 rule")),
            ("mounts", lines("awk '{print $5}' /proc/self/mountinfo")),
            ("pins", lines("find /sys/fs/bpf -mindepth 1")),
            ("namespaces", lines("ls /run/netns")),
            ("cgroups", sorted(cgroups.collect())),
            ("processes", sorted(processes.collect())),
        ]);
        Self { parts }
    }

    /// What is still different on the host after some patience: what the daemon removes, devices first of all, goes in the background.
    pub fn left(&self, host: &Host) -> String {
        let end = Instant::now() + patience(10);
        loop {
            let left = self.difference(&Self::take(host));
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// What differs in `other`, a line each: `-` is only here, `+` only there.
    pub fn difference(&self, other: &Self) -> String {
        let mut text = String::new();
        for (kind, here) in &self.parts {
            let there = &other.parts[kind];
            for line in here.iter().filter(|line| !there.contains(line)) {
                text.push_str(&format!("{kind}: -{line}\n"));
            }
            for line in there.iter().filter(|line| !here.contains(line)) {
                text.push_str(&format!("{kind}: +{line}\n"));
            }
        }
        text
    }
}

fn below(path: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    sorted(
        entries
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
    )
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}
