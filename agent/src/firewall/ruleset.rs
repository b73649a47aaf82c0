//! Rules of any firewall, as far as they decide what becomes of a stranger's first packet.

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use sluice_model::network::Family;

use super::Visit;

/// The rules of one owner.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// What people call it.
    pub name: String,
    /// Only packets of this family pass.
    pub family: Option<Family>,
    /// Written by iptables, in words that only iptables reads.
    pub is_of_iptables: bool,
    /// Where packets for the host begin: they pass all of these.
    pub roots: Vec<Root>,
    /// By their names.
    pub chains: HashMap<String, Vec<Rule>>,
}

/// A chain that a hook of the kernel's calls.
#[derive(Debug)]
pub struct Root {
    /// Its name.
    pub chain: String,
    /// What becomes of packets that no rule decides about.
    pub accepts: bool,
}

/// A rule that may decide.
#[derive(Clone, Debug)]
pub struct Rule {
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// Then this is done.
    pub verdict: Verdict,
}

/// What a rule does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Accept,
    /// Silently or not.
    Drop,
    /// The chain that called goes on.
    Return,
    /// Goes on in this chain, then here.
    Jump(String),
    /// Goes on in this chain, then where a return leads.
    Goto(String),
    /// Nobody here knows.
    Unread,
}

/// Something that is true of packets or not.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Of every packet like ours, or of none.
    Known(bool),
    /// Of some (a rate, a source port).
    Sometimes,
    /// Nobody here knows.
    Unread,
    /// It comes in by this device; `*` at the end stands for anything.
    Device(String),
    Protocol(u8),
    Family(Family),
    Source(Addresses),
    Destination(Addresses),
    Port(RangeInclusive<u16>),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// Addresses, the first and the last among them.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub first: IpAddr,
    pub last: IpAddr,
}

/// How far something holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// For all packets of a kind.
    Yes,
    /// For some.
    Partly,
    /// We cannot read it.
    Unread,
    /// For none.
    No,
}

// === impl Rule ===

impl Rule {
    /// Is it about these packets?
    pub fn holds(&self, visit: &Visit) -> Truth {
        all(self.conditions.iter().map(|condition| condition.holds(visit)))
    }
}

// === impl Condition ===

impl Condition {
    /// The opposite, if it is meant.
    pub fn negated(self, is_negated: bool) -> Self {
        match is_negated {
            true => Self::Not(Box::new(self)),
            false => self,
        }
    }

    /// Is it true of these packets?
    pub fn holds(&self, visit: &Visit) -> Truth {
        match self {
            Self::Known(is_so) => (*is_so).into(),
            Self::Sometimes => Truth::Partly,
            Self::Unread => Truth::Unread,
            Self::Device(name) => match name.strip_suffix('*') {
                Some(beginning) => visit.device.starts_with(beginning).into(),
                None => (visit.device == *name).into(),
            },
            Self::Protocol(number) => (visit.protocol == *number).into(),
            Self::Family(family) => (Family::of(visit.address) == *family).into(),
            Self::Source(addresses) => addresses.cover(visit.source),
            Self::Destination(addresses) => addresses.cover(visit.address.into()),
            Self::Port(range) => range.contains(&visit.port).into(),
            Self::Not(condition) => match condition.holds(visit) {
                Truth::Yes => Truth::No,
                Truth::No => Truth::Yes,
                other => other,
            },
            Self::All(conditions) => all(conditions.iter().map(|condition| condition.holds(visit))),
            Self::Any(conditions) => any(conditions.iter().map(|condition| condition.holds(visit))),
        }
    }
}

fn all(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.fold(Truth::Yes, |one, other| match (one, other) {
        (Truth::No, _) | (_, Truth::No) => Truth::No,
        (Truth::Unread, _) | (_, Truth::Unread) => Truth::Unread,
        (Truth::Partly, _) | (_, Truth::Partly) => Truth::Partly,
        _ => Truth::Yes,
    })
}

fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.fold(Truth::No, |one, other| match (one, other) {
        (Truth::Yes, _) | (_, Truth::Yes) => Truth::Yes,
        (Truth::Unread, _) | (_, Truth::Unread) => Truth::Unread,
        (Truth::Partly, _) | (_, Truth::Partly) => Truth::Partly,
        _ => Truth::No,
    })
}

// === impl Truth ===

impl From<bool> for Truth {
    fn from(is_so: bool) -> Self {
        match is_so {
            true => Self::Yes,
            false => Self::No,
        }
    }
}

// === impl Addresses ===

impl Addresses {
    /// Is all of the prefix among them?
    fn cover(&self, net: IpNet) -> Truth {
        let (first, last) = (net.network(), net.broadcast());
        if first.is_ipv4() != self.first.is_ipv4() || last < self.first || first > self.last {
            return Truth::No;
        }
        match self.first <= first && last <= self.last {
            true => Truth::Yes,
            false => Truth::Partly,
        }
    }
}

impl From<IpNet> for Addresses {
    fn from(net: IpNet) -> Self {
        Self {
            first: net.network(),
            last: net.broadcast(),
        }
    }
}
