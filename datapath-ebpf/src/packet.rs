//! All reading: the frame that the kernel hands us, and the packet in it.
//!
//! Pointer arithmetic lives in `frame` and in `rewrite`, and nowhere else.

mod above;
mod frame;
mod ipv4;
pub mod ipv6;
pub mod overlay;

use sluice_datapath_common::{DropReason, Family, flow::FlowKey};

pub use self::{
    above::{ACK, FIN, RST, SCTP, SYN, TCP, UDP, UDP_LITE},
    frame::{ArpHeader, ETHER_ARP, ETHERNET, EthernetHeader, Frame, Mac},
    ipv4::{Ipv4Header, Ipv4Rest},
};
use crate::family::Layer3;

/// A packet: the frame it is in, and what has been read of it.
pub struct Packet<F: Family> {
    /// The frame it is in.
    pub frame: Frame,
    facts: &'static mut Facts<F>,
}

/// What every stage needs to know of a packet, read once. What only some need (MACs, hops, a fragment's number) they read themselves.
pub struct Facts<F: Family> {
    /// Addresses, ports and protocol as they stand in the packet, and the scope it was read in.
    pub key: FlowKey<F>,
    /// Where the IP header starts, bytes from the start of the frame.
    pub header: u32,
    /// Where the header of the layer above starts, bytes from the start of the frame.
    pub above: u32,
    /// What the layer above is to us.
    pub layer4: Layer4,
    /// TCP flags, or the ones that say the same as an SCTP packet's first chunk; 0 for all else.
    pub tcp_flags: u8,
    /// Whether it is a piece of a larger datagram.
    pub fragment: Fragment,
    /// IPv6: the number of that datagram. IPv4's is read when it is needed.
    pub identification: u32,
    /// How long the layer above is as the IP header has it, bytes. The frame may be longer (padding); that of a quoted packet is shorter.
    pub length: u32,
    /// IPv6: where the fragment begins in its datagram, bytes.
    pub offset: u32,
}

/// The layer above IP by what we can do with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layer4 {
    /// Ports, checksum at 16.
    Tcp,
    /// Ports, checksum at 6.
    Udp,
    /// Ports, CRC at 8, no pseudo header.
    Sctp,
    /// An ICMP question or answer with an identifier at 4, which stands for both ports.
    Echo,
    /// An ICMP error, which quotes the packet it is about.
    Error,
    /// IPv6: who has this address, who routes, who listens to a group (RFC 4861, RFC 2710, RFC 3810). Never leaves the link.
    Discovery,
    /// Everything else: no ports, so nothing to tell two conversations apart by.
    Portless,
    /// A later fragment: what follows the IP header is not the layer's header.
    Continuation,
}

/// A packet's place in its datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// The packet is the datagram.
    Whole,
    /// The first of several: it has the ports.
    First,
    /// One of the others.
    Later,
}

/// How a family's headers are read.
pub trait Read: Family {
    /// Reads the packet whose IP header starts at `header`. A quoted packet (in an ICMP error) may end eight bytes after its IP header.
    fn read(frame: Frame, header: u32, scope: u32, quoted: bool, facts: &mut Facts<Self>) -> Result<(), DropReason>;
    /// How many hops the packet may still take (TTL, hop limit).
    fn hops(packet: &Packet<Self>) -> Result<u8, DropReason>;
    /// May routers cut the packet up?
    fn may_be_cut(packet: &Packet<Self>) -> bool;
    /// The source of a packet that cannot be read to its end. Without any, it is no packet.
    fn source_of_unread(frame: Frame) -> Option<Self::Address>;
    /// The number of the datagram that the packet is a fragment of.
    fn identification(packet: &Packet<Self>) -> Result<u32, DropReason>;
}

// Fields of headers lie at even offsets and the kernel keeps the frame at an even address, hence `packed(2)`: the compiler then reads
// 16 bits at a time, where `packed` alone would make it read byte by byte.

// === impl Packet ===

impl<F: Layer3> Packet<F> {
    /// Reads the frame's packet, which came from `scope`.
    #[inline(always)]
    pub fn read(frame: Frame, scope: u32) -> Result<Self, DropReason> {
        let facts = F::facts(false).ok_or(DropReason::Truncated)?;
        outcome(F::read_packet(frame, scope, facts))?;
        Ok(Self { frame, facts })
    }

    /// The packet of which these facts have been read.
    #[inline(always)]
    pub fn of_facts(frame: Frame, facts: &'static mut Facts<F>) -> Self {
        Self { frame, facts }
    }

    /// Reads the packet that this ICMP error quotes.
    #[inline(always)]
    pub fn quoted(&self) -> Result<Self, DropReason> {
        let facts = F::facts(true).ok_or(DropReason::Truncated)?;
        outcome(F::read_quoted(self.frame, self.above, self.key.scope, facts))?;
        Ok(Self {
            frame: self.frame,
            facts,
        })
    }
}

impl<F: Family> core::ops::Deref for Packet<F> {
    type Target = Facts<F>;

    #[inline(always)]
    fn deref(&self) -> &Facts<F> {
        self.facts
    }
}

impl<F: Family> core::ops::DerefMut for Packet<F> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Facts<F> {
        self.facts
    }
}

/// Out of line, so that the verifier is done with the ways to read a packet before it walks the ways to carry one.
#[inline(always)]
pub fn read_packet<F: Layer3>(frame: Frame, scope: u32, facts: &mut Facts<F>) -> u32 {
    number(F::read(frame, ETHERNET, scope, false, facts))
}

/// The same for the packet that an ICMP error quotes.
#[inline(always)]
pub fn read_quoted<F: Layer3>(frame: Frame, above: u32, scope: u32, facts: &mut Facts<F>) -> u32 {
    number(F::read(
        frame,
        above + size_of::<above::IcmpHeader>() as u32,
        scope,
        true,
        facts,
    ))
}

/// What a function out of line can say: 0, or why it failed.
#[inline(always)]
fn number(outcome: Result<(), DropReason>) -> u32 {
    match outcome {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// What such a number means.
#[inline(always)]
fn outcome(number: u32) -> Result<(), DropReason> {
    match number {
        0 => Ok(()),
        // Every other number was made from a reason. The compiler is not told so: it would leave registers undefined that the verifier then sees read.
        number => Err(DropReason::from_number(number as u8).unwrap_or(DropReason::Truncated)),
    }
}
