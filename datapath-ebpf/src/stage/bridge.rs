//! Networks that stand on a bridge of the host. Others on the wire, and the host when it speaks first, are reached as the bridge does it, past us.

use sluice_datapath_common::{DropReason, network::NETWORK_BRIDGED};

use super::admit::{self, Affair, Number};
use crate::{
    family::{Layer3, Sockets},
    maps::{self, Prefix},
    packet::{Frame, Layer4, TCP, UDP},
};

/// Whose affair is what an endpoint on a bridge says to this address? It goes by the packet's address: what is said to one of ours in a frame for all
/// would reach it unjudged.
#[inline(always)]
pub fn find<F: Layer3>(destination: &F::Address, to_gateway: bool) -> Number {
    let (ours, others) = (admit::number(Ok(Affair::Ours)), admit::number(Ok(Affair::Hosts)));
    if to_gateway || F::LOCAL.find(destination).is_some() {
        return ours;
    }
    match F::SUBNETS.get(&Prefix::whole(*destination)) {
        Some(_) => ours,
        None => others,
    }
}

/// The judgement of what an endpoint says, when the host may have spoken first: where a network does not let its endpoints reach the host, the answers to it
/// pass all the same. There is no flow that would tell them, only the host's own sockets.
#[inline(always)]
pub fn unless_it_answers<F: Layer3>(frame: Frame, network: u32, judged: Number) -> Number {
    let is_on_bridge = maps::network(network).is_some_and(|network| network.flags & NETWORK_BRIDGED != 0);
    match judged == DropReason::HostAccess as Number && is_on_bridge && F::answers_host(frame) != 0 {
        true => admit::number(Ok(Affair::Hosts)),
        false => judged,
    }
}

/// Not 0: the packet in hand is the answer to something of the host's.
#[inline(always)]
pub fn answers_host<F: Layer3>(frame: Frame) -> u32 {
    /// Of ICMP, and of ICMPv6.
    const ECHO_REPLIES: [u8; 2] = [0, 129];
    let Some(facts) = F::facts(false) else { return 0 };
    let answers = match facts.key.protocol {
        TCP | UDP => F::socket_owns(frame, &facts.key, Sockets::Connected),
        _ if facts.layer4 == Layer4::Echo => {
            let header = frame.peek(facts.above);
            header.is_ok_and(|[kind, ..]| kind == ECHO_REPLIES[0] || kind == ECHO_REPLIES[1])
        }
        _ => false,
    };
    answers as u32
}
