//! Do we know this conversation? If yes, what was decided; if no, it is opened in both directions.
//!
//! A conversation begins in `OPENING`, a small table whose oldest entries give way, and moves to `FLOWS`, which never evicts, when the other
//! side answers. Both of its entries move together. An LRU table may have taken one half of a pair; a lone half is worth nothing and is
//! forgotten, so that the opener's next packet begins anew.
//!
//! Nothing here is locked. Two packets of one new conversation on two CPUs may both open it: the insert of the forward entry, which must not
//! exist, decides who wins, and the other follows the winner. Counters may lose a packet when two CPUs carry one direction at once.

use core::ptr::NonNull;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_ktime_get_coarse_ns,
};
use sluice_datapath_common::{
    DropReason, Family,
    checksum::{add, difference},
    flow::{
        FLOW_CHECKS_MTU, FLOW_FIN_SENT, FLOW_IS_REPLY, FLOW_MASQUERADES, FLOW_PUBLISHED, FLOW_REWRITES_DESTINATION,
        FLOW_REWRITES_SOURCE, Flow, FlowKey, State,
    },
};

use super::{
    admit::{self, Affair, Number, Plan},
    route::Leg,
};
use crate::{
    family::Layer3,
    key::{End, flow_key},
    maps::{self, Desk},
    packet::{ACK, FIN, Frame, Packet, RST, SCTP, SYN, TCP},
};

/// An entry as it lies in its table.
pub type Entry<F> = NonNull<Flow<F>>;

/// `EEXIST`
const EXISTS: i64 = -17;

/// The flow that the packet belongs to, if it is known and still allowed. Counts the packet.
#[inline(always)]
pub fn follow<F: Layer3>(packet: &Packet<F>) -> Result<Option<Entry<F>>, DropReason> {
    let flow = match F::FLOWS.find(&packet.key) {
        Some(flow) if is_judged(flow) && is_alive(flow) => flow,
        _ => {
            if admit::judgement(F::search(packet.frame))? == Affair::Hosts {
                return Ok(None);
            }
            let Some(flow) = find(&packet.key) else { return Ok(None) };
            flow
        }
    };
    if packet.tcp_flags & (SYN | FIN | RST) != 0 {
        F::track();
    }
    count(flow, packet.frame);
    Ok(Some(flow))
}

/// Opens the conversation as planned, unless its packet may not open one.
#[inline(always)]
pub fn open<F: Layer3>(frame: Frame, tcp_flags: u8) -> Result<(), DropReason> {
    if F::desk().is_none_or(|desk| !may_open(desk.key.protocol, tcp_flags, &desk.plan)) {
        return Err(DropReason::NotAnOpening);
    }
    admit::judgement(F::choose_port(frame))?;
    admit::judgement(F::make_pair()).map(|_| ())
}

/// The entry of a conversation that was opened just now, for its first packet, which is counted.
#[inline(always)]
pub fn opened<F: Layer3>(packet: &Packet<F>) -> Result<Entry<F>, DropReason> {
    // It lies where it was put a moment ago, unless another CPU was faster and is answered already.
    let flow = match F::OPENING.find(&packet.key) {
        None => F::FLOWS.find(&packet.key).ok_or(DropReason::FlowTableFull)?,
        Some(flow) => flow,
    };
    count(flow, packet.frame);
    Ok(flow)
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

/// The flow of this key, if it was judged in this epoch and both its ends are alive; it is not renewed, nor counted.
#[inline(always)]
pub fn known<F: Layer3>(key: &FlowKey<F>) -> Option<Entry<F>> {
    find(key).filter(|flow| is_judged(*flow) && is_alive(*flow))
}

/// May a new conversation that `forward` opens be answered under `back`? What is left of dead endpoints is cleared away.
#[inline(always)]
pub fn is_free<F: Layer3>(back: &FlowKey<F>, forward: &FlowKey<F>) -> bool {
    // By the gateway's address to itself, from the very port that it has published.
    if *back == *forward {
        return false;
    }
    let Some(flow) = find(back) else { return true };
    if !is_alive(flow) {
        forget(back);
        return true;
    }
    // A half that the forward entry was evicted from, or a packet of the same conversation on another CPU.
    reverse_of(back, flow) == *forward
}

#[inline(always)]
fn find<F: Layer3>(key: &FlowKey<F>) -> Option<Entry<F>> {
    match F::FLOWS.find(key) {
        None => F::OPENING.find(key),
        found => found,
    }
}

/// The key of the entry of the other direction.
#[inline(always)]
fn reverse_of<F: Family>(key: &FlowKey<F>, flow: Entry<F>) -> FlowKey<F> {
    // SAFETY: an entry's slot stays readable until the program ends; the same goes for every access to an entry below.
    let flow = unsafe { flow.as_ref() };
    let source = End {
        address: flow.destination,
        port: flow.destination_port,
    };
    let destination = End {
        address: flow.source,
        port: flow.source_port,
    };
    flow_key(source, destination, flow.reverse_scope, key.protocol)
}

/// Writes the key of the entry of the other direction to where it will be needed. What was there is a key too, so its padding is zero.
#[inline(always)]
fn write_reverse<F: Family>(reverse: &mut FlowKey<F>, key: &FlowKey<F>, flow: Entry<F>) {
    // SAFETY: see `reverse_of`.
    let flow = unsafe { flow.as_ref() };
    reverse.source = flow.destination;
    reverse.destination = flow.source;
    reverse.source_port = flow.destination_port;
    reverse.destination_port = flow.source_port;
    reverse.scope = flow.reverse_scope;
    reverse.protocol = key.protocol;
}

/// Was it judged in this epoch?
#[inline(always)]
fn is_judged<F: Family>(flow: Entry<F>) -> bool {
    // SAFETY: see `reverse_of`.
    unsafe { flow.as_ref() }.epoch == maps::epoch()
}

/// Are both its ends still those it was opened between?
#[inline(always)]
fn is_alive<F: Family>(flow: Entry<F>) -> bool {
    // SAFETY: see `reverse_of`.
    let flow = unsafe { flow.as_ref() };
    flow.source_generation == maps::generation(flow.source_endpoint)
        && flow.destination_generation == maps::generation(flow.destination_endpoint)
}

#[inline(always)]
fn count<F: Family>(flow: Entry<F>, frame: Frame) {
    // SAFETY: see `reverse_of`. The clock takes no arguments. The coarse one costs a tenth of the fine one.
    unsafe {
        let flow = flow.as_ptr();
        (*flow).packets += 1;
        (*flow).bytes += u64::from(frame.len());
        (*flow).last_seen = bpf_ktime_get_coarse_ns();
    }
}

// What follows is out of line and in small pieces, which speak in numbers and look entries up anew instead of handing them on: an entry is of one
// table or the other, and the verifier would walk everything behind it once for each.

/// The flow of the packet in hand, see [`search`].
#[inline(always)]
pub fn search_current<F: Layer3>(frame: Frame) -> Number {
    match F::facts(false) {
        Some(facts) => search(frame, &facts.key, facts.tcp_flags),
        None => admit::number(Ok(Affair::Hosts)),
    }
}

/// Everything but the common case: flows that nobody has answered yet, that an older epoch judged, whose endpoints are gone. `Hosts` stands for a
/// packet of no known flow.
#[inline(always)]
fn search<F: Layer3>(frame: Frame, key: &FlowKey<F>, tcp_flags: u8) -> Number {
    match look_at(key) {
        Found::NOTHING => return admit::number(Ok(Affair::Hosts)),
        Found::STALE => {
            let judged = judge_again(frame, key);
            if judged != admit::number(Ok(Affair::Ours)) {
                forget(key);
                return judged;
            }
        }
        _ => {}
    }
    settle(key, tcp_flags)
}

/// What is found under a key.
struct Found;

impl Found {
    const NOTHING: u32 = 0;
    const STALE: u32 = 1;
    const CURRENT: u32 = 2;
}

/// Looks an entry up; one whose endpoint is gone goes too, and one whose other half is gone or belongs to another conversation by now.
#[inline(never)]
fn look_at<F: Layer3>(key: &FlowKey<F>) -> u32 {
    let Some(flow) = find(key) else { return Found::NOTHING };
    if !is_alive(flow) || !has_other_half(key) {
        forget(key);
        return Found::NOTHING;
    }
    if is_judged(flow) { Found::CURRENT } else { Found::STALE }
}

#[inline(never)]
fn has_other_half<F: Layer3>(key: &FlowKey<F>) -> bool {
    let Some(flow) = find(key) else { return false };
    let back = reverse_of(key, flow);
    find(&back).is_some_and(|other| reverse_of(&back, other) == *key)
}

/// Sees to a flow that nobody has answered yet: is this the answer?
#[inline(never)]
fn settle<F: Layer3>(key: &FlowKey<F>, tcp_flags: u8) -> Number {
    const KNOWN: Result<Affair, DropReason> = Ok(Affair::Ours);
    let Some(opening) = F::OPENING.find(key) else {
        return admit::number(KNOWN);
    };
    let back = reverse_of(key, opening);
    let Some(other) = F::OPENING.find(&back) else {
        return admit::number(Ok(Affair::Hosts));
    };
    // SAFETY: see `reverse_of`.
    let is_reply = unsafe { opening.as_ref() }.flags & FLOW_IS_REPLY != 0;
    // A refusal is an answer, but not the beginning of anything.
    if !is_reply || tcp_flags & RST != 0 {
        return admit::number(KNOWN);
    }
    admit::number(promote(key, opening, &back, other).and(KNOWN))
}

/// Moves both entries to the table that never evicts. When that is full they stay what they were.
#[inline(always)]
fn promote<F: Layer3>(key: &FlowKey<F>, flow: Entry<F>, back: &FlowKey<F>, other: Entry<F>) -> Result<(), DropReason> {
    // SAFETY: see `reverse_of`.
    let before = unsafe { flow.as_ref() }.state;
    set_state(flow, State::Established as u8);
    set_state(other, State::Established as u8);
    // The opener's entry first: until the second is there too, its packets are no worse off than before.
    let moved = move_entry(back, other).and_then(|()| move_entry(key, flow).inspect_err(|_| F::FLOWS.remove(back)));
    if moved.is_err() {
        set_state(flow, before);
        set_state(other, before);
        return moved;
    }
    F::OPENING.remove(back);
    F::OPENING.remove(key);
    Ok(())
}

#[inline(always)]
fn move_entry<F: Layer3>(key: &FlowKey<F>, flow: Entry<F>) -> Result<(), DropReason> {
    match F::FLOWS.insert(key, flow.as_ptr(), BPF_NOEXIST) {
        Ok(()) | Err(EXISTS) => Ok(()),
        Err(_) => Err(DropReason::FlowTableFull),
    }
}

/// Removes a conversation: this entry, and the other if it still belongs to this one.
#[inline(never)]
fn forget<F: Layer3>(key: &FlowKey<F>) {
    let Some(flow) = find(key) else { return };
    let back = reverse_of(key, flow);
    F::FLOWS.remove(key);
    F::OPENING.remove(key);
    let Some(other) = find(&back) else { return };
    if reverse_of(&back, other) == *key {
        F::FLOWS.remove(&back);
        F::OPENING.remove(&back);
    }
}

/// The epoch has moved: may the conversation go on as it is? `Hosts`: it may not, and what its packets are now is to be asked anew.
#[inline(never)]
fn judge_again<F: Layer3>(frame: Frame, key: &FlowKey<F>) -> Number {
    let gone = admit::number(Ok(Affair::Hosts));
    let (Some(flow), Some(desk)) = (find(key), F::desk()) else {
        return gone;
    };
    // SAFETY: see `reverse_of`.
    if unsafe { flow.as_ref() }.flags & FLOW_IS_REPLY != 0 {
        write_reverse(&mut desk.key, key, flow);
        desk.back = *key;
    } else {
        desk.key = *key;
        write_reverse(&mut desk.back, key, flow);
    }
    let judged = F::judge(frame);
    if judged != admit::number(Ok(Affair::Ours)) {
        return judged;
    }
    renew::<F>()
}

/// Renews both entries of what lies on the desk, if what was planned now is what they do. The translation is kept when the same end is reached; where the way out has
/// changed, the conversation takes the new way.
#[inline(never)]
fn renew<F: Layer3>() -> Number {
    let gone = admit::number(Ok(Affair::Hosts));
    let Some(Desk { key, back, plan, .. }) = F::desk() else {
        return gone;
    };
    let (Some(mut forward), Some(mut reply)) = (find(key), find(back)) else {
        return gone;
    };
    // SAFETY: see `reverse_of`.
    let (forward, reply) = unsafe { (forward.as_mut(), reply.as_mut()) };
    let translated = FLOW_MASQUERADES | FLOW_PUBLISHED;
    let same_end = forward.destination == plan.destination
        && forward.action == plan.there.action
        && forward.flags & translated == plan.flags & translated;
    // A masqueraded conversation lives as long as the host has the address, also when new ones would get another.
    let address_kept = forward.flags & FLOW_MASQUERADES == 0 || F::LOCAL.find(&forward.source).is_some();
    // An ICMP identifier stands in both ports and may have been exchanged.
    let same_port = key.protocol == F::ICMP || forward.destination_port == plan.destination_port;
    if !(same_end && same_port && address_kept) {
        return gone;
    }
    redirect(forward, &plan.there);
    redirect(reply, &plan.back);
    forward.flags = forward.flags & !FLOW_CHECKS_MTU | plan.flags & FLOW_CHECKS_MTU;
    reply.flags = reply.flags & !FLOW_CHECKS_MTU | plan.flags & FLOW_CHECKS_MTU;
    forward.epoch = plan.epoch;
    reply.epoch = plan.epoch;
    admit::number(Ok(Affair::Ours))
}

/// Sends a flow along a leg, if that is known.
#[inline(always)]
fn redirect<F: Family>(flow: &mut Flow<F>, leg: &Leg<F>) {
    if leg.ifindex == 0 {
        return;
    }
    flow.ifindex = leg.ifindex;
    flow.next_hop = leg.next_hop;
    flow.destination_mac = leg.destination_mac;
    flow.source_mac = leg.source_mac;
}

/// Follows the TCP connection of the packet in hand through its life, in both of its entries.
#[inline(always)]
pub fn track_current<F: Layer3>() -> u32 {
    match F::facts(false) {
        Some(facts) => track(&facts.key, facts.tcp_flags),
        None => 0,
    }
}

#[inline(always)]
fn track<F: Layer3>(key: &FlowKey<F>, tcp_flags: u8) -> u32 {
    let Some(flow) = find(key) else { return 0 };
    let Some(other) = find(&reverse_of(key, flow)) else {
        return 0;
    };
    // SAFETY: see `reverse_of`.
    let (state, fin_came) = unsafe { ((*flow.as_ptr()).state, (*other.as_ptr()).flags & FLOW_FIN_SENT != 0) };
    let next = if tcp_flags & RST != 0 {
        State::Closed
    } else if tcp_flags & FIN != 0 {
        // SAFETY: see `reverse_of`.
        unsafe { (*flow.as_ptr()).flags |= FLOW_FIN_SENT };
        if fin_came { State::Closed } else { State::Closing }
    } else if tcp_flags & ACK == 0 && state >= State::Closing as u8 {
        // The ports are used again before the flow has expired: the connection begins anew, its translation stays.
        // SAFETY: see `reverse_of`.
        unsafe {
            (*flow.as_ptr()).flags &= !FLOW_FIN_SENT;
            (*other.as_ptr()).flags &= !FLOW_FIN_SENT;
        }
        State::Unanswered
    } else if tcp_flags & ACK != 0 && state == State::Unanswered as u8 {
        State::Established
    } else {
        return 0;
    };
    set_state(flow, next as u8);
    set_state(other, next as u8);
    0
}

#[inline(always)]
fn set_state<F: Family>(flow: Entry<F>, state: u8) {
    // SAFETY: see `reverse_of`.
    unsafe { (*flow.as_ptr()).state = state };
}

/// Makes both entries of what lies on the desk. The one of the way back first, as it holds the port; it is then turned round.
#[inline(always)]
pub fn make_pair<F: Layer3>() -> Number {
    const DONE: Result<Affair, DropReason> = Ok(Affair::Ours);
    const FULL: Result<Affair, DropReason> = Err(DropReason::FlowTableFull);
    let Some(Desk { key, back, plan, flow }) = F::desk() else {
        return admit::number(FULL);
    };
    let (key, back) = (&*key, &*back);
    write_back(flow, key, plan, back);
    // What is there is the other half of this conversation, or `choose_port` would have passed it by.
    if F::OPENING.insert(back, &raw const *flow, BPF_ANY).is_err() {
        return admit::number(FULL);
    }
    turn_round(flow, plan, back);
    match F::OPENING.insert(key, &raw const *flow, BPF_NOEXIST) {
        Ok(()) => {}
        Err(EXISTS) => {
            // Another CPU has opened it; unless it chose the same way back, ours leads nowhere.
            let winner = F::OPENING.find(key).map(|winner| reverse_of(key, winner));
            if winner.is_some_and(|winner| winner != *back) {
                F::OPENING.remove(back);
            }
        }
        Err(_) => {
            F::OPENING.remove(back);
            return admit::number(FULL);
        }
    }
    admit::number(DONE)
}

/// The entry for the answers.
#[inline(always)]
fn write_back<F: Layer3>(flow: &mut Flow<F>, key: &FlowKey<F>, plan: &Plan<F>, back: &FlowKey<F>) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
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
    *flow = Flow {
        packets: 0,
        bytes: 0,
        last_seen: now,
        opened: now,
        source: key.destination,
        destination: key.source,
        next_hop: plan.back.next_hop,
        source_port: key.destination_port,
        destination_port: key.source_port,
        address_difference: addresses,
        // An ICMP identifier stands in both ports of the key, but in the packet once.
        port_difference: if key.protocol == F::ICMP {
            destination_port
        } else {
            add(source_port, destination_port)
        },
        ifindex: plan.back.ifindex,
        epoch: plan.epoch,
        source_endpoint: plan.there.endpoint,
        source_generation: plan.there.generation,
        destination_endpoint: plan.back.endpoint,
        destination_generation: plan.back.generation,
        reverse_scope: key.scope,
        destination_mac: plan.back.destination_mac,
        source_mac: plan.back.source_mac,
        action: plan.back.action,
        flags: rewrites | plan.flags | FLOW_IS_REPLY,
        state: State::Unanswered as u8,
        padding: 0,
        filler: Default::default(),
    };
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
