//! Tells the sender of an IPv6 packet why it goes no further (RFC 4443): it has no hops left, or is too big for the NIC.
//!
//! For IPv4 the host's stack does this (`deliver`). For IPv6 it would do so only with `net.ipv6.conf.all.forwarding`, and with that set the host no longer
//! listens to the routers that it has its own address and routes from.

use sluice_datapath_common::{DropReason, Ipv6, network::FIRST_NETWORK};

use crate::{
    family::{Layer3, Tables as _},
    maps,
    packet::{Frame, Packet, Read as _},
    rewrite::ipv6::{Report, TOO_BIG, turn_into_report},
    stage::{
        admit::{self, Affair, Number},
        deliver,
    },
    verdict::Verdict,
};

const TIME_EXCEEDED: u8 = 3;
/// What every IPv6 link carries.
const LEAST_MTU: u32 = 1280;

/// Turns the frame into a report on it, which goes back where it came from.
#[inline(always)]
pub fn to_sender(frame: Frame, uplink: u32) -> Result<Verdict, DropReason> {
    admit::judgement(report(frame, uplink))?;
    deliver::into_namespace(frame, frame.ifindex())
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
    let network = match packet.key.scope >= FIRST_NETWORK {
        true => maps::network(packet.key.scope).ok_or(DropReason::UnknownDevice)?,
        false => return Err(DropReason::NotRoutable),
    };
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
        parameter,
        reporter: network.gateway6,
        sender: packet.key.source,
    })
}
