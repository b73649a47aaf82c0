//! Which source port may the conversation leave with?
//!
//! The opener keeps its own port while the way back is free under it. For an address of the host, "free" is asked of more than the flow
//! tables: a published port is not, nor one with a socket of the host, nor any of the host's ephemeral range, which the host may take at any
//! moment without asking us. So a container's own ephemeral port is usually exchanged for one outside that range.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use sluice_datapath_common::{
    DropReason, Family,
    flow::{FLOW_MASQUERADES, FlowKey, SCOPE_WORLD},
};

use super::{
    admit::{self, Affair, Number, Plan},
    flow,
};
use crate::{
    family::Layer3,
    key::{End, flow_key},
    maps::{self, CONFIG},
    packet::{Frame, TCP, UDP},
};

/// How many ports are tried. With nine in ten taken, one conversation in eight hundred finds none.
const PROBES: u32 = 64;
/// Lower ports speak of a privileged sender.
const FIRST: u32 = 1024;

/// The key of the way back, with a source port that is free: `Ok` fills it into `back`.
#[inline(always)]
pub fn choose_port<F: Layer3>(
    frame: Frame,
    key: &FlowKey<F>,
    plan: &Plan<F>,
    back: &mut FlowKey<F>,
) -> Result<(), DropReason> {
    admit::judgement(choose_out_of_line(frame, key, plan, back)).map(|_| ())
}

#[inline(never)]
fn choose_out_of_line<F: Layer3>(frame: Frame, key: &FlowKey<F>, plan: &Plan<F>, back: &mut FlowKey<F>) -> Number {
    admit::number(choose(frame, key, plan, back).map(|()| Affair::Ours))
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
    let has_ports = key.protocol == TCP || key.protocol == UDP || key.protocol == F::ICMP;
    let masquerades = plan.flags & FLOW_MASQUERADES != 0;
    if !has_ports && (plan.source != key.source || plan.destination != key.destination) {
        return Err(DropReason::CannotTranslate);
    }
    let mut search = Search {
        frame,
        forward: *key,
        back: *back,
        masquerades,
        probes: if has_ports { PROBES } else { 1 },
        found: false,
        range: Range::outside_ephemeral(),
    };
    let probe: extern "C" fn(u32, *mut Search<F>) -> i64 = probe::<F>;
    // SAFETY: the callback takes what it is given here, and `search` outlives the loop.
    unsafe {
        bpf_loop(
            search.probes,
            probe as *mut core::ffi::c_void,
            (&raw mut search).cast(),
            0,
        )
    };
    if !search.found {
        return Err(DropReason::NoPortLeft);
    }
    *back = search.back;
    Ok(())
}

/// What one probe hands to the next.
struct Search<F: Family> {
    frame: Frame,
    forward: FlowKey<F>,
    back: FlowKey<F>,
    masquerades: bool,
    found: bool,
    probes: u32,
    range: Range,
}

/// Tries one port: the opener's own first, then others at random. 1 ends the search.
extern "C" fn probe<F: Layer3>(round: u32, search: *mut Search<F>) -> i64 {
    // SAFETY: `choose_port` hands over its `search`, which nobody else touches meanwhile.
    let search = unsafe { &mut *search };
    let own = search.forward.source_port;
    let is_icmp = search.forward.protocol == F::ICMP;
    if round > 0 {
        search.back.destination_port = if is_icmp {
            random(u32::from(u16::MAX)) as u16
        } else {
            search.range.random()
        };
        if is_icmp {
            search.back.source_port = search.back.destination_port;
        }
    } else if search.masquerades && !is_icmp && !search.range.contains(own) {
        return 0;
    }
    search.found = is_free(search);
    search.found as i64
}

/// Is the way back free?
#[inline(always)]
fn is_free<F: Layer3>(search: &Search<F>) -> bool {
    if !flow::is_free(&search.back, &search.forward) {
        return false;
    }
    let is_icmp = search.forward.protocol == F::ICMP;
    if !search.masquerades || is_icmp {
        return true;
    }
    if maps::is_reserved(F::AF, search.back.protocol, search.back.destination_port) {
        return false;
    }
    let asks = search.back.scope == SCOPE_WORLD && (search.back.protocol == TCP || search.back.protocol == UDP);
    !(asks && F::socket_owns(search.frame, &search.back, true))
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
