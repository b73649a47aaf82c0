//! Writing IPv4 reports (RFC 792, RFC 1191). Most are the host's stack's to write; this is of those that it never sees.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::{bpf_csum_diff, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use sluice_datapath_common::{
    DropReason, Ipv4Address,
    checksum::{add, fold},
};

use super::{complete, store_frame};
use crate::{
    maps::{REPORT, REPORT_WORDS},
    packet::{ETHERNET, EthernetHeader, Frame},
};

/// The header of a packet that the datapath makes itself.
#[repr(C, packed(2))]
struct NewHeader {
    version_and_length: [u16; 2],
    identification: [u16; 2],
    hops_and_protocol: [u16; 2],
    source: u32,
    destination: u32,
}

/// The codes of "unreachable".
pub const UNREACHABLE_PORT: u8 = 3;
/// The packet is longer than the way takes; the parameter says what it takes.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// An administrator is against it.
pub const PROHIBITED: u8 = 13;

/// Turns a frame into the report that the packet in it does not get where it is to go, of which it quotes 252 bytes at most. The MACs are exchanged.
#[inline(always)]
pub fn turn_into_unreachable(
    frame: Frame,
    code: u8,
    parameter: u32,
    reporter: Ipv4Address,
    sender: Ipv4Address,
) -> Result<(), DropReason> {
    const ICMP: u8 = 1;
    const HOPS: u8 = 64;
    const UNREACHABLE: u8 = 3;
    const HEADER: u32 = size_of::<NewHeader>() as u32;
    /// What is quoted is cut to whole words, for the sum.
    const MOST: u32 = 4 * (REPORT_WORDS as u32 - 2);
    let ethernet = frame.ethernet()?;
    let length = (frame.len() - ETHERNET).min(MOST) & !3;
    // The verifier has lost sight of the bound by then, and the compiler knows it too well.
    // SAFETY: a read of a value on the stack.
    let length = unsafe { read_volatile(&raw const length) } & 0xfc;
    if length < HEADER + 8 {
        return Err(DropReason::Truncated);
    }
    let Some(message) = REPORT.get_ptr_mut(0) else {
        return Err(DropReason::RewriteFailed);
    };
    let size = 8 + length;
    // SAFETY: the slot is this CPU's own and holds `REPORT_WORDS` words; the kernel checks the frame's bounds.
    unsafe {
        (*message)[0] = u32::from_ne_bytes([UNREACHABLE, code, 0, 0]);
        (*message)[1] = parameter.to_be();
        let quoted = (&raw mut (*message)[2]).cast();
        if bpf_skb_load_bytes(frame.context(), ETHERNET, quoted, length) != 0 {
            return Err(DropReason::Truncated);
        }
        let sum = bpf_csum_diff(core::ptr::null_mut(), 0, message.cast(), size, 0);
        (*message)[0] |= u32::from(!fold(sum as u32)) << 16;
    }
    // SAFETY: the frame is the program's context. No packet pointer is alive across the call.
    if unsafe { bpf_skb_change_tail(frame.skb(), ETHERNET + HEADER + size, 0) } != 0 {
        return Err(DropReason::RewriteFailed);
    }
    let back = EthernetHeader {
        destination: ethernet.source,
        source: ethernet.destination,
        ether_type: 0x0800_u16.to_be(),
    };
    let header = new_header((HEADER + size) as u16, [HOPS, ICMP], reporter, sender);
    store_frame(frame, &back, &header)?;
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the frame is the program's context, the slot holds `size` bytes; the kernel checks the frame's bounds.
    match unsafe { bpf_skb_store_bytes(frame.skb(), ETHERNET + HEADER, message.cast(), size, flags) } {
        0 => Ok(()),
        _ => Err(DropReason::RewriteFailed),
    }
}

#[inline(always)]
fn new_header(length: u16, hops_and_protocol: [u8; 2], source: Ipv4Address, destination: Ipv4Address) -> NewHeader {
    let version = [u16::from_ne_bytes([0x45, 0]), length.to_be()];
    let hops = u16::from_ne_bytes(hops_and_protocol);
    let word = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    let mut sum = add(word(version[0], version[1]), u32::from(hops));
    sum = add(sum, add(source.0, destination.0));
    NewHeader {
        version_and_length: version,
        identification: [0, 0],
        hops_and_protocol: [hops, !fold(sum)],
        source: source.0,
        destination: destination.0,
    }
}

/// An RST as a whole.
#[repr(C, packed(2))]
struct Reset {
    header: NewHeader,
    tcp: [u32; 5],
}

/// Turns a frame into the RST that answers it, whose TCP header has this sum without the addresses. The MACs are exchanged.
#[inline(always)]
pub fn turn_into_reset(
    frame: Frame,
    mut tcp: [u32; 5],
    source: Ipv4Address,
    destination: Ipv4Address,
) -> Result<(), DropReason> {
    const TCP: u8 = 6;
    const HOPS: u8 = 64;
    const SIZE: u32 = size_of::<Reset>() as u32;
    let ethernet = frame.ethernet()?;
    let pseudo = add(
        add(source.0, destination.0),
        add(20_u32.to_be(), u32::from(TCP).to_be()),
    );
    complete(&mut tcp, pseudo);
    // SAFETY: the frame is the program's context. No packet pointer is alive across the call.
    if unsafe { bpf_skb_change_tail(frame.skb(), ETHERNET + SIZE, 0) } != 0 {
        return Err(DropReason::RewriteFailed);
    }
    let back = EthernetHeader {
        destination: ethernet.source,
        source: ethernet.destination,
        ether_type: 0x0800_u16.to_be(),
    };
    let header = new_header(SIZE as u16, [HOPS, TCP], source, destination);
    store_frame(frame, &back, &Reset { header, tcp })
}
