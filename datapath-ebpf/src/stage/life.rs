//! A conversation's life: half open, established, closing, closed, over. Both of its entries live it together, and its endpoint answers for it.

use aya_ebpf::bindings::BPF_NOEXIST;
use sluice_datapath_common::{
    DropReason, Family,
    flow::{FLOW_FIN_SENT, FLOW_IS_REPLY, FlowKey, State},
};

use super::{
    admit::{self, Affair, Number},
    flow::{Entry, establishes, find, leads_to, reverse_of},
    reclaim,
};
use crate::{
    family::Layer3,
    maps,
    packet::{ACK, FIN, RST, SCTP, SYN, TCP},
    verdict::event,
};

/// `EEXIST`
pub const EXISTS: i64 = -17;

/// Follows the conversation of the packet in hand, in both of its entries: a TCP packet with SYN, FIN or RST, or one that establishes what is half
/// open in the large table.
#[inline(always)]
pub fn track_current<F: Layer3>() -> u32 {
    if let Some(facts) = F::facts(false) {
        track(&facts.key, facts.tcp_flags);
    }
    0
}

#[inline(always)]
fn track<F: Layer3>(key: &FlowKey<F>, tcp_flags: u8) {
    let Some(flow) = find(key) else { return };
    let Some(other) = find(&reverse_of(key, flow)) else {
        return;
    };
    // SAFETY: an entry's slot stays readable until the program ends; the same goes for every access to an entry below.
    let (state, fin_came) = unsafe { ((*flow.as_ptr()).state, (*other.as_ptr()).flags & FLOW_FIN_SENT != 0) };
    let next = if tcp_flags & RST != 0 {
        State::Closed
    } else if tcp_flags & FIN != 0 {
        // SAFETY: see above.
        unsafe { (*flow.as_ptr()).flags |= FLOW_FIN_SENT };
        if fin_came { State::Closed } else { State::Closing }
    } else if tcp_flags & (SYN | ACK) == SYN && state >= State::Closing as u8 {
        // The ports are used again before the flow has expired: the connection begins anew, its translation stays.
        // SAFETY: see above.
        unsafe {
            (*flow.as_ptr()).flags &= !FLOW_FIN_SENT;
            (*other.as_ptr()).flags &= !FLOW_FIN_SENT;
        }
        begin_anew(flow, other);
        State::Unanswered
    } else if establishes(flow, key.protocol, tcp_flags) && was_heard(key, other) {
        State::Established
    } else {
        return;
    };
    let is_end = event::is_end(state, next);
    move_on(key, flow, other, next);
    if is_end {
        F::tell_closed();
    }
}

/// Has the other side of a half open conversation spoken? Of what has no SYN, this packet is the answer.
#[inline(always)]
fn was_heard<F: Family>(key: &FlowKey<F>, other: Entry<F>) -> bool {
    // SAFETY: see `track`.
    (key.protocol != TCP && key.protocol != SCTP) || unsafe { other.as_ref() }.packets > 0
}

/// Whoever sent the SYN is the opener from now on, and nobody has answered it.
#[inline(always)]
fn begin_anew<F: Family>(flow: Entry<F>, other: Entry<F>) {
    // SAFETY: see `track`.
    unsafe {
        if (*flow.as_ptr()).flags & FLOW_IS_REPLY == 0 {
            (*other.as_ptr()).packets = 0;
        } else {
            (*flow.as_ptr()).packets = 0;
        }
    }
}

/// Sees to a conversation of the small table: is it an established one now?
#[inline(always)]
pub fn settle<F: Layer3>(key: &FlowKey<F>, tcp_flags: u8) -> Number {
    match is_answered(key, tcp_flags) {
        0 => admit::number(Ok(Affair::Ours)),
        _ => reclaim::after::<F>(promote(key)),
    }
}

/// Not 0: this packet, of the entry under `key` in the small table, establishes its conversation.
#[inline(never)]
fn is_answered<F: Layer3>(key: &FlowKey<F>, tcp_flags: u8) -> u32 {
    let Some(flow) = F::OPENING.find(key) else { return 0 };
    let Some(other) = F::OPENING.find(&reverse_of(key, flow)) else {
        return 0;
    };
    (establishes(flow, key.protocol, tcp_flags) && was_heard(key, other)) as u32
}

/// Both have spoken: moves the entries from the small table to the one that never evicts.
#[inline(never)]
fn promote<F: Layer3>(key: &FlowKey<F>) -> Number {
    const DONE: Result<Affair, DropReason> = Ok(Affair::Ours);
    let Some(flow) = F::OPENING.find(key) else {
        return admit::number(DONE);
    };
    let back = reverse_of(key, flow);
    let Some(other) = F::OPENING.find(&back) else {
        return admit::number(DONE);
    };
    // SAFETY: see `track`.
    let owner = unsafe { flow.as_ref() }.owner();
    if !reclaim::has_room(owner) {
        return admit::number(Err(DropReason::FlowLimit));
    }
    set_state(flow, State::Established);
    set_state(other, State::Established);
    // The other first: until the second is there too, its packets are no worse off than before.
    if !keep(&back, other) || !keep(key, flow) {
        // They stay what they were.
        set_state(flow, State::Unanswered);
        set_state(other, State::Unanswered);
        F::FLOWS.remove(&back);
        return admit::number(Err(DropReason::FlowTableFull));
    }
    maps::tally(owner, 1, 0);
    F::OPENING.remove(&back);
    F::OPENING.remove(key);
    admit::number(DONE)
}

/// Enters an entry into the table that never evicts. One that is there is as good.
#[inline(always)]
fn keep<F: Layer3>(key: &FlowKey<F>, flow: Entry<F>) -> bool {
    match F::FLOWS.insert(key, flow.as_ptr(), BPF_NOEXIST) {
        Ok(()) | Err(EXISTS) => true,
        Err(_) => false,
    }
}

/// Removes a conversation: this entry, and the other if it still belongs to this one.
#[inline(never)]
pub fn forget<F: Layer3>(key: &FlowKey<F>) {
    let Some(flow) = find(key) else { return };
    let back = reverse_of(key, flow);
    // SAFETY: see `track`.
    let (owner, half_open) = unsafe {
        let flow = flow.as_ref();
        (flow.owner(), flow.state == State::Unanswered as u8)
    };
    let was_kept = F::FLOWS.remove(key);
    F::OPENING.remove(key);
    if was_kept {
        // Two CPUs may forget a conversation from its two ends: the agent sets right what is then counted twice.
        maps::tally(owner, -1, -(half_open as i64));
    }
    let Some(other) = find(&back) else { return };
    if leads_to(other, key) {
        F::FLOWS.remove(&back);
        F::OPENING.remove(&back);
    }
}

/// Gives both entries a state; its endpoint is told when the conversation is half open no more, or again.
#[inline(always)]
fn move_on<F: Layer3>(key: &FlowKey<F>, flow: Entry<F>, other: Entry<F>, next: State) {
    // SAFETY: see `track`.
    let (owner, before) = unsafe { (flow.as_ref().owner(), flow.as_ref().state) };
    set_state(flow, next);
    set_state(other, next);
    let (was, is) = (before == State::Unanswered as u8, next as u8 == State::Unanswered as u8);
    if was != is && F::FLOWS.find(key).is_some() {
        maps::tally(owner, 0, is as i64 - was as i64);
    }
}

#[inline(always)]
fn set_state<F: Family>(flow: Entry<F>, state: State) {
    // SAFETY: see `track`.
    unsafe { (*flow.as_ptr()).state = state as u8 };
}
