//! All writing: nothing else changes a packet.
//!
//! Checksums are never summed anew but corrected by what changed (RFC 1624), which leaves right what was right and wrong what was wrong.
//! The layer above goes through `bpf_l4_csum_replace`, since only the kernel knows whether its sum is finished or waits for the NIC
//! (CHECKSUM_PARTIAL): addresses with `PSEUDO_HDR`, as an unfinished sum holds just the pseudo header; ports without it, as the NIC will
//! sum them itself. The IPv4 header's sum is always finished, so it is corrected here and written with the addresses in one piece.

mod ipv4;
pub mod ipv6;
pub mod overlay;

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_l4_csum_replace, bpf_skb_change_type, bpf_skb_store_bytes},
};
use sluice_datapath_common::{
    DropReason, Family, Ipv4,
    checksum::{add, apply, difference, fold},
    flow::{FLOW_REWRITES_DESTINATION, FLOW_REWRITES_SOURCE, Flow},
};

use crate::{
    family::Layer3,
    outline,
    packet::{
        ArpHeader, ETHER_ARP, ETHERNET, EthernetHeader, Fragment, Frame, Ipv4Header, Ipv4Rest, Layer4, Mac, Packet,
    },
};

/// Where the checksum lies in the headers above IP, bytes.
const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;
const ICMP_CHECKSUM: u32 = 2;
const SCTP_CHECKSUM: u32 = 8;
/// Where an ICMP identifier lies.
const ICMP_IDENTIFIER: u32 = 4;

/// How a family's IP header is written.
pub trait Write: Family {
    /// Does ICMP's checksum cover the addresses?
    const ICMP_HAS_PSEUDO_HEADER: bool;

    /// Writes both addresses and takes `hop` off the hops that are left. `change` is what the addresses add to a checksum.
    fn write_header(
        packet: &Packet<Self>,
        source: Self::Address,
        destination: Self::Address,
        change: u32,
        hop: u8,
    ) -> Result<(), DropReason>;

    /// Turns the frame into the report that the packet in it is longer than `mtu`, from `reporter` to its `sender`. The MACs are exchanged.
    fn turn_into_too_big(
        frame: Frame,
        mtu: u32,
        reporter: Self::Address,
        sender: Self::Address,
    ) -> Result<(), DropReason>;

    /// Turns the frame into the report that the packet in it may not go where it is to go (or that nobody is at the port), from `reporter` to its
    /// `sender`. The MACs are exchanged.
    fn turn_into_unreachable(
        frame: Frame,
        no_port: bool,
        reporter: Self::Address,
        sender: Self::Address,
    ) -> Result<(), DropReason>;

    /// Turns the frame into the RST that answers it, from `source` to `destination`: a TCP header without its checksum. The MACs are exchanged.
    fn turn_into_reset(
        frame: Frame,
        tcp: [u32; 5],
        source: Self::Address,
        destination: Self::Address,
    ) -> Result<(), DropReason>;

    /// Writes the addresses of a packet that an ICMP error quotes. Returns what that adds to the sum of the message.
    fn write_quoted_header(
        quoted: &Packet<Self>,
        source: Self::Address,
        destination: Self::Address,
        change: u32,
    ) -> Result<u32, DropReason>;
}

/// Gives the packet the addresses and ports of its flow, and takes `hop` (0 or 1) off the hops it may still take.
#[inline(always)]
pub fn translate<F: Write>(packet: &Packet<F>, flow: &Flow<F>, hop: u8) -> Result<(), DropReason> {
    if flow.flags & (FLOW_REWRITES_SOURCE | FLOW_REWRITES_DESTINATION) == 0 && hop == 0 {
        return Ok(());
    }
    let addresses = flow.address_difference;
    F::write_header(packet, flow.source, flow.destination, addresses, hop)?;
    let above = packet.above;
    match packet.layer4 {
        Layer4::Tcp => translate_ports(packet, flow, above + TCP_CHECKSUM, 0),
        Layer4::Udp => translate_ports(packet, flow, above + UDP_CHECKSUM, BPF_F_MARK_MANGLED_0),
        Layer4::Echo => {
            if F::ICMP_HAS_PSEUDO_HEADER {
                correct(packet.frame, above + ICMP_CHECKSUM, addresses, BPF_F_PSEUDO_HDR)?;
            }
            if flow.source_port == packet.key.source_port {
                return Ok(());
            }
            correct(packet.frame, above + ICMP_CHECKSUM, flow.port_difference, 0)?;
            store(packet.frame, above + ICMP_IDENTIFIER, &flow.source_port)
        }
        Layer4::Sctp => translate_sctp(packet, flow),
        // ICMPv6 of other kinds has a sum all the same.
        Layer4::Portless if F::ICMP_HAS_PSEUDO_HEADER && packet.key.protocol == F::ICMP => {
            correct(packet.frame, above + ICMP_CHECKSUM, addresses, BPF_F_PSEUDO_HDR)
        }
        // Without ports there is nothing to translate but the addresses; later fragments have no header of the layer above.
        Layer4::Error | Layer4::Discovery | Layer4::Portless | Layer4::Continuation => Ok(()),
    }
}

#[inline(always)]
fn translate_ports<F: Family>(packet: &Packet<F>, flow: &Flow<F>, checksum: u32, flags: u32) -> Result<(), DropReason> {
    if flow.address_difference != 0 {
        correct(
            packet.frame,
            checksum,
            flow.address_difference,
            flags | BPF_F_PSEUDO_HDR,
        )?;
    }
    if flow.source_port == packet.key.source_port && flow.destination_port == packet.key.destination_port {
        return Ok(());
    }
    correct(packet.frame, checksum, flow.port_difference, flags)?;
    let is_absent = flags & BPF_F_MARK_MANGLED_0 != 0 && packet.frame.read_beyond::<u16>(checksum)? == 0;
    // What is not there makes up for nothing.
    let flags = if is_absent { BPF_F_RECOMPUTE_CSUM } else { 0 };
    let ports = [flow.source_port, flow.destination_port];
    store_with(packet.frame, packet.above, &ports, flags)
}

/// SCTP's checksum knows nothing of addresses. One of zero is not there yet: it waits for the NIC, which sums the ports itself. (One in four
/// thousand million that is zero by right is then left wrong.)
#[inline(always)]
fn translate_sctp<F: Family>(packet: &Packet<F>, flow: &Flow<F>) -> Result<(), DropReason> {
    let ports = [flow.source_port, flow.destination_port];
    if ports == [packet.key.source_port, packet.key.destination_port] {
        return Ok(());
    }
    // What a change adds depends on how much follows it, which a fragment does not say.
    if packet.fragment != Fragment::Whole {
        return Err(DropReason::CannotTranslate);
    }
    if let Some((_, new)) = changed_crc(packet, ports) {
        store_with(packet.frame, packet.above + SCTP_CHECKSUM, &new, BPF_F_RECOMPUTE_CSUM)?;
    }
    store_with(packet.frame, packet.above, &ports, BPF_F_RECOMPUTE_CSUM)
}

/// The CRC of an SCTP packet as it is and as it is after a change of its ports, in packet order. None: it is not there.
#[inline(always)]
fn changed_crc<F: Family>(packet: &Packet<F>, ports: [u16; 2]) -> Option<([u16; 2], [u16; 2])> {
    if packet.length < SCTP_CHECKSUM + size_of::<u32>() as u32 {
        return None;
    }
    let old = packet
        .frame
        .read_beyond::<[u16; 2]>(packet.above + SCTP_CHECKSUM)
        .ok()
        .filter(|crc| *crc != [0; 2])?;
    let word = |halves: [u16; 2]| u32::from(halves[0]) | u32::from(halves[1]) << 16;
    let change = word([packet.key.source_port, packet.key.destination_port]) ^ word(ports);
    let new = word(old) ^ outline::change_of_crc(change, packet.length);
    Some((old, [new as u16, (new >> 16) as u16]))
}

/// Translates an ICMP error by the packet it quotes. `flow` is what a packet of the opposite direction would take, the quoted one reversed.
///
/// Inside the quotation the sums are corrected by hand and every change is carried into the sum of the ICMP message. A header of the quoted
/// packet that was cut off is left out, as the sender of the error left it out.
#[inline(always)]
pub fn translate_error<F: Layer3>(
    packet: &Packet<F>,
    quoted: &Packet<F>,
    flow: &Flow<F>,
    hop: u8,
) -> Result<(), DropReason> {
    // Who reports: the other end of the conversation, seen as the flow shows it, or a router on the way, which stays itself.
    let reporter = if packet.key.source == quoted.key.destination {
        flow.source
    } else {
        packet.key.source
    };
    if flow.flags & (FLOW_REWRITES_SOURCE | FLOW_REWRITES_DESTINATION) != 0 {
        let change = F::write_quoted_header(quoted, flow.destination, flow.source, flow.address_difference)?;
        let change = add(change, translate_quoted_layer4(quoted, flow)?);
        correct(packet.frame, packet.above + ICMP_CHECKSUM, change, 0)?;
    }
    let outer = add(
        F::difference(packet.key.source, reporter),
        F::difference(packet.key.destination, flow.destination),
    );
    if F::ICMP_HAS_PSEUDO_HEADER {
        correct(packet.frame, packet.above + ICMP_CHECKSUM, outer, BPF_F_PSEUDO_HDR)?;
    }
    F::write_header(packet, reporter, flow.destination, outer, hop)
}

/// Translates the quoted ports or identifier and the quoted checksum; returns what that adds to the sum of the ICMP message.
#[inline(always)]
fn translate_quoted_layer4<F: Layer3>(quoted: &Packet<F>, flow: &Flow<F>) -> Result<u32, DropReason> {
    let addresses = flow.address_difference;
    let (at, within) = match quoted.layer4 {
        Layer4::Tcp => (TCP_CHECKSUM, add(addresses, flow.port_difference)),
        Layer4::Udp => (UDP_CHECKSUM, add(addresses, flow.port_difference)),
        Layer4::Echo if F::ICMP_HAS_PSEUDO_HEADER => (ICMP_CHECKSUM, add(addresses, flow.port_difference)),
        Layer4::Echo => (ICMP_CHECKSUM, flow.port_difference),
        Layer4::Sctp => return translate_quoted_sctp(quoted, flow),
        Layer4::Error | Layer4::Discovery | Layer4::Portless | Layer4::Continuation => return Ok(0),
    };
    let mut change = flow.port_difference;
    // A UDP checksum of zero is none; TCP's may have been cut off.
    if let Ok(old) = quoted.frame.read_beyond::<u16>(quoted.above + at)
        && !(old == 0 && quoted.layer4 == Layer4::Udp)
    {
        // To UDP the two zeros of one's complement are not the same: one of them means that there is no checksum.
        let new = match apply(old, within) {
            0 if quoted.layer4 == Layer4::Udp => 0xffff,
            new => new,
        };
        store(quoted.frame, quoted.above + at, &new)?;
        change = add(change, difference(u32::from(old), u32::from(new)));
    }
    match quoted.layer4 {
        Layer4::Echo => store(quoted.frame, quoted.above + ICMP_IDENTIFIER, &flow.source_port)?,
        _ => store(quoted.frame, quoted.above, &[flow.destination_port, flow.source_port])?,
    }
    Ok(change)
}

#[inline(always)]
fn translate_quoted_sctp<F: Layer3>(quoted: &Packet<F>, flow: &Flow<F>) -> Result<u32, DropReason> {
    let ports = [flow.destination_port, flow.source_port];
    let mut change = flow.port_difference;
    if change != 0
        && quoted.fragment == Fragment::Whole
        && let Some((old, new)) = changed_crc(quoted, ports)
    {
        store(quoted.frame, quoted.above + SCTP_CHECKSUM, &new)?;
        let halves = add(
            difference(u32::from(old[0]), u32::from(new[0])),
            difference(u32::from(old[1]), u32::from(new[1])),
        );
        change = add(change, halves);
    }
    store(quoted.frame, quoted.above, &ports)?;
    Ok(change)
}

/// Gives the frame its MACs, unless it bears them already.
#[inline(always)]
pub fn address_frame(frame: Frame, destination: Mac, source: Mac) -> Result<(), DropReason> {
    if frame.ethernet()?.receiver() == destination {
        return Ok(());
    }
    store(frame, 0, &[destination.words(), source.words()])
}

/// Tells the kernel that the frame is for the device it goes to. It decided otherwise (`PACKET_OTHERHOST`) when the frame came in with another
/// endpoint's MAC, and `bpf_redirect_peer` carries that judgement into the receiver's namespace, where the packet would be ignored.
#[inline(always)]
pub fn declare_for_us(frame: Frame) {
    /// `PACKET_HOST`
    const HOST: u32 = 0;
    if !frame.is_for_us() {
        // SAFETY: the frame is the program's context. The change from one such type to another cannot fail.
        unsafe { bpf_skb_change_type(frame.skb(), HOST) };
    }
}

/// Turns an ARP question into its answer: `target` of the question is at `mac`.
#[inline(always)]
pub fn answer_arp(frame: Frame, question: &ArpHeader, mac: Mac) -> Result<(), DropReason> {
    /// Big endian "is at".
    const IS_AT: u16 = 2u16.to_be();
    let asker = question.sender_mac;
    let ethernet = EthernetHeader {
        destination: asker,
        source: mac.words(),
        ether_type: ETHER_ARP.to_be(),
    };
    let answer = ArpHeader {
        operation: IS_AT,
        sender_mac: mac.words(),
        sender: question.target,
        target_mac: asker,
        target: question.sender,
        ..*question
    };
    store_frame(frame, &ethernet, &answer)
}

/// Writes a frame anew. What a NIC has summed (CHECKSUM_COMPLETE) begins behind the Ethernet header.
#[inline(always)]
fn store_frame<T>(frame: Frame, ethernet: &EthernetHeader, packet: &T) -> Result<(), DropReason> {
    const _: () = assert!(size_of::<EthernetHeader>() == ETHERNET as usize);
    store(frame, 0, ethernet)?;
    store_with(frame, ETHERNET, packet, BPF_F_RECOMPUTE_CSUM)
}

/// Completes a TCP header by its checksum; `pseudo` is the sum of what precedes it there.
#[inline(always)]
fn complete(tcp: &mut [u32; 5], pseudo: u32) {
    let mut sum = pseudo;
    for word in *tcp {
        sum = add(sum, word);
    }
    // It stands in the first half of the last word as it lies in memory.
    tcp[4] |= u32::from(!fold(sum));
}

/// Corrects a checksum above IP by what was changed.
#[inline(always)]
fn correct(frame: Frame, offset: u32, difference: u32, flags: u32) -> Result<(), DropReason> {
    // SAFETY: the frame is the program's context; the kernel checks the offset. Size 0 in `flags`: `to` is a difference.
    match unsafe { bpf_l4_csum_replace(frame.skb(), offset, 0, u64::from(difference), u64::from(flags)) } {
        0 => Ok(()),
        _ => Err(DropReason::RewriteFailed),
    }
}

/// Writes `value` at `offset`, where a checksum makes up for the change: what a NIC has summed (CHECKSUM_COMPLETE) does not notice.
#[inline(always)]
fn store<T>(frame: Frame, offset: u32, value: &T) -> Result<(), DropReason> {
    store_with(frame, offset, value, 0)
}

/// The same with the kernel's flags: `BPF_F_RECOMPUTE_CSUM` where no Internet checksum makes up for the change.
#[inline(always)]
fn store_with<T>(frame: Frame, offset: u32, value: &T, flags: u32) -> Result<(), DropReason> {
    // SAFETY: the frame is the program's context; the kernel checks the bounds and reads `size_of::<T>()` bytes of `value`, which has no padding.
    match unsafe {
        bpf_skb_store_bytes(
            frame.skb(),
            offset,
            (&raw const *value).cast(),
            size_of::<T>() as u32,
            u64::from(flags),
        )
    } {
        0 => Ok(()),
        _ => Err(DropReason::RewriteFailed),
    }
}

// === impl Ipv4 ===

impl Write for Ipv4 {
    const ICMP_HAS_PSEUDO_HEADER: bool = false;

    /// One write for time to live, checksum and addresses.
    #[inline(always)]
    fn write_header(
        packet: &Packet<Self>,
        source: Self::Address,
        destination: Self::Address,
        change: u32,
        hop: u8,
    ) -> Result<(), DropReason> {
        /// Where the second half starts, bytes from the start of the IP header.
        const REST: u32 = (size_of::<Ipv4Header>() - size_of::<Ipv4Rest>()) as u32;
        let old = packet.frame.read_beyond::<Ipv4Header>(packet.header)?.rest;
        let [hops, protocol] = old.hops_and_protocol;
        let left = [hops.wrapping_sub(hop), protocol];
        let word = |bytes| u32::from(u16::from_ne_bytes(bytes));
        let change = add(change, difference(word(old.hops_and_protocol), word(left)));
        let new = Ipv4Rest {
            hops_and_protocol: left,
            checksum: apply(old.checksum, change),
            source: source.0,
            destination: destination.0,
        };
        store(packet.frame, packet.header + REST, &new)
    }

    #[inline(always)]
    fn turn_into_too_big(
        frame: Frame,
        mtu: u32,
        reporter: Self::Address,
        sender: Self::Address,
    ) -> Result<(), DropReason> {
        ipv4::turn_into_unreachable(frame, ipv4::FRAGMENTATION_NEEDED, mtu, reporter, sender)
    }

    #[inline(always)]
    fn turn_into_unreachable(
        frame: Frame,
        no_port: bool,
        reporter: Self::Address,
        sender: Self::Address,
    ) -> Result<(), DropReason> {
        let code = if no_port {
            ipv4::UNREACHABLE_PORT
        } else {
            ipv4::PROHIBITED
        };
        ipv4::turn_into_unreachable(frame, code, 0, reporter, sender)
    }

    #[inline(always)]
    fn turn_into_reset(
        frame: Frame,
        tcp: [u32; 5],
        source: Self::Address,
        destination: Self::Address,
    ) -> Result<(), DropReason> {
        ipv4::turn_into_reset(frame, tcp, source, destination)
    }

    /// The header's own sum makes up for its addresses, so the message's does not notice.
    #[inline(always)]
    fn write_quoted_header(
        quoted: &Packet<Self>,
        source: Self::Address,
        destination: Self::Address,
        change: u32,
    ) -> Result<u32, DropReason> {
        Self::write_header(quoted, source, destination, change, 0)?;
        Ok(0)
    }
}
