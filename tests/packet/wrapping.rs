//! Packets between hosts (VXLAN, RFC 7348), put together and taken apart.

use std::net::IpAddr;

use crate::frame::{Frame, Mac, checksum};

/// What stands around a frame.
#[derive(Clone, Copy, Debug)]
pub struct Wrapping {
    pub macs: (Mac, Mac),
    pub from: IpAddr,
    pub to: IpAddr,
    pub port: u16,
    /// VXLAN's flags: 8 says that there is a VNI.
    pub flags: u8,
    pub vni: u32,
    /// What routers say of the traffic (RFC 3168).
    pub marks: u8,
}

/// What was around a frame, and the frame.
#[derive(Debug)]
pub struct Unwrapped {
    pub from: IpAddr,
    pub to: IpAddr,
    pub port: u16,
    pub vni: u32,
    pub inner: Frame,
}

/// A frame in a packet between hosts, which is sent by the first of the MACs to the second.
pub fn wrapped(around: &Wrapping, inner: &Frame) -> Frame {
    let mut above = [50_000u16.to_be_bytes(), around.port.to_be_bytes()].concat();
    above.extend((16 + inner.0.len() as u16).to_be_bytes());
    above.extend([0, 0, around.flags, 0, 0, 0]);
    above.extend((around.vni << 8).to_be_bytes());
    above.extend(&inner.0);
    let mut frame = [around.macs.1, around.macs.0].concat();
    match (around.from, around.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, around.marks];
            ip.extend((20 + above.len() as u16).to_be_bytes());
            ip.extend([0, 7, 0, 0, 64, 17, 0, 0]);
            ip.extend([from.octets(), to.octets()].concat());
            let sum = checksum(&ip).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            frame.extend([8, 0]);
            frame.extend(ip);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, around.marks << 4, 0, 0]);
            frame.extend((above.len() as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend([from.octets(), to.octets()].concat());
        }
        _ => panic!("an underlay is of one family"),
    }
    frame.extend(above);
    Frame(frame)
}

/// Takes a packet apart that the datapath has made; what must be right in every one is looked at. Its Ethernet header is written when it leaves, by
/// the kernel's neighbour table.
pub fn take_apart(frame: &Frame) -> Result<Unwrapped, String> {
    let bytes = &frame.0;
    if bytes.len() < 14 + 40 + 16 + 14 {
        return Err(format!("too short to be one between hosts: {frame:?}"));
    }
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let must = |holds: bool, what: &str| holds.then_some(()).ok_or_else(|| format!("{what} is wrong: {frame:?}"));
    let (from, to, above): (IpAddr, IpAddr, usize) = if bytes[14] >> 4 == 4 {
        must(checksum(&bytes[14..34]) == 0, "the outer header's sum")?;
        must(usize::from(word(16)) == bytes.len() - 14, "the outer length")?;
        must(word(20) == 0, "that it may be cut up")?;
        must((bytes[14], bytes[22], bytes[23]) == (0x45, 64, 17), "the outer header")?;
        let address = |at: usize| IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (address(26), address(30), 34)
    } else {
        must((bytes[14], bytes[20], bytes[21]) == (0x60, 17, 64), "the outer header")?;
        must(usize::from(word(18)) == bytes.len() - 54, "the outer length")?;
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
        (address(22), address(38), 54)
    };
    must(usize::from(word(above + 4)) == bytes.len() - above, "UDP's length")?;
    must(word(above + 6) == 0, "that there is no outer checksum")?;
    must(bytes[above + 8..above + 12] == [8, 0, 0, 0], "VXLAN's flags")?;
    must(bytes[above + 15] == 0, "what is reserved")?;
    must(word(above) >= 49_152, "the source port")?;
    Ok(Unwrapped {
        from,
        to,
        port: word(above + 2),
        vni: u32::from_be_bytes([0, bytes[above + 12], bytes[above + 13], bytes[above + 14]]),
        inner: Frame(bytes[above + 16..].to_vec()),
    })
}
