//! A case being tried: every step is taken by the programs and by the reference, and then the two are compared.

use std::collections::BTreeMap;

use super::stage::{CAPACITY, Stage};
use super::step::{Case, Step};
use super::{census, change, compare, world};
use crate::frame::Frame;
use crate::reference::conversation::{Key, Side};
use crate::reference::wire::{self, Piece};
use crate::reference::world::Family;
use crate::reference::{Hook, Reference};
use crate::test_run::Sum;

pub struct Trial<'a> {
    stage: &'a mut Stage,
    pub reference: Reference,
    /// The conversations that steps have opened, by label: both keys.
    pub opened: BTreeMap<usize, (Key, Key)>,
    pub packets: u64,
    pub fates: BTreeMap<String, u64>,
    /// There are other hosts, or have been.
    knows_others: bool,
}

impl<'a> Trial<'a> {
    pub fn begin(stage: &'a mut Stage) -> Self {
        stage.clear();
        let reference = Reference::new(world::world(), CAPACITY);
        stage.write(&reference.world);
        Self {
            stage,
            reference,
            opened: BTreeMap::new(),
            packets: 0,
            fates: BTreeMap::new(),
            knows_others: false,
        }
    }

    /// Tries a whole case, comparing everything after each step. On failure also says how many steps were taken.
    pub fn of(stage: &'a mut Stage, case: &Case) -> Result<(), (usize, String)> {
        let mut trial = Self::begin(stage);
        for (index, (label, step)) in case.steps.iter().enumerate() {
            let taken = trial.take(*label, step).and_then(|()| trial.compare_everything());
            taken.map_err(|what| (index + 1, format!("step {label}: {what}")))?;
        }
        Ok(())
    }

    /// Takes a step. One that speaks of what has not been is passed over.
    pub fn take(&mut self, label: usize, step: &Step) -> Result<(), String> {
        match step {
            Step::Says(speech) => match self.frame(speech) {
                Some(frame) => {
                    let sum = self.sum(&frame);
                    self.hear(label, speech.hook, speech.device, &frame.0, sum)
                }
                None => Ok(()),
            },
            Step::Asks(question) => {
                let frame = self.question(question);
                // An answer may be longer than what is left of a question.
                let sum = if question.cut.is_some() {
                    Sum::Unknown
                } else {
                    Sum::Complete
                };
                self.hear(label, question.hook, question.device, &frame.0, sum)
            }
            Step::Expires { of } => {
                self.remove_entries(*of, [true, true], false);
                Ok(())
            }
            Step::Ages { of, seconds } => {
                self.age(*of, *seconds);
                Ok(())
            }
            Step::PushedOut { of, side } => {
                self.remove_entries(*of, [*side == Side::Opener, *side == Side::Answerer], true);
                Ok(())
            }
            _ => {
                change::world(&mut self.reference.world, step);
                self.knows_others |= !self.reference.world.peers.is_empty();
                self.stage.write(&self.reference.world);
                Ok(())
            }
        }
    }

    pub fn compare_everything(&mut self) -> Result<(), String> {
        compare::everything(self.stage, &self.reference)
    }

    /// A packet for both.
    fn hear(&mut self, label: usize, hook: Hook, device: u32, frame: &[u8], sum: Sum) -> Result<(), String> {
        self.packets += 1;
        let outcome = self.stage.run(hook, device, frame, sum)?;
        let stage = &mut *self.stage;
        let mut witness = |opening: &Key| Some(stage.flow(opening)?.source.1);
        let fate = self.reference.hear(hook, device, frame, &mut witness)?;
        let told = !self.reference.told.is_empty();
        *self.fates.entry(census::name(hook, &fate, told)).or_default() += 1;
        compare::fates(&fate, &outcome)?;
        compare::copies(&self.reference.told, &self.stage.copies_of(frame))?;
        if let Some(opened) = self.reference.opened {
            self.opened.insert(label, opened);
        }
        self.compare_touched(hook, device, frame)
    }

    /// The entries of the packet's own conversation.
    fn compare_touched(&mut self, hook: Hook, device: u32, frame: &[u8]) -> Result<(), String> {
        let unwrapped = self.reference.unwrapped.take();
        let frame = unwrapped.as_ref().map_or(frame, |(inner, _)| inner);
        let Ok(reading) = wire::read(frame, reading_family(frame), wire::ETHERNET, false) else {
            return Ok(());
        };
        let scope = match (unwrapped.as_ref(), hook) {
            (Some((_, scope)), _) => *scope,
            (None, Hook::FromContainer) => match self.reference.world.attachments.get(&device) {
                Some(endpoint) => endpoint.network,
                None => return Ok(()),
            },
            (None, Hook::FromNic) => 0,
            (None, Hook::FromHost | Hook::ToNic) => 1,
        };
        let key = Key::of(&reading, scope);
        match self.reference.find(&key) {
            Some((index, _)) => {
                let conversation = &self.reference.conversations[index];
                compare::conversation(self.stage, &self.reference, conversation)
            }
            None => compare::nothing(self.stage, &self.reference, &key),
        }
    }

    /// The agent, or the table itself, removes entries of a conversation.
    fn remove_entries(&mut self, of: usize, gone: [bool; 2], only_pushable: bool) {
        let Some(&(opening, answers)) = self.opened.get(&of) else {
            return;
        };
        let conversations = &mut self.reference.conversations;
        let own = conversations
            .iter_mut()
            .find(|conversation| (conversation.opening, conversation.answers) == (opening, answers));
        let Some(conversation) = own.filter(|conversation| !(only_pushable && conversation.kept)) else {
            return;
        };
        for side in [Side::Opener, Side::Answerer] {
            if gone[side as usize] && conversation.entries[side as usize] {
                conversation.entries[side as usize] = false;
                self.stage.remove_flow(&conversation.key(side));
            }
        }
        let owner = conversation.owner();
        conversations.retain(|conversation| conversation.entries != [false, false]);
        let held = self.reference.held(owner);
        self.stage.set_tally(owner, held);
    }

    /// Time passes for one conversation: its entries were last used so much earlier.
    fn age(&mut self, of: usize, seconds: u64) {
        let Some(&keys) = self.opened.get(&of) else { return };
        let conversations = &mut self.reference.conversations;
        let Some(conversation) = conversations
            .iter_mut()
            .find(|other| (other.opening, other.answers) == keys)
        else {
            return;
        };
        for side in conversation.sides() {
            conversation.idle[side as usize] += seconds;
            self.stage.age(&conversation.key(side), seconds);
        }
    }

    /// What the NIC says of a packet's checksums: all, but for packets that the datapath makes a report of, for those in whose place it sends those that
    /// have waited for them, and where frames may be wrapped up.
    fn sum(&self, frame: &Frame) -> Sum {
        let family = reading_family(&frame.0);
        match wire::read(&frame.0, family, wire::ETHERNET, false) {
            _ if self.knows_others => Sum::Unknown,
            Ok(reading) if reading.hops > 1 && frame.0.len() < 1_000 && reading.piece != Piece::First => Sum::Complete,
            _ => Sum::Unknown,
        }
    }
}

fn reading_family(frame: &[u8]) -> Family {
    match wire::ether_type(frame) {
        0x86dd => Family::V6,
        _ => Family::V4,
    }
}
