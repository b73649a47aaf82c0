//! What the world says. Most of it is the host's own affair, and passes untouched: what we cannot read or do not know goes to the host's stack.

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, flow::SCOPE_WORLD};

use crate::{
    family::Layer3,
    packet::{Fragment, Frame, Layer4, Packet},
    stage::{
        admit::{self, Affair},
        deliver, error, flow, fragment,
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
    if packet.fragment == Fragment::Later && fragment::follow(&mut packet).is_err() {
        return Ok(Verdict::Stack);
    }
    let known = match flow::follow(&packet)? {
        Some(known) => known,
        None => match admit::judgement(F::admit_from_world(frame))? {
            Affair::Ours => flow::opened(&packet)?,
            Affair::Hosts => return Ok(Verdict::Stack),
        },
    };
    // Only now: the fragments of the host's own datagrams must not push out ours.
    if packet.fragment == Fragment::First {
        fragment::follow(&mut packet)?;
    }
    deliver::along(&packet, known)
}
