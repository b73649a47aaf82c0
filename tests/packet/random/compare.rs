//! Is what lies in the kernel's tables what the reference expects?

use std::collections::{BTreeMap, BTreeSet};

use sluice_datapath_common::flow::{
    FLOW_CHECKS_MTU, FLOW_FIN_SENT, FLOW_IS_REPLY, FLOW_MASQUERADES, FLOW_PUBLISHED, FLOW_REWRITES_DESTINATION,
    FLOW_REWRITES_SOURCE,
};

use super::stage::Stage;
use super::tables::Entry;
use crate::frame::Frame;
use crate::reference::conversation::{Conversation, Key, Side};
use crate::reference::overlay::Wrapped;
use crate::reference::{Fate, Reference};
use crate::wrapping;

/// What a packet has become.
pub fn fates(expected: &Fate, outcome: &crate::datapath::Outcome) -> Result<(), String> {
    use crate::datapath::Verdict;
    let (verdict, frame) = match expected {
        Fate::Stays(frame) => (Verdict::Stack, Some(frame)),
        Fate::Sent(frame) => (Verdict::Sent, Some(frame)),
        Fate::Wrapped(_) => (Verdict::Sent, None),
        Fate::Heard | Fate::Dropped(_) => (Verdict::Dropped, None),
    };
    if verdict != outcome.verdict {
        return Err(match expected {
            Fate::Dropped(reason) => format!("the verdict is {:?}, not a drop ({reason:?})", outcome.verdict),
            _ => format!("the verdict is {:?}, not {verdict:?}", outcome.verdict),
        });
    }
    if let Fate::Wrapped(expected) = expected {
        return between_hosts(expected, &outcome.frame);
    }
    match frame {
        Some(frame) if *frame != outcome.frame.0 => Err(format!(
            "the packet became{:?}and should be{:?}",
            outcome.frame,
            Frame(frame.clone())
        )),
        _ => Ok(()),
    }
}

/// What was sent to another host. How it is spread over the ways there is the datapath's choice.
fn between_hosts(expected: &Wrapped, found: &Frame) -> Result<(), String> {
    let found = wrapping::take_apart(found)?;
    let found = Wrapped {
        from: found.from,
        to: found.to,
        port: found.port,
        vni: found.vni,
        frame: found.inner.0,
    };
    match found == *expected {
        true => Ok(()),
        false => Err(format!(
            "{found:02x?} went to another host, and should be {expected:02x?}"
        )),
    }
}

/// To whom it was handed as it was.
pub fn copies(expected: &BTreeSet<u32>, found: &[u32]) -> Result<(), String> {
    match found.iter().copied().eq(expected.iter().copied()) {
        true => Ok(()),
        false => Err(format!("it was handed to the devices {found:?}, not to {expected:?}")),
    }
}

/// The entries of one conversation.
pub fn conversation(stage: &mut Stage, reference: &Reference, conversation: &Conversation) -> Result<(), String> {
    for side in conversation.sides() {
        let found = stage.flow(&conversation.key(side));
        check_entry(reference, conversation, side, found)?;
    }
    Ok(())
}

/// No entry is under this key, unless of the dead.
pub fn nothing(stage: &mut Stage, reference: &Reference, key: &Key) -> Result<(), String> {
    match stage.flow(key) {
        Some(flow) if is_alive(reference, &flow) => {
            Err(format!("there should be no flow under {key:?}, but there is {flow:?}"))
        }
        _ => Ok(()),
    }
}

/// Every table that programs write to.
pub fn everything(stage: &mut Stage, reference: &Reference) -> Result<(), String> {
    let mut flows: BTreeMap<Key, Entry> = BTreeMap::new();
    for (key, flow) in stage.flows() {
        if flows.insert(key, flow).is_some() {
            return Err(format!("two tables have an entry under {key:?}"));
        }
    }
    for conversation in &reference.conversations {
        for side in conversation.sides() {
            let found = flows.remove(&conversation.key(side));
            check_entry(reference, conversation, side, found)?;
        }
    }
    if let Some((key, flow)) = flows.iter().find(|(_, flow)| is_alive(reference, flow)) {
        return Err(format!("nobody should speak as {key:?}, but there is {flow:?}"));
    }
    differ("fragments", &stage.fragments(), &reference.fragments)?;
    differ(
        "drops by endpoint, reason and direction",
        &stage.drops(),
        &reference.drops,
    )
}

fn differ<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let only = |a: &BTreeMap<K, V>, b: &BTreeMap<K, V>| {
        let lines = a.iter().filter(|(key, value)| b.get(key) != Some(value));
        lines
            .map(|(key, value)| format!("\n    {key:?} {value:?}"))
            .collect::<String>()
    };
    Err(format!(
        "{what}: there is{}\nand should be{}",
        only(found, expected),
        only(expected, found)
    ))
}

/// Of the dead, and of what is over, it is left open whether their entries are still there.
fn check_entry(
    reference: &Reference,
    conversation: &Conversation,
    side: Side,
    found: Option<Entry>,
) -> Result<(), String> {
    let key = conversation.key(side);
    let Some(flow) = found else {
        return match conversation.is_alive(&reference.world) && !conversation.is_over() {
            true => Err(format!("{key:?} has no entry")),
            false => Ok(()),
        };
    };
    let mut wrong = Vec::new();
    macro_rules! same {
        ($($what:literal: $found:expr, $expected:expr;)+) => { $(
            let (found, expected) = ($found, $expected);
            if found != expected {
                wrong.push(format!("{} is {found:?}, not {expected:?}", $what));
            }
        )+ };
    }
    let (leaves, leg, other) = (
        conversation.leaving(side),
        conversation.leg(side),
        conversation.leg(side.other()),
    );
    same! {
        "kept": flow.kept, conversation.kept;
        "packets and bytes": (flow.packets, flow.bytes), conversation.counts[side as usize];
        "source": flow.source, (leaves.source, leaves.source_port);
        "destination": flow.destination, (leaves.destination, leaves.destination_port);
        "next hop": flow.next_hop, leg.next_hop;
        "device": flow.ifindex, leg.device;
        "epoch": flow.epoch, conversation.epoch;
        "source endpoint": flow.source_endpoint, (other.endpoint, other.generation);
        "destination endpoint": flow.destination_endpoint, (leg.endpoint, leg.generation);
        "reverse scope": flow.reverse_scope, conversation.key(side.other()).scope;
        "destination MAC": flow.destination_mac, leg.to_mac;
        "source MAC": flow.source_mac, leg.from_mac;
        "action": flow.action, leg.action as u8;
        "flags": flow.flags, flags(conversation, side);
        "state": flow.state, conversation.state as u8;
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("under {key:?}: {}", wrong.join("; "))),
    }
}

fn is_alive(reference: &Reference, flow: &Entry) -> bool {
    [flow.source_endpoint, flow.destination_endpoint]
        .iter()
        .all(|(number, generation)| *generation == reference.world.generation(*number))
}

fn flags(conversation: &Conversation, side: Side) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let (source, destination) = conversation.rewrites(side);
    bit(source, FLOW_REWRITES_SOURCE)
        | bit(destination, FLOW_REWRITES_DESTINATION)
        | bit(side == Side::Answerer, FLOW_IS_REPLY)
        | bit(conversation.masquerades, FLOW_MASQUERADES)
        | bit(conversation.published, FLOW_PUBLISHED)
        | bit(conversation.finished[side as usize], FLOW_FIN_SENT)
        | bit(conversation.checks_mtu, FLOW_CHECKS_MTU)
}
