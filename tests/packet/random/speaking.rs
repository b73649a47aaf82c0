//! The frames of a case's steps.

use std::net::{IpAddr, Ipv4Addr};

use super::place::Place;
use super::six;
use super::step::{Ends, Question, Quote, Speech, Station, Wrapped};
use super::trial::Trial;
use crate::frame::{self, Frame, Packet};
use crate::reference::Hook;
use crate::reference::conversation::{Key, Side};
use crate::reference::wire::{self, ICMP, ICMP6, SCTP, TCP, UDP, UDP_LITE};
use crate::reference::world::{self, Family, Mac, link_local};
use crate::scene::{GATEWAY_MAC, HOST_MAC, LEG_MAC, NIC_MAC, ROUTER_MAC, SECOND_NIC, SECOND_NIC_MAC};
use crate::wrapping::{self, Wrapping};

impl Trial<'_> {
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

    /// The frame of a speech, if what it speaks of has been.
    pub(super) fn frame(&self, speech: &Speech) -> Option<Frame> {
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
        self.give_macs(speech, &mut packet, ends);
        let mut frame = build(
            &packet,
            six::CHAINS[usize::from(speech.headers) % six::CHAINS.len()],
            ends,
        );
        if let Some(cut) = speech.cut {
            let shortest = match speech.wrapped {
                Some(_) => wire::ETHERNET,
                None => shortest(ends.0.is_ipv4()),
            };
            frame.0.truncate(usize::from(cut).max(shortest));
        }
        flip(&mut frame, speech.flip);
        Some(match &speech.wrapped {
            Some(around) => wrap(speech.device, around, &frame),
            None => frame,
        })
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
        let family = world::family(sent.source);
        let reporter = quote.reporter.map_or(sent.destination, |place| place.address(family));
        let quoted = build(&about, &[], (sent.source, sent.destination));
        let bytes = usize::from(quote.bytes);
        let error = Packet::error(v4(reporter), v4(sent.source), speech.icmp_kind, &quoted, bytes);
        Some((error, (reporter, sent.source)))
    }

    fn give_macs(&self, speech: &Speech, packet: &mut Packet, (source, destination): (IpAddr, IpAddr)) {
        let world = &self.reference.world;
        let mac_in = |network: u32, address: IpAddr| world.mac_of(network, address);
        let (from, to): (Mac, Mac) = match (speech.hook, &speech.wrapped) {
            (_, Some(around)) => {
                let network = world.network_of_vni(around.vni).unwrap_or(0);
                let mac_of = |address| mac_in(network, address).unwrap_or(GATEWAY_MAC);
                (mac_of(source), mac_of(destination))
            }
            (Hook::FromContainer, _) => {
                let sender = world.attachments.get(&speech.device);
                let neighbour = sender.and_then(|sender| mac_in(sender.network, destination));
                (
                    sender.map_or([2; 6], |sender| sender.mac),
                    neighbour.unwrap_or(GATEWAY_MAC),
                )
            }
            (Hook::FromHost, _) => {
                let home = world.home(destination).unwrap_or(0);
                (HOST_MAC, mac_in(home, destination).unwrap_or(LEG_MAC))
            }
            (Hook::FromNic, _) => (ROUTER_MAC, nic_mac(speech.device)),
            (Hook::ToNic, _) => (nic_mac(speech.device), ROUTER_MAC),
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

    /// The frame of a question.
    pub(super) fn question(&self, question: &Question) -> Frame {
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
                Family::V6 => shortest(false),
            };
            frame.0.truncate(usize::from(cut).max(shortest));
        }
        frame
    }
}

/// A test run takes no frame without a whole IP header.
fn shortest(is_ipv4: bool) -> usize {
    wire::ETHERNET + if is_ipv4 { 20 } else { 40 }
}

fn flip(frame: &mut Frame, flip: Option<(u16, u8)>) {
    if let Some((at, bits)) = flip {
        let at = usize::from(at) % frame.0.len();
        frame.0[at] ^= bits;
    }
}

/// The frame in a packet of another host, which comes in by this device.
fn wrap(device: u32, around: &Wrapped, frame: &Frame) -> Frame {
    let place = |place: Place| place.address(around.family);
    let mut outer = wrapping::wrapped(
        &Wrapping {
            macs: (ROUTER_MAC, nic_mac(device)),
            from: place(around.by),
            to: place(around.to),
            port: around.port,
            flags: around.flags,
            vni: around.vni,
            marks: around.marks,
        },
        frame,
    );
    if let Some(cut) = around.cut {
        let shortest = shortest(around.family == Family::V4);
        outer.0.truncate(usize::from(cut).max(shortest));
    }
    flip(&mut outer, around.flip);
    outer
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
