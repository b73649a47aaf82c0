//! Reading IPv6: a header of fixed length, and perhaps a chain of others before what it carries.

use sluice_datapath_common::{DropReason, Ipv6, Ipv6Address};

use super::{
    ETHERNET, Facts, Fragment, Frame, Layer4, Packet, Read, TCP, UDP,
    above::{Above, is_tiny, least_header, read_above},
    number, outcome,
};
use crate::key::{End, flow_key};

/// ICMPv6 as an IP protocol number.
const ICMP: u8 = 58;
/// Extension headers by their numbers (IANA).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// RFC 8200.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Ipv6Header {
    version: [u8; 4],
    payload_length: u16,
    /// What follows the payload's length holds all that is ever changed.
    pub rest: Ipv6Rest,
}

/// RFC 8200: from the next header on.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Ipv6Rest {
    /// What follows the header, and the hops the packet may still take.
    pub next_and_hops: [u8; 2],
    /// Network byte order.
    pub source: [u32; 4],
    /// Network byte order.
    pub destination: [u32; 4],
}

/// RFC 8200: how every extension header begins that may be skipped, and the first bytes of what differs.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Extension {
    next: u8,
    /// Units of 8 bytes, the first not counted.
    length: u8,
    /// Routing header: its type and the segments that are left. Fragment header: offset in units of 8 bytes, and whether more follow; big endian.
    detail: [u8; 2],
    /// Fragment header: the number of the datagram.
    identification: u32,
}

/// RFC 4861: a solicitation or advertisement of a neighbour, without options.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct NeighbourMessage {
    _kind: u8,
    _code: u8,
    _checksum: u16,
    _flags: u32,
    /// Whom it is about, network byte order.
    pub target: [u32; 4],
}

/// RFC 4861: the option that tells a MAC.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct LinkLayerOption {
    /// 1: the sender's.
    pub kind: u8,
    _length: u8,
    /// The MAC.
    pub mac: [u16; 3],
}

// === impl Ipv6 ===

impl Read for Ipv6 {
    #[inline(always)]
    fn read(frame: Frame, header: u32, scope: u32, quoted: bool, facts: &mut Facts<Self>) -> Result<(), DropReason> {
        let ip: Ipv6Header = if quoted {
            frame.read_beyond(header)?
        } else {
            frame.read(header)?
        };
        if ip.version[0] >> 4 != 6 {
            return Err(DropReason::Truncated);
        }
        facts.header = header;
        facts.above = header + size_of::<Ipv6Header>() as u32;
        facts.fragment = Fragment::Whole;
        facts.key.protocol = ip.rest.next_and_hops[0];
        facts.length = u32::from(u16::from_be(ip.payload_length));
        facts.offset = 0;
        if !matches!(facts.key.protocol, TCP | UDP | ICMP) {
            outcome(walk(frame, facts))?;
        }
        let protocol = facts.key.protocol;
        facts.length = facts
            .length
            .saturating_sub(facts.above - header - size_of::<Ipv6Header>() as u32);
        if !quoted && is_tiny(facts.fragment, facts.offset, facts.length, least_header(protocol)) {
            return Err(DropReason::TinyFragment);
        }
        let read = match facts.fragment {
            Fragment::Later => Above::portless(Layer4::Continuation),
            _ => read_above::<Self>(frame, facts.above, protocol, quoted)?,
        };
        let source = End {
            address: Ipv6Address(ip.rest.source),
            port: read.ports.source,
        };
        let destination = End {
            address: Ipv6Address(ip.rest.destination),
            port: read.ports.destination,
        };
        facts.key = flow_key(source, destination, scope, protocol);
        facts.layer4 = read.layer4;
        facts.tcp_flags = read.tcp_flags;
        Ok(())
    }

    /// Its sender may, and nobody else (RFC 8200, 5).
    #[inline(always)]
    fn may_be_cut(_packet: &Packet<Self>) -> bool {
        false
    }

    #[inline(always)]
    fn hops(packet: &Packet<Self>) -> Result<u8, DropReason> {
        let ip: Ipv6Header = packet.frame.read_beyond(packet.header)?;
        Ok(ip.rest.next_and_hops[1])
    }

    #[inline(always)]
    fn source_of_unread(frame: Frame) -> Option<Ipv6Address> {
        let ip: Ipv6Header = frame.read(ETHERNET).ok()?;
        Some(Ipv6Address(ip.rest.source))
    }

    #[inline(always)]
    fn identification(packet: &Packet<Self>) -> Result<u32, DropReason> {
        Ok(packet.identification)
    }
}

/// Walks the extension headers from `above` on and leaves there where they end, with what is above them and whether it is a fragment. Out of line,
/// being rare; it writes to a map, of which the verifier knows nothing afterwards.
///
/// What is encrypted or signed (ESP, AH) and whatever we do not know counts as the layer above, one without ports.
#[inline(never)]
fn walk(frame: Frame, facts: &mut Facts<Ipv6>) -> u32 {
    number(walk_inline(frame, facts))
}

#[inline(always)]
fn walk_inline(frame: Frame, facts: &mut Facts<Ipv6>) -> Result<(), DropReason> {
    /// How many headers, and how many bytes of them, are read at most.
    const HEADERS: u32 = 6;
    const BYTES: u32 = 256;
    let (mut next, mut length) = (facts.key.protocol, 0);
    for _ in 0..HEADERS {
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            facts.key.protocol = next;
            facts.above += length;
            return Ok(());
        }
        let extension: Extension = frame.read_beyond(facts.above + length)?;
        if next == FRAGMENT {
            /// More fragments follow; the three bits below the offset are not part of it.
            const MORE: u16 = 1;
            let place = u16::from_be_bytes(extension.detail);
            facts.identification = extension.identification;
            // The offset stands above three other bits, in units of eight bytes.
            facts.offset = u32::from(place & !7);
            facts.fragment = match (place >> 3, place & MORE) {
                // All of a datagram in one fragment (RFC 6946).
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            length += 8;
            if facts.fragment == Fragment::Later {
                facts.key.protocol = extension.next;
                facts.above += length;
                return Ok(());
            }
        } else {
            // A routing header with segments left: the destination is but the next stop, and the sums above know another.
            if next == ROUTING && extension.detail[1] != 0 {
                return Err(DropReason::SourceRouted);
            }
            length += 8 + 8 * u32::from(extension.length);
        }
        next = extension.next;
        if length > BYTES {
            return Err(DropReason::ExtensionHeaders);
        }
    }
    Err(DropReason::ExtensionHeaders)
}
