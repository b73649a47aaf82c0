//! A case being tried: every step is taken by the programs and by the reference, and then the two are compared.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use sluice_datapath_common::DropReason;

use super::compare;
use super::place::{FAMILIES, Place, TENANTS};
use super::six;
use super::stage::{CAPACITY, Stage};
use super::step::{Case, Ends, Question, Quote, Speech, Station, Step};
use super::world;
use crate::frame::{self, Frame, Packet};
use crate::reference::conversation::{Key, Side};
use crate::reference::wire::{self, ICMP, ICMP6, Piece, SCTP, TCP, UDP, UDP_LITE};
use crate::reference::world::{Family, Limits, Mac, Publication, Uplink, World, link_local};
use crate::reference::{self, Fate, Hook, Reference};
use crate::scene::{GATEWAY_MAC, HOST_MAC, LEG_MAC, NIC_MAC, ROUTER_MAC, SECOND_NIC, SECOND_NIC_MAC};
use crate::test_run::Sum;

/// A test run takes no frame without a whole IP header.
const SHORTEST: usize = wire::ETHERNET + 20;

pub struct Trial<'a> {
    stage: &'a mut Stage,
    pub reference: Reference,
    /// The conversations that steps have opened, by label: both keys.
    pub opened: BTreeMap<usize, (Key, Key)>,
    pub packets: u64,
    pub fates: BTreeMap<String, u64>,
    /// Everything is compared after every step.
    is_thorough: bool,
}

impl<'a> Trial<'a> {
    pub fn begin(stage: &'a mut Stage) -> Self {
        stage.clear();
        let reference = Reference::new(world::world(), CAPACITY);
        stage.write(&reference.world);
        Self {
            stage,
            reference,
            opened: BTreeMap::new(),
            packets: 0,
            fates: BTreeMap::new(),
            is_thorough: false,
        }
    }

    /// Tries a whole case, comparing everything after each step. On failure also says how many steps were taken.
    pub fn of(stage: &'a mut Stage, case: &Case) -> Result<(), (usize, String)> {
        let mut trial = Self::begin(stage);
        trial.is_thorough = true;
        for (index, (label, step)) in case.steps.iter().enumerate() {
            let taken = trial.take(*label, step).and_then(|()| trial.compare_everything());
            taken.map_err(|what| (index + 1, format!("step {label}: {what}")))?;
        }
        Ok(())
    }

    /// Takes a step. One that speaks of what has not been is passed over.
    pub fn take(&mut self, label: usize, step: &Step) -> Result<(), String> {
        match step {
            Step::Says(speech) => match self.frame(speech) {
                Some(frame) => self.hear(label, speech.hook, speech.device, &frame.0, sum(&frame)),
                None => Ok(()),
            },
            Step::Asks(question) => {
                let frame = self.question(question);
                // An answer may be longer than what is left of a question.
                let sum = if question.cut.is_some() {
                    Sum::Unknown
                } else {
                    Sum::Complete
                };
                self.hear(label, question.hook, question.device, &frame.0, sum)
            }
            Step::Expires { of } => {
                self.remove_entries(*of, [true, true], false);
                Ok(())
            }
            Step::Ages { of, seconds } => {
                self.age(*of, *seconds);
                Ok(())
            }
            Step::PushedOut { of, side } => {
                self.remove_entries(*of, [*side == Side::Opener, *side == Side::Answerer], true);
                Ok(())
            }
            _ => {
                self.change_world(step);
                self.stage.write(&self.reference.world);
                Ok(())
            }
        }
    }

    pub fn compare_everything(&mut self) -> Result<(), String> {
        compare::everything(self.stage, &self.reference)
    }

    /// A packet for both.
    fn hear(&mut self, label: usize, hook: Hook, device: u32, frame: &[u8], sum: Sum) -> Result<(), String> {
        self.packets += 1;
        let outcome = self.stage.run(hook, device, frame, sum)?;
        let stage = &mut *self.stage;
        let mut witness = |opening: &Key| Some(stage.flow(opening)?.source.1);
        let fate = self.reference.hear(hook, device, frame, &mut witness)?;
        let told = !self.reference.told.is_empty();
        *self.fates.entry(name(hook, &fate, told)).or_default() += 1;
        compare::fates(&fate, &outcome)?;
        compare::copies(&self.reference.told, &self.stage.copies_of(frame))?;
        if let Some(opened) = self.reference.opened {
            self.opened.insert(label, opened);
        }
        self.compare_touched(hook, device, frame)
    }

    /// The entries of the packet's own conversation.
    fn compare_touched(&mut self, hook: Hook, device: u32, frame: &[u8]) -> Result<(), String> {
        let Ok(reading) = wire::read(frame, reading_family(frame), wire::ETHERNET, false) else {
            return Ok(());
        };
        let scope = match hook {
            Hook::FromContainer => match self.reference.world.attachments.get(&device) {
                Some(endpoint) => endpoint.network,
                None => return Ok(()),
            },
            Hook::FromNic => 0,
            Hook::FromHost | Hook::ToNic => 1,
        };
        let key = Key::of(&reading, scope);
        match self.reference.find(&key) {
            Some((index, _)) => {
                let conversation = &self.reference.conversations[index];
                compare::conversation(self.stage, &self.reference, conversation)
            }
            None => compare::nothing(self.stage, &self.reference, &key),
        }
    }

    /// The agent, or the table itself, removes entries of a conversation.
    fn remove_entries(&mut self, of: usize, gone: [bool; 2], only_pushable: bool) {
        let Some(&(opening, answers)) = self.opened.get(&of) else {
            return;
        };
        let conversations = &mut self.reference.conversations;
        let own = conversations
            .iter_mut()
            .find(|conversation| (conversation.opening, conversation.answers) == (opening, answers));
        let Some(conversation) = own.filter(|conversation| !(only_pushable && conversation.kept)) else {
            return;
        };
        for side in [Side::Opener, Side::Answerer] {
            if gone[side as usize] && conversation.entries[side as usize] {
                conversation.entries[side as usize] = false;
                self.stage.remove_flow(&conversation.key(side));
            }
        }
        let owner = conversation.owner();
        conversations.retain(|conversation| conversation.entries != [false, false]);
        let held = self.reference.held(owner);
        self.stage.set_tally(owner, held);
    }

    /// Time passes for one conversation: its entries were last used so much earlier.
    fn age(&mut self, of: usize, seconds: u64) {
        let Some(&keys) = self.opened.get(&of) else { return };
        let conversations = &mut self.reference.conversations;
        let Some(conversation) = conversations
            .iter_mut()
            .find(|other| (other.opening, other.answers) == keys)
        else {
            return;
        };
        for side in conversation.sides() {
            conversation.idle[side as usize] += seconds;
            self.stage.age(&conversation.key(side), seconds);
        }
    }

    fn change_world(&mut self, step: &Step) {
        let world = &mut self.reference.world;
        match *step {
            Step::Rules {
                network,
                icc,
                masquerades,
                internal,
                mtu,
            } => {
                if let Some(rules) = world.networks.get_mut(&network) {
                    (rules.icc, rules.masquerades, rules.internal, rules.mtu) = (icc, masquerades, internal, mtu);
                }
            }
            Step::Routed { network, routed6 } => {
                if let Some(rules) = world.networks.get_mut(&network) {
                    rules.routed6 = routed6;
                }
            }
            Step::Limits {
                conversations,
                half_open,
            } => {
                world.limits = Limits {
                    conversations,
                    half_open,
                }
            }
            Step::Opens {
                network,
                host_access,
                unprotected,
            } => {
                if let Some(rules) = world.networks.get_mut(&network) {
                    (rules.host_access, rules.unprotected) = (host_access, unprotected);
                }
            }
            Step::Carries { network, multicast } => {
                if let Some(rules) = world.networks.get_mut(&network) {
                    rules.multicast = multicast;
                }
            }
            Step::Links {
                from,
                to,
                port,
                protocol,
                holds,
            } => {
                let link = (from, to, port, protocol);
                if holds {
                    world.links.insert(link);
                } else {
                    world.links.remove(&link);
                }
            }
            Step::Serves { endpoint, only } => match only {
                Some(place) => {
                    let prefixes = FAMILIES.map(|family| match family {
                        Family::V4 => (place.address(family), 24),
                        Family::V6 => (place.address(family), 120),
                    });
                    world.sources.insert(endpoint, prefixes.into());
                }
                None => drop(world.sources.remove(&endpoint)),
            },
            Step::Starts(number) => world::move_in(world, &TENANTS[number as usize - 1]),
            Step::Stops(number) => world::move_out(world, &TENANTS[number as usize - 1]),
            Step::Epoch => world.epoch += 1,
            _ => FAMILIES
                .iter()
                .for_each(|family| change_in_family(world, *family, step)),
        }
    }

    /// The packet's ends and protocol, if the conversation it belongs to has ever been.
    fn ends(&self, ends: Ends, family: Family, protocol: u8) -> Option<Key> {
        match ends {
            Ends::New(source, source_port, destination, destination_port) => Some(Key {
                source: source.address(family),
                source_port,
                destination: destination.address(family),
                destination_port,
                scope: 0,
                protocol,
            }),
            Ends::Of(label, side) => self.opened.get(&label).map(|(opening, answers)| match side {
                Side::Opener => *opening,
                Side::Answerer => *answers,
            }),
        }
    }

    fn frame(&self, speech: &Speech) -> Option<Frame> {
        let (mut packet, ends) = match speech.quotes {
            Some(quote) => self.error(speech, &quote)?,
            None => {
                let key = self.ends(speech.ends, speech.family, speech.protocol)?;
                let mut packet = packet(&key, speech.icmp_kind);
                packet.payload = (0..speech.payload).map(|byte| (byte * 7) as u8).collect();
                (packet, (key.source, key.destination))
            }
        };
        packet.tcp_flags = speech.tcp_flags;
        packet.ttl = speech.hops;
        packet.identification = speech.identification;
        packet.fragment = speech.offset
            | if speech.more_fragments {
                frame::MORE_FRAGMENTS
            } else {
                0
            };
        packet.options = usize::from(speech.options.min(10));
        packet.udp_checksum = speech.has_udp_checksum;
        self.give_macs(speech, &mut packet, ends.1);
        let mut frame = build(
            &packet,
            six::CHAINS[usize::from(speech.headers) % six::CHAINS.len()],
            ends,
        );
        if let Some(cut) = speech.cut {
            let shortest = if ends.0.is_ipv4() { SHORTEST } else { SHORTEST + 20 };
            frame.0.truncate(usize::from(cut).max(shortest));
        }
        if let Some((at, bits)) = speech.flip {
            let at = usize::from(at) % frame.0.len();
            frame.0[at] ^= bits;
        }
        Some(frame)
    }

    /// An ICMP error about what a side of a conversation has sent, as it left here.
    fn error(&self, speech: &Speech, quote: &Quote) -> Option<(Packet, (IpAddr, IpAddr))> {
        let (opening, answers) = self.opened.get(&quote.of)?;
        let back = match quote.side {
            Side::Opener => answers,
            Side::Answerer => opening,
        };
        let sent = back.reversed(back.scope);
        let mut about = packet(&sent, 8);
        about.payload = (0..quote.payload).map(|byte| (byte * 3) as u8).collect();
        about.tcp_flags = wire::ACK;
        about.fragment = quote.offset;
        let family = reference::world::family(sent.source);
        let reporter = quote.reporter.map_or(sent.destination, |place| place.address(family));
        let quoted = build(&about, &[], (sent.source, sent.destination));
        let bytes = usize::from(quote.bytes);
        let error = Packet::error(v4(reporter), v4(sent.source), speech.icmp_kind, &quoted, bytes);
        Some((error, (reporter, sent.source)))
    }

    fn give_macs(&self, speech: &Speech, packet: &mut Packet, destination: IpAddr) {
        let world = &self.reference.world;
        let (from, to): (Mac, Mac) = match speech.hook {
            Hook::FromContainer => {
                let sender = world.attachments.get(&speech.device);
                let neighbour = sender.and_then(|sender| world.endpoints.get(&(sender.network, destination)));
                (
                    sender.map_or([2; 6], |sender| sender.mac),
                    neighbour.map_or(GATEWAY_MAC, |neighbour| neighbour.mac),
                )
            }
            Hook::FromHost => {
                let to = world.endpoints.iter().find(|((_, address), _)| *address == destination);
                let to = to.map(|(_, endpoint)| endpoint);
                (HOST_MAC, to.map_or(LEG_MAC, |endpoint| endpoint.mac))
            }
            Hook::FromNic => (ROUTER_MAC, nic_mac(speech.device)),
            Hook::ToNic => (nic_mac(speech.device), ROUTER_MAC),
        };
        let choose = |station: Station, right: Mac| match station {
            Station::Right => right,
            Station::Gateway => GATEWAY_MAC,
            Station::Stranger => [0x02, 0x99, 0, 0, 0, 1],
            Station::Everybody => [0xff; 6],
        };
        packet.from_mac = choose(speech.from, from);
        packet.to_mac = choose(speech.to, to);
    }

    fn question(&self, question: &Question) -> Frame {
        let asker = self.reference.world.attachments.get(&question.device);
        let mac = asker.map_or(HOST_MAC, |asker| asker.mac);
        let said = if question.claims_mac {
            [0x02, 0x99, 0, 0, 0, 1]
        } else {
            mac
        };
        let own = asker.and_then(|asker| asker.address(question.family));
        let claimed = question.claims.map(|place| match place {
            // In IPv6 as much its own address as the one it was given.
            Place::Vacant if question.family == Family::V6 => link_local(mac),
            place => place.address(question.family),
        });
        let address = claimed.or(own).unwrap_or(Place::WebGateway.address(question.family));
        let target = question.target.address(question.family);
        let mut frame = match question.family {
            Family::V4 => Frame::arp(mac, question.operation, (said, v4(address)), ([0; 6], v4(target))),
            Family::V6 => {
                let kind = match question.operation {
                    1 => 135,
                    2 => 136,
                    3 => 134,
                    _ => 133,
                };
                six::discovery((mac, [0x33, 0x33, 0, 0, 0, 1]), kind, address, target, said)
            }
        };
        if let Some(cut) = question.cut {
            let shortest = match question.family {
                Family::V4 => wire::ETHERNET + 1,
                Family::V6 => SHORTEST + 20,
            };
            frame.0.truncate(usize::from(cut).max(shortest));
        }
        frame
    }
}

/// What the NIC says of a packet's checksums: all, but for packets that the datapath makes a report of, and for those in whose place it sends those
/// that have waited for them.
fn sum(frame: &Frame) -> Sum {
    let family = reading_family(&frame.0);
    match wire::read(&frame.0, family, wire::ETHERNET, false) {
        Ok(reading) if reading.hops > 1 && frame.0.len() < 1_000 && reading.piece != Piece::First => Sum::Complete,
        _ => Sum::Unknown,
    }
}

fn reading_family(frame: &[u8]) -> Family {
    match wire::ether_type(frame) {
        0x86dd => Family::V6,
        _ => Family::V4,
    }
}

/// What is said of places is said in both families.
fn change_in_family(world: &mut World, family: Family, step: &Step) {
    let at = |place: Place| place.address(family);
    match *step {
        Step::Publishes {
            at: address,
            port,
            protocol,
            endpoint,
            inside,
            count,
        } => {
            let tenant = &TENANTS[endpoint as usize - 1];
            let publication = Publication {
                network: tenant.network,
                endpoint,
                address: at(tenant.place),
                port: inside,
                count,
            };
            // Two ranges that overlap are refused before they come here.
            let key = (at(address), port, protocol);
            let is_taken = world.published.iter().any(|(&(other, first, of), publication)| {
                let overlaps = first < port.saturating_add(count) && port < first.saturating_add(publication.count);
                (other, of) == (key.0, protocol) && overlaps && (first, publication.count) != (port, count)
            });
            if !is_taken {
                world.published.insert(key, publication);
            }
        }
        Step::Unpublishes {
            at: address,
            port,
            protocol,
        } => {
            world.published.remove(&(at(address), port, protocol));
        }
        Step::Uplink { device, lends, mtu } => {
            let address = lends.map(at);
            world.uplinks.insert((device, family), Uplink { address, mtu });
        }
        Step::NoUplink { device } => {
            world.uplinks.remove(&(device, family));
        }
        Step::Owns(place, true) => {
            world.local.insert(at(place), 0);
        }
        Step::Owns(place, false) => {
            world.local.remove(&at(place));
        }
        _ => {}
    }
}

/// The packet as it is built in either family; IPv6's with these extension headers.
fn build(packet: &Packet, chain: &[u8], (source, destination): (IpAddr, IpAddr)) -> Frame {
    match source.is_ipv4() {
        true => packet.build(),
        false => six::build(packet, chain, source, destination),
    }
}

fn packet(key: &Key, icmp_kind: u8) -> Packet {
    let (source, destination) = (v4(key.source), v4(key.destination));
    let (from, to) = ((source, key.source_port), (destination, key.destination_port));
    match key.protocol {
        TCP => Packet::tcp(from, to, 0),
        UDP => Packet::udp(from, to),
        SCTP => Packet::sctp(from, to),
        UDP_LITE => Packet::udp_lite(from, to),
        ICMP | ICMP6 => Packet::echo(source, destination, icmp_kind, key.source_port),
        other => Packet::other(other, source, destination),
    }
}

/// The address, or the one that it is a twin of.
fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            Ipv4Addr::new(a, b, c, d)
        }
    }
}

fn nic_mac(device: u32) -> Mac {
    if device == SECOND_NIC { SECOND_NIC_MAC } else { NIC_MAC }
}

fn name(hook: Hook, fate: &Fate, told: bool) -> String {
    match fate {
        Fate::Heard if told => TOLD.to_owned(),
        Fate::Stays(_) => format!("{hook:?} stays"),
        Fate::Sent(_) => format!("{hook:?} sent"),
        Fate::Heard => format!("{hook:?} heard"),
        Fate::Dropped(reason) => format!("{hook:?} dropped: {reason:?}"),
    }
}

/// What becomes of what is said to many, and somebody hears.
const TOLD: &str = "FromContainer told to many";

/// What has become of all packets: a test that only ever sees one kind of them proves little.
#[derive(Default)]
pub struct Census(BTreeMap<String, u64>);

impl Census {
    pub fn add(&mut self, trial: &Trial<'_>) {
        for (fate, count) in &trial.fates {
            *self.0.entry(fate.clone()).or_default() += count;
        }
    }

    /// Given enough packets, every reason for a drop that can be met by chance has been met.
    pub fn assert_variety(&self) {
        if self.0.values().sum::<u64>() < 200_000 {
            return;
        }
        assert!(self.0.contains_key(TOLD), "nobody spoke to many");
        use DropReason::*;
        let met = [
            Truncated,
            UnknownDevice,
            ForgedMac,
            ForgedSource,
            UnknownEtherType,
            Multicast,
            NotRoutable,
            NoSuchEndpoint,
            IsolatedNetwork,
            InternalNetwork,
            IccDisabled,
            Unpublished,
            NoRoute,
            NoMasquerade,
            CannotTranslate,
            FlowTableFull,
            FlowLimit,
            TinyFragment,
            NotAnOpening,
            UnrelatedError,
            UnmasqueradedSource,
            ForgedArp,
            SourceRouted,
            ExtensionHeaders,
        ];
        for reason in met {
            let word = format!("dropped: {reason:?}");
            assert!(
                self.0.keys().any(|fate| fate.ends_with(&word)),
                "no packet met {reason:?}; the steps are not various enough"
            );
        }
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(fate, count)| writeln!(f, "{count:>9} {fate}"))
    }
}
