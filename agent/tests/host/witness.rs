//! What a test looks at from outside.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::stage::{Host, address, attempt, eventually, run};

/// Everything that is pinned for the host, by path.
pub fn pins(host: &Host) -> Vec<String> {
    fn walk(directory: &std::path::Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            into.push(entry.path().display().to_string());
            if entry.path().is_dir() {
                walk(&entry.path(), into);
            }
        }
    }
    let mut pins = Vec::new();
    walk(&host.config.bpffs.join("sluice"), &mut pins);
    pins.sort();
    pins
}

/// The links among the pins, with their numbers and programs. Those of the whole machine are also others'.
pub fn pinned_links(host: &Host) -> Vec<String> {
    pins(host)
        .iter()
        .filter_map(|pin| match attempt(&format!("bpftool link show pinned {pin}")) {
            (true, link) => Some(link),
            _ => None,
        })
        .collect()
}

/// Devices with their indices, addresses, and everything that changes when one is touched.
pub fn devices() -> String {
    run("ip -details address show")
        .lines()
        .filter(|line| !line.contains("valid_lft") && !line.contains("inet6"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A thousand pings from one endpoint to the other, over some seconds.
pub fn flood(host: &Host) -> Child {
    Command::new("nsenter")
        .arg(format!("--net={}", host.sandbox(1).display()))
        .args([
            "ping",
            "-q",
            "-i",
            "0.005",
            "-c",
            "1000",
            "-W",
            "1",
            &address(2).to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until so many veths have their links.
pub async fn links_of(host: &Host, veths: usize) {
    let promoted = async || pins(host).iter().filter(|pin| pin.contains("from_container-")).count() == veths;
    eventually("the veths have their links", Duration::from_secs(5), promoted).await;
}
