//! Writing IPv6. Its header has no checksum of its own, so what changes in it is made up for by the layer above, or by nobody (the hop limit): the
//! sum that the NIC took of the whole frame (CHECKSUM_COMPLETE) must hear of it (`BPF_F_RECOMPUTE_CSUM`).

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::{bpf_csum_diff, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use sluice_datapath_common::{
    DropReason, Ipv6, Ipv6Address,
    checksum::{add, fold},
};

use super::{Write, complete, store, store_frame, store_with};
use crate::{
    maps::{REPORT, REPORT_WORDS},
    packet::{
        ETHERNET, EthernetHeader, Frame, Mac, Packet,
        ipv6::{Ipv6Header, Ipv6Rest},
    },
};

/// A neighbour advertisement with its option (RFC 4861, 4.4).
#[repr(C, packed(2))]
struct Advertisement {
    header: NewHeader,
    message: [u32; 8],
}

/// The header of a packet that the datapath makes itself.
#[repr(C, packed(2))]
struct NewHeader {
    version: u32,
    payload_length: u16,
    next_and_hops: [u8; 2],
    source: [u32; 4],
    destination: [u32; 4],
}

/// An RST as a whole.
#[repr(C, packed(2))]
struct Reset {
    header: NewHeader,
    tcp: [u32; 5],
}

/// Big endian.
const ETHER_TYPE: u16 = 0x86dd_u16.to_be();
/// Big endian; neither class nor label.
const VERSION: u32 = 0x6000_0000_u32.to_be();

/// Who asked, and what the answer is.
pub struct Answer {
    /// Who asked.
    pub asker: Ipv6Address,
    /// The MAC of whoever asked.
    pub asker_mac: Mac,
    /// The address that was asked for.
    pub target: Ipv6Address,
    /// Where it is.
    pub mac: Mac,
    /// Is it a router's?
    pub is_router: bool,
}

/// Turns the frame, a neighbour solicitation, into its answer. To a probe, which speaks as nobody, all nodes are told.
#[inline(always)]
pub fn answer_solicitation(frame: Frame, answer: &Answer) -> Result<(), DropReason> {
    const ICMP: u8 = 58;
    /// Not forwarded by any router.
    const HOPS: u8 = 255;
    const ADVERTISEMENT: u8 = 136;
    const TARGET_MAC: u8 = 2;
    const ROUTER: u32 = 1 << 31;
    const SOLICITED: u32 = 1 << 30;
    const OVERRIDE: u32 = 1 << 29;
    const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
    const LENGTH: u32 = size_of::<[u32; 8]>() as u32;

    let is_probe = answer.asker == Ipv6Address::default();
    let (destination, receiver) = match is_probe {
        true => (Ipv6Address::ALL_NODES, ALL_NODES_MAC),
        false => (answer.asker, answer.asker_mac),
    };
    let mut flags = OVERRIDE;
    if !is_probe {
        flags |= SOLICITED;
    }
    if answer.is_router {
        flags |= ROUTER;
    }
    let [a, b, c] = answer.mac.words();
    let target = answer.target.0;
    let mut message = [
        u32::from_ne_bytes([ADVERTISEMENT, 0, 0, 0]),
        flags.to_be(),
        target[0],
        target[1],
        target[2],
        target[3],
        u32::from(u16::from_ne_bytes([TARGET_MAC, 1])) | u32::from(a) << 16,
        u32::from(b) | u32::from(c) << 16,
    ];
    let mut sum = add(LENGTH.to_be(), u32::from(ICMP).to_be());
    for word in 0..4 {
        sum = add(sum, add(target[word], destination.0[word]));
    }
    for word in message {
        sum = add(sum, word);
    }
    // The sum stands in the upper half of the first word as it lies in memory.
    message[0] |= u32::from(!fold(sum)) << 16;
    let ethernet = EthernetHeader {
        destination: receiver.words(),
        source: answer.mac.words(),
        ether_type: ETHER_TYPE,
    };
    let advertisement = Advertisement {
        header: NewHeader {
            version: VERSION,
            payload_length: (LENGTH as u16).to_be(),
            next_and_hops: [ICMP, HOPS],
            source: target,
            destination: destination.0,
        },
        message,
    };
    const SIZE: u32 = ETHERNET + size_of::<Advertisement>() as u32;
    if frame.len() != SIZE {
        // SAFETY: the frame is the program's context. No packet pointer is alive across the call.
        match unsafe { bpf_skb_change_tail(frame.skb(), SIZE, 0) } {
            0 => {}
            _ => return Err(DropReason::RewriteFailed),
        }
    }
    store_frame(frame, &ethernet, &advertisement)
}

/// The type of the ICMPv6 error that tells an MTU.
pub const TOO_BIG: u8 = 2;

/// An ICMPv6 error that is to be written.
pub struct Report {
    /// The frame with the packet that it is about.
    pub frame: Frame,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The word behind the checksum.
    pub parameter: u32,
    /// Who reports.
    pub reporter: Ipv6Address,
    /// Who sent the packet.
    pub sender: Ipv6Address,
}

/// Turns a frame into a report on the packet in it, of which it quotes 252 bytes at most: more than any sender needs to know its own. The MACs are exchanged.
#[inline(always)]
pub fn turn_into_report(report: &Report) -> Result<(), DropReason> {
    const ICMP: u8 = 58;
    const HOPS: u8 = 64;
    const HEADERS: u32 = ETHERNET + size_of::<Ipv6Header>() as u32;
    /// What is quoted is cut to whole words, for the sum.
    const MOST: u32 = 4 * (REPORT_WORDS as u32 - 2);
    let frame = report.frame;
    let ethernet = frame.ethernet()?;
    let length = (frame.len() - ETHERNET).min(MOST) & !3;
    // The verifier has lost sight of the bound by then, and the compiler knows it too well.
    // SAFETY: a read of a value on the stack.
    let length = unsafe { read_volatile(&raw const length) } & 0xfc;
    if length < size_of::<Ipv6Header>() as u32 {
        return Err(DropReason::Truncated);
    }
    let Some(message) = REPORT.get_ptr_mut(0) else {
        return Err(DropReason::RewriteFailed);
    };
    let size = 8 + length;
    // SAFETY: the slot is this CPU's own and holds `REPORT_WORDS` words; the kernel checks the frame's bounds.
    let sum = unsafe {
        (*message)[0] = u32::from_ne_bytes([report.kind, report.code, 0, 0]);
        (*message)[1] = report.parameter.to_be();
        let quoted = (&raw mut (*message)[2]).cast();
        if bpf_skb_load_bytes(frame.context(), ETHERNET, quoted, length) != 0 {
            return Err(DropReason::Truncated);
        }
        bpf_csum_diff(core::ptr::null_mut(), 0, message.cast(), size, 0)
    };
    let mut sum = add(sum as u32, add(size.to_be(), u32::from(ICMP).to_be()));
    for word in 0..4 {
        sum = add(sum, add(report.reporter.0[word], report.sender.0[word]));
    }
    // SAFETY: as above.
    unsafe { (*message)[0] |= u32::from(!fold(sum)) << 16 };
    // SAFETY: the frame is the program's context. No packet pointer is alive across the call.
    if unsafe { bpf_skb_change_tail(frame.skb(), HEADERS + size, 0) } != 0 {
        return Err(DropReason::RewriteFailed);
    }
    let back = EthernetHeader {
        destination: ethernet.source,
        source: ethernet.destination,
        ether_type: ETHER_TYPE,
    };
    let header = NewHeader {
        version: VERSION,
        payload_length: (size as u16).to_be(),
        next_and_hops: [ICMP, HOPS],
        source: report.reporter.0,
        destination: report.sender.0,
    };
    store_frame(frame, &back, &header)?;
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the frame is the program's context, the slot holds `size` bytes; the kernel checks the frame's bounds.
    match unsafe { bpf_skb_store_bytes(frame.skb(), HEADERS, message.cast(), size, flags) } {
        0 => Ok(()),
        _ => Err(DropReason::RewriteFailed),
    }
}

// === impl Ipv6 ===

impl Write for Ipv6 {
    const ICMP_HAS_PSEUDO_HEADER: bool = true;

    /// One write for hop limit and addresses.
    #[inline(always)]
    fn write_header(
        packet: &Packet<Self>,
        source: Ipv6Address,
        destination: Ipv6Address,
        _change: u32,
        hop: u8,
    ) -> Result<(), DropReason> {
        let rest = rest(packet, source, destination, hop)?;
        store_with(packet.frame, packet.header + REST, &rest, BPF_F_RECOMPUTE_CSUM)
    }

    #[inline(always)]
    fn turn_into_too_big(frame: Frame, mtu: u32, reporter: Ipv6Address, sender: Ipv6Address) -> Result<(), DropReason> {
        turn_into_report(&Report {
            frame,
            kind: TOO_BIG,
            code: 0,
            parameter: mtu,
            reporter,
            sender,
        })
    }

    #[inline(always)]
    fn turn_into_unreachable(
        frame: Frame,
        no_port: bool,
        reporter: Ipv6Address,
        sender: Ipv6Address,
    ) -> Result<(), DropReason> {
        const UNREACHABLE: u8 = 1;
        /// The codes (RFC 4443, 3.1).
        const PROHIBITED: u8 = 1;
        const UNREACHABLE_PORT: u8 = 4;
        turn_into_report(&Report {
            frame,
            kind: UNREACHABLE,
            code: if no_port { UNREACHABLE_PORT } else { PROHIBITED },
            parameter: 0,
            reporter,
            sender,
        })
    }

    #[inline(always)]
    fn turn_into_reset(
        frame: Frame,
        mut tcp: [u32; 5],
        source: Ipv6Address,
        destination: Ipv6Address,
    ) -> Result<(), DropReason> {
        const TCP: u8 = 6;
        const HOPS: u8 = 64;
        const SIZE: u32 = size_of::<Reset>() as u32;
        let ethernet = frame.ethernet()?;
        let mut pseudo = add(20_u32.to_be(), u32::from(TCP).to_be());
        for word in 0..4 {
            pseudo = add(pseudo, add(source.0[word], destination.0[word]));
        }
        complete(&mut tcp, pseudo);
        // SAFETY: the frame is the program's context. No packet pointer is alive across the call.
        if unsafe { bpf_skb_change_tail(frame.skb(), ETHERNET + SIZE, 0) } != 0 {
            return Err(DropReason::RewriteFailed);
        }
        let back = EthernetHeader {
            destination: ethernet.source,
            source: ethernet.destination,
            ether_type: ETHER_TYPE,
        };
        let header = NewHeader {
            version: VERSION,
            payload_length: 20_u16.to_be(),
            next_and_hops: [TCP, HOPS],
            source: source.0,
            destination: destination.0,
        };
        store_frame(frame, &back, &Reset { header, tcp })
    }

    /// The message around it makes up for the addresses, so that the frame's sum does not notice.
    #[inline(always)]
    fn write_quoted_header(
        quoted: &Packet<Self>,
        source: Ipv6Address,
        destination: Ipv6Address,
        change: u32,
    ) -> Result<u32, DropReason> {
        let rest = rest(quoted, source, destination, 0)?;
        store(quoted.frame, quoted.header + REST, &rest)?;
        Ok(change)
    }
}

/// Where what changes starts, bytes from the start of the IP header.
const REST: u32 = (size_of::<Ipv6Header>() - size_of::<Ipv6Rest>()) as u32;

#[inline(always)]
fn rest(packet: &Packet<Ipv6>, source: Ipv6Address, destination: Ipv6Address, hop: u8) -> Result<Ipv6Rest, DropReason> {
    let old = packet.frame.read_beyond::<Ipv6Header>(packet.header)?.rest;
    let [next, hops] = old.next_and_hops;
    Ok(Ipv6Rest {
        next_and_hops: [next, hops.wrapping_sub(hop)],
        source: source.0,
        destination: destination.0,
    })
}
