//! Facts of this machine that `info` and `version` show.

use std::fs;

/// The kernel's release, e.g. `6.1.0-18-amd64`.
pub(crate) fn kernel() -> String {
    first_line("/proc/sys/kernel/osrelease")
}

/// The machine's name.
pub(crate) fn name() -> String {
    first_line("/proc/sys/kernel/hostname")
}

/// Bytes of memory.
pub(crate) fn memory() -> u64 {
    let kibibytes = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        text.lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
    });
    kibibytes.unwrap_or(0u64) * 1024
}

/// Processors this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |number| number.get())
}

/// A value of os-release, e.g. `PRETTY_NAME`.
pub(crate) fn system(key: &str) -> String {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or("unknown").trim_matches('"').to_owned()
}

/// The architecture as `uname` says it.
pub(crate) fn architecture() -> &'static str {
    std::env::consts::ARCH
}

/// The architecture as images say it.
pub(crate) fn image_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Does the host forward packets? Docker's clients are shown it.
pub(crate) fn forwards_ipv4() -> bool {
    first_line("/proc/sys/net/ipv4/ip_forward") == "1"
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
