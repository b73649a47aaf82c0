//! Who has this address? Answered here: an ARP question never travels.
//!
//! An endpoint is answered with its own MAC, so that frames inside a network bear the MAC of their receiver, as in a switch; the gateway
//! with the gateway's, which every host end of a veth bears too. Nothing is learned from what the wire says.

use sluice_datapath_common::{
    DropReason, Family as _, Ipv4, Ipv4Address,
    endpoint::{Attachment, EndpointKey},
    network::NETWORK_BRIDGED,
};

use crate::{
    family::Tables as _,
    maps::{self, Prefix},
    packet::{ArpHeader, ETHERNET, Frame, Mac},
    rewrite,
    stage::{
        admit::{self, Affair, Number},
        deliver,
    },
    verdict::Verdict,
};

/// Answers an endpoint.
#[inline(always)]
pub fn answer_endpoint(frame: Frame, asker: &Attachment) -> Result<Verdict, DropReason> {
    match admit::judgement(hear_endpoint(frame, asker))? {
        // Not out of the device it came from: the kernel gives the host's end of a veth its queue a moment after the container's end is up, on a
        // busy machine a long moment, and an answer that is lost then is asked for again a second later.
        Affair::Ours => deliver::into_namespace(frame, frame.ifindex()),
        Affair::Hosts if is_on_bridge(asker) => Ok(Verdict::Stack),
        Affair::Hosts => Ok(Verdict::Heard),
    }
}

/// Who has an address on a bridge of the host is asked there.
#[inline(always)]
fn is_on_bridge(asker: &Attachment) -> bool {
    maps::network(asker.network).is_some_and(|network| network.flags & NETWORK_BRIDGED != 0)
}

/// Answers the host, whose leg all networks share.
#[inline(always)]
pub fn answer_host(frame: Frame) -> Result<Verdict, DropReason> {
    match admit::judgement(hear_host(frame))? {
        Affair::Ours => deliver::out_of(frame.ifindex()),
        Affair::Hosts => Ok(Verdict::Heard),
    }
}

// Out of line for their stack. `Ours` stands for an answer in the frame, `Hosts` for silence.

#[inline(never)]
fn hear_endpoint(frame: Frame, asker: &Attachment) -> Number {
    admit::number(hear_endpoint_inline(frame, asker))
}

#[inline(never)]
fn hear_host(frame: Frame) -> Number {
    admit::number(hear_host_inline(frame))
}

#[inline(always)]
fn hear_endpoint_inline(frame: Frame, asker: &Attachment) -> Result<Affair, DropReason> {
    let mac = Mac::new(asker.mac);
    if frame.ethernet()?.sender() != mac {
        return Err(DropReason::ForgedMac);
    }
    let arp = read(frame)?;
    // A probe (RFC 5227) speaks as nobody, all others as the one they are.
    let speaks_truly = arp.sender == asker.address4.0 || arp.sender == Ipv4::ANY.0;
    if Mac::from_words(arp.sender_mac) != mac || !speaks_truly {
        return Err(DropReason::ForgedArp);
    }
    let target = Ipv4Address(arp.target);
    if is_on_bridge(asker) || !is_question(&arp) || target == asker.address4 {
        return Ok(Affair::Hosts);
    }
    let network = maps::network(asker.network).ok_or(DropReason::UnknownDevice)?;
    // What a network has not is zero, which is nobody's address.
    let is_gateways = target != Ipv4::ANY && (target == network.gateway4 || target == network.resolver4);
    let owner = match is_gateways {
        true => network.gateway_mac,
        false => endpoint_mac(asker.network, target)?,
    };
    rewrite::answer_arp(frame, &arp, Mac::new(owner)).map(|()| Affair::Ours)
}

#[inline(always)]
fn hear_host_inline(frame: Frame) -> Result<Affair, DropReason> {
    let arp = read(frame)?;
    let target = Ipv4Address(arp.target);
    // The host asks after its own addresses before it takes them; nobody else has them.
    if !is_question(&arp) || Ipv4::LOCAL.find(&target).is_some() {
        return Ok(Affair::Hosts);
    }
    let network = Ipv4::SUBNETS
        .get(&Prefix::whole(target))
        .ok_or(DropReason::NoSuchEndpoint)?;
    rewrite::answer_arp(frame, &arp, Mac::new(endpoint_mac(network, target)?)).map(|()| Affair::Ours)
}

#[inline(always)]
fn read(frame: Frame) -> Result<ArpHeader, DropReason> {
    /// Ethernet.
    const HARDWARE: u16 = 1u16.to_be();
    /// IPv4.
    const PROTOCOL: u16 = 0x0800u16.to_be();
    /// Six bytes and four.
    const LENGTHS: u16 = 0x0604u16.to_be();
    let arp: ArpHeader = frame.read(ETHERNET)?;
    match arp.hardware == HARDWARE && arp.protocol == PROTOCOL && arp.lengths == LENGTHS {
        true => Ok(arp),
        false => Err(DropReason::UnknownEtherType),
    }
}

#[inline(always)]
fn is_question(arp: &ArpHeader) -> bool {
    arp.operation == 1u16.to_be()
}

#[inline(always)]
fn endpoint_mac(network: u32, address: Ipv4Address) -> Result<[u8; 6], DropReason> {
    let key = EndpointKey { network, address };
    if let Some(endpoint) = Ipv4::ENDPOINTS.get(&key) {
        return Ok(endpoint.mac);
    }
    let remote = Ipv4::REMOTES.get(&key);
    remote.map(|remote| remote.mac).ok_or(DropReason::NoSuchEndpoint)
}
