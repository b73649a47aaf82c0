//! Opens a conversation: makes both of its entries. The one of the way back first, as it holds the port; it is then turned round.
//!
//! Two packets of one new conversation on two CPUs may both open it. The insert of the opener's entry, which must not exist, decides who wins, and
//! the other follows the winner.

use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_NOEXIST;
use sluice_datapath_common::{
    DropReason,
    checksum::{add, difference},
    event::LISTEN_FLOWS,
    flow::{
        FLOW_IS_REPLY, FLOW_MASQUERADES, FLOW_PUBLISHED, FLOW_REWRITES_DESTINATION, FLOW_REWRITES_SOURCE, Flow,
        FlowKey, State,
    },
    lifetime::Class,
};

use super::{
    admit::{self, Affair, Number, Plan},
    flow::{self, Entry},
    life::{self, EXISTS},
    reclaim,
};
use crate::{
    family::Layer3,
    key::is_same,
    maps::{self, Desk},
    packet::{ACK, FIN, Frame, Packet, RST, SCTP, SYN, TCP},
    verdict::event,
};

/// Opens the conversation of the desk as planned, unless its packet may not open one.
#[inline(always)]
pub fn open<F: Layer3>(frame: Frame, tcp_flags: u8) -> Number {
    let Some(desk) = F::desk() else { return FULL };
    if !may_open(desk.key.protocol, tcp_flags, &desk.plan) {
        return admit::number(Err(DropReason::NotAnOpening));
    }
    let owner = desk.owner();
    if !reclaim::has_room(owner) {
        return admit::number(Err(DropReason::FlowLimit));
    }
    // The few half open ones of an endpoint save the way through the small table.
    let allowed = maps::settings().map_or(0, |settings| settings.half_open_per_endpoint);
    desk.kept = (maps::tally_of(owner).half_open < i64::from(allowed)) as u32;
    // Most ports are free, so that it is enough to be told when one is not.
    desk.careful = 0;
    let opened = try_to_open::<F>(frame);
    if opened != admit::number(Err(DropReason::NoPortLeft)) {
        return opened;
    }
    desk.careful = 1;
    try_to_open::<F>(frame)
}

#[inline(always)]
fn try_to_open<F: Layer3>(frame: Frame) -> Number {
    match F::choose_port(frame) {
        0 => F::make_pair(frame),
        refused => refused,
    }
}

/// The entry of a conversation that was opened just now, for its first packet, which is counted already. Whoever follows conversations is told here, where
/// little lies on the stack.
#[inline(always)]
pub fn opened<F: Layer3>(_packet: &Packet<F>) -> Result<Entry<F>, DropReason> {
    if event::listen_to(LISTEN_FLOWS) {
        F::tell_opened();
    }
    let desk = F::desk().ok_or(DropReason::FlowTableFull)?;
    Ok(NonNull::from(&mut desk.flow))
}

/// May this packet open a conversation?
///
/// Through a translation only a SYN may: a late packet of an old connection would get a new port, and mean nothing to the other side. Without
/// one, a TCP packet in mid-connection passes (the tables may be newer than the connection, or the peer may have been restarted): whoever gets it
/// knows what to say. The same goes for SCTP, whose INIT is its SYN.
#[inline(always)]
pub fn may_open<F: Layer3>(protocol: u8, tcp_flags: u8, plan: &Plan<F>) -> bool {
    if protocol != TCP && protocol != SCTP {
        return true;
    }
    match plan.flags & (FLOW_MASQUERADES | FLOW_PUBLISHED) != 0 {
        true => tcp_flags & (SYN | ACK | RST | FIN) == SYN,
        false => tcp_flags & RST == 0,
    }
}

/// There is no room.
const FULL: Number = DropReason::FlowTableFull as Number;

/// May the conversation of the desk be answered under its way back? What is left of dead endpoints, of what is over, or of an earlier attempt of this
/// very conversation, is cleared away; so is a connection that is closed and only lingers, when that is wished.
#[inline(never)]
pub fn is_free<F: Layer3>() -> u32 {
    let Some(desk) = F::desk() else { return 0 };
    // By the gateway's address to itself, from the very port that it has published.
    if is_same(&desk.back, &desk.key) {
        return 0;
    }
    let Some(holder) = flow::find(&desk.back) else { return 1 };
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    let only_lingers = desk.takes_closed != 0 && unsafe { holder.as_ref() }.state == State::Closed as u8;
    let is_ours = flow::leads_to(holder, &desk.key);
    if !(only_lingers || is_ours || !flow::is_alive(holder) || flow::is_over(&desk.back)) {
        return 0;
    }
    life::forget(&desk.back);
    1
}

/// Makes both entries of what lies on the desk. `NoPortLeft`: the way back is taken after all.
#[inline(always)]
pub fn make_pair<F: Layer3>(frame: Frame) -> Number {
    let Some(Desk {
        key,
        back,
        plan,
        flow,
        kept,
        ..
    }) = F::desk()
    else {
        return FULL;
    };
    write_back(flow, key, plan, back);
    match enter::<F>(*kept, back, flow) {
        Ok(()) => {}
        Err(EXISTS) => return admit::number(Err(DropReason::NoPortLeft)),
        Err(_) => return FULL,
    }
    turn_round(flow, plan, back);
    flow.packets = 1;
    flow.bytes = u64::from(frame.len());
    let entered = enter::<F>(*kept, key, flow);
    opened_or_not::<F>(entered.err().unwrap_or(0))
}

#[inline(always)]
fn enter<F: Layer3>(kept: u32, key: &FlowKey<F>, flow: &Flow<F>) -> Result<(), i64> {
    if kept != 0 {
        F::FLOWS.insert(key, &raw const *flow, BPF_NOEXIST)
    } else {
        maps::note_opening(flow.opened);
        F::OPENING.insert(key, &raw const *flow, BPF_NOEXIST)
    }
}

/// The conversation is open, when its second entry went in without an error. Or somebody else was faster.
#[inline(always)]
fn opened_or_not<F: Layer3>(error: i64) -> Number {
    let Some(desk) = F::desk() else { return FULL };
    match error {
        0 => {
            if desk.kept != 0 {
                maps::tally(desk.owner(), 1, 1);
            }
            admit::number(Ok(Affair::Ours))
        }
        EXISTS => follow_winner::<F>(),
        _ => {
            give_back(desk);
            FULL
        }
    }
}

/// Removes the entry of the way back.
#[inline(always)]
fn give_back<F: Layer3>(desk: &Desk<F>) {
    if desk.kept != 0 {
        F::FLOWS.remove(&desk.back);
    } else {
        F::OPENING.remove(&desk.back);
    }
}

/// Another CPU has opened the conversation; unless it chose the same way back, ours leads nowhere.
#[inline(never)]
fn follow_winner<F: Layer3>() -> Number {
    let Some(desk) = F::desk() else { return FULL };
    let Some(winner) = flow::find(&desk.key) else {
        return FULL;
    };
    if !flow::leads_to(winner, &desk.back) {
        give_back(desk);
    }
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    unsafe {
        (*winner.as_ptr()).packets += 1;
        flow::copy(winner.as_ptr(), &raw mut desk.flow);
    }
    admit::number(Ok(Affair::Ours))
}

/// The entry for the answers.
#[inline(always)]
fn write_back<F: Layer3>(flow: &mut Flow<F>, key: &FlowKey<F>, plan: &Plan<F>, back: &FlowKey<F>) {
    let now = flow::now();
    let mut rewrites = 0;
    if back.source != key.destination || back.source_port != key.destination_port {
        rewrites |= FLOW_REWRITES_SOURCE;
    }
    if back.destination != key.source || back.destination_port != key.source_port {
        rewrites |= FLOW_REWRITES_DESTINATION;
    }
    let addresses = add(
        F::difference(back.source, key.destination),
        F::difference(back.destination, key.source),
    );
    let destination_port = difference(u32::from(back.destination_port), u32::from(key.source_port));
    let source_port = difference(u32::from(back.source_port), u32::from(key.destination_port));
    // Field by field: a whole value would be made on the stack first.
    flow.packets = 0;
    flow.bytes = 0;
    flow.last_seen = now;
    flow.opened = now;
    flow.source = key.destination;
    flow.destination = key.source;
    flow.next_hop = plan.back.next_hop;
    flow.source_port = key.destination_port;
    flow.destination_port = key.source_port;
    flow.address_difference = addresses;
    // An ICMP identifier stands in both ports of the key, but in the packet once.
    flow.port_difference = if key.protocol == F::ICMP {
        destination_port
    } else {
        add(source_port, destination_port)
    };
    flow.ifindex = plan.back.ifindex;
    flow.epoch = plan.epoch;
    flow.source_endpoint = plan.there.endpoint;
    flow.source_generation = plan.there.generation;
    flow.destination_endpoint = plan.back.endpoint;
    flow.destination_generation = plan.back.generation;
    flow.reverse_scope = key.scope;
    flow.destination_mac = plan.back.destination_mac;
    flow.source_mac = plan.back.source_mac;
    flow.action = plan.back.action;
    flow.flags = rewrites | plan.flags | FLOW_IS_REPLY;
    flow.state = State::Unanswered as u8;
    flow.class = Class::of(key.protocol) as u8;
    flow.filler = Default::default();
}

/// Makes the entry for the opener's packets of the one for the answers, whose key is `back`.
#[inline(always)]
fn turn_round<F: Layer3>(flow: &mut Flow<F>, plan: &Plan<F>, back: &FlowKey<F>) {
    flow.source = back.destination;
    flow.destination = back.source;
    flow.source_port = back.destination_port;
    flow.destination_port = back.source_port;
    flow.next_hop = plan.there.next_hop;
    flow.address_difference = !flow.address_difference;
    flow.port_difference = !flow.port_difference;
    flow.ifindex = plan.there.ifindex;
    core::mem::swap(&mut flow.source_endpoint, &mut flow.destination_endpoint);
    core::mem::swap(&mut flow.source_generation, &mut flow.destination_generation);
    flow.reverse_scope = back.scope;
    flow.destination_mac = plan.there.destination_mac;
    flow.source_mac = plan.there.source_mac;
    flow.action = plan.there.action;
    // What one direction does to the source, the other does to the destination.
    let (source, destination) = (
        flow.flags & FLOW_REWRITES_SOURCE != 0,
        flow.flags & FLOW_REWRITES_DESTINATION != 0,
    );
    flow.flags = plan.flags;
    if source {
        flow.flags |= FLOW_REWRITES_DESTINATION;
    }
    if destination {
        flow.flags |= FLOW_REWRITES_SOURCE;
    }
}
