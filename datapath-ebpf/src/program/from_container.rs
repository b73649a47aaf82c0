//! What an endpoint says: the one who speaks is known by its device, and believed in nothing else.

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, endpoint::Attachment};

use crate::{
    family::Layer3,
    maps,
    packet::{ETHER_ARP, Frame, Layer4, Mac, Packet},
    stage::{
        admit::{self, Affair},
        antispoof, arp, deliver, error, flow,
        fragment::{self, Place},
        hold::Sender,
        neighbour,
    },
    verdict::Verdict,
};

/// From the host's end of a veth to wherever the packet goes.
#[inline(always)]
pub fn path(frame: Frame) -> Result<Verdict, DropReason> {
    let sender = antispoof::sender(frame)?;
    match frame.ether_type() {
        Ipv4::ETHER_TYPE if !frame.is_tagged() => carry::<Ipv4>(frame, sender),
        ETHER_ARP if !frame.is_tagged() => arp::answer_endpoint(frame, sender),
        Ipv6::ETHER_TYPE if !frame.is_tagged() => carry::<Ipv6>(frame, sender),
        _ => Err(DropReason::UnknownEtherType),
    }
}

#[inline(always)]
fn carry<F: Layer3>(frame: Frame, sender: &Attachment) -> Result<Verdict, DropReason> {
    let mut packet = Packet::<F>::read(frame, sender.network)?;
    if packet.layer4 == Layer4::Discovery {
        return neighbour::answer_endpoint(frame, packet.above, sender);
    }
    antispoof::check(&packet, sender)?;
    if fragment::follow(&packet, Sender::endpoint(sender.endpoint))? == Place::Waits {
        return Ok(Verdict::Held);
    }
    if packet.layer4 == Layer4::Error {
        return error::follow(&mut packet);
    }
    let flow = match flow::follow(&packet)? {
        Some(known) => known,
        None => {
            check_switched(&packet, sender)?;
            match admit::judgement(F::admit(frame))? {
                Affair::Ours => flow::opened(&packet)?,
                // An endpoint's packets are nobody's affair but ours.
                Affair::Hosts => return Err(DropReason::NotRoutable),
            }
        }
    };
    deliver::along(&packet, flow)
}

/// A frame that is not for the gateway is switched: it stays inside the network. It goes by its address all the same, since there is one MAC to an
/// address; a sender that still has the MAC of an endpoint's earlier life is not made to wait for its neighbour table.
#[inline(always)]
fn check_switched<F: Layer3>(packet: &Packet<F>, sender: &Attachment) -> Result<(), DropReason> {
    let network = maps::network(sender.network).ok_or(DropReason::UnknownDevice)?;
    let receiver = packet.frame.ethernet()?.receiver();
    if receiver == Mac::new(network.gateway_mac) {
        return Ok(());
    }
    if receiver.is_group() {
        return Err(DropReason::Multicast);
    }
    match F::SUBNETS.get(&maps::Prefix::whole(packet.key.destination)) {
        Some(home) if home == sender.network => Ok(()),
        _ => Err(DropReason::NoSuchEndpoint),
    }
}
