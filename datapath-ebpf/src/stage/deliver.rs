//! Hands the packet over.

use aya_ebpf::{
    bindings::bpf_check_mtu_flags::BPF_MTU_CHK_SEGS,
    helpers::{bpf_check_mtu, bpf_redirect, bpf_redirect_peer},
};
use sluice_datapath_common::{
    DropReason, Family, Ipv6,
    flow::{Action, FLOW_CHECKS_MTU, Flow},
};

use super::{flow::Entry, overlay, report, route::Leg};
use crate::{
    family::Layer3,
    maps::CONFIG,
    outline,
    packet::{Frame, Mac, Packet},
    rewrite,
    verdict::{self, Verdict},
};

/// Translates the packet and sends it the way of its flow.
#[inline(always)]
pub fn along<F: Layer3>(packet: &Packet<F>, flow: Entry<F>) -> Result<Verdict, DropReason> {
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    let flow = unsafe { flow.as_ref() };
    let hop = hops_to(flow);
    if hop != 0 && must_be_reported(packet, flow)? {
        return match F::AF == Ipv6::AF {
            true => report::to_sender(packet.frame, flow.ifindex),
            false => report_by_host(packet),
        };
    }
    if flow.action == Action::Overlay as u8 && packet.frame.len() > overlay::ALWAYS_FITS {
        let told = F::fit_overlay(packet.frame, flow.reverse_scope);
        if told != 0 {
            return verdict::of_number(told);
        }
    }
    rewrite::translate(packet, flow, hop)?;
    send(packet, flow)
}

/// Sends a packet that needs no translation along a leg to an endpoint, here or on another host.
#[inline(always)]
pub fn straight<F: Layer3>(packet: &Packet<F>, leg: &Leg<F>) -> Result<Verdict, DropReason> {
    rewrite::address_frame(packet.frame, Mac::new(leg.destination_mac), Mac::new(leg.source_mac))?;
    match leg.action == Action::Overlay as u8 {
        true => verdict::of_number(outline::wrap(packet.frame, leg.scope)),
        false => into_namespace(packet.frame, leg.ifindex),
    }
}

/// Sends a translated packet the way of its flow.
#[inline(always)]
pub fn send<F: Layer3>(packet: &Packet<F>, flow: &Flow<F>) -> Result<Verdict, DropReason> {
    const ENDPOINT: u8 = Action::Endpoint as u8;
    const HOST: u8 = Action::Host as u8;
    const WORLD: u8 = Action::World as u8;
    const OVERLAY: u8 = Action::Overlay as u8;
    match flow.action {
        ENDPOINT => {
            rewrite::address_frame(packet.frame, Mac::new(flow.destination_mac), Mac::new(flow.source_mac))?;
            into_namespace(packet.frame, flow.ifindex)
        }
        HOST => {
            rewrite::address_frame(packet.frame, Mac::new(flow.destination_mac), Mac::new(flow.source_mac))?;
            out_of(flow.ifindex)
        }
        OVERLAY => {
            rewrite::address_frame(packet.frame, Mac::new(flow.destination_mac), Mac::new(flow.source_mac))?;
            verdict::of_number(outline::wrap(packet.frame, flow.reverse_scope))
        }
        WORLD => Ok(Verdict::Sent(F::leave(flow.ifindex, flow.next_hop))),
        _ => Ok(Verdict::Stack),
    }
}

/// How many routers the packet passes with us: we are one where it leaves for the world, as the host's stack would be. Inside the host, and on
/// the way in, where the published port is the host's own to the client, we are not.
#[inline(always)]
pub fn hops_to<F: Family>(flow: &Flow<F>) -> u8 {
    (flow.action == Action::World as u8) as u8
}

/// Does the packet end here, so that its sender must be told (time exceeded, fragmentation needed)?
#[inline(always)]
fn must_be_reported<F: Layer3>(packet: &Packet<F>, flow: &Flow<F>) -> Result<bool, DropReason> {
    Ok(F::hops(packet)? <= 1 || (flow.flags & FLOW_CHECKS_MTU != 0 && is_too_big(packet.frame, flow.ifindex)))
}

/// Hands the packet to the host's stack as its sender made it. The stack writes the ICMP error, or cuts the packet up and forwards it, when
/// `to_nic` translates the pieces as this flow has it.
#[inline(always)]
pub fn report_by_host<F: Layer3>(packet: &Packet<F>) -> Result<Verdict, DropReason> {
    let config = CONFIG.load();
    let source = packet.frame.ethernet()?.sender();
    rewrite::address_frame(packet.frame, Mac::new(config.host_mac), source)?;
    out_of(config.host_leg_ifindex)
}

#[inline(always)]
fn is_too_big(frame: Frame, ifindex: u32) -> bool {
    let mut mtu = 0;
    // SAFETY: the frame is the program's context; `mtu` is on the stack and is written to.
    let fits = unsafe { bpf_check_mtu(frame.context(), ifindex, &raw mut mtu, 0, u64::from(BPF_MTU_CHK_SEGS)) };
    // 1 and 2: a packet, or a segment of a super-packet, is longer. Below 0: no such device, which is the redirect's to find out.
    fits > 0
}

/// Into the namespace on the other side of the veth, without a queue in between.
#[inline(always)]
pub fn into_namespace(frame: Frame, ifindex: u32) -> Result<Verdict, DropReason> {
    rewrite::declare_for_us(frame);
    // SAFETY: integers only; the kernel finds the device when it sends.
    Ok(Verdict::Sent(unsafe { bpf_redirect_peer(ifindex, 0) } as i32))
}

/// Out of a device of the host.
#[inline(always)]
pub fn out_of(ifindex: u32) -> Result<Verdict, DropReason> {
    // SAFETY: as above.
    Ok(Verdict::Sent(unsafe { bpf_redirect(ifindex, 0) } as i32))
}
