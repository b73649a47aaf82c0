//! Questions for names, and their answers: between an endpoint and the resolver's leg, past everything else. No flow is made of them, and no rule of the
//! endpoint's network keeps it from asking.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use sluice_datapath_common::{
    DropReason,
    endpoint::{Attachment, EndpointKey},
    resolver::{Asking, RESOLVER_PORT},
};

use super::deliver;
use crate::{
    family::Layer3,
    maps::{self, ASKING, Prefix},
    packet::{Frame, Layer4, Mac, Packet, TCP, UDP},
    rewrite,
    verdict::{self, Verdict},
};

const PORT: u16 = RESOLVER_PORT.to_be();

/// Not for the resolver: no reason has this number, nor has a verdict.
const NOT_ASKED: verdict::Number = 0;

/// Hands the packet to the resolver if it is for it, unless its sender asks too much.
#[inline(always)]
pub fn ask<F: Layer3>(packet: &Packet<F>, sender: &Attachment) -> Option<Result<Verdict, DropReason>> {
    if packet.key.destination_port != PORT {
        return None;
    }
    match F::ask_resolver(packet.frame, sender.network, sender.endpoint) {
        NOT_ASKED => None,
        number => Some(verdict::of_number(number)),
    }
}

/// The same for the packet in hand, from an endpoint of a network by their numbers. Out of line for its stack.
#[inline(always)]
pub fn ask_by_facts<F: Layer3>(frame: Frame, network: u32, endpoint: u32) -> verdict::Number {
    let (Some(facts), Some(network)) = (F::facts(false), maps::network(network)) else {
        return NOT_ASKED;
    };
    let (protocol, resolver) = (facts.key.protocol, F::resolver(network));
    let has_sockets = protocol == UDP || protocol == TCP;
    if !has_sockets || resolver == F::ANY || facts.key.destination != resolver {
        return NOT_ASKED;
    }
    verdict::number(hand_over(frame, endpoint))
}

#[inline(always)]
fn hand_over(frame: Frame, endpoint: u32) -> Result<Verdict, DropReason> {
    let settings = maps::settings().ok_or(DropReason::UnknownDevice)?;
    if asks_too_much(endpoint, settings.questions_per_tick) {
        return Err(DropReason::TooManyQuestions);
    }
    // It is addressed to the gateway's MAC, which the resolver has too.
    deliver::into_namespace(frame, settings.resolver_ifindex)
}

/// Fills the endpoint's bucket by one packet, if there is room. It leaks `most` a tick and holds those of `Asking::DEPTH` ticks: who was kept from
/// asking for a moment may ask all the faster afterwards. Some may be missed when two CPUs count at once.
#[inline(always)]
fn asks_too_much(endpoint: u32, most: u32) -> bool {
    let Some(asking) = ASKING.get_ptr_mut(endpoint).filter(|_| most != 0) else {
        return false;
    };
    // SAFETY: no arguments.
    let tick = (unsafe { bpf_ktime_get_coarse_ns() } >> Asking::TICK_SHIFT) as u32;
    // SAFETY: a slot of an array; integers, any of which is a value.
    unsafe {
        let leaked = match tick.wrapping_sub((*asking).tick) {
            passed if passed < Asking::DEPTH => passed * most,
            _ => u32::MAX,
        };
        let questions = (*asking).questions.saturating_sub(leaked);
        let is_full = questions >= Asking::DEPTH * most;
        asking.write(Asking {
            tick,
            questions: questions + !is_full as u32,
        });
        is_full
    }
}

/// Hands an answer to the endpoint it is for. What else the resolver's namespace says (an ICMP error while nobody listens there, what IPv6 says to its
/// link) is heard by nobody: who asked in vain asks again.
#[inline(always)]
pub fn answer<F: Layer3>(packet: &Packet<F>) -> Result<Verdict, DropReason> {
    let (protocol, destination) = (packet.key.protocol, packet.key.destination);
    let speaks = packet.key.source_port == PORT || packet.layer4 == Layer4::Continuation;
    if !speaks || (protocol != UDP && protocol != TCP) {
        return Ok(Verdict::Heard);
    }
    let home = F::SUBNETS
        .get(&Prefix::whole(destination))
        .ok_or(DropReason::NoSuchEndpoint)?;
    let network = maps::network(home).ok_or(DropReason::NoSuchEndpoint)?;
    if packet.key.source != F::resolver(network) {
        return Err(DropReason::IsolatedNetwork);
    }
    let endpoint = F::ENDPOINTS
        .get(&EndpointKey {
            network: home,
            address: destination,
        })
        .ok_or(DropReason::NoSuchEndpoint)?;
    rewrite::address_frame(packet.frame, Mac::new(endpoint.mac), Mac::new(network.gateway_mac))?;
    deliver::into_namespace(packet.frame, endpoint.ifindex)
}
