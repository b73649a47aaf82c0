//! Do we know this conversation? If yes, what was decided.
//!
//! A conversation is two entries, one per direction, which are made and moved and go together. It lives in `FLOWS`, which never evicts. While it is
//! half open (nobody has answered; of TCP: the opener has not spoken again since) it may do so only if its endpoint has few such; the others begin
//! in `OPENING`, a small table whose oldest entries give way, and move when they are established (`life`). An LRU table may have taken one half of a
//! pair; a lone half is worth nothing and is forgotten, so that the opener's next packet begins anew.
//!
//! What has been idle for longer than it may is gone, whether or not the agent has cleared it away yet.
//!
//! Nothing here is locked. Counters may lose a packet when two CPUs carry one direction at once.

use core::ptr::NonNull;

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use sluice_datapath_common::{
    DropReason, Family,
    flow::{FLOW_CHECKS_MTU, FLOW_IS_REPLY, FLOW_MASQUERADES, FLOW_PUBLISHED, Flow, FlowKey, State},
    lifetime::{SHORTEST, idle_for, is_idle},
};

pub use super::open::{may_open, open, opened};
use super::{
    admit::{self, Affair, Number},
    life,
    route::Leg,
};
use crate::{
    family::Layer3,
    key::{End, differ, differ_by_words, flow_key},
    maps::{self, Desk},
    packet::{ACK, FIN, Frame, Packet, RST, SCTP, SYN, TCP},
};

/// An entry as it lies in its table.
pub type Entry<F> = NonNull<Flow<F>>;

/// The flow that the packet belongs to, if it is known and still allowed. Counts the packet.
#[inline(always)]
pub fn follow<F: Layer3>(packet: &Packet<F>) -> Result<Option<Entry<F>>, DropReason> {
    let now = now();
    let flow = match F::FLOWS.find(&packet.key) {
        Some(flow) if is_current(flow, now) => flow,
        None if !maps::has_opening(now) => return Ok(None),
        _ => {
            if admit::judgement(F::search(packet.frame))? == Affair::Hosts {
                return Ok(None);
            }
            match F::FLOWS.find(&packet.key) {
                Some(flow) => flow,
                None => return Ok(lay_out(packet.frame)),
            }
        }
    };
    if speaks_of_its_life(packet.tcp_flags) || establishes(flow, packet.key.protocol, packet.tcp_flags) {
        F::track();
    }
    count(flow, packet.frame, now);
    Ok(Some(flow))
}

/// Does a TCP packet begin or end something?
#[inline(always)]
fn speaks_of_its_life(tcp_flags: u8) -> bool {
    tcp_flags & (FIN | RST) != 0 || tcp_flags & (SYN | ACK) == SYN
}

/// A flow of the small table: its entry, with this packet counted, as a copy on the desk, which is where one that was opened just now lies. The
/// verifier would else walk all that follows once more.
#[inline(always)]
fn lay_out<F: Layer3>(frame: Frame) -> Option<Entry<F>> {
    if F::copy_out(frame) == 0 {
        return None;
    }
    F::desk().map(|desk| NonNull::from(&mut desk.flow))
}

/// Copies the flow of the packet in hand to the desk. 0: it is not in the small table.
#[inline(always)]
pub fn copy_out<F: Layer3>(frame: Frame) -> u32 {
    let (Some(facts), Some(desk)) = (F::facts(false), F::desk()) else {
        return 0;
    };
    if speaks_of_its_life(facts.tcp_flags) {
        F::track();
    }
    let Some(flow) = F::OPENING.find(&facts.key) else {
        return 0;
    };
    let now = now();
    maps::note_opening(now);
    count(flow, frame, now);
    // SAFETY: see `reverse_of`.
    unsafe { copy(flow.as_ptr(), &raw mut desk.flow) };
    1
}

/// The flow of this key, if it was judged in this epoch, both its ends are alive and it is not over; it is not renewed, nor counted.
#[inline(always)]
pub fn known<F: Layer3>(key: &FlowKey<F>) -> Option<Entry<F>> {
    find(key).filter(|flow| is_judged(*flow) && is_alive(*flow) && !is_over(key))
}

/// The entry in either table.
#[inline(always)]
pub fn find<F: Layer3>(key: &FlowKey<F>) -> Option<Entry<F>> {
    match F::FLOWS.find(key) {
        None if maps::has_opening(now()) => F::OPENING.find(key),
        found => found,
    }
}

/// The key of the entry of the other direction.
#[inline(always)]
pub fn reverse_of<F: Family>(key: &FlowKey<F>, flow: Entry<F>) -> FlowKey<F> {
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
pub fn write_reverse<F: Family>(reverse: &mut FlowKey<F>, key: &FlowKey<F>, flow: Entry<F>) {
    // SAFETY: see `reverse_of`.
    let flow = unsafe { flow.as_ref() };
    reverse.source = flow.destination;
    reverse.destination = flow.source;
    reverse.source_port = flow.destination_port;
    reverse.destination_port = flow.source_port;
    reverse.scope = flow.reverse_scope;
    reverse.protocol = key.protocol;
}

/// Are both its ends still those it was opened between?
#[inline(always)]
pub fn is_alive<F: Family>(flow: Entry<F>) -> bool {
    age(flow) == 0
}

/// Not 0: one of its ends has ended since.
#[inline(always)]
fn age<F: Family>(flow: Entry<F>) -> u64 {
    // SAFETY: see `reverse_of`.
    let flow = unsafe { flow.as_ref() };
    differ(flow.source_generation, maps::generation(flow.source_endpoint))
        | differ(flow.destination_generation, maps::generation(flow.destination_endpoint))
}

/// Has the conversation of this entry been idle in both directions for longer than it may?
#[inline(always)]
pub fn is_over<F: Layer3>(key: &FlowKey<F>) -> bool {
    is_over_by(key, 0) != 0
}

/// The same while room is short, when closed connections linger for less.
#[inline(always)]
pub fn is_over_in_a_hurry<F: Layer3>(key: &FlowKey<F>) -> bool {
    is_over_by(key, 1) != 0
}

/// Now on the clock of `last_seen`, ns. The coarse clock costs a tenth of the fine one.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Is the entry of this key the other half of `flow`, whose protocol is the same?
#[inline(always)]
pub fn leads_to<F: Family>(flow: Entry<F>, key: &FlowKey<F>) -> bool {
    // SAFETY: see `reverse_of`.
    let flow = unsafe { flow.as_ref() };
    let ports = |one: u16, other: u16| u32::from(one) << 16 | u32::from(other);
    differ_by_words(&flow.destination, &key.source)
        | differ_by_words(&flow.source, &key.destination)
        | differ(
            ports(flow.destination_port, flow.source_port),
            ports(key.source_port, key.destination_port),
        )
        | differ(flow.reverse_scope, key.scope)
        == 0
}

/// Was it judged in this epoch?
#[inline(always)]
fn is_judged<F: Family>(flow: Entry<F>) -> bool {
    // SAFETY: see `reverse_of`.
    unsafe { flow.as_ref() }.epoch == maps::epoch()
}

/// Is there nothing to be asked about it? One that was used a moment ago cannot be over.
#[inline(always)]
fn is_current<F: Family>(flow: Entry<F>, now: u64) -> bool {
    // SAFETY: see `reverse_of`.
    let (idle, behind) = unsafe { (idle_for(flow.as_ref(), now), differ(flow.as_ref().epoch, maps::epoch())) };
    age(flow) | behind == 0 && idle <= SHORTEST
}

/// Could this packet make a half open conversation an established one? An answer does; of TCP and SCTP, what the opener says after its SYN or INIT.
#[inline(always)]
pub fn establishes<F: Family>(flow: Entry<F>, protocol: u8, tcp_flags: u8) -> bool {
    // SAFETY: see `reverse_of`.
    let flow = unsafe { flow.as_ref() };
    let is_reply = flow.flags & FLOW_IS_REPLY != 0;
    flow.state == State::Unanswered as u8
        && match protocol {
            TCP | SCTP => !is_reply && tcp_flags & (SYN | RST) == 0,
            _ => is_reply,
        }
}

#[inline(always)]
fn count<F: Family>(flow: Entry<F>, frame: Frame, now: u64) {
    // SAFETY: see `reverse_of`.
    unsafe {
        let flow = flow.as_ptr();
        (*flow).packets += 1;
        (*flow).bytes += u64::from(frame.len());
        (*flow).last_seen = now;
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

/// Everything but the common case: flows in the small table, that an older epoch judged, whose endpoints are gone, that have been idle. `Hosts` stands
/// for a packet of no known flow.
#[inline(always)]
fn search<F: Layer3>(frame: Frame, key: &FlowKey<F>, tcp_flags: u8) -> Number {
    let ours = admit::number(Ok(Affair::Ours));
    let judged = match look_at(key) {
        Found::NOTHING => return admit::number(Ok(Affair::Hosts)),
        Found::OVER => admit::number(Ok(Affair::Hosts)),
        Found::STALE => judge_again(frame, key),
        _ => ours,
    };
    if judged == ours {
        return life::settle(key, tcp_flags);
    }
    life::forget(key);
    judged
}

/// What is found under a key.
struct Found;

impl Found {
    const NOTHING: u32 = 0;
    const OVER: u32 = 1;
    const STALE: u32 = 2;
    const CURRENT: u32 = 3;
}

/// Looks an entry up. It is over when its endpoint is gone, when nobody has used it for longer than it may last, and when its other half is gone or
/// belongs to another conversation by now.
#[inline(never)]
fn look_at<F: Layer3>(key: &FlowKey<F>) -> u32 {
    let Some(flow) = find(key) else { return Found::NOTHING };
    if !is_alive(flow) || !has_other_half(key) || is_over(key) {
        Found::OVER
    } else if is_judged(flow) {
        Found::CURRENT
    } else {
        Found::STALE
    }
}

#[inline(never)]
fn has_other_half<F: Layer3>(key: &FlowKey<F>) -> bool {
    let (Some(flow), Some(desk)) = (find(key), F::desk()) else {
        return false;
    };
    write_reverse(&mut desk.reverse, key, flow);
    find(&desk.reverse).is_some_and(|other| leads_to(other, key))
}

/// 1: both directions have been idle for longer than they may.
#[inline(never)]
fn is_over_by<F: Layer3>(key: &FlowKey<F>, hurried: u32) -> u32 {
    let (Some(flow), Some(desk)) = (find(key), F::desk()) else {
        return 1;
    };
    let (now, hurried) = (now(), hurried != 0);
    // SAFETY: see `reverse_of`.
    if !is_idle(unsafe { flow.as_ref() }, now, hurried) {
        return 0;
    }
    write_reverse(&mut desk.reverse, key, flow);
    let Some(other) = find(&desk.reverse) else { return 1 };
    // SAFETY: see `reverse_of`.
    let is_in_use = !is_idle(unsafe { other.as_ref() }, now, hurried);
    !(is_in_use && leads_to(other, key)) as u32
}

/// Copies an entry, by words: `memcpy` is a loop over bytes here.
///
/// # Safety
/// Both are entries, in maps.
#[inline(always)]
pub unsafe fn copy<F: Family>(from: *const Flow<F>, to: *mut Flow<F>) {
    const { assert!(size_of::<Flow<F>>().is_multiple_of(8) && align_of::<Flow<F>>() == 8) }
    let mut word = 0;
    while word < size_of::<Flow<F>>() / 8 {
        // SAFETY: within both entries. Volatile, or the compiler would see through it and call `memcpy`.
        unsafe {
            to.cast::<u64>()
                .add(word)
                .write_volatile(from.cast::<u64>().add(word).read_volatile())
        };
        word += 1;
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
    let judged = admit::judge_by_who_judges::<F>(frame);
    if judged != admit::number(Ok(Affair::Ours)) {
        return judged;
    }
    match F::weigh(frame) {
        0 => renew::<F>(),
        refused => refused,
    }
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
        && forward.reverse_scope == plan.there.scope
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
