//! Conversations: who opened them, what their packets look like on either side, and how far they have come.

use std::net::IpAddr;

use sluice_datapath_common::DropReason;
use sluice_datapath_common::flow::{Action, State};

use super::judge::{Judgement, Leg, Plan};
use super::wire::{ACK, FIN, ICMP, ICMP6, RST, Reading, SCTP, SYN, TCP, UDP, UDP_LITE};
use super::world::{Family, World, any, family};
use super::{Chosen, Reference};

/// A packet's ends as it arrives, and where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
    /// The world (0), the host (1), a network's number, or that of another host in a network.
    pub scope: u32,
    pub protocol: u8,
}

/// Two ends that speak with each other.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// What the opener says, as it arrives here.
    pub opening: Key,
    /// What the other side answers, as it arrives here.
    pub answers: Key,
    /// To whoever is spoken to.
    pub there: Leg,
    /// To whoever opened it.
    pub back: Leg,
    pub masquerades: bool,
    pub published: bool,
    /// Packets may be too large for the way there.
    pub checks_mtu: bool,
    /// The epoch of the last judgement.
    pub epoch: u32,
    pub state: State,
    /// It cannot be pushed out: somebody answered, or its endpoint holds few that nobody has answered.
    pub kept: bool,
    /// Who has sent a FIN: the opener, the other side.
    pub finished: [bool; 2],
    /// Packets and bytes of the opener and of the other side.
    pub counts: [(u64, u64); 2],
    /// For how long either side has been silent, seconds.
    pub idle: [u64; 2],
    /// Which of its two entries are there. While nobody has answered, others may push them out one by one.
    pub entries: [bool; 2],
}

/// One direction of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Opener = 0,
    Answerer = 1,
}

/// What is known of a packet's conversation.
pub enum Known {
    /// Its place in the list and the packet's direction.
    As(usize, Side),
    Unknown,
}

impl Key {
    pub fn of(reading: &Reading, scope: u32) -> Self {
        Self {
            source: reading.source,
            source_port: reading.ports.0,
            destination: reading.destination,
            destination_port: reading.ports.1,
            scope,
            protocol: reading.protocol,
        }
    }

    /// The key of what goes the other way, from `scope`.
    pub fn reversed(&self, scope: u32) -> Self {
        Self {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
            scope,
            protocol: self.protocol,
        }
    }
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Opener => Self::Answerer,
            Self::Answerer => Self::Opener,
        }
    }
}

impl Conversation {
    /// What this side says, as it arrives.
    pub fn key(&self, side: Side) -> Key {
        match side {
            Side::Opener => self.opening,
            Side::Answerer => self.answers,
        }
    }

    /// Does what this side says go on with the address it came with?
    pub fn keeps_address(&self, side: Side) -> bool {
        match side {
            Side::Opener => self.answers.destination == self.opening.source,
            Side::Answerer => self.opening.destination == self.answers.source,
        }
    }

    /// Where it goes.
    pub fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Opener => &self.there,
            Side::Answerer => &self.back,
        }
    }

    /// The ends that this side's packets leave with: as the other side's come in, turned round.
    pub fn leaving(&self, side: Side) -> Key {
        self.key(side.other()).reversed(self.key(side.other()).scope)
    }

    /// Are both its ends those that it was opened between?
    pub fn is_alive(&self, world: &World) -> bool {
        [&self.there, &self.back]
            .iter()
            .all(|leg| leg.generation == world.generation(leg.endpoint))
    }

    /// The sides with an entry.
    pub fn sides(&self) -> impl Iterator<Item = Side> + use<> {
        let entries = self.entries;
        [Side::Opener, Side::Answerer]
            .into_iter()
            .filter(move |side| entries[*side as usize])
    }

    /// Have both sides been silent for longer than they may? Of a side whose entry was pushed out nothing is known.
    pub fn is_over(&self) -> bool {
        self.sides().all(|side| self.idle[side as usize] > self.lifetime())
    }

    /// Seconds of silence that end a conversation.
    fn lifetime(&self) -> u64 {
        match (self.opening.protocol, self.state) {
            (ICMP | ICMP6, _) | (_, State::Unanswered) => 30,
            (TCP, State::Established) => 24 * 60 * 60,
            (TCP, State::Closing) => 60,
            (TCP | SCTP, State::Closed) => 10,
            (UDP, _) => 120,
            _ => 600,
        }
    }

    /// The endpoint that answers for it; 0: none.
    pub fn owner(&self) -> u32 {
        owner(&self.back, &self.there)
    }

    fn is_whole(&self) -> bool {
        self.entries == [true, true]
    }
}

impl Reference {
    /// The conversation with an entry under this key, dead or alive.
    pub fn find(&self, key: &Key) -> Option<(usize, Side)> {
        self.conversations.iter().enumerate().find_map(|(index, conversation)| {
            conversation
                .sides()
                .find(|side| conversation.key(*side) == *key)
                .map(|side| (index, side))
        })
    }

    /// The same, if it lives and was judged in this epoch; it is not kept alive by being asked for.
    pub fn known(&self, key: &Key) -> Option<(usize, Side)> {
        self.find(key).filter(|(index, _)| {
            let conversation = &self.conversations[*index];
            conversation.epoch == self.world.epoch && conversation.is_alive(&self.world) && !conversation.is_over()
        })
    }

    /// The conversation that a packet belongs to, if it is known and may go on. The packet counts, and moves it on in its life.
    pub fn follow(&mut self, device: u32, key: &Key, tcp_flags: u8, length: usize) -> Result<Known, DropReason> {
        let Some((index, side)) = self.find(key) else {
            return Ok(Known::Unknown);
        };
        // Of the dead nothing is known, nor of what is over; a lone half is worth nothing.
        let conversation = &self.conversations[index];
        if !conversation.is_alive(&self.world) || conversation.is_over() || !conversation.is_whole() {
            self.conversations.remove(index);
            return Ok(Known::Unknown);
        }
        if self.conversations[index].epoch != self.world.epoch {
            let judged = self.world.judge(device, &self.conversations[index].opening);
            let renewed = match &judged {
                Ok(Judgement::Ours(plan)) => self.renew(index, plan),
                _ => false,
            };
            if !renewed {
                self.conversations.remove(index);
                return judged.map(|_| Known::Unknown);
            }
        }
        self.settle(index, side, tcp_flags)?;
        self.conversations[index].track(side, tcp_flags);
        self.conversations[index].count(side, length);
        Ok(Known::As(index, side))
    }

    /// May the conversation go on under a new judgement? It may when the same end is reached in the same manner; where the way has changed, it
    /// takes the new way. Its translation stays, as long as the host has the address that it borrowed.
    fn renew(&mut self, index: usize, plan: &Plan) -> bool {
        let conversation = &self.conversations[index];
        let leaves = conversation.leaving(Side::Opener);
        let is_icmp = [ICMP, ICMP6].contains(&conversation.opening.protocol);
        let same_end = leaves.destination == plan.destination
            && (is_icmp || leaves.destination_port == plan.destination_port)
            && (conversation.there.action, conversation.answers.scope) == (plan.there.action, plan.there.scope)
            && (conversation.masquerades, conversation.published) == (plan.masquerades, plan.published);
        let keeps_address = !conversation.masquerades || self.world.local.contains_key(&leaves.source);
        if !same_end || !keeps_address {
            return false;
        }
        let conversation = &mut self.conversations[index];
        conversation.there.turn_to(&plan.there);
        conversation.back.turn_to(&plan.back);
        conversation.checks_mtu = plan.checks_mtu;
        conversation.epoch = self.world.epoch;
        true
    }

    /// Both sides having spoken, a conversation gets its place among the answered ones, which nobody is pushed out of. Of TCP the opener must have
    /// spoken again after the answer: whoever is only said to have asked cannot do so. A refusal (RST) is no answer.
    fn settle(&mut self, index: usize, side: Side, tcp_flags: u8) -> Result<(), DropReason> {
        let conversation = &self.conversations[index];
        let was_heard = match conversation.opening.protocol {
            TCP | SCTP => {
                side == Side::Opener
                    && tcp_flags & (SYN | RST) == 0
                    && conversation.counts[Side::Answerer as usize].0 > 0
            }
            _ => side == Side::Answerer,
        };
        if conversation.state != State::Unanswered || !was_heard {
            return Ok(());
        }
        if !conversation.kept {
            self.must_have_room(conversation.owner())?;
            if self.is_full(family(conversation.opening.source)) {
                return Err(DropReason::FlowTableFull);
            }
        }
        let conversation = &mut self.conversations[index];
        conversation.kept = true;
        conversation.state = State::Established;
        Ok(())
    }

    /// Is there no room for another conversation of the family that nobody pushes out?
    fn is_full(&self, of: Family) -> bool {
        let kept = self.conversations.iter().filter(|conversation| conversation.kept);
        let of_family = kept.filter(|conversation| family(conversation.opening.source) == of);
        2 * of_family.count() + 2 > self.capacity
    }

    /// How many such conversations an endpoint holds, and how many of them are half open.
    pub fn held(&self, owner: u32) -> (u32, u32) {
        let of_owner = self
            .conversations
            .iter()
            .filter(|conversation| conversation.owner() == owner);
        let kept = of_owner.filter(|conversation| conversation.kept);
        kept.fold((0, 0), |(all, half_open), conversation| {
            (all + 1, half_open + u32::from(conversation.state == State::Unanswered))
        })
    }

    fn must_have_room(&self, owner: u32) -> Result<(), DropReason> {
        let limit = self.world.limits.conversations;
        match limit == 0 || self.held(owner).0 < limit {
            true => Ok(()),
            false => Err(DropReason::FlowLimit),
        }
    }

    /// Opens a conversation for its first packet.
    pub(super) fn open(
        &mut self,
        key: &Key,
        reading: &Reading,
        length: usize,
        plan: Plan,
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<usize, DropReason> {
        if !may_open(reading, &plan) {
            return Err(DropReason::NotAnOpening);
        }
        let owner = owner(&plan.back, &plan.there);
        self.must_have_room(owner)?;
        let kept = self.held(owner).1 < self.world.limits.half_open;
        let answers = self.choose_port(key, reading, &plan, kept, chosen)?;
        // What is left of its own earlier half gives way.
        self.conversations
            .retain(|other| !other.sides().any(|side| other.key(side) == answers));
        if kept && self.is_full(family(key.source)) {
            return Err(DropReason::FlowTableFull);
        }
        self.opened = Some((*key, answers));
        self.conversations.push(Conversation {
            opening: *key,
            answers,
            there: plan.there,
            back: plan.back,
            masquerades: plan.masquerades,
            published: plan.published,
            checks_mtu: plan.checks_mtu,
            epoch: self.world.epoch,
            state: State::Unanswered,
            kept,
            finished: [false; 2],
            counts: [(1, length as u64), (0, 0)],
            idle: [0; 2],
            entries: [true; 2],
        });
        Ok(self.conversations.len() - 1)
    }

    /// The key of the answers. The opener's own port is kept when it can be; else the datapath has chosen another.
    fn choose_port(
        &mut self,
        key: &Key,
        reading: &Reading,
        plan: &Plan,
        kept: bool,
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<Key, DropReason> {
        let is_icmp = key.protocol == super::wire::icmp(family(key.source));
        let has_ports = [TCP, UDP, SCTP, UDP_LITE].contains(&key.protocol) || is_icmp;
        if !has_ports && (plan.source != key.source || plan.destination != key.destination) {
            return Err(DropReason::CannotTranslate);
        }
        let answers = |port: u16| Key {
            source: plan.destination,
            source_port: if is_icmp { port } else { plan.destination_port },
            destination: plan.source,
            destination_port: port,
            scope: plan.there.scope,
            protocol: key.protocol,
        };
        let own = self.allows(key, reading, plan, &answers(key.source_port), true);
        let port = match own {
            Ok(()) => key.source_port,
            Err(_) if !has_ports => return Err(DropReason::NoPortLeft),
            Err(_) => {
                let allows = |port| self.allows(key, reading, plan, &answers(port), false);
                // A port that was chosen is not seen where there was no room for the conversation.
                let is_full = kept && self.is_full(family(key.source));
                chosen.port(key, allows).ok_or(match is_full {
                    true => DropReason::FlowTableFull,
                    false => DropReason::NoPortLeft,
                })?
            }
        };
        Ok(answers(port))
    }

    /// May the conversation have this port? Says why not.
    fn allows(&self, key: &Key, reading: &Reading, plan: &Plan, answers: &Key, is_own: bool) -> Result<(), String> {
        let port = answers.destination_port;
        let is_icmp = reading.protocol == super::wire::icmp(family(key.source));
        let (first, last) = self.world.host.ephemeral;
        let is_ephemeral = (first..=last).contains(&port);
        if !is_icmp && (plan.masquerades || !is_own) && is_ephemeral {
            return Err(String::from("the host may take it any time"));
        }
        if !is_icmp && !is_own && port < 1024 {
            return Err(String::from("it speaks of a privileged sender"));
        }
        if answers == key {
            return Err(String::from("question and answer would look the same"));
        }
        if let Some((index, side)) = self.find(answers) {
            let other = &self.conversations[index];
            // Its own other half, which lost this one.
            let is_own_half = other.key(side.other()) == *key;
            if other.is_alive(&self.world) && !other.is_over() && !is_own_half {
                return Err(String::from("another conversation has it"));
            }
        }
        if !plan.masquerades || is_icmp {
            return Ok(());
        }
        if self.world.is_reserved(port, key.protocol, family(key.source)) {
            return Err(String::from("it is published"));
        }
        let asks = plan.there.scope == super::path::WORLD;
        if asks && self.world.socket_owns(key.protocol, plan.source, port, true) {
            return Err(String::from("a socket of the host has it"));
        }
        Ok(())
    }
}

/// Whoever opens the conversation answers for it, or else whoever is spoken to.
fn owner(back: &Leg, there: &Leg) -> u32 {
    match back.endpoint {
        0 => there.endpoint,
        opener => opener,
    }
}

/// May this packet open a conversation? Through a translation only a SYN may. Without one, TCP in mid-connection passes, but a RST opens nothing. SCTP's INIT is its
/// SYN.
pub fn may_open(reading: &Reading, plan: &Plan) -> bool {
    if ![TCP, SCTP].contains(&reading.protocol) {
        return true;
    }
    match plan.masquerades || plan.published {
        true => reading.tcp_flags & (SYN | ACK | RST | FIN) == SYN,
        false => reading.tcp_flags & RST == 0,
    }
}

impl Conversation {
    fn count(&mut self, side: Side, length: usize) {
        let counts = &mut self.counts[side as usize];
        counts.0 += 1;
        counts.1 += length as u64;
        self.idle[side as usize] = 0;
    }

    /// The life of a TCP connection.
    fn track(&mut self, side: Side, flags: u8) {
        let is_over = matches!(self.state, State::Closing | State::Closed);
        if flags & RST != 0 {
            self.state = State::Closed;
        } else if flags & FIN != 0 {
            self.finished[side as usize] = true;
            self.state = match self.finished {
                [true, true] => State::Closed,
                _ => State::Closing,
            };
        } else if flags & (SYN | ACK) == SYN && is_over {
            // The ports are used again: it begins anew.
            self.finished = [false; 2];
            self.state = State::Unanswered;
            self.counts[Side::Answerer as usize].0 = 0;
        }
    }

    /// Does a packet of this side leave the host by a NIC?
    pub fn leaves_by_nic(&self, side: Side) -> bool {
        self.leg(side).action == Action::World
    }

    /// The address a packet of this side has after translation and the one it had.
    pub fn rewrites(&self, side: Side) -> (bool, bool) {
        let (arrives, leaves) = (self.key(side), self.leaving(side));
        (
            (arrives.source, arrives.source_port) != (leaves.source, leaves.source_port),
            (arrives.destination, arrives.destination_port) != (leaves.destination, leaves.destination_port),
        )
    }
}

impl Leg {
    /// Takes the new way, if one is known.
    fn turn_to(&mut self, new: &Leg) {
        if new.device == 0 {
            return;
        }
        self.device = new.device;
        self.next_hop = new.next_hop;
        self.to_mac = new.to_mac;
        self.from_mac = new.from_mac;
    }

    /// Leads on from where a packet is.
    pub fn in_place(scope: u32, of: IpAddr) -> Self {
        Self {
            action: Action::Stay,
            device: 0,
            next_hop: any(of),
            endpoint: 0,
            generation: 0,
            scope,
            to_mac: [0; 6],
            from_mac: [0; 6],
        }
    }
}
