//! What an endpoint says: the one who speaks is known by its device, and believed in nothing else.

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, endpoint::Attachment, network::NETWORK_BRIDGED};

use crate::{
    family::Layer3,
    maps::{self, Prefix},
    packet::{ETHER_ARP, Frame, Layer4, Mac, Packet},
    stage::{
        admit::{self, Affair, Number},
        antispoof, arp, bridge, deliver, error, flow,
        fragment::{self, Place},
        hold::Sender,
        many, neighbour, resolver,
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
            if let Some(asked) = resolver::ask(&packet, sender) {
                return asked;
            }
            match find_audience::<F>(frame, sender) {
                FOR_MANY => return Ok(many::tell(frame, sender)),
                judged if admit::judgement(judged)? == Affair::Hosts => return Ok(Verdict::Stack),
                _ => {}
            }
            let judged = bridge::unless_it_answers::<F>(frame, sender.network, F::admit(frame));
            match admit::judgement(judged)? {
                Affair::Ours => flow::opened(&packet)?,
                Affair::Hosts => return leave_to_host(sender),
            }
        }
    };
    deliver::along(&packet, flow)
}

/// The frame is for all endpoints of its network. No judgement has this number.
const FOR_MANY: Number = 0x100;

/// A frame that is not for the gateway is switched: it stays inside the network. It goes by its address all the same, since there is one MAC to an
/// address; a sender that still has the MAC of an endpoint's earlier life is not made to wait for its neighbour table.
///
/// On a bridge of the host it may be for others on the wire, who are the bridge's affair. Ours is what goes to endpoints, to the host (where a
/// published port may be), and by the gateway to elsewhere.
///
/// `Ours` and `Hosts` stand for those affairs. Out of line for its stack.
#[inline(never)]
fn find_audience<F: Layer3>(frame: Frame, sender: &Attachment) -> Number {
    // One after the other: of two at once the compiler would make a number of a pointer.
    let Some(network) = maps::network(sender.network) else {
        return admit::number(Err(DropReason::UnknownDevice));
    };
    let destination = match F::facts(false) {
        Some(facts) => facts.key.destination,
        None => return admit::number(Err(DropReason::Truncated)),
    };
    let Ok(ethernet) = frame.ethernet() else {
        return admit::number(Err(DropReason::Truncated));
    };
    let receiver = ethernet.receiver();
    let to_gateway = receiver == Mac::new(network.gateway_mac);
    if network.flags & NETWORK_BRIDGED != 0 {
        return bridge::find::<F>(&destination, to_gateway);
    }
    let ours = admit::number(Ok(Affair::Ours));
    if to_gateway {
        return ours;
    }
    if receiver.is_group() {
        return match many::judge::<F>(destination, network) {
            Ok(()) => FOR_MANY,
            Err(reason) => admit::number(Err(reason)),
        };
    }
    match F::SUBNETS.get(&Prefix::whole(destination)) {
        Some(home) if home == sender.network => ours,
        _ => admit::number(Err(DropReason::NoSuchEndpoint)),
    }
}

/// An endpoint's packets are nobody's affair but ours, except on a bridge, where the host answers by it.
#[inline(always)]
fn leave_to_host(sender: &Attachment) -> Result<Verdict, DropReason> {
    match maps::network(sender.network) {
        Some(network) if network.flags & NETWORK_BRIDGED != 0 => Ok(Verdict::Stack),
        _ => Err(DropReason::NotRoutable),
    }
}
