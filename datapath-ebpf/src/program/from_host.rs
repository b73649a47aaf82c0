//! What the host's stack says to endpoints. The device is ours alone: nothing may go past us into the stack a second time.

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, flow::SCOPE_HOST};

use crate::{
    family::Layer3,
    maps::Prefix,
    packet::{ETHER_ARP, Frame, Layer4, Packet},
    stage::{
        admit::{self, Affair},
        arp, deliver, error, flow,
        fragment::{self, Place},
        hold::Sender,
        neighbour,
    },
    verdict::Verdict,
};

/// From the datapath's end of the host's leg into an endpoint's namespace.
#[inline(always)]
pub fn path(frame: Frame) -> Result<Verdict, DropReason> {
    match frame.ether_type() {
        Ipv4::ETHER_TYPE if !frame.is_tagged() => carry::<Ipv4>(frame),
        ETHER_ARP if !frame.is_tagged() => arp::answer_host(frame),
        Ipv6::ETHER_TYPE if !frame.is_tagged() => carry::<Ipv6>(frame),
        _ => Err(DropReason::UnknownEtherType),
    }
}

#[inline(always)]
fn carry<F: Layer3>(frame: Frame) -> Result<Verdict, DropReason> {
    let mut packet = Packet::<F>::read(frame, SCOPE_HOST)?;
    if packet.layer4 == Layer4::Discovery {
        return neighbour::answer_host(frame, packet.above);
    }
    if fragment::follow(&packet, Sender::host())? == Place::Waits {
        return Ok(Verdict::Held);
    }
    if packet.layer4 == Layer4::Error {
        return error::follow_or_tell(&mut packet);
    }
    let flow = match flow::follow(&packet)? {
        Some(known) => known,
        None => {
            check_destination(&packet)?;
            match admit::judgement(F::admit(frame))? {
                Affair::Ours => flow::opened(&packet)?,
                Affair::Hosts => return Err(DropReason::NotRoutable),
            }
        }
    };
    deliver::along(&packet, flow)
}

/// The stack may speak by its leg to our networks only.
#[inline(always)]
fn check_destination<F: Layer3>(packet: &Packet<F>) -> Result<(), DropReason> {
    admit::check_reach::<F>(packet.key.destination)?;
    match F::SUBNETS.find(&Prefix::whole(packet.key.destination)) {
        Some(_) => Ok(()),
        None => Err(DropReason::NoSuchEndpoint),
    }
}
