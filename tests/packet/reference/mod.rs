//! The datapath a second time, as plain Rust over plain values: what it is specified to do, short enough to be read in one sitting.
//!
//! Nothing of the datapath's code is used, only its vocabulary (drop reasons, actions, states). Where the datapath keeps a pair of entries there is
//! one [`Conversation`](conversation::Conversation) here; where it corrects checksums there is a rule that they stay as right, or as wrong, as
//! they were; where it asks the kernel for a route there is a list. `random` gives the same packets to both and compares.
//!
//! Both address families are one here: everything is written over [`IpAddr`](std::net::IpAddr).

pub mod arp;
pub mod conversation;
pub mod judge;
pub mod neighbour;
pub mod overlay;
pub mod path;
pub mod wire;
pub mod world;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use sluice_datapath_common::DropReason;
use sluice_datapath_common::drop::Direction;

use conversation::{Conversation, Key};
use overlay::Wrapped;
use world::World;

/// The datapath's whole state.
#[derive(Clone, Debug)]
pub struct Reference {
    /// What it was told.
    pub world: World,
    /// What it has learned: who speaks with whom.
    pub conversations: Vec<Conversation>,
    /// The ports of datagrams whose first fragment has passed, by what all fragments share. `None`: the datagram is the host's own.
    pub fragments: BTreeMap<Datagram, Option<(u16, u16)>>,
    /// Packets and bytes that died, by endpoint, reason and direction.
    pub drops: BTreeMap<(u32, u8, u8), (u64, u64)>,
    /// The conversation that the last packet opened: what its opener says, and what is answered.
    pub opened: Option<(Key, Key)>,
    /// The devices that the last packet was handed to as it was, as it was said to many.
    pub told: BTreeSet<u32>,
    /// What the last packet was when it had been unwrapped, and its scope, if another host had encapsulated it.
    pub unwrapped: Option<(Vec<u8>, u32)>,
    /// How long the report is that the last packet was made into, bytes.
    pub report: Cell<Option<usize>>,
    /// How many entries the table of answered flows holds: two per conversation.
    pub capacity: usize,
}

/// What all fragments of a datagram share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Datagram {
    pub source: std::net::IpAddr,
    pub destination: std::net::IpAddr,
    pub identification: u32,
    pub scope: u32,
    pub protocol: u8,
}

/// Where a packet meets a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    FromContainer,
    FromHost,
    FromNic,
    ToNic,
}

/// What becomes of a packet, and what it looks like then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It goes on where it is.
    Stays(Vec<u8>),
    /// It goes elsewhere.
    Sent(Vec<u8>),
    /// It goes to another host, in a packet.
    Wrapped(Wrapped),
    /// It was understood and needs no answer, was said to many, or waits for the first fragment of its datagram.
    Heard,
    /// It died.
    Dropped(DropReason),
}

/// What the specification leaves to the datapath, which is asked after the fact: the port that it gave to the conversation with this opening.
pub type Witness<'a> = &'a mut dyn FnMut(&Key) -> Option<u16>;

impl Reference {
    /// Knows this world, and nobody has spoken yet.
    pub fn new(world: World, capacity: usize) -> Self {
        Self {
            world,
            conversations: Vec::new(),
            fragments: BTreeMap::new(),
            drops: BTreeMap::new(),
            opened: None,
            told: BTreeSet::new(),
            unwrapped: None,
            report: Cell::new(None),
            capacity,
        }
    }

    /// A frame comes by. `Err`: the datapath made a choice that is not allowed.
    pub fn hear(&mut self, hook: Hook, device: u32, frame: &[u8], witness: Witness<'_>) -> Result<Fate, String> {
        self.opened = None;
        self.told.clear();
        self.unwrapped = None;
        self.report.set(None);
        let mut refusal = None;
        let mut witness = Chosen {
            witness,
            refusal: &mut refusal,
        };
        let fate = match hook {
            Hook::FromContainer => self.hear_from_container(device, frame, &mut witness),
            Hook::FromHost => self.hear_from_host(device, frame, &mut witness),
            Hook::FromNic => self.hear_from_nic(device, frame, &mut witness),
            Hook::ToNic => self.hear_to_nic(device, frame, &mut witness),
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        Ok(fate.unwrap_or_else(|reason| {
            let unwrapped = self.unwrapped.as_ref().map_or(frame.len(), |(inner, _)| inner.len());
            let length = self.report.get().unwrap_or(unwrapped);
            self.count_drop(hook, device, reason, length);
            Fate::Dropped(reason)
        }))
    }

    fn count_drop(&mut self, hook: Hook, device: u32, reason: DropReason, length: usize) {
        let endpoint = match hook {
            Hook::FromContainer => self
                .world
                .attachments
                .get(&device)
                .map_or(0, |endpoint| endpoint.number),
            _ => 0,
        };
        let key = (endpoint, reason as u8, hook.direction() as u8);
        let counter = self.drops.entry(key).or_default();
        counter.0 += 1;
        counter.1 += length as u64;
    }
}

impl Hook {
    pub fn direction(self) -> Direction {
        match self {
            Self::FromContainer => Direction::FromContainer,
            Self::FromHost => Direction::FromHost,
            Self::FromNic => Direction::FromNic,
            Self::ToNic => Direction::ToNic,
        }
    }
}

/// The witness, and what was wrong with what it said.
pub struct Chosen<'a, 'b> {
    witness: Witness<'a>,
    refusal: &'b mut Option<String>,
}

impl Chosen<'_, '_> {
    /// The port that the datapath chose, if it is an allowed one.
    fn port(&mut self, opening: &Key, allowed: impl FnOnce(u16) -> Result<(), String>) -> Option<u16> {
        let port = (self.witness)(opening)?;
        if let Err(why) = allowed(port) {
            *self.refusal = Some(format!("port {port} was chosen for {opening:?}: {why}"));
        }
        Some(port)
    }
}
