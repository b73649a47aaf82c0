//! Fragments follow their first fragment, the only one that bears ports. What overtakes it waits (`hold`) and is let go when the first one comes.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_coarse_ns};
use sluice_datapath_common::{
    DropReason,
    fragment::{FRAGMENT_OF_HOST, FragmentKey, FragmentPorts, PATIENCE},
};

use super::hold::{self, OF_THE_HOST, Sender};
use crate::{
    family::Layer3,
    packet::{Fragment, Frame, Packet},
};

/// What becomes of a packet that may be a fragment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its ports are known: it goes on.
    Known,
    /// It waits for its first fragment.
    Waits,
    /// It belongs to a datagram of the host's own.
    OfHost,
}

/// Remembers the ports of a first fragment and lets those go that wait for it; gives the ports to a later one, or has it wait.
#[inline(always)]
pub fn follow<F: Layer3>(packet: &Packet<F>, sender: Sender) -> Result<Place, DropReason> {
    if packet.fragment == Fragment::Whole {
        return Ok(Place::Known);
    }
    match F::follow_fragment(packet.frame, sender.ring, sender.endpoint, sender.direction) {
        KNOWN => Ok(Place::Known),
        WAITS => Ok(Place::Waits),
        OF_HOST => Ok(Place::OfHost),
        TOO_SHORT => Err(DropReason::Truncated),
        ALONE => Err(DropReason::FragmentAlone),
        _ => Err(DropReason::RewriteFailed),
    }
}

/// The answers of functions out of line, which can be no more than numbers.
const KNOWN: u32 = 0;
const WAITS: u32 = 1;
const OF_HOST: u32 = 2;
const TOO_SHORT: u32 = 3;
const ALONE: u32 = 4;
const SPOILT: u32 = 5;

/// The same out of line, by the facts that were read.
#[inline(always)]
pub fn follow_by_facts<F: Layer3>(frame: Frame, ring: u32, endpoint: u32, direction: u32) -> u32 {
    let Some(facts) = F::facts(false) else { return TOO_SHORT };
    let mut packet = Packet::of_facts(frame, facts);
    let sender = Sender {
        ring,
        endpoint,
        direction,
    };
    let Some(key) = key(&packet) else { return TOO_SHORT };
    if packet.fragment == Fragment::First {
        let flags = if direction == OF_THE_HOST { FRAGMENT_OF_HOST } else { 0 };
        note(key, &packet, flags);
        return match hold::release(frame, sender) {
            Ok(()) => KNOWN,
            Err(_) => SPOILT,
        };
    }
    let place = known(key, &mut packet);
    if place != WAITS {
        return place;
    }
    let Ok(ticket) = hold::put(frame, sender) else {
        return ALONE;
    };
    // The first one may have come meanwhile, on another CPU, and not have seen this one waiting.
    let place = known(key, &mut packet);
    if place != WAITS && hold::take_back(sender, ticket) {
        return place;
    }
    WAITS
}

/// Gives a later fragment the ports of its first.
#[inline(always)]
fn known<F: Layer3>(key: &FragmentKey<F>, packet: &mut Packet<F>) -> u32 {
    let Some(noted) = F::FRAGMENTS.find(key) else {
        return WAITS;
    };
    // SAFETY: the kernel keeps the entry's slot readable until the program ends; the clock takes no arguments.
    let (ports, now) = unsafe { (noted.read(), bpf_ktime_get_coarse_ns()) };
    if now.wrapping_sub(ports.seen) > PATIENCE {
        return WAITS;
    }
    // SAFETY: as above.
    unsafe { (*noted.as_ptr()).seen = now };
    if ports.flags & FRAGMENT_OF_HOST != 0 {
        return OF_HOST;
    }
    packet.key.source_port = ports.source_port;
    packet.key.destination_port = ports.destination_port;
    KNOWN
}

#[inline(always)]
fn note<F: Layer3>(key: &FragmentKey<F>, packet: &Packet<F>, flags: u32) {
    let ports = FragmentPorts {
        // SAFETY: no arguments.
        seen: unsafe { bpf_ktime_get_coarse_ns() },
        source_port: packet.key.source_port,
        destination_port: packet.key.destination_port,
        flags,
    };
    // An LRU table takes it unless memory is short, and then the later fragments say so.
    let _ = F::FRAGMENTS.insert(key, &raw const ports, BPF_ANY);
}

#[inline(always)]
fn key<F: Layer3>(packet: &Packet<F>) -> Option<&'static FragmentKey<F>> {
    hold::at_hand(FragmentKey {
        source: packet.key.source,
        destination: packet.key.destination,
        identification: F::identification(packet).ok()?,
        scope: packet.key.scope,
        protocol: packet.key.protocol,
        padding: [0; 3],
    })
}
