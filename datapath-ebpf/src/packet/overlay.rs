//! Reading what another host has encapsulated (VXLAN, RFC 7348).

use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6};

use super::{ETHERNET, EthernetHeader, Frame, UDP};

/// The header, and the Ethernet header of the frame that follows it.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Wrapping {
    flags: [u8; 4],
    /// The network between hosts in the upper 24 bits, big endian.
    vni: u32,
    /// The frame's own.
    pub ethernet: EthernetHeader,
}

/// How long UDP's header is, bytes.
const UDP_HEADER: u32 = 8;
/// A frame is in it, behind that of UDP.
const WITHIN: u32 = UDP_HEADER + 8;

impl Wrapping {
    /// The header of VXLAN alone.
    #[inline(always)]
    pub const fn header(vni: u32) -> [u32; 2] {
        [u32::from_ne_bytes([Self::HAS_VNI, 0, 0, 0]), (vni << 8).to_be()]
    }

    const HAS_VNI: u8 = 0x08;

    /// What stands behind the UDP header that begins at `above`, bytes from the start of the frame.
    #[inline(always)]
    pub fn read(frame: Frame, above: u32) -> Result<Self, DropReason> {
        frame.read_beyond(above + UDP_HEADER)
    }

    /// The network between hosts.
    #[inline(always)]
    pub fn vni(&self) -> Option<u32> {
        (self.flags[0] & Self::HAS_VNI != 0).then(|| u32::from_be(self.vni) >> 8)
    }
}

/// What is to be taken off behind the outer Ethernet header, bytes, so that the packet within follows it.
#[inline(always)]
pub fn wrapped_by(above: u32) -> u32 {
    above + WITHIN
}

/// Was the outer packet marked on its way by a router that has too much to do (RFC 3168)? What follows from that for the inner one the kernel knows.
#[inline(always)]
pub fn is_congested<F: Family>(frame: Frame) -> bool {
    let Ok([_, second, ..]) = frame.peek(ETHERNET) else {
        return false;
    };
    let marks = if F::AF == Ipv4::AF { second } else { second >> 4 };
    marks & 3 == 3
}

/// Would the kernel have to cut the packet within into datagrams later on? It can do that to what it has decapsulated itself, not to what we have.
#[inline(always)]
pub fn holds_datagrams(frame: Frame, above: u32, ether_type: u16) -> bool {
    if frame.gso_size() == 0 {
        return false;
    }
    // The protocol stands in the IP headers at 9 and at 6.
    let (at, byte) = if ether_type == Ipv6::ETHER_TYPE { (4, 2) } else { (8, 1) };
    let inner = above + WITHIN + ETHERNET;
    frame.peek(inner + at).is_ok_and(|bytes| bytes[byte] == UDP)
}
