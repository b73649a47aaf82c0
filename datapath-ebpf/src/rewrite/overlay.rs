//! Wrapping packets up for the underlay, and unwrapping them (VXLAN, RFC 7348).
//!
//! The room is made between the Ethernet header and the packet, so that what stood before it is the outer frame's and is not written at all: the
//! neighbour table fills it in when the packet leaves. `FIXED_GSO`: a super-packet is still cut up as its sender meant it to be. The outer UDP checksum
//! is none (RFC 7348, RFC 6935): the inner one covers what matters, and the NIC may still have to finish that.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_skb_adjust_room, bpf_skb_store_bytes},
};
use sluice_datapath_common::{
    DropReason, Ipv4, Ipv6,
    checksum::{add, fold},
    overlay::{Host, OVERHEAD4, OVERHEAD6},
};

use super::store;
use crate::{
    maps::{REPORT, REPORT_WORDS},
    packet::{ETHERNET, EthernetHeader, Frame, UDP, overlay::Wrapping},
};

/// `BPF_F_ADJ_ROOM_ENCAP_L2(14)`: the frame within begins with an Ethernet header.
const ETHERNET_WITHIN: u64 = (ETHERNET as u64) << 56;
/// UDP's and VXLAN's, bytes.
const HEADERS: u32 = 8 + 8;
/// How many routers the outer packet may pass.
const HOPS: u8 = 64;

/// Everything behind the outer IP header.
#[repr(C, packed(2))]
pub struct Above {
    source_port: u16,
    destination_port: u16,
    length: u16,
    checksum: u16,
    header: [u32; 2],
    ethernet: [u16; 7],
}

/// What an underlay of IPv4 has before a frame, from the IP header on.
#[repr(C, packed(2))]
pub struct Outer4 {
    version_and_length: [u16; 2],
    identification: [u16; 2],
    hops_and_protocol: [u16; 2],
    source: u32,
    destination: u32,
    above: Above,
}

/// What an underlay of IPv6 has before a frame, from the IP header on.
#[repr(C, packed(2))]
pub struct Outer6 {
    version: u32,
    length: u16,
    next_and_hops: u16,
    source: [u32; 4],
    destination: [u32; 4],
    above: Above,
}

const _: () = assert!(size_of::<Outer4>() == OVERHEAD4 as usize && size_of::<Outer6>() == OVERHEAD6 as usize);
const _: () = assert!(size_of::<Outer6>() <= 4 * REPORT_WORDS);

/// Where this CPU writes down what goes before a packet: on the stack there is no room.
#[inline(always)]
pub fn scratch<T>() -> Option<*mut T> {
    const { assert!(size_of::<T>() <= 4 * REPORT_WORDS && align_of::<T>() <= 4) }
    REPORT.get_ptr_mut(0).map(|words| words.cast())
}

/// A family that carries packets between hosts.
pub trait Underlay {
    /// What it adds to a packet, bytes.
    const OVERHEAD: u32;
    /// What the kernel is told when room is made for its header.
    const GROWS: u32;
    /// What the kernel is told when a packet of this family comes out of one of the other.
    const COMES_OUT: u32;

    /// What it writes before a packet.
    type Outer;

    /// The part of it behind the IP header.
    ///
    /// # Safety
    /// `outer` can be written to.
    unsafe fn above(outer: *mut Self::Outer) -> *mut Above;

    /// Writes the outer IP header of a frame of this length, Ethernet header included.
    ///
    /// # Safety
    /// As above.
    unsafe fn write(outer: *mut Self::Outer, host: &Host, length: u32);
}

/// Puts the frame into a packet to another host. An error leaves it as it was.
#[inline(always)]
pub fn wrap<F: Underlay>(frame: Frame, host: &Host, vni: u32) -> Result<(), DropReason> {
    let Some(outer) = scratch::<F::Outer>() else {
        return Err(DropReason::RewriteFailed);
    };
    let length = frame.len();
    // Spreads conversations over the ways between the hosts and over the other's CPUs (RFC 7348, 5).
    // SAFETY: the frame is the program's context.
    let hash = unsafe { bpf_get_hash_recalc(frame.skb()) };
    let ethernet = frame.read::<[u16; 7]>(0)?;
    let [flags, vni] = Wrapping::header(vni);
    // Field by field: a whole value would be made on the stack first.
    // SAFETY: the scratch is this CPU's own, and large enough.
    unsafe {
        let above = F::above(outer);
        (*above).source_port = (0xc000 | (hash ^ hash >> 16) as u16 & 0x3fff).to_be();
        (*above).destination_port = host.port;
        (*above).length = ((length + HEADERS) as u16).to_be();
        (*above).checksum = 0;
        (*above).header[0] = flags;
        (*above).header[1] = vni;
        (*above).ethernet = ethernet;
        F::write(outer, host, length + F::OVERHEAD);
    }
    let flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH | F::GROWS;
    let flags = u64::from(flags) | ETHERNET_WITHIN;
    // SAFETY: the frame is the program's context, and no packet pointer is alive across the calls; `outer` was written to its end.
    unsafe {
        if bpf_skb_adjust_room(frame.skb(), F::OVERHEAD as i32, BPF_ADJ_ROOM_MAC, flags) != 0
            || bpf_skb_store_bytes(frame.skb(), ETHERNET, outer.cast(), F::OVERHEAD, 0) != 0
        {
            return Err(DropReason::RewriteFailed);
        }
    }
    Ok(())
}

/// Takes `room` bytes behind the Ethernet header away, which is replaced by the inner one. False: the kernel cannot do that (one before Linux 6.3 does
/// not change the family), and nothing has happened.
#[inline(always)]
pub fn unwrap(frame: Frame, room: u32, flags: u32, ethernet: &EthernetHeader) -> Result<bool, DropReason> {
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | flags);
    // SAFETY: the frame is the program's context. No packet pointer is alive across the call.
    match unsafe { bpf_skb_adjust_room(frame.skb(), -(room as i32), BPF_ADJ_ROOM_MAC, flags) } {
        0 => store(frame, 0, ethernet).map(|()| true),
        _ => Ok(false),
    }
}

// === impl Ipv4, Ipv6 ===

impl Underlay for Ipv4 {
    const OVERHEAD: u32 = OVERHEAD4;
    const GROWS: u32 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
    const COMES_OUT: u32 = BPF_F_ADJ_ROOM_DECAP_L3_IPV4;
    type Outer = Outer4;

    #[inline(always)]
    unsafe fn above(outer: *mut Outer4) -> *mut Above {
        // SAFETY: the caller's promise.
        unsafe { &raw mut (*outer).above }
    }

    /// Routers may cut it up: a lost "don't fragment" would be told to this host, which has not sent the packet within. Hence a number of its own.
    #[inline(always)]
    unsafe fn write(outer: *mut Outer4, host: &Host, length: u32) {
        let version = u16::from_ne_bytes([0x45, 0]);
        let length = (length as u16).wrapping_sub(ETHERNET as u16).to_be();
        // SAFETY: no arguments.
        let identification = unsafe { bpf_get_prandom_u32() } as u16;
        let hops = u16::from_ne_bytes([HOPS, UDP]);
        let (source, destination) = (host.source.0[3], host.address.0[3]);
        let word = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let mut sum = add(word(version, length), word(identification, hops));
        sum = add(sum, add(source, destination));
        // SAFETY: the caller's promise.
        unsafe {
            (*outer).version_and_length = [version, length];
            (*outer).identification = [identification, 0];
            (*outer).hops_and_protocol = [hops, !fold(sum)];
            (*outer).source = source;
            (*outer).destination = destination;
        }
    }
}

impl Underlay for Ipv6 {
    const OVERHEAD: u32 = OVERHEAD6;
    const GROWS: u32 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
    const COMES_OUT: u32 = BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
    type Outer = Outer6;

    #[inline(always)]
    unsafe fn above(outer: *mut Outer6) -> *mut Above {
        // SAFETY: the caller's promise.
        unsafe { &raw mut (*outer).above }
    }

    #[inline(always)]
    unsafe fn write(outer: *mut Outer6, host: &Host, length: u32) {
        const HEADER: u32 = 40;
        // SAFETY: the caller's promise.
        unsafe {
            (*outer).version = 0x6000_0000_u32.to_be();
            (*outer).length = ((length - ETHERNET - HEADER) as u16).to_be();
            (*outer).next_and_hops = u16::from_ne_bytes([UDP, HOPS]);
            (*outer).source = host.source.0;
            (*outer).destination = host.address.0;
        }
    }
}
