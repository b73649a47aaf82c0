//! May this conversation be, and how? Asked of its first packet, and again of the next one when the epoch has moved.
//!
//! The answer depends on the opener's packet alone as it arrived (its [`FlowKey`], whose scope says where it came from), never on the packet
//! in hand: a conversation can so be judged again on the packet of either side.

use sluice_datapath_common::{
    DropReason, Family,
    endpoint::EndpointKey,
    flow::{Action, FLOW_CHECKS_MTU, FLOW_MASQUERADES, FLOW_PUBLISHED, FlowKey, SCOPE_HOST, SCOPE_WORLD},
    network::{NETWORK_BRIDGED, NETWORK_INTERNAL, Network},
    overlay::is_overlay,
    publish::Publication,
};

use super::{flow, policy, publish, reclaim, route::Leg};
use crate::{
    family::{Layer3, Reach, Sockets, Way},
    maps::{self, Desk, Prefix},
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

impl<F: Layer3> Plan<F> {
    /// The epoch before anything else, and a plan that translates nothing; the judges change what is to be different.
    #[inline(always)]
    pub fn begin(&mut self, key: &FlowKey<F>) {
        self.epoch = maps::epoch();
        self.source = key.source;
        self.destination = key.destination;
        self.destination_port = key.destination_port;
        self.flags = 0;
    }
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

/// Judges the conversation that a packet with this key opens. The plan on the desk is written when the answer is [`Affair::Ours`].
#[inline(always)]
pub fn judge<F: Layer3>(frame: Frame, key: &FlowKey<F>) -> Result<Affair, DropReason> {
    if let Some(desk) = F::desk() {
        desk.key = *key;
    }
    judgement(judge_by_who_judges::<F>(frame))
}

/// Judges what lies on the desk, by whoever is to judge it: each has a stack of its own.
#[inline(always)]
pub fn judge_by_who_judges<F: Layer3>(frame: Frame) -> Number {
    let scope = F::desk().map_or(SCOPE_WORLD, |desk| desk.key.scope);
    if is_overlay(scope) {
        return F::judge_overlay();
    }
    if scope == SCOPE_WORLD && maps::settings().is_some_and(|settings| settings.overlay_port != 0) {
        let direct = F::judge_direct();
        if direct != HOSTS {
            return direct;
        }
    }
    F::judge(frame)
}

/// Judges the conversation that the packet in hand opens, and opens it if it is ours.
#[inline(always)]
pub fn admit<F: Layer3>(frame: Frame) -> Number {
    let Some(facts) = F::facts(false) else { return HOSTS };
    match judge(frame, &facts.key) {
        Ok(Affair::Ours) => open_if_allowed::<F>(frame, facts.tcp_flags),
        judged => number(judged),
    }
}

/// The same for what the world says: not everything that a published port would take is for it.
///
/// What opens no connection belongs to one that the host may know; a socket of the host may have been there before the port was published, or
/// have been given it by chance.
#[inline(always)]
pub fn admit_from_world<F: Layer3>(frame: Frame) -> Number {
    let Some(facts) = F::facts(false) else { return HOSTS };
    let judged = judge(frame, &facts.key);
    let Ok(Affair::Ours) = judged else {
        return number(judged);
    };
    let Some(desk) = F::desk() else { return HOSTS };
    let (key, tcp_flags) = (&facts.key, facts.tcp_flags);
    let has_sockets = key.protocol == TCP || key.protocol == UDP;
    if !flow::may_open(key.protocol, tcp_flags, &desk.plan)
        || (has_sockets && F::socket_owns(frame, key, Sockets::Speaking))
    {
        return HOSTS;
    }
    if desk.plan.back.ifindex == 0 {
        desk.plan.back.ifindex = frame.ifindex();
    }
    open_if_allowed::<F>(frame, tcp_flags)
}

/// Opens the conversation of the desk, unless a document is against it.
#[inline(always)]
fn open_if_allowed<F: Layer3>(frame: Frame, tcp_flags: u8) -> Number {
    match F::weigh(frame) {
        OURS => reclaim::after::<F>(flow::open::<F>(frame, tcp_flags)),
        refused => refused,
    }
}

/// Judges what lies on the desk.
#[inline(always)]
pub fn judge_on_desk<F: Layer3>(frame: Frame) -> Number {
    match F::desk() {
        Some(Desk {
            key, plan, publication, ..
        }) => judge_by_scope(frame, key, plan, publication),
        None => HOSTS,
    }
}

#[inline(always)]
fn judge_by_scope<F: Layer3>(
    frame: Frame,
    key: &FlowKey<F>,
    plan: &mut Plan<F>,
    publication: &mut Publication<F>,
) -> Number {
    plan.begin(key);
    number(match key.scope {
        SCOPE_WORLD => of_world(frame, key, plan, publication),
        SCOPE_HOST => of_host(frame, key, plan, publication),
        _ => of_endpoint(frame, key, plan, publication),
    })
}

/// What an endpoint says.
#[inline(always)]
fn of_endpoint<F: Layer3>(
    frame: Frame,
    key: &FlowKey<F>,
    plan: &mut Plan<F>,
    publication: &mut Publication<F>,
) -> Result<Affair, DropReason> {
    let network = maps::network(key.scope).ok_or(DropReason::UnknownDevice)?;
    plan.back
        .lead_to_endpoint(key.scope, key.source)
        .map_err(|_| DropReason::UnknownDevice)?;
    check_reach::<F>(key.destination)?;
    // What an endpoint says to itself it says without us; both directions would be one entry.
    if key.destination == key.source {
        return Err(DropReason::NotRoutable);
    }
    if let Some(local) = F::LOCAL.get(&key.destination) {
        if network.flags & NETWORK_INTERNAL != 0 && local.gateway_of != key.scope {
            return Err(DropReason::InternalNetwork);
        }
        return to_local(key, network, plan, publication);
    }
    if let Some(home) = F::SUBNETS.get(&Prefix::whole(key.destination)) {
        if home != key.scope {
            return Err(DropReason::IsolatedNetwork);
        }
        plan.there.lead_to_endpoint(home, key.destination)?;
        policy::judge_neighbours(network, home, key, &plan.back, &plan.there)?;
        plan.there.take_direct_way(network);
        return Ok(Affair::Ours);
    }
    to_world(frame, key, network, plan)
}

/// May a packet go there at all?
#[inline(always)]
pub fn check_reach<F: Layer3>(destination: F::Address) -> Result<(), DropReason> {
    match F::reach(destination) {
        Reach::Unicast => Ok(()),
        Reach::Multicast => Err(DropReason::Multicast),
        Reach::Link => Err(DropReason::LinkLocal),
        Reach::Nowhere => Err(DropReason::NotRoutable),
    }
}

/// An endpoint speaks to an address of the host: to a published port, which may be its own, or to the host itself.
#[inline(always)]
fn to_local<F: Layer3>(
    key: &FlowKey<F>,
    network: &Network,
    plan: &mut Plan<F>,
    publication: &mut Publication<F>,
) -> Result<Affair, DropReason> {
    if publish::find_for_packet(key, publication) == 0 {
        policy::judge_host_access(network, key)?;
        // On a bridge the host answers by it, past us.
        if network.flags & NETWORK_BRIDGED != 0 {
            return Ok(Affair::Hosts);
        }
        plan.there.lead_to_host(plan.back.destination_mac);
        return Ok(Affair::Ours);
    }
    // Published or not, nothing gets out of an internal network or into one.
    if u32::from(publication.network) != key.scope {
        let theirs = maps::network(u32::from(publication.network)).map_or(0, |network| network.flags);
        if (network.flags | theirs) & NETWORK_INTERNAL != 0 {
            return Err(DropReason::InternalNetwork);
        }
    }
    policy::judge_client(publication, &key.source)?;
    translate_to(key, publication, plan)?;
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
    plan.there.lead_to_world(way);
    if !is_routed::<F>(network) {
        // A NIC without an address of the family has nothing to lend.
        if network.flags & F::MASQUERADES == 0 || uplink.address == F::ANY {
            return Err(DropReason::NoMasquerade);
        }
        plan.source = uplink.address;
        plan.flags = FLOW_MASQUERADES;
    }
    if network.mtu > uplink.mtu {
        plan.flags |= FLOW_CHECKS_MTU;
    }
    Ok(Affair::Ours)
}

/// What the world says: it reaches published ports, and nothing else that is ours.
#[inline(always)]
fn of_world<F: Layer3>(
    frame: Frame,
    key: &FlowKey<F>,
    plan: &mut Plan<F>,
    publication: &mut Publication<F>,
) -> Result<Affair, DropReason> {
    let home = match F::LOCAL.find(&key.destination) {
        Some(_) => None,
        None => match F::SUBNETS.get(&Prefix::whole(key.destination)) {
            None => return Ok(Affair::Hosts),
            home => home,
        },
    };
    match home {
        Some(home) => must_be_reached(key, home, publication)?,
        None if publish::find_for_packet(key, publication) == 0 => return Ok(Affair::Hosts),
        None => {}
    }
    if F::reach(key.source) != Reach::Unicast {
        return Ok(Affair::Hosts);
    }
    // An address of ours does not come in by a NIC. The host's stack would notice (rp_filter), but this packet will never see it.
    if F::LOCAL.find(&key.source).is_some() || F::SUBNETS.find(&Prefix::whole(key.source)).is_some() {
        return Err(DropReason::ForgedSource);
    }
    let network = maps::network(u32::from(publication.network))
        .filter(|network| network.flags & NETWORK_INTERNAL == 0)
        .ok_or(DropReason::InternalNetwork)?;
    policy::judge_client(publication, &key.source)?;
    translate_to(key, publication, plan)?;
    if home.is_some() {
        plan.flags = 0;
    }
    // Back by the way the routes have for an answer of the published address. Without one it goes back by the NIC it came from
    // (`admit_from_world` fills that in).
    plan.back.lead_to_world(Way {
        ifindex: 0,
        next_hop: F::ANY,
    });
    if let Ok(way) = F::way(frame, key.destination, key.source)
        && let Some(uplink) = F::UPLINKS.get(&way.ifindex)
    {
        plan.back.ifindex = way.ifindex;
        plan.back.next_hop = way.next_hop;
        if network.mtu > uplink.mtu {
            plan.flags |= FLOW_CHECKS_MTU;
        }
    }
    Ok(Affair::Ours)
}

/// What the host's stack says: to an endpoint by its leg, or out of a NIC with an endpoint's address, which it forwards.
#[inline(always)]
fn of_host<F: Layer3>(
    frame: Frame,
    key: &FlowKey<F>,
    plan: &mut Plan<F>,
    publication: &mut Publication<F>,
) -> Result<Affair, DropReason> {
    if let Some(home) = F::SUBNETS.get(&Prefix::whole(key.destination)) {
        // Forwarded from elsewhere: only published ports are for others than the host.
        if F::LOCAL.find(&key.source).is_none() {
            must_be_reached(key, home, publication)?;
            policy::judge_client(publication, &key.source)?;
        }
        plan.there.lead_to_endpoint(home, key.destination)?;
        plan.back.lead_to_host(plan.there.source_mac);
        if plan.there.action == Action::Overlay as u8 {
            // The other host knows this one by the gateway's address, which both have.
            plan.source = maps::network(home).map_or(F::ANY, F::gateway);
            if plan.source == F::ANY {
                return Err(DropReason::NotRoutable);
            }
        }
        return Ok(Affair::Ours);
    }
    let home = F::SUBNETS
        .get(&Prefix::whole(key.source))
        .and_then(maps::network)
        .ok_or(DropReason::NotRoutable)?;
    if home.flags & NETWORK_INTERNAL != 0 {
        return Err(DropReason::InternalNetwork);
    }
    if home.flags & F::MASQUERADES == 0 {
        return Err(DropReason::NoMasquerade);
    }
    let uplink = F::UPLINKS
        .get(&frame.ifindex())
        .filter(|uplink| uplink.address != F::ANY)
        .ok_or(DropReason::UnmasqueradedSource)?;
    plan.there.lead_in_place(SCOPE_WORLD);
    plan.back.lead_in_place(SCOPE_HOST);
    plan.source = uplink.address;
    plan.flags = FLOW_MASQUERADES;
    Ok(Affair::Ours)
}

/// Do the network's packets keep their addresses where they leave the host, and are its endpoints reached at their own?
#[inline(always)]
pub fn is_routed<F: Layer3>(network: &Network) -> bool {
    network.flags & F::ROUTED != 0
}

/// Do those who have a route reach every port of the network's endpoints?
#[inline(always)]
pub fn is_unprotected<F: Layer3>(network: &Network) -> bool {
    network.flags & F::UNPROTECTED != 0
}

/// Writes down who answers at an endpoint's own address, for those outside of its network: in a routed one its published ports, and pings; in an
/// unprotected one everything.
#[inline(always)]
fn must_be_reached<F: Layer3>(key: &FlowKey<F>, home: u32, publication: &mut Publication<F>) -> Result<(), DropReason> {
    judgement(find_reached(key, home, publication)).map(|_| ())
}

/// Out of line for its stack. `Ours` stands for somebody.
#[inline(never)]
fn find_reached<F: Layer3>(key: &FlowKey<F>, home: u32, publication: &mut Publication<F>) -> Number {
    let unpublished = number(Err(DropReason::Unpublished));
    let Some(network) = maps::network(home) else {
        return unpublished;
    };
    let is_unprotected = is_unprotected::<F>(network);
    if !is_routed::<F>(network) && !is_unprotected {
        return unpublished;
    }
    if key.protocol != F::ICMP {
        if publish::find_exact(key, publication) != 0 {
            return OURS;
        }
        if !is_unprotected {
            return unpublished;
        }
    }
    let endpoint = F::ENDPOINTS.find(&EndpointKey {
        network: home,
        address: key.destination,
    });
    let Some(endpoint) = endpoint else {
        return number(Err(DropReason::NoSuchEndpoint));
    };
    publication.network = home as u16;
    publication.limited = 0;
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    publication.endpoint = unsafe { endpoint.as_ref() }.endpoint;
    publication.address = key.destination;
    publication.port = key.destination_port;
    publication.first = 0;
    OURS
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
