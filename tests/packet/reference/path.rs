//! The four programs, each from top to bottom.

use std::net::IpAddr;

use sluice_datapath_common::DropReason;
use sluice_datapath_common::flow::Action;
use sluice_datapath_common::overlay::{is_overlay, network_of};

use super::conversation::{Key, Known, Side, may_open};
use super::judge::{Judgement, must_be_unicast};
use super::wire::{self, Change, ETHERNET, Kind, Piece, Reading, change, change_error, ether_type, read};
use super::world::{Endpoint, Family, Reach, any, family, link_local, reach};
use super::{Chosen, Datagram, Fate, Reference, neighbour};

/// What comes by a NIC has this scope.
pub const WORLD: u32 = 0;
/// What the host's stack says has this one. Others are the numbers of networks.
pub const HOST: u32 = 1;

const ARP: u16 = 0x0806;

impl Reference {
    /// What an endpoint says. It is known by its device, and believed in nothing else.
    pub(super) fn hear_from_container(
        &mut self,
        device: u32,
        frame: &[u8],
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<Fate, DropReason> {
        let sender = *self.world.attachments.get(&device).ok_or(DropReason::UnknownDevice)?;
        if ether_type(frame) == ARP {
            return self.arp_of_endpoint(&sender, frame);
        }
        let family = family_of(frame).ok_or(DropReason::UnknownEtherType)?;
        let mut reading = read(frame, family, ETHERNET, false)?;
        if reading.kind == Kind::Discovery {
            return self.discovery_of_endpoint(&sender, frame, reading.above);
        }
        let given = sender.address(family);
        if wire::sender(frame) != sender.mac {
            return Err(DropReason::ForgedMac);
        }
        if reading.source != given.ok_or(DropReason::FamilyDisabled)? && !self.may_say_to_many(&sender, &reading) {
            return Err(match reach(reading.source) {
                Reach::Link => DropReason::LinkLocal,
                _ => DropReason::ForgedSource,
            });
        }
        if !self.follow_fragment(&mut reading, sender.network) {
            return Ok(Fate::Heard);
        }
        if reading.kind == Kind::Error {
            return self.error(frame, &reading, sender.network);
        }
        let key = Key::of(&reading, sender.network);
        let (index, side) = match self.follow(device, &key, reading.tcp_flags, frame.len())? {
            Known::As(index, side) => (index, side),
            Known::Unknown => {
                if self.check_switched(frame, &reading, &sender)? == Audience::Many {
                    self.told = self.world.others(sender.network, device);
                    return Ok(Fate::Heard);
                }
                self.admit(device, frame, &key, &reading, chosen)?
            }
        };
        self.deliver(frame, &reading, index, side)
    }

    /// What the host's stack says to endpoints, by its leg.
    pub(super) fn hear_from_host(
        &mut self,
        device: u32,
        frame: &[u8],
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<Fate, DropReason> {
        if ether_type(frame) == ARP {
            return self.arp_of_host(frame);
        }
        let family = family_of(frame).ok_or(DropReason::UnknownEtherType)?;
        let mut reading = read(frame, family, ETHERNET, false)?;
        if reading.kind == Kind::Discovery {
            return self.discovery_of_host(frame, reading.above);
        }
        if !self.follow_fragment(&mut reading, HOST) {
            return Ok(Fate::Heard);
        }
        if reading.kind == Kind::Error {
            return self.error_of_host(frame, &reading);
        }
        let key = Key::of(&reading, HOST);
        let (index, side) = match self.follow(device, &key, reading.tcp_flags, frame.len())? {
            Known::As(index, side) => (index, side),
            Known::Unknown => {
                must_be_unicast(reading.destination)?;
                self.world.home(reading.destination).ok_or(DropReason::NoSuchEndpoint)?;
                self.admit(device, frame, &key, &reading, chosen)?
            }
        };
        self.deliver(frame, &reading, index, side)
    }

    /// What the world says. What is not ours, or cannot be understood, is the host's.
    pub(super) fn hear_from_nic(
        &mut self,
        device: u32,
        frame: &[u8],
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<Fate, DropReason> {
        let stays = || Fate::Stays(frame.to_vec());
        let is_for_us = self.world.devices.get(&device).map(|device| device.mac) == Some(wire::receiver(frame));
        let Some(family) = family_of(frame).filter(|_| is_for_us) else {
            return Ok(stays());
        };
        let Ok(mut reading) = read(frame, family, ETHERNET, false) else {
            return Ok(stays());
        };
        if self.is_wrapped(&reading) {
            return self.hear_wrapped(device, frame, &reading, chosen);
        }
        // The host's own neighbours.
        if reading.kind == Kind::Discovery {
            return Ok(stays());
        }
        if reading.kind == Kind::Error {
            return match self.error(frame, &reading, WORLD) {
                Err(DropReason::UnrelatedError) => Ok(stays()),
                told => told,
            };
        }
        // What has no first one goes to the host, whose it may be; what goes to a network of ours only waits.
        if reading.piece == Piece::Later && !self.follow_fragment(&mut reading, WORLD) {
            let is_local = self.world.local.contains_key(&reading.destination);
            let waits = !is_local && self.world.home(reading.destination).is_some() && !self.is_of_host(&reading);
            return Ok(if waits { Fate::Heard } else { stays() });
        }
        let key = Key::of(&reading, WORLD);
        let (index, side) = match self.follow(device, &key, reading.tcp_flags, frame.len())? {
            Known::As(index, side) => (index, side),
            Known::Unknown => match self.world.judge(device, &key)? {
                Judgement::Hosts => {
                    self.leave_fragment_to_host(&reading);
                    return Ok(stays());
                }
                // Neither a late packet of a connection of the host nor what a socket of the host expects.
                Judgement::Ours(plan)
                    if !may_open(&reading, &plan)
                        || self
                            .world
                            .socket_owns(key.protocol, key.destination, key.destination_port, false) =>
                {
                    self.leave_fragment_to_host(&reading);
                    return Ok(stays());
                }
                Judgement::Ours(mut plan) => {
                    if plan.back.device == 0 {
                        plan.back.device = device;
                    }
                    (self.open(&key, &reading, frame.len(), *plan, chosen)?, Side::Opener)
                }
            },
        };
        if reading.piece == Piece::First {
            self.follow_fragment(&mut reading, WORLD);
        }
        self.deliver(frame, &reading, index, side)
    }

    /// What leaves by a NIC: no container's address does.
    pub(super) fn hear_to_nic(
        &mut self,
        device: u32,
        frame: &[u8],
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<Fate, DropReason> {
        let stays = || Fate::Stays(frame.to_vec());
        let Some(family) = family_of(frame) else {
            return Ok(stays());
        };
        let Ok(mut reading) = read(frame, family, ETHERNET, false) else {
            // With headers that nobody follows, it comes from somewhere all the same.
            let source = frame
                .get(ETHERNET + 8..ETHERNET + 24)
                .filter(|_| family == Family::V6 && frame.len() >= ETHERNET + 40);
            let source = source.map(|octets| IpAddr::from(<[u8; 16]>::try_from(octets).expect("sixteen bytes")));
            return match source.and_then(|source| self.world.home(source)) {
                Some(_) => Err(DropReason::UnmasqueradedSource),
                None => Ok(stays()),
            };
        };
        // The host's own neighbours.
        if reading.kind == Kind::Discovery {
            return Ok(stays());
        }
        let Some(home) = self.world.home(reading.source) else {
            return Ok(stays());
        };
        // In a routed network the address is the world's business.
        let network = self.world.networks.get(&home);
        if network.is_some_and(|network| network.is_routed(family) && !network.internal) {
            return Ok(stays());
        }
        let leaks = |_| DropReason::UnmasqueradedSource;
        if !self.follow_fragment(&mut reading, HOST) {
            return Err(DropReason::UnmasqueradedSource);
        }
        if reading.kind == Kind::Error {
            return self.error(frame, &reading, HOST).map_err(leaks);
        }
        // What we gave the host to report on or to cut up, or what came here without us.
        let key = Key::of(&reading, HOST);
        let own = self.known(&Key { scope: home, ..key });
        // An answer to who spoke to the endpoint's own address.
        if let Some((index, side)) = own
            && let conversation = &self.conversations[index]
            && !conversation.masquerades
            && conversation.leg(side).action == Action::World
            && conversation.keeps_address(side)
        {
            return Ok(stays());
        }
        let own = own.filter(|(index, _)| self.conversations[*index].masquerades);
        let (index, side) = match own {
            Some(own) => own,
            None => match self.follow(device, &key, reading.tcp_flags, frame.len())? {
                Known::As(index, side) => (index, side),
                Known::Unknown => self.admit(device, frame, &key, &reading, chosen)?,
            },
        };
        Ok(Fate::Stays(self.translated(frame, &reading, index, side, 0)?))
    }

    /// A frame that is not for the gateway stays inside the network.
    fn check_switched(&self, frame: &[u8], reading: &Reading, sender: &Endpoint) -> Result<Audience, DropReason> {
        let network = self
            .world
            .networks
            .get(&sender.network)
            .ok_or(DropReason::UnknownDevice)?;
        let receiver = wire::receiver(frame);
        if receiver == network.gateway_mac {
            return Ok(Audience::One);
        }
        if receiver[0] & 1 != 0 {
            let is_for_many =
                reach(reading.destination) == Reach::Multicast || network.broadcast == Some(reading.destination);
            return match (network.multicast && is_for_many, network.icc) {
                (false, _) => Err(DropReason::Multicast),
                (true, false) => Err(DropReason::IccDisabled),
                (true, true) => Ok(Audience::Many),
            };
        }
        match self.world.home(reading.destination) {
            Some(home) if home == sender.network => Ok(Audience::One),
            _ => Err(DropReason::NoSuchEndpoint),
        }
    }

    /// To many an endpoint may also speak before it has an address (DHCP), and by the link-local address of IPv6.
    fn may_say_to_many(&self, sender: &Endpoint, reading: &Reading) -> bool {
        let is_carried = self
            .world
            .networks
            .get(&sender.network)
            .is_some_and(|network| network.multicast);
        let own = match family(reading.source) {
            Family::V4 => any(reading.source),
            Family::V6 => link_local(sender.mac),
        };
        is_carried && reach(reading.destination) == Reach::Multicast && reading.source == own
    }

    /// Judges a new conversation and opens it.
    pub(super) fn admit(
        &mut self,
        device: u32,
        frame: &[u8],
        key: &Key,
        reading: &Reading,
        chosen: &mut Chosen<'_, '_>,
    ) -> Result<(usize, Side), DropReason> {
        match self.world.judge(device, key)? {
            Judgement::Ours(plan) => Ok((self.open(key, reading, frame.len(), *plan, chosen)?, Side::Opener)),
            Judgement::Hosts => unreachable!("only what the world says may be the host's"),
        }
    }

    /// Remembers the ports of a first fragment, and gives them to those that follow. False: it must wait for the first one, or is the host's.
    pub(super) fn follow_fragment(&mut self, reading: &mut Reading, scope: u32) -> bool {
        let datagram = datagram(reading, scope);
        match reading.piece {
            Piece::Whole => {}
            Piece::First => {
                self.fragments.insert(datagram, Some(reading.ports));
            }
            Piece::Later => match self.fragments.get(&datagram) {
                Some(Some(ports)) => reading.ports = *ports,
                _ => return false,
            },
        }
        true
    }

    /// The first fragment of a datagram that comes by a NIC for the host says that the others are the host's too.
    fn leave_fragment_to_host(&mut self, reading: &Reading) {
        if reading.piece == Piece::First {
            self.fragments.insert(datagram(reading, WORLD), None);
        }
    }

    fn is_of_host(&self, reading: &Reading) -> bool {
        self.fragments.get(&datagram(reading, WORLD)) == Some(&None)
    }

    /// Sends the packet the way of its conversation. At its last hop, or too large for the way, it goes to the host as it is, which reports on it.
    pub(super) fn deliver(
        &self,
        frame: &[u8],
        reading: &Reading,
        index: usize,
        side: Side,
    ) -> Result<Fate, DropReason> {
        let conversation = &self.conversations[index];
        if !conversation.leaves_by_nic(side) {
            if conversation.leg(side).action == Action::Overlay
                && let Some(told) = self.fit(
                    frame,
                    reading,
                    conversation.key(side).scope,
                    conversation.key(side.other()).scope,
                )?
            {
                return Ok(told);
            }
            let translated = self.translated(frame, reading, index, side, 0)?;
            return self.hand_over(translated, index, side);
        }
        let mtu = self
            .world
            .devices
            .get(&conversation.leg(side).device)
            .map_or(0, |device| device.mtu);
        let is_too_large = conversation.checks_mtu && (frame.len() - ETHERNET) as u32 > mtu;
        if reading.hops <= 1 || is_too_large {
            let uplink = self.world.uplinks.get(&(conversation.leg(side).device, Family::V6));
            return match reading.source.is_ipv6() {
                true => self.report(
                    frame,
                    reading,
                    uplink.map_or(1280, |uplink| uplink.mtu),
                    conversation.key(side).scope,
                ),
                false => Ok(self.report_by_host(frame)),
            };
        }
        Ok(Fate::Sent(self.translated(frame, reading, index, side, 1)?))
    }

    /// IPv6: the sender is told by its gateway, with the first 252 bytes of what it said, whole words only.
    fn report(&self, frame: &[u8], reading: &Reading, mtu: u32, scope: u32) -> Result<Fate, DropReason> {
        let home = match is_overlay(scope) {
            true => network_of(scope),
            false => scope,
        };
        let network = self.world.networks.get(&home);
        let gateway = network
            .and_then(|network| network.gateway6)
            .ok_or(DropReason::UnknownDevice)?;
        let (kind, parameter) = match reading.hops <= 1 {
            true => (3, 0),
            false => (2, mtu),
        };
        let report = neighbour::report(frame, reading, gateway, kind, parameter);
        self.report.set(Some(report.len()));
        match is_overlay(scope) {
            true => self.wrap(report, scope),
            false => Ok(Fate::Sent(report)),
        }
    }

    /// The host is given what the sender said, as it was said.
    fn report_by_host(&self, frame: &[u8]) -> Fate {
        let mut frame = frame.to_vec();
        let sender = wire::sender(&frame);
        wire::address(&mut frame, self.world.host.mac, sender);
        Fate::Sent(frame)
    }

    /// Gives a translated frame the MACs of its way.
    fn hand_over(&self, mut frame: Vec<u8>, index: usize, side: Side) -> Result<Fate, DropReason> {
        let conversation = &self.conversations[index];
        let leg = conversation.leg(side);
        if matches!(leg.action, Action::Endpoint | Action::Host | Action::Overlay) {
            wire::address(&mut frame, leg.to_mac, leg.from_mac);
        }
        match leg.action {
            Action::Endpoint | Action::Host | Action::World => Ok(Fate::Sent(frame)),
            Action::Stay => Ok(Fate::Stays(frame)),
            Action::Overlay => self.wrap(frame, conversation.key(side.other()).scope),
        }
    }

    fn translated(
        &self,
        frame: &[u8],
        reading: &Reading,
        index: usize,
        side: Side,
        hops: u8,
    ) -> Result<Vec<u8>, DropReason> {
        let leaves = self.conversations[index].leaving(side);
        // The CRC of SCTP cannot be corrected where it is not said how much it covers.
        let is_cut_up = reading.kind == Kind::Sctp && reading.piece != Piece::Whole;
        if is_cut_up && reading.ports != (leaves.source_port, leaves.destination_port) {
            return Err(DropReason::CannotTranslate);
        }
        let mut frame = frame.to_vec();
        let to = Change {
            source: leaves.source,
            destination: leaves.destination,
            ports: Some((leaves.source_port, leaves.destination_port)),
            hops,
        };
        change(&mut frame, reading, &to);
        Ok(frame)
    }

    /// An ICMP error goes where the packet it quotes came from, translated as that one's answers are. It opens nothing and keeps nothing alive.
    pub(super) fn error(&self, frame: &[u8], reading: &Reading, scope: u32) -> Result<Fate, DropReason> {
        let quoted = quoted(frame, reading)?;
        // An endpoint reports on what was said to it; the world's routers report on what they please, and other hosts hand that on.
        let is_reporter = reading.source == quoted.destination;
        let is_network = scope > HOST && !is_overlay(scope);
        if reading.destination != quoted.source || quoted.piece == Piece::Later || (is_network && !is_reporter) {
            return Err(DropReason::UnrelatedError);
        }
        let answers = Key::of(&quoted, scope).reversed(scope);
        let (index, side) = self.known(&answers).ok_or(DropReason::UnrelatedError)?;
        let leaves = self.conversations[index].leaving(side);
        let hops = u8::from(self.conversations[index].leaves_by_nic(side));
        if hops != 0 && reading.hops <= 1 {
            return Ok(self.report_by_host(frame));
        }
        let outer = Change {
            source: if is_reporter { leaves.source } else { reading.source },
            destination: leaves.destination,
            ports: None,
            hops,
        };
        let inner = Change {
            source: leaves.destination,
            destination: leaves.source,
            ports: Some((leaves.destination_port, leaves.source_port)),
            hops: 0,
        };
        let mut told = frame.to_vec();
        change_error(&mut told, reading, &outer, &quoted, &inner);
        self.hand_over(told, index, side)
    }

    /// The host may also report on what an endpoint said to it untranslated: then the endpoint gets the report as it is.
    fn error_of_host(&self, frame: &[u8], reading: &Reading) -> Result<Fate, DropReason> {
        match self.error(frame, reading, HOST) {
            Err(DropReason::UnrelatedError) => {}
            told => return told,
        }
        if quoted(frame, reading)?.source != reading.destination {
            return Err(DropReason::UnrelatedError);
        }
        let home = self.world.home(reading.destination).ok_or(DropReason::UnrelatedError)?;
        let leg = self
            .world
            .to_endpoint(home, reading.destination)
            .ok_or(DropReason::NoSuchEndpoint)?;
        let mut frame = frame.to_vec();
        wire::address(&mut frame, leg.to_mac, leg.from_mac);
        match leg.action {
            Action::Overlay => self.wrap(frame, leg.scope),
            _ => Ok(Fate::Sent(frame)),
        }
    }
}

/// For whom a frame is that an endpoint sends.
#[derive(PartialEq, Eq)]
enum Audience {
    /// By its address.
    One,
    /// All others of the network.
    Many,
}

pub(super) fn family_of(frame: &[u8]) -> Option<Family> {
    match ether_type(frame) {
        0x0800 => Some(Family::V4),
        0x86dd => Some(Family::V6),
        _ => None,
    }
}

fn quoted(frame: &[u8], error: &Reading) -> Result<Reading, DropReason> {
    read(frame, family(error.source), error.above + 8, true).map_err(|_| DropReason::UnrelatedError)
}

fn datagram(reading: &Reading, scope: u32) -> Datagram {
    Datagram {
        source: reading.source,
        destination: reading.destination,
        identification: reading.identification,
        scope,
        protocol: reading.protocol,
    }
}
