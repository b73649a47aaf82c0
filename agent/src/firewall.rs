//! What the host's own firewall believes of the packets that reach published ports.
//!
//! The datapath takes such packets before netfilter sees them, so no rule of the host's opens or closes a published port. Whoever wrote `ufw deny` may
//! believe otherwise and should be told: the rules are read (from `nft` and `iptables-save`, as a person would), and a first packet of a stranger
//! is walked through them. Nothing here changes a rule.

mod iptables;
mod judge;
mod nftables;
mod ruleset;

use std::{
    io,
    net::IpAddr,
    process::{Command, Output, Stdio},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use ruleset::Ruleset;

/// A first packet of a conversation that comes from outside to the host itself.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The device it comes in by.
    pub device: String,
    /// Whoever may have sent it.
    pub source: IpNet,
    /// The host's address.
    pub address: IpAddr,
    /// The IP protocol's number.
    pub protocol: u8,
    /// The port it is for.
    pub port: u16,
}

/// What a firewall would do with all packets of a kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Belief {
    /// Let all in.
    Open,
    /// Let some in: by their source, how many they are, or what else the packet of a stranger does not say.
    Limited,
    /// It depends on a rule that we cannot read.
    Unclear,
    /// Let none in.
    Closed,
}

/// The firewalls of this host, as their rules are now.
#[derive(Debug, Default)]
pub struct Firewalls {
    rulesets: Vec<Ruleset>,
    unread: Vec<String>,
}

impl Firewalls {
    /// Reads the rules of the calling thread's network namespace.
    pub fn read() -> Self {
        let mut firewalls = Self::default();
        match run("nft", &["-j", "list", "ruleset"]).and_then(|text| nftables::read(&text)) {
            Ok(rulesets) => firewalls.rulesets.extend(rulesets),
            Err(why) => firewalls
                .unread
                .push(format!("the rules of nftables could not be read: {why}")),
        }
        let before = firewalls.rulesets.len();
        for (program, is_ipv4) in iptables::PROGRAMS {
            match run(program, &[]) {
                Ok(text) => firewalls.rulesets.extend(iptables::read(&text, is_ipv4)),
                // Most hosts have not all of them, and who has no rules there needs none.
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => firewalls.unread.push(format!("{program} could not be asked: {why}")),
            }
        }
        // What iptables wrote into nftables is read by iptables alone, which knows its words.
        let (nft, iptables) = firewalls.rulesets.split_at(before);
        if iptables.is_empty() && nft.iter().any(|ruleset| ruleset.is_of_iptables) {
            let why = "rules of iptables are there, but iptables-save is not, which could read them";
            firewalls.unread.push(why.to_owned());
        }
        firewalls.rulesets.retain(|ruleset| !ruleset.is_of_iptables);
        firewalls
    }

    /// Those that judge what comes in, by the names people know them by.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.rulesets.iter().map(|ruleset| ruleset.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// What could not be read, a sentence each.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// What becomes of such packets at the strictest of them, and its name.
    pub fn belief(&self, visit: &Visit) -> (Belief, &str) {
        let judged = self
            .rulesets
            .iter()
            .map(|ruleset| (judge::belief(ruleset, visit), ruleset.name.as_str()));
        judged.max_by_key(|(belief, _)| *belief).unwrap_or((Belief::Open, ""))
    }
}

/// What a program prints.
fn run(program: &str, words: &[&str]) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).env("LC_ALL", "C");
    let Output { status, stdout, stderr } = command.output().map_err(|why| match why.kind() {
        io::ErrorKind::NotFound => io::Error::new(why.kind(), format!("{program} is not installed")),
        _ => why,
    })?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        return Err(io::Error::other(format!(
            "{program} failed: {}",
            said.lines().next().unwrap_or("it does not say why")
        )));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
