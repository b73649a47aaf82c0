//! ICMP errors go where the packet they quote came from, translated as its answers would be. They open nothing and keep nothing alive.

use sluice_datapath_common::{DropReason, network::FIRST_NETWORK, overlay::SCOPE_OVERLAY};

use super::{deliver, flow};
use crate::{
    family::Layer3,
    key::{self, flow_key},
    maps::Prefix,
    packet::{Facts, Fragment, Frame, Packet},
    rewrite,
    verdict::{self, Verdict},
};

/// Sends the error on its way.
#[inline(always)]
pub fn follow<F: Layer3>(packet: &mut Packet<F>) -> Result<Verdict, DropReason> {
    follow_by(packet, 0)
}

/// Sends an error of the host's stack on its way. The host may also speak of what an endpoint said to it without any translation, or of a packet
/// that we gave it for this very purpose: then the endpoint gets the error as it is, here or on another host.
#[inline(always)]
pub fn follow_or_tell<F: Layer3>(packet: &mut Packet<F>) -> Result<Verdict, DropReason> {
    follow_by(packet, 1)
}

#[inline(always)]
fn follow_by<F: Layer3>(packet: &mut Packet<F>, of_host: u32) -> Result<Verdict, DropReason> {
    let frame = packet.frame;
    let mut quoted = packet.quoted().map_err(|_| DropReason::UnrelatedError)?;
    verdict::of_number(F::follow_error(frame, packet, &mut quoted, of_host))
}

/// Either, when both packets have been read. Out of line for its stack.
#[inline(always)]
pub fn follow_by_facts<F: Layer3>(
    frame: Frame,
    facts: &'static mut Facts<F>,
    quoted: &'static mut Facts<F>,
    of_host: u32,
) -> verdict::Number {
    let (packet, quoted) = (Packet::of_facts(frame, facts), Packet::of_facts(frame, quoted));
    verdict::number(match of_host {
        0 => along_quoted(&packet, &quoted),
        _ => along_quoted_or_tell(&packet, &quoted),
    })
}

#[inline(always)]
fn along_quoted_or_tell<F: Layer3>(packet: &Packet<F>, quoted: &Packet<F>) -> Result<Verdict, DropReason> {
    match along_quoted(packet, quoted) {
        Err(DropReason::UnrelatedError) if quoted.key.source == packet.key.destination => {}
        told => return told,
    }
    let network = F::SUBNETS
        .get(&Prefix::whole(packet.key.destination))
        .ok_or(DropReason::UnrelatedError)?;
    let desk = F::desk().ok_or(DropReason::UnrelatedError)?;
    desk.plan.there.lead_to_endpoint(network, packet.key.destination)?;
    deliver::straight(packet, &desk.plan.there)
}

#[inline(always)]
fn along_quoted<F: Layer3>(packet: &Packet<F>, quoted: &Packet<F>) -> Result<Verdict, DropReason> {
    // An endpoint reports on its own part only; the world's routers report on what they please, also to other hosts, which hand it on.
    let is_reporter = packet.key.source == quoted.key.destination;
    let is_own = packet.key.destination == quoted.key.source && quoted.fragment != Fragment::Later;
    if !is_own || ((FIRST_NETWORK..SCOPE_OVERLAY).contains(&packet.key.scope) && !is_reporter) {
        return Err(DropReason::UnrelatedError);
    }
    let key = &quoted.key;
    let answers = flow_key(key::destination(key), key::source(key), packet.key.scope, key.protocol);
    let flow = flow::known(&answers).ok_or(DropReason::UnrelatedError)?;
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    let flow = unsafe { flow.as_ref() };
    let hop = deliver::hops_to(flow);
    if hop != 0 && F::hops(packet)? <= 1 {
        // Nobody is told of an error that dies on its way; the host's stack sees to that too.
        return deliver::report_by_host(packet);
    }
    rewrite::translate_error(packet, quoted, flow, hop)?;
    deliver::send(packet, flow)
}
