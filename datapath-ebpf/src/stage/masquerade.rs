//! Which source port may the conversation leave with?
//!
//! The opener keeps its own port while the way back is free under it. For an address of the host, "free" is asked of more than the flow
//! tables: a published port is not, nor one with a socket of the host, nor any of the host's ephemeral range, which the host may take at any
//! moment without asking us. So a container's own ephemeral port is usually exchanged for one outside that range.
//!
//! Which one, is no matter of chance at first: each ephemeral port of an endpoint has one that stands for it, so that the connections of one endpoint to
//! one server do not meet, and none of them has to search.
//!
//! All of those ports can be had: some are tried at random, then they are gone through in order. A search that goes through all of them is made only
//! now and then, as it costs a millisecond; a conversation that finds no port meanwhile is refused, and its sender tries again.

use aya_ebpf::{
    btf_maps,
    helpers::{bpf_get_prandom_u32, bpf_loop},
    macros::btf_map,
};
use sluice_datapath_common::{
    DropReason,
    flow::{FLOW_MASQUERADES, FlowKey, SCOPE_WORLD},
};

use super::{
    admit::{self, Affair, Number},
    flow, open,
};
use crate::{
    family::{Layer3, Sockets},
    key::is_same,
    maps::{self, CONFIG, Desk},
    packet::{Frame, SCTP, TCP, UDP, UDP_LITE},
};

/// How many ports are tried at random, after the opener's own.
const AT_RANDOM: u32 = 8;
/// How many are tried in all, most of them in a row. With 49 of 50 taken, one conversation in thirty thousand finds none by these.
const PROBES: u32 = 512;
/// From here on a port is likely to be taken.
const LIKELY_TAKEN: u32 = 4;
/// So many are tried before that of a connection that is closed, and only lingers, is as good as a free one.
const UNUSED_FIRST: u32 = 256;
/// The time between two searches through all ports, ns.
const PAUSE: u64 = 10_000_000;
/// Lower ports speak of a privileged sender.
const FIRST: u32 = 1024;

/// When all ports may be gone through the next time, by the clock of flows. Nobody else ever looks at it.
#[btf_map]
pub static NEXT_SEARCH: btf_maps::Array<u64, 1> = btf_maps::Array::new();

/// Finds a port for the conversation of the desk: writes the key of the way back.
#[inline(always)]
pub fn choose_port<F: Layer3>(frame: Frame) -> Number {
    let Some(Desk {
        key,
        back,
        plan,
        first_place,
        ..
    }) = F::desk()
    else {
        return admit::number(Err(DropReason::NoPortLeft));
    };
    let has_ports = matches!(key.protocol, TCP | UDP | SCTP | UDP_LITE) || key.protocol == F::ICMP;
    if !has_ports && (plan.source != key.source || plan.destination != key.destination) {
        return admit::number(Err(DropReason::CannotTranslate));
    }
    // Field by field, as the stack is short; what was there is a key too, so its padding is zero.
    back.source = plan.destination;
    back.destination = plan.source;
    back.source_port = plan.destination_port;
    back.destination_port = key.source_port;
    back.scope = plan.there.scope;
    back.protocol = key.protocol;
    let size = Range::of(key.protocol == F::ICMP).size();
    *first_place = random(size);
    let rounds = if has_ports { AT_RANDOM + 1 + size } else { 1 };
    let mut search = Search { frame, found: false };
    let probe: extern "C" fn(u32, *mut Search) -> i64 = probe::<F>;
    // SAFETY: the callback takes what it is given here, and `search` outlives the loop.
    unsafe { bpf_loop(rounds, probe as *mut core::ffi::c_void, (&raw mut search).cast(), 0) };
    admit::number(match search.found {
        true => Ok(Affair::Ours),
        false => Err(DropReason::NoPortLeft),
    })
}

/// What one probe hands to the next, besides what lies on the desk.
struct Search {
    frame: Frame,
    found: bool,
}

/// Tries one port: the opener's own first, or what stands for it, then others at random, then in a row. 1 ends the search.
extern "C" fn probe<F: Layer3>(round: u32, search: *mut Search) -> i64 {
    // SAFETY: `choose_port` hands over its `search`, which nobody else touches meanwhile.
    let search = unsafe { &mut *search };
    let Some(desk) = F::desk() else { return 1 };
    let is_icmp = desk.back.protocol == F::ICMP;
    let range = Range::of(is_icmp);
    if round == PROBES && !may_search_all() {
        return 1;
    }
    let port = if round == 0 {
        let own = desk.key.source_port;
        match desk.plan.flags & FLOW_MASQUERADES != 0 && !range.contains(own) {
            true => range.counterpart(own, desk.plan.back.endpoint),
            false => own,
        }
    } else if round <= AT_RANDOM {
        range.port(random(range.size()))
    } else {
        let place = desk.first_place.wrapping_add(round - AT_RANDOM - 1);
        let size = range.size();
        range.port(if place >= size { place - size } else { place })
    };
    desk.back.destination_port = port;
    if is_icmp {
        desk.back.source_port = port;
    }
    desk.takes_closed = (round > UNUSED_FIRST) as u16;
    // The opener's own may be held by what is left of an earlier life: seldom enough to be noticed where it is entered.
    let is_likely_taken = round > LIKELY_TAKEN || desk.careful != 0;
    search.found = is_free(search.frame, desk, is_likely_taken);
    search.found as i64
}

/// Is the way back of the desk free? One that is not likely to be taken is only asked after where it is not entered: there it is noticed.
#[inline(always)]
fn is_free<F: Layer3>(frame: Frame, desk: &mut Desk<F>, is_likely_taken: bool) -> bool {
    let (protocol, masquerades) = (desk.back.protocol, desk.plan.flags & FLOW_MASQUERADES != 0);
    if masquerades && maps::is_reserved(F::AF, protocol, desk.back.destination_port) {
        return false;
    }
    let asks = is_likely_taken
        || desk.kept == 0
        || is_same(&desk.back, &desk.key)
        || (maps::has_opening(flow::now()) && F::OPENING.find(&desk.back).is_some());
    if asks && open::is_free::<F>() == 0 {
        return false;
    }
    let has_sockets = masquerades && (protocol == TCP || protocol == UDP);
    !(has_sockets && desk.back.scope == SCOPE_WORLD && is_the_hosts(frame, &desk.back))
}

/// Does a socket of the host own the way back? Out of line for its stack.
#[inline(never)]
fn is_the_hosts<F: Layer3>(frame: Frame, back: &FlowKey<F>) -> bool {
    F::socket_owns(frame, back, Sockets::All)
}

/// Is it time to go through all ports?
#[inline(never)]
fn may_search_all() -> bool {
    let (now, Some(next)) = (flow::now(), NEXT_SEARCH.get_ptr_mut(0)) else {
        return false;
    };
    // SAFETY: a slot of an array; two CPUs that read it at once both search, which is a waste and no more.
    unsafe {
        let is_time = now >= *next;
        if is_time {
            *next = now + PAUSE;
        }
        is_time
    }
}

/// Can a conversation be lent this port (host byte order)? Those below the first are kept by endpoints that have them.
#[inline(always)]
pub fn is_lent(port: u16) -> bool {
    Range::of(false).contains(port.to_be())
}

/// The ports from [`FIRST`] on without the host's ephemeral ones, host byte order; or all identifiers of ICMP.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    ephemeral_first: u32,
    ephemeral_last: u32,
}

impl Range {
    #[inline(always)]
    fn of(is_icmp: bool) -> Self {
        if is_icmp {
            // An identifier is nobody's but the opener's; all but the first are alike.
            return Self {
                first: 1,
                ephemeral_first: 0x1_0000,
                ephemeral_last: 0xffff,
            };
        }
        let config = CONFIG.load();
        let (first, last) = (u32::from(config.ephemeral_first), u32::from(config.ephemeral_last));
        // What the kernel starts with (net.ipv4.ip_local_port_range), also when what we were told leaves us too little to choose from.
        let usable = first >= FIRST && last >= first && last - first < 0xf000;
        let (ephemeral_first, ephemeral_last) = if usable { (first, last) } else { (32_768, 60_999) };
        Self {
            first: FIRST,
            ephemeral_first,
            ephemeral_last,
        }
    }

    /// Ports below the first count: their owner had the right to them.
    #[inline(always)]
    fn contains(self, port: u16) -> bool {
        let port = u32::from(u16::from_be(port));
        port < self.ephemeral_first || port > self.ephemeral_last
    }

    /// The port that stands for an ephemeral one. Ports of one endpoint have different ones each, as long as there are enough; and neighbours are far
    /// apart, so that a search that runs into those of another endpoint soon finds its way out.
    #[inline(always)]
    fn counterpart(self, own: u16, endpoint: u32) -> u16 {
        /// A prime, so that no multiples of it meet before all places are taken; by the golden ratio of 2³² they are far apart.
        const APART: u64 = 0x9e37_79b1;
        let own = u64::from(u16::from_be(own)) - u64::from(self.ephemeral_first);
        // Endpoints begin at different places.
        let place = own * APART + (u64::from(endpoint) << 9);
        // There always are some; a division by zero would be a panic to the compiler.
        self.port(place.checked_rem(u64::from(self.size())).unwrap_or(0) as u32)
    }

    #[inline(always)]
    fn size(self) -> u32 {
        (self.ephemeral_first - self.first) + (0xffff - self.ephemeral_last)
    }

    /// One of them by its place, network byte order.
    #[inline(always)]
    fn port(self, place: u32) -> u16 {
        let port = self.first + place;
        let port = if port < self.ephemeral_first {
            port
        } else {
            port - self.ephemeral_first + self.ephemeral_last + 1
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
