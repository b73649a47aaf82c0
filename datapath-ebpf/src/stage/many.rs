//! What an endpoint says to many: each endpoint of a network that carries this gets a copy, but for the one who speaks. Nothing is translated, nobody
//! is remembered: an answer to it is a conversation of its own.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_clone_redirect, bpf_loop},
};
use sluice_datapath_common::{
    DropReason,
    endpoint::Attachment,
    network::{NETWORK_ICC, NETWORK_MULTICAST, Network},
    policy::{MAX_MEMBERS, MemberKey},
};

use crate::{
    family::{Layer3, Reach},
    maps::{MEMBERS, Table},
    outline,
    packet::Frame,
    verdict::Verdict,
};

/// May it be said? And is it for many at all: one address in a frame for many is nothing that a switch would be asked to carry.
#[inline(always)]
pub fn judge<F: Layer3>(destination: F::Address, network: &Network) -> Result<(), DropReason> {
    let is_for_many = F::reach(destination) == Reach::Multicast || F::is_broadcast(network, destination);
    if network.flags & NETWORK_MULTICAST == 0 || !is_for_many {
        return Err(DropReason::Multicast);
    }
    match network.flags & NETWORK_ICC != 0 {
        true => Ok(()),
        false => Err(DropReason::IccDisabled),
    }
}

/// Hands a copy to each other endpoint of the sender's network.
#[inline(always)]
pub fn tell(frame: Frame, sender: &Attachment) -> Verdict {
    outline::tell_members(frame, sender.network);
    Verdict::Heard
}

/// What one copy hands to the next.
struct Telling {
    skb: *mut __sk_buff,
    network: u32,
    /// The device of who speaks.
    own: u32,
}

/// Tells everybody.
#[inline(always)]
pub fn tell_all(frame: Frame, network: u32) -> u32 {
    let mut telling = Telling {
        skb: frame.skb(),
        network,
        own: frame.ifindex(),
    };
    let tell: extern "C" fn(u32, *mut Telling) -> i64 = tell_one;
    // SAFETY: the callback takes what it is given here, and `telling` outlives the loop.
    unsafe {
        bpf_loop(
            MAX_MEMBERS,
            tell as *mut core::ffi::c_void,
            (&raw mut telling).cast(),
            0,
        )
    };
    0
}

/// Tells who has this place. 1 ends the loop: there are no more.
extern "C" fn tell_one(place: u32, telling: *mut Telling) -> i64 {
    const TABLE: Table<MemberKey, u32> = Table::of(&raw const MEMBERS);
    // SAFETY: `tell_all` hands over its `telling`, which nobody else touches meanwhile.
    let telling = unsafe { &*telling };
    let key = MemberKey {
        network: telling.network,
        place,
    };
    let Some(ifindex) = TABLE.get(&key) else { return 1 };
    if ifindex != telling.own {
        // SAFETY: the frame is the program's context; nothing of it is read afterwards. A copy that finds no device, or no memory, is lost as on
        // any wire.
        unsafe { bpf_clone_redirect(telling.skb, ifindex, 0) };
    }
    0
}
