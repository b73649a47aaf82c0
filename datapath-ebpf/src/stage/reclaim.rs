//! Room for a new flow when there is none: what is over is cleared away.
//!
//! That is the agent's work, which walks the tables all the time. The packet path does it only when no agent has done so for a while, so that a host
//! whose daemon is dead does not refuse connections for ever because of others that ended long ago. A walk costs some milliseconds when it finds
//! nothing, so it is done rarely then. The packet that found no room is dropped all the same; its sender tries again.

use aya_ebpf::{
    btf_maps,
    helpers::{bpf_for_each_map_elem, bpf_loop},
    macros::btf_map,
};
use sluice_datapath_common::{
    DropReason,
    flow::{Flow, FlowKey},
};

use super::{admit::Number, flow, life};
use crate::{
    family::Layer3,
    maps::{self, ROOM},
};

/// The agent is taken for dead when it has not walked the tables for so long. It does so each few seconds.
const AGENT_IS_DEAD: u64 = 60_000_000_000;
/// The time between two walks when the first found something to clear away, and when it did not, ns.
const SOON: u64 = 10_000_000;
const LATER: u64 = 1_000_000_000;

/// When the next walk may be made, by the clock of flows. Nobody else ever looks at it.
#[btf_map]
pub static NEXT_WALK: btf_maps::Array<u64, 1> = btf_maps::Array::new();

/// May this endpoint have another flow?
#[inline(always)]
pub fn has_room(owner: u32) -> bool {
    let Some(settings) = maps::settings() else { return true };
    let limit = settings.flows_per_endpoint;
    limit == 0 || maps::tally_of(owner).flows < i64::from(limit)
}

/// Looks at what a new conversation was refused for. When it was room, there is some for the next one: whoever was refused tries again.
#[inline(always)]
pub fn after<F: Layer3>(refusal: Number) -> Number {
    if refusal == DropReason::FlowTableFull as Number || refusal == DropReason::FlowLimit as Number {
        F::walk();
    }
    refusal
}

/// Walks the table and ends what is over, a deskful at most.
#[inline(always)]
pub fn walk<F: Layer3>() -> u32 {
    let now = flow::now();
    if (now.wrapping_sub(maps::swept()) as i64) < AGENT_IS_DEAD as i64 {
        return 0;
    }
    let Some(next) = NEXT_WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: a slot of an array; two CPUs that read it at once both walk, which is a waste and no more.
    unsafe {
        if now < *next {
            return 0;
        }
        *next = now + LATER;
    }
    let Some(desk) = F::desk() else { return 0 };
    desk.doomed = 0;
    // SAFETY: the callback has the signature that the kernel calls, and uses no context.
    unsafe {
        bpf_for_each_map_elem(
            F::FLOWS.map().cast_mut(),
            note::<F> as *mut core::ffi::c_void,
            core::ptr::null_mut(),
            0,
        )
    };
    if F::desk().is_none_or(|desk| desk.doomed == 0) {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        bpf_loop(ROOM, end::<F> as *mut core::ffi::c_void, core::ptr::null_mut(), 0);
        *next = now + SOON;
    }
    0
}

/// Notes the key of a flow that is over. They are ended after the walk: ending one frees its slot, and the walk stands on it.
extern "C" fn note<F: Layer3>(
    _map: *const core::ffi::c_void,
    key: *const FlowKey<F>,
    flow: *mut Flow<F>,
    _context: *mut core::ffi::c_void,
) -> i64 {
    let Some(desk) = F::desk() else { return 1 };
    // SAFETY: the kernel hands the callback an entry of the table, which stays readable while it runs.
    let (key, entry) = unsafe { (key.read(), core::ptr::NonNull::new_unchecked(flow)) };
    if flow::is_alive(entry) && !flow::is_over_in_a_hurry(&key) {
        return 0;
    }
    let place = desk.doomed;
    if place >= ROOM {
        return 1;
    }
    desk.keys[(place % ROOM) as usize] = key;
    desk.doomed = place + 1;
    0
}

/// Ends one of the flows that were noted.
extern "C" fn end<F: Layer3>(round: u32, _context: *mut core::ffi::c_void) -> i64 {
    let Some(desk) = F::desk() else { return 1 };
    if round >= desk.doomed {
        return 1;
    }
    let key = &desk.keys[(round % ROOM) as usize];
    // Somebody may have begun a new one under it meanwhile.
    if flow::find(key).is_some_and(|entry| !flow::is_alive(entry) || flow::is_over_in_a_hurry(key)) {
        life::forget(key);
    }
    0
}
