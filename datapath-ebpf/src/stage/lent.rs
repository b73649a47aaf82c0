//! May a socket of the host speak from a port that is lent to a masqueraded conversation?
//!
//! `masquerade` lends no port that a socket has already. A socket that takes a lent one later disturbs nobody, whoever it serves or speaks to: it may
//! have it, and the conversation keeps it. Only for the very other side that the conversation speaks to there would be two of one name. Of TCP
//! there cannot be: the socket hears what it would hear if another socket had the connection. A datagram's conversation moves to another port with
//! its next packet, since the host's program asked for this very one and the endpoint's did not.

use aya_ebpf::helpers::bpf_for_each_map_elem;
use sluice_datapath_common::{
    Family,
    flow::{FLOW_MASQUERADES, FlowKey, SCOPE_WORLD, State},
    uplink::Uplink,
};

use super::{flow, life, masquerade};
use crate::{
    family::Layer3,
    key::{End, flow_key},
    packet::TCP,
};

/// What one uplink after the other is asked.
struct Search<F: Family> {
    /// What the other side would answer.
    key: FlowKey<F>,
    found: bool,
}

/// A socket at this address (`ANY`: it has none of its own) and port, host byte order, is about to speak to `peer`. False: it cannot.
#[inline(always)]
pub fn may_speak<F: Layer3>(address: F::Address, port: u16, peer: End<F>, protocol: u8) -> bool {
    if port == 0 || !masquerade::is_lent(port) {
        return true;
    }
    let own = End {
        address,
        port: port.to_be(),
    };
    let mut search = Search {
        key: flow_key(peer, own, SCOPE_WORLD, protocol),
        found: false,
    };
    if address != F::ANY {
        search.found = is_lent_to(&search.key);
    } else {
        let ask: extern "C" fn(*const core::ffi::c_void, *const u32, *const Uplink<F>, *mut Search<F>) -> i64 =
            ask::<F>;
        // SAFETY: the callback has the signature that the kernel calls, takes what it is given here, and `search` outlives the walk.
        unsafe {
            bpf_for_each_map_elem(
                F::UPLINKS.map().cast_mut(),
                ask as *mut core::ffi::c_void,
                (&raw mut search).cast(),
                0,
            )
        };
    }
    if !search.found {
        return true;
    }
    if protocol == TCP && !is_done(&search.key) {
        return false;
    }
    life::forget(&search.key);
    true
}

/// Asks whether the port is lent at this uplink's address. 1 ends the walk.
extern "C" fn ask<F: Layer3>(
    _map: *const core::ffi::c_void,
    _ifindex: *const u32,
    uplink: *const Uplink<F>,
    search: *mut Search<F>,
) -> i64 {
    // SAFETY: the kernel hands the callback an entry of the table and what `may_speak` has given it, which nobody else touches meanwhile.
    let (address, search) = unsafe { ((*uplink).address, &mut *search) };
    search.key.destination = address;
    search.found = is_lent_to(&search.key);
    search.found as i64
}

/// Does a masqueraded conversation get what arrives as this key?
#[inline(always)]
fn is_lent_to<F: Layer3>(key: &FlowKey<F>) -> bool {
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    flow::find(key).is_some_and(|holder| unsafe { holder.as_ref() }.flags & FLOW_MASQUERADES != 0)
}

/// Has the conversation nothing more to hear?
#[inline(always)]
fn is_done<F: Layer3>(key: &FlowKey<F>) -> bool {
    let Some(holder) = flow::find(key) else { return true };
    // SAFETY: see `is_lent_to`.
    unsafe { holder.as_ref() }.state == State::Closed as u8 || !flow::is_alive(holder) || flow::is_over(key)
}
