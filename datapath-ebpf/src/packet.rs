//! All reading: the frame that the kernel hands us, and the packet in it.
//!
//! Pointer arithmetic lives here and in `rewrite`, and nowhere else.

pub mod ipv6;

use core::ptr::read_volatile;

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, helpers::bpf_skb_pull_data, programs::TcContext};
use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv4Address, flow::FlowKey};

use crate::{
    family::Layer3,
    key::{End, flow_key},
};

/// IP protocol numbers.
pub const TCP: u8 = 6;
/// IP protocol numbers.
pub const UDP: u8 = 17;
/// IP protocol numbers.
pub const SCTP: u8 = 132;
/// IP protocol numbers. UDP-Lite (RFC 3828) has UDP's header, but where that has its length it says how much the checksum covers: always the
/// header and the addresses, so that they are translated as UDP's are.
pub const UDP_LITE: u8 = 136;

/// Ethernet types, host byte order.
pub const ETHER_ARP: u16 = 0x0806;

/// TCP flags.
pub const FIN: u8 = 0x01;
/// TCP flags.
pub const SYN: u8 = 0x02;
/// TCP flags.
pub const RST: u8 = 0x04;
/// TCP flags.
pub const ACK: u8 = 0x10;

/// The length of an Ethernet header, bytes.
pub const ETHERNET: u32 = 14;

/// The frame the program was called with.
#[derive(Clone, Copy)]
pub struct Frame {
    skb: *mut __sk_buff,
}

/// A MAC address: six bytes as they stand in the frame, in the low 48 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(u64);

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
    /// The source of a packet that cannot be read to its end. Without any, it is no packet.
    fn source_of_unread(frame: Frame) -> Option<Self::Address>;
    /// The number of the datagram that the packet is a fragment of.
    fn identification(packet: &Packet<Self>) -> Result<u32, DropReason>;
}

// Fields of headers lie at even offsets and the kernel keeps the frame at an even address, hence `packed(2)`: the compiler then reads
// 16 bits at a time, where `packed` alone would make it read byte by byte.

/// IEEE 802.3.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct EthernetHeader {
    /// Receiver.
    pub destination: [u16; 3],
    /// Sender.
    pub source: [u16; 3],
    /// Big endian.
    pub ether_type: u16,
}

/// RFC 826, for IPv4 over Ethernet.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct ArpHeader {
    /// 1: Ethernet. Big endian, as all others.
    pub hardware: u16,
    /// 0x0800: IPv4.
    pub protocol: u16,
    /// 6 and 4, the lengths of their addresses.
    pub lengths: u16,
    /// 1: who has, 2: is at.
    pub operation: u16,
    /// Who speaks.
    pub sender_mac: [u16; 3],
    /// Who speaks.
    pub sender: u32,
    /// Whom it is about.
    pub target_mac: [u16; 3],
    /// Whom it is about.
    pub target: u32,
}

/// RFC 791, without options.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Ipv4Header {
    version_and_length: u8,
    _service: u8,
    total_length: u16,
    identification: u16,
    fragment: u16,
    /// The second half, which holds all that is ever changed.
    pub rest: Ipv4Rest,
}

/// RFC 791: from the time to live on.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Ipv4Rest {
    /// The hops it may still take and the protocol above.
    pub hops_and_protocol: [u8; 2],
    /// The header's checksum, packet order.
    pub checksum: u16,
    /// Network byte order.
    pub source: u32,
    /// Network byte order.
    pub destination: u32,
}

/// RFC 9293, as far as we read it.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct TcpHeader {
    ports: Ports,
    _sequence: u32,
    _acknowledgement: u32,
    _length: u8,
    flags: u8,
    _window: u16,
    _checksum: u16,
    _urgent: u16,
}

/// RFC 768. ICMP's header has the same length.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct UdpHeader {
    ports: Ports,
    _length: u16,
    _checksum: u16,
}

/// RFC 9260, with the beginning of the first chunk.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct SctpHeader {
    ports: Ports,
    _tag: u32,
    _checksum: u32,
    chunk: u8,
    _chunk_flags: u8,
    _chunk_length: u16,
}

/// RFC 792.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct IcmpHeader {
    kind: u8,
    _code: u8,
    _checksum: u16,
    identifier: u16,
    _sequence: u16,
}

#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

// === impl Frame ===

impl Frame {
    /// The frame of a program's context.
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self {
            skb: ctx.as_ptr().cast(),
        }
    }

    /// The frame of a context that was handed on.
    #[inline(always)]
    pub fn of_skb(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// The context as the kernel's helpers want it.
    #[inline(always)]
    pub fn context(self) -> *mut core::ffi::c_void {
        self.skb.cast()
    }

    /// The same, for helpers of socket buffers.
    #[inline(always)]
    pub fn skb(self) -> *mut __sk_buff {
        self.skb
    }

    /// Its length, bytes, Ethernet header included.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: `skb` is the program's context; the verifier turns the read into one of the real field. The same goes for those below.
        unsafe { read_volatile(&raw const (*self.skb).len) }
    }

    /// The device it is on.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: see `len`.
        unsafe { read_volatile(&raw const (*self.skb).ifindex) }
    }

    /// Its Ethernet type, host byte order.
    #[inline(always)]
    pub fn ether_type(self) -> u16 {
        // SAFETY: see `len`.
        u16::from_be(unsafe { read_volatile(&raw const (*self.skb).protocol) } as u16)
    }

    /// Does it bear a VLAN tag?
    #[inline(always)]
    pub fn is_tagged(self) -> bool {
        // SAFETY: see `len`.
        unsafe { read_volatile(&raw const (*self.skb).vlan_present) != 0 }
    }

    /// Does the kernel take it for addressed to this device (`PACKET_HOST`)?
    #[inline(always)]
    pub fn is_for_us(self) -> bool {
        // SAFETY: see `len`.
        unsafe { read_volatile(&raw const (*self.skb).pkt_type) == 0 }
    }

    /// The MACs it bears.
    #[inline(always)]
    pub fn ethernet(self) -> Result<EthernetHeader, DropReason> {
        self.read(0)
    }

    /// A copy of the `T` at `offset`. What lies beyond the linear part is pulled in first.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: u32) -> Result<T, DropReason> {
        if let Some(header) = self.at::<T>(offset) {
            // SAFETY: `at` has checked the bounds; `T` is a header of integers, any bytes are one.
            return Ok(unsafe { *header });
        }
        if pull(self.skb, offset + size_of::<T>() as u32) != 0 {
            return Err(DropReason::Truncated);
        }
        // SAFETY: as above.
        self.at::<T>(offset)
            .map(|header| unsafe { *header })
            .ok_or(DropReason::Truncated)
    }

    /// The same where headers before it differ in length, within the first 1024 bytes: no header we read starts beyond.
    ///
    /// The compiler knows the bound and leaves it away; the verifier, which has lost sight of it by then, does not. So the compiler is made to
    /// forget it too (volatile).
    #[inline(always)]
    pub fn read_beyond<T: Copy>(self, offset: u32) -> Result<T, DropReason> {
        // SAFETY: a read of a value on the stack.
        self.read(unsafe { read_volatile(&raw const offset) } & 0x3ff)
    }

    /// Where the `T` at `offset` lies, if it is in the linear part.
    ///
    /// Both ends are read anew each time (volatile): the compiler would otherwise carry one over a call that moves the frame, or extend the
    /// 32-bit field by arithmetic that the verifier refuses on packet pointers.
    #[inline(always)]
    fn at<T>(self, offset: u32) -> Option<*const T> {
        // SAFETY: see `len`.
        let start = unsafe { read_volatile(&raw const (*self.skb).data) } as usize;
        // SAFETY: see `len`.
        let end = unsafe { read_volatile(&raw const (*self.skb).data_end) } as usize;
        let header = start + offset as usize;
        (header + size_of::<T>() <= end).then_some(header as *const T)
    }
}

/// Makes the first `length` bytes linear. A function of its own, being rare.
#[cold]
#[inline(never)]
fn pull(skb: *mut __sk_buff, length: u32) -> i64 {
    // SAFETY: `skb` is the program's context; the kernel checks the length. No packet pointer is alive across the call.
    unsafe { bpf_skb_pull_data(skb, length) }
}

// === impl Mac ===

impl Mac {
    /// From the bytes as they are written.
    #[inline(always)]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self::from_words([
            u16::from_ne_bytes([bytes[0], bytes[1]]),
            u16::from_ne_bytes([bytes[2], bytes[3]]),
            u16::from_ne_bytes([bytes[4], bytes[5]]),
        ])
    }

    /// From the words as they stand in the frame.
    #[inline(always)]
    pub const fn from_words(words: [u16; 3]) -> Self {
        Self(words[0] as u64 | (words[1] as u64) << 16 | (words[2] as u64) << 32)
    }

    /// As they stand in the frame.
    #[inline(always)]
    pub const fn words(self) -> [u16; 3] {
        [self.0 as u16, (self.0 >> 16) as u16, (self.0 >> 32) as u16]
    }

    /// Is it for many (multicast or broadcast)?
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.words()[0].to_ne_bytes()[0] & 1 != 0
    }
}

// === impl EthernetHeader ===

impl EthernetHeader {
    /// Who sends the frame.
    #[inline(always)]
    pub fn sender(&self) -> Mac {
        Mac::from_words(self.source)
    }

    /// Who is to take it.
    #[inline(always)]
    pub fn receiver(&self) -> Mac {
        Mac::from_words(self.destination)
    }
}

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
        above + size_of::<IcmpHeader>() as u32,
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

// === impl Ipv4 ===

impl Read for Ipv4 {
    #[inline(always)]
    fn read(frame: Frame, header: u32, scope: u32, quoted: bool, facts: &mut Facts<Self>) -> Result<(), DropReason> {
        /// The fragment field, host byte order: more fragments follow.
        const MORE: u16 = 0x2000;
        /// The fragment field, host byte order: the offset in units of 8 bytes.
        const OFFSET: u16 = 0x1fff;

        let ip: Ipv4Header = if quoted {
            frame.read_beyond(header)?
        } else {
            frame.read(header)?
        };
        let length = u32::from(ip.version_and_length & 0x0f) * 4;
        if ip.version_and_length >> 4 != 4 || length < size_of::<Ipv4Header>() as u32 {
            return Err(DropReason::Truncated);
        }
        let above = header + length;
        let protocol = ip.rest.hops_and_protocol[1];
        let above_length = u32::from(u16::from_be(ip.total_length)).saturating_sub(length);
        let place = u16::from_be(ip.fragment);
        let fragment = match (place & OFFSET, place & MORE) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        };
        if !quoted
            && is_tiny(
                fragment,
                u32::from(place & OFFSET) * 8,
                above_length,
                least_header(protocol),
            )
        {
            return Err(DropReason::TinyFragment);
        }
        let read = match fragment {
            Fragment::Later => Above {
                layer4: Layer4::Continuation,
                tcp_flags: 0,
                ports: Ports {
                    source: 0,
                    destination: 0,
                },
            },
            _ => read_above::<Self>(frame, above, protocol, quoted)?,
        };
        let source = End {
            address: Ipv4Address(ip.rest.source),
            port: read.ports.source,
        };
        let destination = End {
            address: Ipv4Address(ip.rest.destination),
            port: read.ports.destination,
        };
        let key = flow_key(source, destination, scope, protocol);
        let (layer4, tcp_flags) = (read.layer4, read.tcp_flags);
        *facts = Facts {
            key,
            header,
            above,
            layer4,
            tcp_flags,
            fragment,
            identification: 0,
            length: above_length,
            offset: 0,
        };
        Ok(())
    }

    #[inline(always)]
    fn hops(packet: &Packet<Self>) -> Result<u8, DropReason> {
        let ip: Ipv4Header = packet.frame.read_beyond(packet.header)?;
        Ok(ip.rest.hops_and_protocol[0])
    }

    /// What cannot be read is none.
    #[inline(always)]
    fn source_of_unread(_frame: Frame) -> Option<Ipv4Address> {
        None
    }

    #[inline(always)]
    fn identification(packet: &Packet<Self>) -> Result<u32, DropReason> {
        let ip: Ipv4Header = packet.frame.read_beyond(packet.header)?;
        Ok(u32::from(ip.identification))
    }
}

/// How long the header above is at least, bytes. ICMP's is as long as UDP's.
#[inline(always)]
pub fn least_header(protocol: u8) -> u32 {
    match protocol {
        TCP => size_of::<TcpHeader>() as u32,
        SCTP => size_of::<SctpHeader>() as u32,
        _ => size_of::<UdpHeader>() as u32,
    }
}

/// Is it a first fragment without all of the `least` header above, or a later one that lies over it? Either could show us another header than it
/// shows its receiver (RFC 1858, RFC 3128, RFC 7112).
#[inline(always)]
pub fn is_tiny(fragment: Fragment, offset: u32, length: u32, least: u32) -> bool {
    match fragment {
        Fragment::Whole => false,
        Fragment::First => length < least,
        Fragment::Later => offset < least,
    }
}

/// What is read of the layer above.
struct Above {
    layer4: Layer4,
    tcp_flags: u8,
    ports: Ports,
}

/// Reads what tells conversations apart in the layer above.
#[inline(always)]
fn read_above<F: Family>(frame: Frame, above: u32, protocol: u8, quoted: bool) -> Result<Above, DropReason> {
    match protocol {
        TCP if !quoted => {
            let tcp: TcpHeader = frame.read_beyond(above)?;
            Ok(Above {
                layer4: Layer4::Tcp,
                tcp_flags: tcp.flags,
                ports: tcp.ports,
            })
        }
        SCTP if !quoted => {
            let sctp: SctpHeader = frame.read_beyond(above)?;
            Ok(Above {
                layer4: Layer4::Sctp,
                tcp_flags: flags_of_chunk(sctp.chunk),
                ports: sctp.ports,
            })
        }
        TCP | UDP | UDP_LITE | SCTP => {
            // Eight bytes: all of UDP's header, and what an ICMP error must quote of the others'.
            let udp: UdpHeader = frame.read_beyond(above)?;
            let layer4 = match protocol {
                TCP => Layer4::Tcp,
                SCTP => Layer4::Sctp,
                _ => Layer4::Udp,
            };
            Ok(Above {
                layer4,
                tcp_flags: 0,
                ports: udp.ports,
            })
        }
        protocol if protocol == F::ICMP => {
            let icmp: IcmpHeader = frame.read_beyond(above)?;
            let layer4 = icmp_kind::<F>(icmp.kind);
            let identifier = if layer4 == Layer4::Echo { icmp.identifier } else { 0 };
            Ok(Above {
                layer4,
                tcp_flags: 0,
                ports: Ports {
                    source: identifier,
                    destination: identifier,
                },
            })
        }
        _ => Ok(Above {
            layer4: Layer4::Portless,
            tcp_flags: 0,
            ports: Ports {
                source: 0,
                destination: 0,
            },
        }),
    }
}

/// What an SCTP packet's first chunk means for the conversation, in TCP's words (RFC 9260).
#[inline(always)]
fn flags_of_chunk(chunk: u8) -> u8 {
    match chunk {
        // INIT
        1 => SYN,
        // INIT ACK
        2 => SYN | ACK,
        // ABORT, SHUTDOWN COMPLETE
        6 | 14 => RST,
        _ => 0,
    }
}

/// Which ICMP messages bear an identifier, and which quote a packet.
#[inline(always)]
fn icmp_kind<F: Family>(kind: u8) -> Layer4 {
    match (F::AF == Ipv4::AF, kind) {
        // echo reply and request, timestamp and its reply (RFC 792); echo request and reply (RFC 4443)
        (true, 0 | 8 | 13 | 14) | (false, 128 | 129) => Layer4::Echo,
        // unreachable, source quench, time exceeded, parameter problem (RFC 792); the same and packet too big (RFC 4443)
        (true, 3 | 4 | 11 | 12) | (false, 1..=4) => Layer4::Error,
        (false, 130..=137 | 143) => Layer4::Discovery,
        _ => Layer4::Portless,
    }
}
