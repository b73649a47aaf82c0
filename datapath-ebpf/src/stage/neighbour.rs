//! IPv6's question of who has this address (RFC 4861), answered here as ARP is: it never travels, and nothing is learned from what the wire says.
//!
//! What else neighbours tell each other on a link is heard and leads to nothing: nobody listens to groups here, and nobody asks for routers, since
//! every endpoint is told its own when it is made.

use sluice_datapath_common::{
    DropReason, Family as _, Ipv6, Ipv6Address,
    endpoint::{Attachment, EndpointKey},
};

use crate::{
    family::Tables as _,
    maps::{self, Prefix},
    packet::{
        ETHERNET, Frame, Mac,
        ipv6::{Ipv6Header, LinkLayerOption, NeighbourMessage},
    },
    rewrite::ipv6::{Answer, answer_solicitation},
    stage::{
        admit::{self, Affair, Number},
        deliver,
    },
    verdict::Verdict,
};

/// ICMPv6 types.
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Where the message starts when no extension header comes before it, bytes from the start of the frame.
const MESSAGE: u32 = ETHERNET + size_of::<Ipv6Header>() as u32;

/// Answers an endpoint.
#[inline(always)]
pub fn answer_endpoint(frame: Frame, above: u32, asker: &Attachment) -> Result<Verdict, DropReason> {
    match admit::judgement(hear_endpoint(frame, above, asker))? {
        // Not out of the device it came from: see `arp`.
        Affair::Ours => deliver::into_namespace(frame, frame.ifindex()),
        Affair::Hosts => Ok(Verdict::Heard),
    }
}

/// Answers the host, whose leg all networks share.
#[inline(always)]
pub fn answer_host(frame: Frame, above: u32) -> Result<Verdict, DropReason> {
    match admit::judgement(hear_host(frame, above))? {
        Affair::Ours => deliver::out_of(frame.ifindex()),
        Affair::Hosts => Ok(Verdict::Heard),
    }
}

// Out of line for their stack. `Ours` stands for an answer in the frame, `Hosts` for silence.

#[inline(never)]
fn hear_endpoint(frame: Frame, above: u32, asker: &Attachment) -> Number {
    let heard = hear_endpoint_inline(frame, above, asker);
    admit::number(heard)
}

#[inline(never)]
fn hear_host(frame: Frame, above: u32) -> Number {
    let heard = hear_host_inline(frame, above);
    admit::number(heard)
}

#[inline(always)]
fn hear_endpoint_inline(frame: Frame, above: u32, asker: &Attachment) -> Result<Affair, DropReason> {
    const SILENCE: Result<Affair, DropReason> = Ok(Affair::Hosts);
    let mac = Mac::new(asker.mac);
    if frame.ethernet()?.sender() != mac {
        return Err(DropReason::ForgedMac);
    }
    // Some messages are no longer than this.
    let [kind, _] = frame.read_beyond::<[u8; 2]>(above)?;
    match kind {
        SOLICITATION | ADVERTISEMENT => {}
        // Endpoints are no routers.
        ROUTER_ADVERTISEMENT | REDIRECT => return Err(DropReason::ForgedNeighbour),
        _ => return SILENCE,
    }
    let message: NeighbourMessage = frame.read_beyond(above)?;
    let source = read_source(frame, above)?;
    let link_local = Ipv6Address::link_local(asker.mac);
    let is_own = |address: Ipv6Address| address == link_local || (address == asker.address6 && address != Ipv6::ANY);
    let target = Ipv6Address(message.target);
    // A probe (RFC 4862) speaks as nobody, all others as the one they are.
    if !is_own(source) && source != Ipv6::ANY {
        return Err(DropReason::ForgedNeighbour);
    }
    if kind == ADVERTISEMENT {
        return if is_own(target) {
            SILENCE
        } else {
            Err(DropReason::ForgedNeighbour)
        };
    }
    if tells_another_mac(frame, mac) {
        return Err(DropReason::ForgedNeighbour);
    }
    if is_own(target) {
        return SILENCE;
    }
    if asker.address6 == Ipv6::ANY {
        return Err(DropReason::FamilyDisabled);
    }
    let network = maps::network(asker.network).ok_or(DropReason::UnknownDevice)?;
    // What a network has not is zero, which is nobody's address.
    let is_given = target != Ipv6::ANY && (target == network.gateway6 || target == network.resolver6);
    let is_router = is_given || target == Ipv6Address::link_local(network.gateway_mac);
    let owner = match is_router {
        true => network.gateway_mac,
        false => endpoint_mac(asker.network, target)?,
    };
    let answer = Answer {
        asker: source,
        asker_mac: mac,
        target,
        mac: Mac::new(owner),
        is_router,
    };
    answer_solicitation(frame, &answer).map(|()| Affair::Ours)
}

#[inline(always)]
fn hear_host_inline(frame: Frame, above: u32) -> Result<Affair, DropReason> {
    const SILENCE: Result<Affair, DropReason> = Ok(Affair::Hosts);
    let [kind, _] = frame.read_beyond::<[u8; 2]>(above)?;
    if kind != SOLICITATION {
        return SILENCE;
    }
    let message: NeighbourMessage = frame.read_beyond(above)?;
    let target = Ipv6Address(message.target);
    // The host asks after its own addresses before it takes them; nobody else has them.
    if Ipv6::LOCAL.find(&target).is_some() {
        return SILENCE;
    }
    let asker = read_source(frame, above)?;
    if asker == Ipv6::ANY {
        return SILENCE;
    }
    let network = Ipv6::SUBNETS
        .get(&Prefix::whole(target))
        .ok_or(DropReason::NoSuchEndpoint)?;
    let answer = Answer {
        asker,
        asker_mac: frame.ethernet()?.sender(),
        target,
        mac: Mac::new(endpoint_mac(network, target)?),
        is_router: false,
    };
    answer_solicitation(frame, &answer).map(|()| Affair::Ours)
}

/// Who speaks, when no router and no extension header has come between.
#[inline(always)]
fn read_source(frame: Frame, above: u32) -> Result<Ipv6Address, DropReason> {
    const ON_THE_LINK: u8 = 255;
    let ip: Ipv6Header = frame.read(ETHERNET)?;
    match above == MESSAGE && ip.rest.next_and_hops[1] == ON_THE_LINK {
        true => Ok(Ipv6Address(ip.rest.source)),
        false => Err(DropReason::ForgedNeighbour),
    }
}

/// Does the solicitation say that its sender has another MAC than it has?
#[inline(always)]
fn tells_another_mac(frame: Frame, mac: Mac) -> bool {
    const SENDERS: u8 = 1;
    match frame.read::<LinkLayerOption>(MESSAGE + size_of::<NeighbourMessage>() as u32) {
        Ok(option) => option.kind == SENDERS && Mac::from_words(option.mac) != mac,
        Err(_) => false,
    }
}

#[inline(always)]
fn endpoint_mac(network: u32, address: Ipv6Address) -> Result<[u8; 6], DropReason> {
    let key = EndpointKey { network, address };
    if let Some(endpoint) = Ipv6::ENDPOINTS.get(&key) {
        return Ok(endpoint.mac);
    }
    match Ipv6::REMOTES.get(&key) {
        Some(remote) => Ok(remote.mac),
        None if address.is_link_local() => Err(DropReason::LinkLocal),
        None => Err(DropReason::NoSuchEndpoint),
    }
}
