//! Which source port may the conversation leave with?
//!
//! The opener keeps its own port while the way back is free under it. For an address of the host, "free" is asked of more than the flow
//! tables: a published port is not, nor one with a socket of the host, nor any of the host's ephemeral range, which the host may take at any
//! moment without asking us. So a container's own ephemeral port is usually exchanged for one outside that range.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use sluice_datapath_common::{
    DropReason,
    flow::{FLOW_MASQUERADES, FlowKey, SCOPE_WORLD},
};

use super::{
    admit::{self, Affair, Number, Plan},
    flow,
};
use crate::{
    family::Layer3,
    key::{End, flow_key},
    maps::{self, CONFIG, Desk},
    packet::{Frame, SCTP, TCP, UDP, UDP_LITE},
};

/// How many ports are tried. With nine in ten taken, one conversation in eight hundred finds none.
const PROBES: u32 = 64;
/// Lower ports speak of a privileged sender.
const FIRST: u32 = 1024;

/// Writes the key of the way back, with a source port that is free, to the desk where the conversation lies.
#[inline(always)]
pub fn choose_port<F: Layer3>(frame: Frame) -> Number {
    match F::desk() {
        Some(Desk { key, back, plan, .. }) => admit::number(choose(frame, key, plan, back).map(|()| Affair::Ours)),
        None => admit::number(Err(DropReason::NoPortLeft)),
    }
}

#[inline(always)]
fn choose<F: Layer3>(frame: Frame, key: &FlowKey<F>, plan: &Plan<F>, back: &mut FlowKey<F>) -> Result<(), DropReason> {
    let answerer = End {
        address: plan.destination,
        port: plan.destination_port,
    };
    *back = flow_key(
        answerer,
        End {
            address: plan.source,
            port: key.source_port,
        },
        plan.there.scope,
        key.protocol,
    );
    let has_ports = matches!(key.protocol, TCP | UDP | SCTP | UDP_LITE) || key.protocol == F::ICMP;
    let masquerades = plan.flags & FLOW_MASQUERADES != 0;
    if !has_ports && (plan.source != key.source || plan.destination != key.destination) {
        return Err(DropReason::CannotTranslate);
    }
    let mut search = Search {
        frame,
        masquerades,
        found: false,
        range: Range::outside_ephemeral(),
    };
    let probes = if has_ports { PROBES } else { 1 };
    let probe: extern "C" fn(u32, *mut Search) -> i64 = probe::<F>;
    // SAFETY: the callback takes what it is given here, and `search` outlives the loop.
    unsafe { bpf_loop(probes, probe as *mut core::ffi::c_void, (&raw mut search).cast(), 0) };
    match search.found {
        true => Ok(()),
        false => Err(DropReason::NoPortLeft),
    }
}

/// What one probe hands to the next, besides what lies on the desk.
struct Search {
    frame: Frame,
    masquerades: bool,
    found: bool,
    range: Range,
}

/// Tries one port: the opener's own first, then others at random. 1 ends the search.
extern "C" fn probe<F: Layer3>(round: u32, search: *mut Search) -> i64 {
    // SAFETY: `choose` hands over its `search`, which nobody else touches meanwhile.
    let search = unsafe { &mut *search };
    let Some(Desk { key, back, .. }) = F::desk() else {
        return 1;
    };
    let is_icmp = key.protocol == F::ICMP;
    if round > 0 {
        back.destination_port = if is_icmp {
            random(u32::from(u16::MAX)) as u16
        } else {
            search.range.random()
        };
        if is_icmp {
            back.source_port = back.destination_port;
        }
    } else if search.masquerades && !is_icmp && !search.range.contains(key.source_port) {
        return 0;
    }
    search.found = is_free(search, key, back);
    search.found as i64
}

/// Is the way back free?
#[inline(always)]
fn is_free<F: Layer3>(search: &Search, forward: &FlowKey<F>, back: &FlowKey<F>) -> bool {
    if !flow::is_free(back, forward) {
        return false;
    }
    let is_icmp = forward.protocol == F::ICMP;
    if !search.masquerades || is_icmp {
        return true;
    }
    if maps::is_reserved(F::AF, back.protocol, back.destination_port) {
        return false;
    }
    let asks = back.scope == SCOPE_WORLD && (back.protocol == TCP || back.protocol == UDP);
    !(asks && F::socket_owns(search.frame, back, true))
}

/// The ports from [`FIRST`] on without the host's ephemeral ones, host byte order.
#[derive(Clone, Copy)]
struct Range {
    ephemeral_first: u32,
    ephemeral_last: u32,
}

impl Range {
    #[inline(always)]
    fn outside_ephemeral() -> Self {
        let config = CONFIG.load();
        let (first, last) = (u32::from(config.ephemeral_first), u32::from(config.ephemeral_last));
        // What the kernel starts with (net.ipv4.ip_local_port_range), also when what we were told leaves us too little to choose from.
        let usable = first >= FIRST && last >= first && last - first < 0xf000;
        let (ephemeral_first, ephemeral_last) = if usable { (first, last) } else { (32_768, 60_999) };
        Self {
            ephemeral_first,
            ephemeral_last,
        }
    }

    /// Ports below [`FIRST`] count: their owner had the right to them.
    #[inline(always)]
    fn contains(self, port: u16) -> bool {
        let port = u32::from(u16::from_be(port));
        port < self.ephemeral_first || port > self.ephemeral_last
    }

    /// One of them, network byte order.
    #[inline(always)]
    fn random(self) -> u16 {
        let below = self.ephemeral_first - FIRST;
        let above = 0xffff - self.ephemeral_last;
        let pick = FIRST + random(below + above);
        let port = if pick < self.ephemeral_first {
            pick
        } else {
            pick - self.ephemeral_first + self.ephemeral_last + 1
        };
        (port as u16).to_be()
    }
}

/// A number below `bound`.
#[inline(always)]
fn random(bound: u32) -> u32 {
    // SAFETY: no arguments.
    let number = unsafe { bpf_get_prandom_u32() };
    ((u64::from(number) * u64::from(bound)) >> 32) as u32
}
