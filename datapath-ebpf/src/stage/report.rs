//! Tells the sender of an IPv6 packet why it goes no further (RFC 4443): it has no hops left, or is too big for the NIC. A sender on another host is told there.
//!
//! For IPv4 the host's stack does this (`deliver`). For IPv6 it would do so only with `net.ipv6.conf.all.forwarding`, and with that set the host no longer
//! listens to the routers that it has its own address and routes from.

use sluice_datapath_common::{
    DropReason, Ipv6,
    network::FIRST_NETWORK,
    overlay::{is_overlay, network_of},
};

use crate::{
    family::{Layer3, Tables as _},
    maps, outline,
    packet::{Frame, Packet, Read as _},
    rewrite::ipv6::{Report, TOO_BIG, turn_into_report},
    stage::{
        admit::{self, Affair, Number},
        deliver,
    },
    verdict::{self, Verdict},
};

const TIME_EXCEEDED: u8 = 3;
/// What every IPv6 link carries.
const LEAST_MTU: u32 = 1280;

/// Turns the frame into a report on it, which goes back where it came from.
#[inline(always)]
pub fn to_sender(frame: Frame, uplink: u32) -> Result<Verdict, DropReason> {
    admit::judgement(report(frame, uplink))?;
    match Ipv6::facts(false).map_or(0, |facts| facts.key.scope) {
        scope if is_overlay(scope) => verdict::of_number(outline::wrap(frame, scope)),
        _ => deliver::into_namespace(frame, frame.ifindex()),
    }
}

/// Turns the packet in hand, which is longer than the way to another host takes, into a report on it, which goes back where it came from. An endpoint is
/// told by its gateway, all others by whom they spoke to.
#[inline(always)]
pub fn too_big<F: Layer3>(packet: &Packet<F>, mtu: u32) -> Result<Verdict, DropReason> {
    let frame = packet.frame;
    let network = match packet.key.scope >= FIRST_NETWORK {
        true => maps::network(packet.key.scope),
        false => None,
    };
    let reporter = match network.map(F::gateway) {
        Some(gateway) if gateway != F::ANY => gateway,
        _ => packet.key.destination,
    };
    F::turn_into_too_big(frame, mtu, reporter, packet.key.source)?;
    match network {
        Some(_) => deliver::into_namespace(frame, frame.ifindex()),
        None => deliver::out_of(frame.ifindex()),
    }
}

/// Out of line for its stack.
#[inline(never)]
fn report(frame: Frame, uplink: u32) -> Number {
    admit::number(write(frame, uplink).map(|()| Affair::Ours))
}

#[inline(always)]
fn write(frame: Frame, uplink: u32) -> Result<(), DropReason> {
    let packet = Packet::of_facts(frame, Ipv6::facts(false).ok_or(DropReason::RewriteFailed)?);
    // Only endpoints' packets leave by this way.
    let network = match packet.key.scope {
        scope if is_overlay(scope) => network_of(scope),
        scope if scope >= FIRST_NETWORK => scope,
        _ => return Err(DropReason::NotRoutable),
    };
    let network = maps::network(network).ok_or(DropReason::UnknownDevice)?;
    let (kind, parameter) = match Ipv6::hops(&packet)? <= 1 {
        true => (TIME_EXCEEDED, 0),
        false => (
            TOO_BIG,
            Ipv6::UPLINKS.get(&uplink).map_or(LEAST_MTU, |uplink| uplink.mtu),
        ),
    };
    turn_into_report(&Report {
        frame,
        kind,
        code: 0,
        parameter,
        reporter: network.gateway6,
        sender: packet.key.source,
    })
}
