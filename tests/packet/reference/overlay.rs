//! Between hosts (VXLAN, RFC 7348): frames that are wrapped up for another host, and what comes out of those that another host has sent.

use std::net::IpAddr;

use sluice_datapath_common::DropReason;
use sluice_datapath_common::overlay::{host_of, network_of, scope_of};

use super::conversation::{Key, Known};
use super::path::{HOST, family_of};
use super::wire::{self, ETHERNET, Kind, Piece, Reading, UDP, read};
use super::world::{Family, family};
use super::{Chosen, Fate, Reference, neighbour};

/// The headers of UDP and VXLAN.
const HEADERS: usize = 8 + 8;
/// Every IPv4 host takes as much (RFC 791), in the smallest wrapping: what is no longer is not measured.
const ALWAYS_FITS: usize = 512;

/// A frame on its way to another host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrapped {
    pub from: IpAddr,
    pub to: IpAddr,
    pub port: u16,
    pub vni: u32,
    pub frame: Vec<u8>,
}

impl Reference {
    /// Is it what another host has encapsulated? Pieces of that are put together by the host.
    pub(super) fn is_wrapped(&self, outer: &Reading) -> bool {
        outer.protocol == UDP
            && outer.piece == Piece::Whole
            && self.world.overlay_port == Some(outer.ports.1)
            && self.world.local.contains_key(&outer.destination)
    }

    /// Hears what another host has encapsulated.
    pub(super) fn hear_wrapped(
        &mut self,
        device: u32,
        frame: &[u8],
        outer: &Reading,
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<Fate, DropReason> {
        let within = outer.above + HEADERS;
        let header = frame
            .get(outer.above + 8..within + ETHERNET)
            .ok_or(DropReason::Truncated)?;
        if header[0] & 8 == 0 {
            return Err(DropReason::UnknownVni);
        }
        let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
        let network = self.world.network_of_vni(vni).ok_or(DropReason::UnknownVni)?;
        let host = self.world.peer_at(outer.source).ok_or(DropReason::NotAMember)?;
        let inner = &frame[within..];
        let family = family_of(inner).ok_or(DropReason::UnknownEtherType)?;
        if !self.unwraps(frame, outer, inner, family) {
            return Ok(Fate::Stays(frame.to_vec()));
        }
        let scope = scope_of(host, network);
        self.unwrapped = Some((inner.to_vec(), scope));
        self.hear_from_peer(device, inner, family, scope, chosen)
    }

    /// Can the datapath do that itself? What a router has marked as congested, a header that is cut off, and on old kernels the other family are left to the
    /// kernel's VXLAN device.
    fn unwraps(&self, frame: &[u8], outer: &Reading, inner: &[u8], family: Family) -> bool {
        let (marks, underlay) = match outer.source {
            IpAddr::V4(_) => (frame[ETHERNET + 1], Family::V4),
            IpAddr::V6(_) => (frame[ETHERNET + 1] >> 4, Family::V6),
        };
        let header = match family {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        let is_congested = marks & 3 == 3;
        !is_congested
            && inner.len() >= ETHERNET + header
            && (family == underlay || self.world.host.unwraps_other_family)
    }

    /// What an endpoint of another host says, or that host itself.
    fn hear_from_peer(
        &mut self,
        device: u32,
        frame: &[u8],
        family: Family,
        scope: u32,
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<Fate, DropReason> {
        let mut reading = read(frame, family, ETHERNET, false)?;
        // Who lives where is known here.
        if reading.kind == Kind::Discovery {
            return Ok(Fate::Heard);
        }
        if !self.follow_fragment(&mut reading, scope) {
            return Err(DropReason::FragmentAlone);
        }
        if reading.kind == Kind::Error {
            return self.error(frame, &reading, scope);
        }
        let key = Key::of(&reading, scope);
        let (index, side) = match self.follow(device, &key, reading.tcp_flags, frame.len())? {
            Known::As(index, side) => (index, side),
            Known::Unknown => self.admit(device, frame, &key, &reading, chosen)?,
        };
        self.deliver(frame, &reading, index, side)
    }

    /// What does not fit between the hosts, and may not go in pieces, is reported to its sender: to an endpoint by its gateway, to others by whom they spoke to.
    pub(super) fn fit(&self, frame: &[u8], reading: &Reading, from: u32, to: u32) -> Result<Option<Fate>, DropReason> {
        if frame.len() <= ALWAYS_FITS {
            return Ok(None);
        }
        let peer = self.world.peers.get(&host_of(to)).ok_or(DropReason::NoOverlay)?;
        let may_be_cut = reading.source.is_ipv4() && frame[ETHERNET + 6] & 0x40 == 0;
        if frame.len() - ETHERNET <= peer.mtu as usize || may_be_cut {
            return Ok(None);
        }
        let network = self.world.networks.get(&from).filter(|_| from > HOST);
        let gateway = network.and_then(|network| network.gateway(family(reading.source)));
        let reporter = gateway.unwrap_or(reading.destination);
        Ok(Some(Fate::Sent(match reading.source {
            IpAddr::V4(_) => report4(frame, reading, reporter, peer.mtu),
            IpAddr::V6(_) => neighbour::report(frame, reading, reporter, 2, peer.mtu),
        })))
    }

    /// Wraps the frame up for the host of this scope. What has to go in pieces is the kernel's affair, as it is.
    pub(super) fn wrap(&self, frame: Vec<u8>, scope: u32) -> Result<Fate, DropReason> {
        let (peer, network) = (
            self.world.peers.get(&host_of(scope)),
            self.world.networks.get(&network_of(scope)),
        );
        let (Some(peer), Some(network)) = (peer, network) else {
            return Err(DropReason::NoOverlay);
        };
        if peer.device == 0 || network.vni == 0 {
            return Err(DropReason::NoOverlay);
        }
        if frame.len() > peer.mtu as usize + ETHERNET {
            // That is the device's to do, if there is one.
            return match self.world.overlay_port {
                Some(_) => Ok(Fate::Sent(frame)),
                None => Err(DropReason::NoOverlay),
            };
        }
        Ok(Fate::Wrapped(Wrapped {
            from: peer.source,
            to: peer.address,
            port: peer.port,
            vni: network.vni,
            frame,
        }))
    }
}

/// "Fragmentation needed" (RFC 1191) about the packet in a frame, back to its sender.
fn report4(frame: &[u8], reading: &Reading, reporter: IpAddr, mtu: u32) -> Vec<u8> {
    let quoted = (frame.len() - ETHERNET).min(252) & !3;
    let mut message = [
        &[3, 4, 0, 0][..],
        &mtu.to_be_bytes(),
        &frame[ETHERNET..ETHERNET + quoted],
    ]
    .concat();
    let sum = sum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let length = (20 + message.len() as u16).to_be_bytes();
    let mut ip = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, wire::ICMP, 0, 0].to_vec();
    ip.extend(super::world::octets(reporter));
    ip.extend(super::world::octets(reading.source));
    let sum = self::sum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    [&wire::sender(frame)[..], &wire::receiver(frame), &[8, 0], &ip, &message].concat()
}

/// RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
