//! What the resolver answers: from its leg straight into the namespace of who asked.

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, flow::SCOPE_HOST};

use crate::{
    family::Layer3,
    packet::{Frame, Packet},
    stage::resolver,
    verdict::Verdict,
};

/// From the datapath's end of the resolver's leg to an endpoint.
#[inline(always)]
pub fn path(frame: Frame) -> Result<Verdict, DropReason> {
    match frame.ether_type() {
        Ipv4::ETHER_TYPE => carry::<Ipv4>(frame),
        Ipv6::ETHER_TYPE => carry::<Ipv6>(frame),
        // It knows its one neighbour.
        _ => Ok(Verdict::Heard),
    }
}

#[inline(always)]
fn carry<F: Layer3>(frame: Frame) -> Result<Verdict, DropReason> {
    resolver::answer(&Packet::<F>::read(frame, SCOPE_HOST)?)
}
