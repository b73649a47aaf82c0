//! May this conversation be, and how? Asked of its first packet, and again of the next one when the epoch has moved.
//!
//! The answer depends on the opener's packet alone as it arrived (its [`FlowKey`], whose scope says where it came from), never on the packet
//! in hand: a conversation can so be judged again on the packet of either side.

use sluice_datapath_common::{
    DropReason, Family,
    flow::{FLOW_CHECKS_MTU, FLOW_MASQUERADES, FLOW_PUBLISHED, FlowKey, SCOPE_HOST, SCOPE_WORLD},
    network::{NETWORK_INTERNAL, NETWORK_MASQUERADES, Network},
    publish::Publication,
};

use super::{flow, policy, publish, route::Leg};
use crate::{
    family::{Layer3, Reach, Way},
    maps::{self, Prefix},
    packet::{Frame, TCP, UDP},
};

/// How a conversation is to be carried.
#[derive(Clone, Copy)]
pub struct Plan<F: Family> {
    /// To whoever is spoken to.
    pub there: Leg<F>,
    /// To whoever opened it.
    pub back: Leg<F>,
    /// The opener's address as the other side sees it.
    pub source: F::Address,
    /// Who is spoken to.
    pub destination: F::Address,
    /// The port that is spoken to.
    pub destination_port: u16,
    /// `FLOW_*` bits.
    pub flags: u8,
    /// The epoch the judgement belongs to. Read before anything else: what changes while we judge makes the flow stale.
    pub epoch: u32,
}

/// Whose affair a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Affair {
    /// Ours, as planned.
    Ours,
    /// The host's own.
    Hosts,
}

/// A judgement as a number: a function out of line can return nothing else.
pub type Number = u32;

const OURS: Number = 0;
const HOSTS: Number = u32::MAX;

/// The number of a judgement.
#[inline(always)]
pub fn number(judgement: Result<Affair, DropReason>) -> Number {
    match judgement {
        Ok(Affair::Ours) => OURS,
        Ok(Affair::Hosts) => HOSTS,
        Err(reason) => reason as u32,
    }
}

/// The judgement of a number, which [`number`] made.
#[inline(always)]
pub fn judgement(number: Number) -> Result<Affair, DropReason> {
    match number {
        OURS => Ok(Affair::Ours),
        HOSTS => Ok(Affair::Hosts),
        // SAFETY: every other number was made from a reason.
        number => Err(unsafe { core::mem::transmute::<u8, DropReason>(number as u8) }),
    }
}

/// Judges the conversation that a packet with this key opens. The plan is written when the answer is [`Affair::Ours`].
#[inline(always)]
pub fn judge<F: Layer3>(frame: Frame, key: &FlowKey<F>, plan: &mut Plan<F>) -> Result<Affair, DropReason> {
    judgement(judge_out_of_line(frame, key, plan))
}

/// Judges the conversation and opens it if it is ours. Out of line for its stack, like every part of it.
#[inline(never)]
pub fn admit<F: Layer3>(frame: Frame, key: &FlowKey<F>, tcp_flags: u8) -> Number {
    let Some(desk) = F::desk() else { return HOSTS };
    let judged = judge(frame, key, &mut desk.plan);
    let Ok(Affair::Ours) = judged else {
        return number(judged);
    };
    let opened = flow::open(frame, key, tcp_flags, desk);
    number(opened.map(|()| Affair::Ours))
}

/// The same for what the world says: not everything that a published port would take is for it.
///
/// What opens no connection belongs to one that the host may know; a socket of the host may have been there before the port was published, or
/// have been given it by chance.
#[inline(never)]
pub fn admit_from_world<F: Layer3>(frame: Frame, key: &FlowKey<F>, tcp_flags: u8) -> Number {
    let Some(desk) = F::desk() else { return HOSTS };
    let judged = judge(frame, key, &mut desk.plan);
    let Ok(Affair::Ours) = judged else {
        return number(judged);
    };
    let has_sockets = key.protocol == TCP || key.protocol == UDP;
    if !flow::may_open(key.protocol, tcp_flags, &desk.plan) || (has_sockets && F::socket_owns(frame, key, false)) {
        return HOSTS;
    }
    if desk.plan.back.ifindex == 0 {
        desk.plan.back.ifindex = frame.ifindex();
    }
    number(flow::open(frame, key, tcp_flags, desk).map(|()| Affair::Ours))
}

#[inline(never)]
fn judge_out_of_line<F: Layer3>(frame: Frame, key: &FlowKey<F>, plan: &mut Plan<F>) -> Number {
    // The epoch before anything else, and a plan that translates nothing; the judges change what is to be different.
    plan.epoch = maps::epoch();
    plan.source = key.source;
    plan.destination = key.destination;
    plan.destination_port = key.destination_port;
    plan.flags = 0;
    number(match key.scope {
        SCOPE_WORLD => of_world(frame, key, plan),
        SCOPE_HOST => of_host(frame, key, plan),
        _ => of_endpoint(frame, key, plan),
    })
}

/// What an endpoint says.
#[inline(always)]
fn of_endpoint<F: Layer3>(frame: Frame, key: &FlowKey<F>, plan: &mut Plan<F>) -> Result<Affair, DropReason> {
    let network = maps::network(key.scope).ok_or(DropReason::UnknownDevice)?;
    plan.back
        .lead_to_endpoint(key.scope, key.source)
        .map_err(|_| DropReason::UnknownDevice)?;
    match F::reach(key.destination) {
        Reach::Unicast => {}
        Reach::Multicast => return Err(DropReason::Multicast),
        Reach::Nowhere => return Err(DropReason::NotRoutable),
    }
    if let Some(local) = F::LOCAL.get(&key.destination) {
        let own_gateway = local.gateway_of == key.scope;
        if network.flags & NETWORK_INTERNAL != 0 && !own_gateway {
            return Err(DropReason::InternalNetwork);
        }
        return to_local(key, network, plan);
    }
    if let Some(home) = F::SUBNETS.get(&Prefix::whole(key.destination)) {
        if home != key.scope {
            return Err(DropReason::IsolatedNetwork);
        }
        plan.there.lead_to_endpoint(home, key.destination)?;
        policy::judge_neighbours(network)?;
        return Ok(Affair::Ours);
    }
    to_world(frame, key, network, plan)
}

/// An endpoint speaks to an address of the host: to a published port, which may be its own, or to the host itself.
#[inline(always)]
fn to_local<F: Layer3>(key: &FlowKey<F>, network: &Network, plan: &mut Plan<F>) -> Result<Affair, DropReason> {
    let Some(publication) = publish::find::<F>(key.destination, key.destination_port, key.protocol) else {
        plan.there.lead_to_host(plan.back.destination_mac);
        return Ok(Affair::Ours);
    };
    translate_to(key, &publication, plan)?;
    if plan.there.endpoint == plan.back.endpoint {
        // It would see a packet from itself, and answer it without us: the gateway speaks for it.
        plan.source = F::gateway(network);
    }
    Ok(Affair::Ours)
}

/// An endpoint speaks to the world.
#[inline(always)]
fn to_world<F: Layer3>(
    frame: Frame,
    key: &FlowKey<F>,
    network: &Network,
    plan: &mut Plan<F>,
) -> Result<Affair, DropReason> {
    if network.flags & NETWORK_INTERNAL != 0 {
        return Err(DropReason::InternalNetwork);
    }
    let way = F::way(frame, key.source, key.destination)?;
    let Some(uplink) = F::UPLINKS.get(&way.ifindex) else {
        // A device that is none of ours (a tunnel, a bridge of virtual machines): its owner's rules are in the host's stack.
        plan.there.lead_to_host(plan.back.destination_mac);
        return Ok(Affair::Ours);
    };
    // A NIC without an address of the family has nothing to lend.
    if network.flags & NETWORK_MASQUERADES == 0 || uplink.address == F::ANY {
        return Err(DropReason::NoMasquerade);
    }
    plan.there.lead_to_world(way);
    plan.source = uplink.address;
    plan.flags = FLOW_MASQUERADES;
    if network.mtu > uplink.mtu {
        plan.flags |= FLOW_CHECKS_MTU;
    }
    Ok(Affair::Ours)
}

/// What the world says: it reaches published ports, and nothing else that is ours.
#[inline(always)]
fn of_world<F: Layer3>(frame: Frame, key: &FlowKey<F>, plan: &mut Plan<F>) -> Result<Affair, DropReason> {
    if F::LOCAL.find(&key.destination).is_none() {
        return match F::SUBNETS.find(&Prefix::whole(key.destination)) {
            Some(_) => Err(DropReason::Unpublished),
            None => Ok(Affair::Hosts),
        };
    }
    let Some(publication) = publish::find::<F>(key.destination, key.destination_port, key.protocol) else {
        return Ok(Affair::Hosts);
    };
    if F::reach(key.source) != Reach::Unicast {
        return Ok(Affair::Hosts);
    }
    // An address of ours does not come in by a NIC. The host's stack would notice (rp_filter), but this packet will never see it.
    if F::LOCAL.find(&key.source).is_some() || F::SUBNETS.find(&Prefix::whole(key.source)).is_some() {
        return Err(DropReason::ForgedSource);
    }
    if maps::network(publication.network).is_none_or(|network| network.flags & NETWORK_INTERNAL != 0) {
        return Err(DropReason::InternalNetwork);
    }
    translate_to(key, &publication, plan)?;
    // Back by the way the routes have for an answer of the published address. Without one it goes back by the NIC it came from
    // (`admit_from_world` fills that in).
    plan.back.lead_to_world(Way {
        ifindex: 0,
        next_hop: F::ANY,
    });
    if let Ok(way) = F::way(frame, key.destination, key.source)
        && F::UPLINKS.find(&way.ifindex).is_some()
    {
        plan.back.ifindex = way.ifindex;
        plan.back.next_hop = way.next_hop;
    }
    Ok(Affair::Ours)
}

/// What the host's stack says: to an endpoint by its leg, or out of a NIC with an endpoint's address, which it forwards.
#[inline(always)]
fn of_host<F: Layer3>(frame: Frame, key: &FlowKey<F>, plan: &mut Plan<F>) -> Result<Affair, DropReason> {
    if let Some(home) = F::SUBNETS.get(&Prefix::whole(key.destination)) {
        // Forwarded from elsewhere: only published ports are for others than the host.
        if F::LOCAL.find(&key.source).is_none() {
            return Err(DropReason::Unpublished);
        }
        plan.there.lead_to_endpoint(home, key.destination)?;
        plan.back.lead_to_host(plan.there.source_mac);
        return Ok(Affair::Ours);
    }
    let home = F::SUBNETS
        .get(&Prefix::whole(key.source))
        .and_then(maps::network)
        .ok_or(DropReason::NotRoutable)?;
    if home.flags & NETWORK_INTERNAL != 0 {
        return Err(DropReason::InternalNetwork);
    }
    if home.flags & NETWORK_MASQUERADES == 0 {
        return Err(DropReason::NoMasquerade);
    }
    let uplink = F::UPLINKS
        .get(&frame.ifindex())
        .ok_or(DropReason::UnmasqueradedSource)?;
    plan.there.lead_in_place(SCOPE_WORLD);
    plan.back.lead_in_place(SCOPE_HOST);
    plan.source = uplink.address;
    plan.flags = FLOW_MASQUERADES;
    Ok(Affair::Ours)
}

/// Who published the port is spoken to.
#[inline(always)]
fn translate_to<F: Layer3>(
    key: &FlowKey<F>,
    publication: &Publication<F>,
    plan: &mut Plan<F>,
) -> Result<(), DropReason> {
    publish::lead(publication, &mut plan.there)?;
    plan.destination = publication.address;
    plan.destination_port = publication.inside(key.destination_port);
    plan.flags = FLOW_PUBLISHED;
    Ok(())
}
