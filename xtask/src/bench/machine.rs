//! What it was measured on and with, without the name of the machine.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::figure::cpus;
use crate::repository;
use crate::step;

/// Kernel, CPUs, tools.
pub struct Machine {
    kernel: String,
    cpu: String,
    tools: Vec<(&'static str, String)>,
    bridge_netfilter: bool,
    congestion_control: String,
}

/// Name, question, and the word before the version.
const TOOLS: [(&str, &str, &str); 7] = [
    ("dockerd", "--version", "version"),
    ("containerd", "--version", "containerd"),
    ("runc", "--version", "version"),
    ("docker", "--version", "version"),
    ("iperf3", "--version", "iperf"),
    ("sockperf", "--version", "version"),
    ("nginx", "-v", "version:"),
];

impl Machine {
    /// This one.
    pub fn look() -> Self {
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = about.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            kernel: setting("kernel/osrelease"),
            cpu: cpu.unwrap_or("unknown").trim_start_matches(['\t', ' ', ':']).to_owned(),
            tools: TOOLS
                .iter()
                .filter_map(|(name, question, before)| Some((*name, version(name, question, before)?)))
                .collect(),
            bridge_netfilter: fs::exists("/proc/sys/net/bridge").unwrap_or(false),
            congestion_control: setting("net/ipv4/tcp_congestion_control"),
        }
    }

    /// In a paragraph.
    pub fn described(&self) -> String {
        let tools: Vec<String> = self
            .tools
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        let bridge = match self.bridge_netfilter {
            true => "bridges pass frames through netfilter (br_netfilter is there)",
            false => "bridges do not pass frames through netfilter (no br_netfilter)",
        };
        format!(
            "Linux {}, {} CPUs ({}); {}; TCP with {}; {bridge}.",
            self.kernel,
            cpus(),
            self.cpu,
            tools.join(", "),
            self.congestion_control,
        )
    }

    /// For the record.
    pub fn json(&self) -> Value {
        let tools: serde_json::Map<_, _> = self
            .tools
            .iter()
            .map(|(name, version)| ((*name).to_owned(), json!(version)))
            .collect();
        json!({
            "kernel": self.kernel,
            "cpus": cpus(),
            "cpu": self.cpu,
            "tools": tools,
            "congestion_control": self.congestion_control,
            "bridge_netfilter": self.bridge_netfilter,
        })
    }
}

/// What the kernel says below `/proc/sys`.
fn setting(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{name}"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// A load average from which on figures suffer.
pub const BUSY: f64 = 0.7;

/// Processes that ran or waited for a CPU in the last minute, on average.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The word after `before`; some programs say it where others complain.
fn version(name: &str, question: &str, before: &str) -> Option<String> {
    let output = Command::new(repository::program(name)?).arg(question).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let mut words = said.split_whitespace().skip_while(|word| *word != before).skip(1);
    // `containerd NAME VERSION`, `nginx version: nginx/VERSION`
    let version = words.find(|word| word.contains(|letter: char| letter.is_ascii_digit()))?;
    Some(version.trim_start_matches("nginx/").trim_matches(',').to_owned())
}

/// Is `perf` there? It is needed for profiles only.
pub fn has_perf() -> bool {
    step::output(Command::new("perf").arg("--version")).is_ok()
}
