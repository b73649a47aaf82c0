//! Documents as tables: what the datapath looks up for the first packet of a conversation.
//!
//! At one end of it, for one direction:
//!
//! 1. The endpoint is a *subject*: a number that stands for everything that is said of it. None: nothing is said.
//! 2. Who is on the other side belongs to some *groups*: found by the address, the longest prefix of those that are known. Everybody belongs to
//!    [`Number::EVERYBODY`] besides.
//! 3. For each of the groups there may be a *cell*: what the subject's rules say of the group. Where that depends on protocol and port, the cell names a
//!    *list*, in which the longest fitting block is looked for; what it holds is the whole truth, blocks around it included.
//! 4. The strictest of what the cells say is what is said; where none says anything, it is the cell of [`Number::NOBODY`].
//!
//! So the number of look-ups depends neither on the number of documents nor on that of endpoints, and there are as many entries as rules that speak of the
//! subjects there are, each counted once for those who are treated alike.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{Direction, Judgement, Number, document::Name, traffic::Block};

/// How many groups an address belongs to at most, besides everybody's. Who is meant by more peers than this belongs to one group of its own, which stands
/// for exactly those.
pub const MOST_GROUPS: usize = 8;

/// What is said of an endpoint. [`Number::NONE`]: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// Of what it hears.
    pub ingress: Number,
    /// Of what it says.
    pub egress: Number,
}

/// What is said of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Of all its traffic.
    pub all: Judgement,
    /// Where more is said of some traffic. [`Number::NONE`]: nowhere.
    pub list: Number,
}

/// Where a rule stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The name of its document.
    pub policy: Name,
    /// Of which of its two lists.
    pub direction: Direction,
    /// Its place there, from 0. None: it is what is said when no rule says anything.
    pub place: Option<usize>,
}

/// The tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// By endpoint number.
    pub subjects: BTreeMap<u32, Subject>,
    /// By prefix.
    pub known: BTreeMap<IpNet, Vec<Number>>,
    /// By subject and group.
    pub cells: BTreeMap<(Number, Number), Cell>,
    /// By list and block.
    pub lists: BTreeMap<(Number, Block), Judgement>,
    /// Rules by number, for people.
    pub rules: BTreeMap<Number, Origin>,
}

// === impl Number ===

impl Default for Number {
    fn default() -> Self {
        Self::NONE
    }
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (policy, direction) = (self.policy.as_str(), self.direction);
        match self.place {
            Some(place) => write!(out, "{policy}, rule {} of {direction}", place + 1),
            None => write!(out, "{policy}, {direction}: allowed by no rule"),
        }
    }
}

// === impl Subject ===

impl Subject {
    /// Of a direction.
    pub fn of(&self, direction: Direction) -> Number {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

// === impl Tables ===

impl Tables {
    /// What is said at one end of a conversation, as the datapath finds it.
    pub fn judge(&self, endpoint: u32, direction: Direction, peer: IpAddr, protocol: u8, port: u16) -> Judgement {
        let subject = self
            .subjects
            .get(&endpoint)
            .map_or(Number::NONE, |subject| subject.of(direction));
        if subject == Number::NONE {
            return Judgement::default();
        }
        let mut said = self.said(subject, Number::EVERYBODY, protocol, port);
        for group in self.groups(peer) {
            said = said.and(self.said(subject, *group, protocol, port));
        }
        said.or(self.said(subject, Number::NOBODY, protocol, port))
    }

    fn groups(&self, address: IpAddr) -> &[Number] {
        let longest = IpNet::from(address).prefix_len();
        (0..=longest)
            .rev()
            .filter_map(|length| self.known.get(&IpNet::new(address, length).ok()?.trunc()))
            .next()
            .map_or(&[], Vec::as_slice)
    }

    fn said(&self, subject: Number, group: Number, protocol: u8, port: u16) -> Judgement {
        let Some(cell) = self.cells.get(&(subject, group)) else {
            return Judgement::default();
        };
        if cell.list == Number::NONE {
            return cell.all;
        }
        (0..=16)
            .rev()
            .filter_map(|bits| self.lists.get(&(cell.list, Block::around(protocol, port, bits))))
            .next()
            .copied()
            .unwrap_or(cell.all)
    }
}

// === impl Block ===

impl Block {
    /// The block of so many bits that a port lies in.
    pub fn around(protocol: u8, port: u16, bits: u8) -> Self {
        let mask = (0xffff_0000_u32 >> bits) as u16;
        Self {
            protocol,
            port: port & mask,
            bits,
        }
    }
}
