//! Who has this address? (RFC 826)

use std::net::IpAddr;

use sluice_datapath_common::DropReason;

use super::wire::{ETHERNET, sender};
use super::world::{Endpoint, Mac};
use super::{Fate, Reference};

/// An ARP packet for IPv4 over Ethernet.
struct Arp {
    asks: bool,
    sender_mac: Mac,
    sender: IpAddr,
    target: IpAddr,
}

impl Reference {
    /// An endpoint asks, and must not lie about itself. It is told of its gateway and of those in its network.
    pub(super) fn arp_of_endpoint(&self, asker: &Endpoint, frame: &[u8]) -> Result<Fate, DropReason> {
        if sender(frame) != asker.mac {
            return Err(DropReason::ForgedMac);
        }
        let arp = read(frame)?;
        let own = asker.address4;
        let is_own = |address: IpAddr| Some(address) == own || (own.is_none() && is_nobody(address));
        if arp.sender_mac != asker.mac || !(is_own(arp.sender) || is_nobody(arp.sender)) {
            return Err(DropReason::ForgedArp);
        }
        if !arp.asks || is_own(arp.target) {
            return Ok(Fate::Heard);
        }
        let network = self
            .world
            .networks
            .get(&asker.network)
            .ok_or(DropReason::UnknownDevice)?;
        if Some(arp.target) == network.gateway4 {
            return Ok(Fate::Sent(answer(frame, network.gateway_mac)));
        }
        self.answer(asker.network, arp.target, frame)
    }

    /// The host asks after endpoints of any network. Its own addresses nobody else has.
    pub(super) fn arp_of_host(&self, frame: &[u8]) -> Result<Fate, DropReason> {
        let arp = read(frame)?;
        if !arp.asks || self.world.local.contains_key(&arp.target) {
            return Ok(Fate::Heard);
        }
        let network = self.world.home(arp.target).ok_or(DropReason::NoSuchEndpoint)?;
        self.answer(network, arp.target, frame)
    }

    fn answer(&self, network: u32, target: IpAddr, frame: &[u8]) -> Result<Fate, DropReason> {
        let mac = self.world.mac_of(network, target).ok_or(DropReason::NoSuchEndpoint)?;
        Ok(Fate::Sent(answer(frame, mac)))
    }
}

fn read(frame: &[u8]) -> Result<Arp, DropReason> {
    let arp = frame.get(ETHERNET..ETHERNET + 28).ok_or(DropReason::Truncated)?;
    // Ethernet, IPv4, the lengths of their addresses.
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return Err(DropReason::UnknownEtherType);
    }
    let address = |at: usize| IpAddr::from([arp[at], arp[at + 1], arp[at + 2], arp[at + 3]]);
    Ok(Arp {
        asks: arp[6..8] == [0, 1],
        sender_mac: arp[8..14].try_into().expect("six bytes"),
        sender: address(14),
        target: address(24),
    })
}

/// The question turned into its answer: the target is at `mac`.
fn answer(question: &[u8], mac: Mac) -> Vec<u8> {
    let mut frame = question.to_vec();
    let arp = &question[ETHERNET..];
    let (asker, target) = (&arp[8..18], &arp[24..28]);
    frame[..6].copy_from_slice(&arp[8..14]);
    frame[6..12].copy_from_slice(&mac);
    let answer = [&[0, 2][..], &mac, target, asker].concat();
    frame[ETHERNET + 6..ETHERNET + 28].copy_from_slice(&answer);
    frame
}

fn is_nobody(address: IpAddr) -> bool {
    address.is_unspecified()
}
