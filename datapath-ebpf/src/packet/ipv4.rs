//! Reading IPv4: a header of five words, and perhaps options, which nobody looks at.

use sluice_datapath_common::{DropReason, Ipv4, Ipv4Address};

use super::{
    Facts, Fragment, Frame, Layer4, Packet, Read,
    above::{Above, is_tiny, least_header, read_above},
};
use crate::key::{End, flow_key};

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
            Fragment::Later => Above::portless(Layer4::Continuation),
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

    #[inline(always)]
    fn may_be_cut(packet: &Packet<Self>) -> bool {
        /// The fragment field, host byte order.
        const DO_NOT: u16 = 0x4000;
        let ip = packet.frame.read_beyond::<Ipv4Header>(packet.header);
        ip.is_ok_and(|ip| u16::from_be(ip.fragment) & DO_NOT == 0)
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
