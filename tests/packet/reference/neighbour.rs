//! Who has this IPv6 address? (RFC 4861)

use std::net::IpAddr;

use sluice_datapath_common::DropReason;

use super::wire::{ETHERNET, ICMP6, Reading, receiver, sender};
use super::world::{Endpoint, Mac, Reach, any, link_local, octets, reach};
use super::{Fate, Reference};

const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Where a message starts that nothing comes before but the IP header.
const MESSAGE: usize = ETHERNET + 40;

/// A solicitation or advertisement.
struct Message {
    source: IpAddr,
    target: IpAddr,
    /// The MAC that the sender says it has.
    tells: Option<Mac>,
}

impl Reference {
    /// An endpoint asks, and must not lie about itself. What else it tells its neighbours is heard.
    pub(super) fn discovery_of_endpoint(
        &self,
        asker: &Endpoint,
        frame: &[u8],
        above: usize,
    ) -> Result<Fate, DropReason> {
        if sender(frame) != asker.mac {
            return Err(DropReason::ForgedMac);
        }
        match frame[above] {
            SOLICITATION | ADVERTISEMENT => {}
            ROUTER_ADVERTISEMENT | REDIRECT => return Err(DropReason::ForgedNeighbour),
            _ => return Ok(Fate::Heard),
        }
        let message = read(frame, above)?;
        let is_own = |address: IpAddr| address == link_local(asker.mac) || Some(address) == asker.address6;
        if !is_own(message.source) && !message.source.is_unspecified() {
            return Err(DropReason::ForgedNeighbour);
        }
        if frame[above] == ADVERTISEMENT {
            return match is_own(message.target) {
                true => Ok(Fate::Heard),
                false => Err(DropReason::ForgedNeighbour),
            };
        }
        if message.tells.is_some_and(|mac| mac != asker.mac) {
            return Err(DropReason::ForgedNeighbour);
        }
        if is_own(message.target) {
            return Ok(Fate::Heard);
        }
        asker.address6.ok_or(DropReason::FamilyDisabled)?;
        let network = self
            .world
            .networks
            .get(&asker.network)
            .ok_or(DropReason::UnknownDevice)?;
        let is_router = Some(message.target) == network.gateway6 || message.target == link_local(network.gateway_mac);
        let mac = match is_router {
            true => network.gateway_mac,
            false => self.owner(asker.network, message.target)?,
        };
        Ok(Fate::Sent(answer(&message, asker.mac, mac, is_router)))
    }

    /// The host asks after endpoints of any network. Its own addresses nobody else has.
    pub(super) fn discovery_of_host(&self, frame: &[u8], above: usize) -> Result<Fate, DropReason> {
        if frame[above] != SOLICITATION {
            return Ok(Fate::Heard);
        }
        let target = frame.get(above + 8..above + 24).ok_or(DropReason::Truncated)?;
        let target = IpAddr::from(<[u8; 16]>::try_from(target).expect("sixteen bytes"));
        if self.world.local.contains_key(&target) {
            return Ok(Fate::Heard);
        }
        let message = read(frame, above)?;
        if message.source.is_unspecified() {
            return Ok(Fate::Heard);
        }
        let network = self.world.home(target).ok_or(DropReason::NoSuchEndpoint)?;
        let mac = self.owner(network, target)?;
        Ok(Fate::Sent(answer(&message, sender(frame), mac, false)))
    }

    fn owner(&self, network: u32, address: IpAddr) -> Result<Mac, DropReason> {
        self.world.mac_of(network, address).ok_or(match reach(address) {
            Reach::Link => DropReason::LinkLocal,
            _ => DropReason::NoSuchEndpoint,
        })
    }
}

/// Neither a router nor an extension header may have come between.
fn read(frame: &[u8], above: usize) -> Result<Message, DropReason> {
    let address = |at: usize| {
        let octets = frame.get(at..at + 16).ok_or(DropReason::Truncated)?;
        Ok(IpAddr::from(<[u8; 16]>::try_from(octets).expect("sixteen bytes")))
    };
    let target = address(above + 8)?;
    if above != MESSAGE || frame[ETHERNET + 7] != 255 {
        return Err(DropReason::ForgedNeighbour);
    }
    let option = frame.get(above + 24..above + 32).filter(|option| option[0] == 1);
    Ok(Message {
        source: address(ETHERNET + 8)?,
        target,
        tells: option.map(|option| option[2..].try_into().expect("six bytes")),
    })
}

/// An advertisement to who asked; to a probe, which speaks as nobody, all nodes are told.
fn answer(question: &Message, asker: Mac, mac: Mac, is_router: bool) -> Vec<u8> {
    let is_probe = question.source.is_unspecified();
    let all_nodes = IpAddr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let (receiver, destination) = match is_probe {
        true => ([0x33, 0x33, 0, 0, 0, 1], all_nodes),
        false => (asker, question.source),
    };
    debug_assert_ne!(destination, any(destination));
    // Router, solicited, override.
    let flags = u8::from(is_router) << 7 | u8::from(!is_probe) << 6 | 1 << 5;
    let message = [
        &[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0][..],
        &octets(question.target),
        &[2, 1],
        &mac,
    ]
    .concat();
    say((receiver, mac), (question.target, destination), 255, message)
}

/// The ICMPv6 error of this type about the packet in a frame, back to its sender, with its first 252 bytes, whole words only.
pub(super) fn report(frame: &[u8], reading: &Reading, reporter: IpAddr, kind: u8, parameter: u32) -> Vec<u8> {
    let quoted = (frame.len() - ETHERNET).min(252) & !3;
    let mut message = vec![kind, 0, 0, 0];
    message.extend(parameter.to_be_bytes());
    message.extend(&frame[ETHERNET..ETHERNET + quoted]);
    say(
        (sender(frame), receiver(frame)),
        (reporter, reading.source),
        64,
        message,
    )
}

/// An ICMPv6 message in a frame: receiver and sender, source and destination.
pub(super) fn say(macs: (Mac, Mac), addresses: (IpAddr, IpAddr), hops: u8, message: Vec<u8>) -> Vec<u8> {
    let ip = [
        &[0x60, 0, 0, 0][..],
        &(message.len() as u16).to_be_bytes(),
        &[ICMP6, hops],
        &octets(addresses.0),
        &octets(addresses.1),
    ];
    let mut frame = [&macs.0[..], &macs.1, &[0x86, 0xdd], &ip.concat(), &message].concat();
    // RFC 8200, 8.1: the pseudo header is both addresses, the length and the protocol.
    let words = frame[ETHERNET + 8..]
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]));
    let mut sum = words.sum::<u64>() + message.len() as u64 + u64::from(ICMP6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[MESSAGE + 2..MESSAGE + 4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}
