//! Tells the sender of a packet that it is not wanted: of TCP by an RST, of all else by ICMP's "unreachable".
//!
//! It is told by whom it spoke to, as if that had answered. The packet was counted as dropped before: what goes back is another.

use aya_ebpf::bindings::TC_ACT_SHOT;
use sluice_datapath_common::{
    DropReason, Family, Ipv4, Ipv6, drop::Direction, network::FIRST_NETWORK, overlay::is_overlay,
};

use super::deliver;
use crate::{
    family::Layer3,
    outline::{self, Outline},
    packet::{ACK, FIN, Facts, Fragment, Frame, Layer4, RST, SYN, TCP, UDP},
    verdict::{self, Verdict},
};

/// Sends back what a refused packet is answered, if it is: the code that ends the program.
#[inline(always)]
pub fn by_family(frame: Frame, direction: Direction) -> i32 {
    let told = match frame.ether_type() {
        Ipv4::ETHER_TYPE => Ipv4::refuse(frame, direction as u32),
        Ipv6::ETHER_TYPE => Ipv6::refuse(frame, direction as u32),
        _ => return TC_ACT_SHOT as i32,
    };
    match verdict::of_number(told) {
        Ok(Verdict::Sent(code)) => code,
        _ => TC_ACT_SHOT as i32,
    }
}

/// Turns the packet in hand into its answer and sends that back. Out of line for its stack.
#[inline(always)]
pub fn refuse<F: Layer3>(frame: Frame, direction: u32) -> verdict::Number {
    verdict::number(answer::<F>(frame, direction))
}

#[inline(always)]
fn answer<F: Layer3>(frame: Frame, direction: u32) -> Result<Verdict, DropReason> {
    let facts = F::facts(false).ok_or(DropReason::PolicyRejected)?;
    let inside = direction == Direction::FromContainer as u32 || direction == Direction::FromHost as u32;
    // What is in pieces is answered by none, as nobody could ask for the rest. Of a super-packet from outside the kernel would sum the answer once more;
    // its sender sends again, in smaller ones. What the stack forwards has no way back.
    if facts.fragment != Fragment::Whole || direction == Direction::ToNic as u32 || (!inside && frame.gso_size() != 0) {
        return Err(DropReason::PolicyRejected);
    }
    let (scope, source, destination) = (facts.key.scope, facts.key.source, facts.key.destination);
    match facts.layer4 {
        Layer4::Tcp => F::turn_into_reset(frame, reset(frame, facts)?, destination, source)?,
        Layer4::Error | Layer4::Discovery => return Err(DropReason::PolicyRejected),
        _ => F::turn_into_unreachable(frame, facts.key.protocol == UDP, destination, source)?,
    }
    if is_overlay(scope) {
        return verdict::of_number(outline::wrap(frame, scope));
    }
    match scope >= FIRST_NETWORK {
        true => deliver::into_namespace(frame, frame.ifindex()),
        false => deliver::out_of(frame.ifindex()),
    }
}

/// The TCP header of the RST that answers the packet, without its checksum (RFC 9293, 3.10.7.1).
#[inline(always)]
fn reset<F: Family>(frame: Frame, facts: &Facts<F>) -> Result<[u32; 5], DropReason> {
    const { assert!(TCP == 6) }
    if facts.tcp_flags & RST != 0 {
        return Err(DropReason::PolicyRejected);
    }
    let word = |at: u32| frame.peek(facts.above + at).map(u32::from_ne_bytes);
    let (sequence, acknowledged) = (word(4)?, word(8)?);
    let [length, ..] = frame.peek(facts.above + 12)?;
    let (sequence, acknowledges, flags) = match facts.tcp_flags & ACK != 0 {
        true => (acknowledged, 0, RST),
        false => {
            let header = u32::from(length >> 4) * 4;
            let occupied = facts.length.wrapping_sub(header)
                + (facts.tcp_flags & SYN != 0) as u32
                + (facts.tcp_flags & FIN != 0) as u32;
            (0, u32::from_be(sequence).wrapping_add(occupied).to_be(), RST | ACK)
        }
    };
    let ports = [facts.key.destination_port, facts.key.source_port];
    Ok([
        u32::from(ports[0]) | u32::from(ports[1]) << 16,
        sequence,
        acknowledges,
        // five words long, no window
        u32::from_ne_bytes([5 << 4, flags, 0, 0]),
        0,
    ])
}
