//! What the world says. Most of it is the host's own affair, and passes untouched: what we cannot read or do not know goes to the host's stack.

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, flow::SCOPE_WORLD};

use crate::{
    family::Layer3,
    maps::Prefix,
    packet::{Fragment, Frame, Layer4, Packet},
    stage::{
        admit::{self, Affair},
        deliver, error, flow,
        fragment::{self, Place},
        hold::Sender,
    },
    verdict::Verdict,
};

/// From a NIC to the endpoint the packet belongs to, or on to the host.
#[inline(always)]
pub fn path(frame: Frame) -> Result<Verdict, DropReason> {
    // Broadcasts, and what a NIC in promiscuous mode overhears, are not for us.
    if !frame.is_for_us() || frame.is_tagged() {
        return Ok(Verdict::Stack);
    }
    match frame.ether_type() {
        Ipv4::ETHER_TYPE => carry::<Ipv4>(frame),
        Ipv6::ETHER_TYPE => carry::<Ipv6>(frame),
        _ => Ok(Verdict::Stack),
    }
}

#[inline(always)]
fn carry<F: Layer3>(frame: Frame) -> Result<Verdict, DropReason> {
    let Ok(mut packet) = Packet::<F>::read(frame, SCOPE_WORLD) else {
        return Ok(Verdict::Stack);
    };
    // The host's own neighbours.
    if packet.layer4 == Layer4::Discovery {
        return Ok(Verdict::Stack);
    }
    if packet.layer4 == Layer4::Error {
        return match error::follow(&mut packet) {
            Err(DropReason::UnrelatedError) => Ok(Verdict::Stack),
            told => told,
        };
    }
    if packet.fragment == Fragment::Later
        && let Some(verdict) = follow_first(&packet)
    {
        return Ok(verdict);
    }
    let known = match flow::follow(&packet)? {
        Some(known) => known,
        None => match admit::judgement(F::admit_from_world(frame))? {
            Affair::Ours => flow::opened(&packet)?,
            Affair::Hosts => {
                if packet.fragment == Fragment::First {
                    fragment::follow(&packet, Sender::to_host())?;
                }
                return Ok(Verdict::Stack);
            }
        },
    };
    // Only now, as what waits for it may wait in vain.
    if packet.fragment == Fragment::First {
        fragment::follow(&packet, sender(&packet, true))?;
    }
    deliver::along(&packet, known)
}

/// A later fragment goes the way of its first. When that is not known yet the fragment may be the host's own, so the host's stack gets it, and a
/// copy waits.
#[inline(always)]
fn follow_first<F: Layer3>(packet: &Packet<F>) -> Option<Verdict> {
    let is_local = F::LOCAL.find(&packet.key.destination).is_some();
    let is_ours = is_local || F::SUBNETS.find(&Prefix::whole(packet.key.destination)).is_some();
    let sender = if is_ours {
        sender(packet, is_local)
    } else {
        Sender::passing()
    };
    match fragment::follow(packet, sender) {
        Ok(Place::Known) => None,
        Ok(Place::Waits) if !is_local => Some(Verdict::Held),
        Ok(Place::Waits | Place::OfHost) | Err(_) => Some(Verdict::Stack),
    }
}

#[inline(always)]
fn sender<F: Layer3>(packet: &Packet<F>, is_shared: bool) -> Sender {
    Sender::world::<F>(packet.key.source, is_shared)
}
