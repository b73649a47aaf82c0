//! What the world says. Most of it is the host's own affair, and passes untouched: what we cannot read or do not know goes to the host's stack.
//!
//! What other hosts of the cluster have encapsulated comes by the same wires. It is unwrapped here, and then carried as what it was.

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, flow::SCOPE_WORLD, overlay::is_overlay};

use crate::{
    family::Layer3,
    maps::Prefix,
    packet::{Fragment, Frame, Layer4, Packet},
    stage::{
        admit::{self, Affair},
        deliver, error, flow,
        fragment::{self, Place},
        hold::Sender,
        overlay,
    },
    verdict::{self, Verdict},
};

/// From a NIC to the endpoint the packet belongs to, or on to the host.
#[inline(always)]
pub fn path(frame: Frame) -> Result<Verdict, DropReason> {
    // Broadcasts, and what a NIC in promiscuous mode overhears, are not for us.
    if !frame.is_for_us() || frame.is_tagged() {
        return Ok(Verdict::Stack);
    }
    let carried = match frame.ether_type() {
        Ipv4::ETHER_TYPE => carry::<Ipv4>(frame)?,
        Ipv6::ETHER_TYPE => carry::<Ipv6>(frame)?,
        _ => return Ok(Verdict::Stack),
    };
    match carried {
        Carried::On(verdict) => Ok(verdict),
        Carried::Between(scope) => overlay::carry(frame, scope),
    }
}

/// What has become of a packet.
enum Carried {
    /// This.
    On(Verdict),
    /// It came from another host of the cluster and is unwrapped: the frame is another, of this scope.
    Between(u32),
}

#[inline(always)]
fn carry<F: Layer3>(frame: Frame) -> Result<Carried, DropReason> {
    let Ok(packet) = Packet::<F>::read(frame, SCOPE_WORLD) else {
        return Ok(Carried::On(Verdict::Stack));
    };
    if !overlay::is_wrapped(&packet) {
        return carry_plain(packet).map(Carried::On);
    }
    match F::open_overlay(frame) {
        scope if is_overlay(scope) => Ok(Carried::Between(scope)),
        told => verdict::of_number(told).map(Carried::On),
    }
}

#[inline(always)]
fn carry_plain<F: Layer3>(mut packet: Packet<F>) -> Result<Verdict, DropReason> {
    let frame = packet.frame;
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
