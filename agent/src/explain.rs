//! What would become of a packet that nobody sends: a copy of the real program is given one, and says.
//!
//! The copy reads the tables that the real programs read, and writes none of them (`copy`). What it has decided stands in its own: the conversation it has
//! opened, the rules that have spoken, the drop it has counted.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use aya::Pod;
use sluice_datapath_common::{
    DropReason, Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address,
    config::Config,
    counter::Counter,
    drop::DropKey,
    endpoint::{Attachment, Endpoint, EndpointKey},
    event::{FlowEvent, OPENED},
    flow::{Action, FLOW_IS_REPLY, Flow, FlowKey},
    network::Network,
    overlay::{Remote, host_of},
    policy::{ALLOW, REJECT, VerdictKey},
    programs::{FROM_CONTAINER, FROM_HOST, FROM_NIC},
    publish::{Publication, PublishKey, RangeKey},
    uplink::{LocalAddress, Uplink},
};

use crate::{
    AgentError, Limits, Tried,
    follow::{Clock, Recorded, see_flow, side},
    kernel::netlink::{Netlink, device_name},
    link::listing,
    map::{
        handle::{PerCpuTable, Prefix, Table},
        pins::Maps,
    },
    observe::{self, protocol, reason_words},
    roster::Roster,
    view::{Explanation, Outcome, Reason, Seen, Side, Step},
};
use copy::Copy;
use packet::Packet;

mod copy;
mod packet;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who speaks.
    pub from: Speaker,
    /// To whom.
    pub to: Target,
    /// IP protocol number.
    pub protocol: u8,
    /// The port, or of ICMP the type.
    pub port: u16,
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaker {
    /// An endpoint of this host, by its number.
    Endpoint(u32),
    /// A process of this host.
    Host,
    /// Somebody outside.
    World(IpAddr),
}

/// Who is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Whoever is there.
    Address(IpAddr),
    /// This host, at the address where whoever speaks finds it. True: of IPv6.
    Host(bool),
}

/// A question that has no answer.
#[derive(Debug)]
pub enum Refusal {
    /// It makes no sense, in a sentence.
    Question(String),
    /// Something failed.
    Failed(AgentError),
}

impl From<AgentError> for Refusal {
    fn from(error: AgentError) -> Self {
        Self::Failed(error)
    }
}

/// What there is to answer by.
pub struct Ground<'a> {
    /// The real tables.
    pub maps: &'a Maps,
    /// Where they are pinned.
    pub tables: PathBuf,
    /// What the programs were loaded with.
    pub config: Config,
    /// How large the tables are.
    pub limits: Limits,
    /// Who is who.
    pub roster: &'a Roster,
}

/// The source port of what is made up: of those that clients get.
const SOURCE_PORT: u16 = 50_123;

/// A family of addresses that can be asked about: its tables, and what of others is its own.
trait Asked: Recorded {
    /// Those of flows that a copy may have written.
    const FLOWS: [&'static str; 2];

    fn of(address: IpAddr) -> Option<Self::Address>;
    fn own(attachment: &Attachment) -> Self::Address;
    fn gateway(network: &Network) -> Self::Address;
    fn endpoints(maps: &Maps) -> &Table<EndpointKey<Self>, Endpoint>;
    fn remotes(maps: &Maps) -> &Table<EndpointKey<Self>, Remote>;
    fn local(maps: &Maps) -> &Table<Self::Address, LocalAddress>;
    fn uplinks(maps: &Maps) -> &Table<u32, Uplink<Self>>;
    fn published(maps: &Maps) -> &Table<PublishKey<Self>, Publication<Self>>;
    fn ranges(maps: &Maps) -> &Table<Prefix<RangeKey<Self>>, Publication<Self>>;
}

macro_rules! asked {
    ($family:ident, $address:ident, $variant:ident, $own:ident, $gateway:ident, [$($flows:literal),+], $endpoints:ident, $remotes:ident, $local:ident, $uplinks:ident, $published:ident, $ranges:ident) => {
        impl Asked for $family {
            const FLOWS: [&'static str; 2] = [$($flows),+];

            fn of(address: IpAddr) -> Option<$address> {
                match address {
                    IpAddr::$variant(address) => Some(address.into()),
                    _ => None,
                }
            }

            fn own(attachment: &Attachment) -> $address {
                attachment.$own
            }

            fn gateway(network: &Network) -> $address {
                network.$gateway
            }

            fn endpoints(maps: &Maps) -> &Table<EndpointKey<Self>, Endpoint> {
                &maps.$endpoints
            }

            fn remotes(maps: &Maps) -> &Table<EndpointKey<Self>, Remote> {
                &maps.$remotes
            }

            fn local(maps: &Maps) -> &Table<$address, LocalAddress> {
                &maps.$local
            }

            fn uplinks(maps: &Maps) -> &Table<u32, Uplink<Self>> {
                &maps.$uplinks
            }

            fn published(maps: &Maps) -> &Table<PublishKey<Self>, Publication<Self>> {
                &maps.$published
            }

            fn ranges(maps: &Maps) -> &Table<Prefix<RangeKey<Self>>, Publication<Self>> {
                &maps.$ranges
            }
        }
    };
}

asked!(
    Ipv4,
    Ipv4Address,
    V4,
    address4,
    gateway4,
    ["FLOWS4", "OPENING4"],
    ENDPOINTS4,
    REMOTES4,
    LOCAL4,
    UPLINKS4,
    PUBLISHED4,
    RANGES4
);
asked!(
    Ipv6,
    Ipv6Address,
    V6,
    address6,
    gateway6,
    ["FLOWS6", "OPENING6"],
    ENDPOINTS6,
    REMOTES6,
    LOCAL6,
    UPLINKS6,
    PUBLISHED6,
    RANGES6
);

/// Answers.
pub fn explain(question: &Question, ground: &Ground<'_>) -> Result<Explanation, Refusal> {
    let is_six = match (question.from, question.to) {
        (_, Target::Address(address)) | (Speaker::World(address), _) => address.is_ipv6(),
        (_, Target::Host(is_six)) => is_six,
    };
    match is_six {
        false => Answer::<Ipv4>::find(question, ground),
        true => Answer::<Ipv6>::find(question, ground),
    }
}

/// A packet that stands at a program.
struct Standing {
    program: &'static str,
    ifindex: u32,
    packet: Packet,
}

/// An answer as it is found.
struct Answer<'a, F: Family> {
    question: &'a Question,
    ground: &'a Ground<'a>,
    host: HashSet<IpAddr>,
    steps: Vec<Step>,
    family: std::marker::PhantomData<F>,
}

impl<'a, F: Asked> Answer<'a, F>
where
    FlowKey<F>: Pod,
    Flow<F>: Pod,
    EndpointKey<F>: Pod,
    PublishKey<F>: Pod,
    RangeKey<F>: Pod,
    Publication<F>: Pod,
    Uplink<F>: Pod,
    F::Address: Pod,
{
    fn find(question: &'a Question, ground: &'a Ground<'a>) -> Result<Explanation, Refusal> {
        let host = observe::host_addresses(ground.maps).tried(|| "reading the host's addresses".to_owned())?;
        let mut answer = Self {
            question,
            ground,
            host,
            steps: Vec::new(),
            family: std::marker::PhantomData,
        };
        let standing = match question.from {
            Speaker::Endpoint(number) => answer.of_endpoint(number)?,
            Speaker::Host => answer.of_host()?,
            Speaker::World(address) => answer.of_world(address)?,
        };
        standing.packet.is_opening().map_err(Refusal::Question)?;
        answer.run(&standing)
    }

    // === where the packet stands ===

    fn of_endpoint(&mut self, number: u32) -> Result<Standing, Refusal> {
        let reading = || "reading who lives where".to_owned();
        let attachments = self
            .ground
            .maps
            .ATTACHMENTS
            .entries(|_, attachment| attachment.endpoint == number);
        let (ifindex, attachment) = attachments
            .tried(reading)?
            .pop()
            .ok_or_else(|| Refusal::Question(format!("{} has no device", self.ground.roster.name(number))))?;
        let network = self.network(attachment.network)?;
        let source = F::own(&attachment);
        if source == F::ANY {
            return Err(Refusal::Question(format!(
                "{} has no address of this family",
                self.ground.roster.name(number)
            )));
        }
        let destination = match self.question.to {
            Target::Address(address) => self.address(address)?,
            Target::Host(_) => F::gateway(&network),
        };
        let key = EndpointKey {
            network: attachment.network,
            address: destination,
        };
        let neighbour = F::endpoints(self.ground.maps)
            .get(&key)
            .tried(reading)?
            .map(|there| there.mac);
        let elsewhere = F::remotes(self.ground.maps)
            .get(&key)
            .tried(reading)?
            .map(|there| there.mac);
        Ok(Standing {
            program: FROM_CONTAINER,
            ifindex,
            packet: Packet {
                receiver: neighbour.or(elsewhere).unwrap_or(network.gateway_mac),
                sender: attachment.mac,
                ..self.packet(F::told(source), F::told(destination))
            },
        })
    }

    fn of_host(&mut self) -> Result<Standing, Refusal> {
        let Target::Address(address) = self.question.to else {
            return Err(Refusal::Question(
                "what the host says to itself does not come by the datapath".to_owned(),
            ));
        };
        let mut asked = (self.address(address)?, self.question.port);
        if address.is_loopback() || self.host.contains(&address) {
            let publication = self.published(asked.0)?.ok_or_else(|| {
                Refusal::Question(format!(
                    "nobody has published {}: it is the host's own, and does not come by the datapath",
                    self.words(address, Some(self.question.port))
                ))
            })?;
            asked = (
                publication.address,
                u16::from_be(publication.inside(self.question.port.to_be())),
            );
            let there = self.words(F::told(asked.0), Some(asked.1));
            self.step(
                "socket",
                format!(
                    "connect() to {} is turned to {there} before a packet exists",
                    self.words(address, Some(self.question.port))
                ),
            );
        }
        let endpoints = F::endpoints(self.ground.maps).entries(|key, _| key.address == asked.0);
        let endpoints = endpoints.tried(|| "reading who lives where".to_owned())?;
        let (source, receiver) = match endpoints.first() {
            Some((key, endpoint)) => (F::gateway(&self.network(key.network)?), endpoint.mac),
            // It goes where the host's routes lead: by the leg, if at all, to a network of ours.
            None => {
                let network = self.network_around(asked.0)?.ok_or_else(|| {
                    Refusal::Question(format!(
                        "{address} is in no network of ours: what the host says there does not come by the datapath"
                    ))
                })?;
                (F::gateway(&network), network.gateway_mac)
            }
        };
        Ok(Standing {
            program: FROM_HOST,
            ifindex: self.ground.config.host_leg_ifindex,
            packet: Packet {
                receiver,
                sender: self.ground.config.host_mac,
                port: asked.1,
                ..self.packet(F::told(source), F::told(asked.0))
            },
        })
    }

    fn of_world(&mut self, from: IpAddr) -> Result<Standing, Refusal> {
        self.address(from)?;
        // Nothing is sent: the kernel only looks for the way back.
        let way = || -> std::io::Result<IpAddr> {
            let any: SocketAddr = match from.is_ipv6() {
                true => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
                false => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect((from, 9))?;
            Ok(socket.local_addr()?.ip())
        };
        let here = way().map_err(|why| Refusal::Question(format!("the host has no route to {from}: {why}")))?;
        let reading = || "reading the host's addresses".to_owned();
        let local = self.address(here)?;
        let local = F::local(self.ground.maps).get(&local).tried(reading)?;
        let ifindex = local.map_or(0, |local| local.ifindex);
        if F::uplinks(self.ground.maps).get(&ifindex).tried(reading)?.is_none() {
            return Err(Refusal::Question(format!(
                "the way back to {from} leads by {here}, which is at no NIC that the datapath stands at: nothing of {from} comes in by it"
            )));
        }
        let devices = Netlink::open().and_then(|mut netlink| listing::devices(&mut netlink));
        let devices = devices.tried(|| "listing devices".to_owned())?;
        let mac = devices
            .iter()
            .find(|device| device.ifindex == ifindex)
            .map(|device| device.mac);
        let destination = match self.question.to {
            Target::Address(address) => address,
            Target::Host(_) => here,
        };
        self.address(destination)?;
        Ok(Standing {
            program: FROM_NIC,
            ifindex,
            packet: Packet {
                receiver: mac.unwrap_or_default(),
                // Of a router that is nobody's.
                sender: [0x02, 0, 0, 0, 0, 0x01],
                ..self.packet(from, destination)
            },
        })
    }

    fn packet(&self, source: IpAddr, destination: IpAddr) -> Packet {
        Packet {
            receiver: [0; 6],
            sender: [0; 6],
            source,
            destination,
            protocol: self.question.protocol,
            source_port: SOURCE_PORT,
            port: self.question.port,
        }
    }

    fn address(&self, address: IpAddr) -> Result<F::Address, Refusal> {
        F::of(address).ok_or_else(|| Refusal::Question("both ends must be of one family of addresses".to_owned()))
    }

    fn network(&self, number: u32) -> Result<Network, Refusal> {
        let network = self.ground.maps.NETWORKS.get(&number);
        let network = network.tried(|| "reading the networks".to_owned())?;
        network.ok_or_else(|| Refusal::Question("its network is gone".to_owned()))
    }

    /// The network whose gateway is nearest to an address, by who lives there.
    fn network_around(&self, address: F::Address) -> Result<Option<Network>, Refusal> {
        let remotes = F::remotes(self.ground.maps).entries(|key, _| key.address == address);
        let remotes = remotes.tried(|| "reading who lives where".to_owned())?;
        remotes.first().map(|(key, _)| self.network(key.network)).transpose()
    }

    /// Who answers at a port of the host, for the host's own processes: the exact address goes first, and a single port before a range.
    fn published(&self, address: F::Address) -> Result<Option<Publication<F>>, Refusal> {
        let port = self.question.port.to_be();
        let reading = || "reading published ports".to_owned();
        for address in [address, F::ANY] {
            let key = PublishKey {
                address,
                port,
                protocol: self.question.protocol,
                padding: 0,
            };
            if let Some(found) = F::published(self.ground.maps).get(&key).tried(reading)? {
                return Ok(Some(found));
            }
        }
        for address in [address, F::ANY] {
            let key = Prefix {
                length: size_of::<RangeKey<F>>() as u32 * 8,
                address: RangeKey {
                    address,
                    protocol: u16::from(self.question.protocol),
                    port,
                },
            };
            if let Some(found) = F::ranges(self.ground.maps).get(&key).tried(reading)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    // === what came of it ===

    fn run(mut self, standing: &Standing) -> Result<Explanation, Refusal> {
        let Standing {
            program,
            ifindex,
            packet,
        } = standing;
        let device = device_name(*ifindex).unwrap_or_else(|| format!("#{ifindex}"));
        let port = |port: u16| Some(port).filter(|_| matches!(packet.protocol, 6 | 17 | 132 | 136));
        let (from, to) = (
            self.words(packet.source, None),
            self.words(packet.destination, port(packet.port)),
        );
        self.step(
            "packet",
            format!(
                "the first {} packet of a new conversation, {from} > {to}",
                protocol(packet.protocol)
            ),
        );
        let copy = Copy::of(program, &self.ground.config, &self.ground.tables, self.ground.limits)?;
        let code = copy.run(*ifindex, &packet.frame())?;
        self.step("program", format!("{program} sees it at {device}"));
        let reading = || "reading what a copy of the program has written".to_owned();
        let opened = self.opened(&copy).tried(reading)?;
        let dropped = dropped(&copy).tried(reading)?;
        let mut explanation = Explanation {
            steps: Vec::new(),
            verdict: Outcome::Forwarded,
            drop_reason: None,
            source: self.side(packet.source, port(packet.source_port)),
            destination: self.side(packet.destination, port(packet.port)),
            protocol: protocol(packet.protocol),
            towards: None,
            device: None,
        };
        if let Some((seen, flow)) = &opened {
            self.translation(seen);
            self.policy(&copy).tried(reading)?;
            self.route(flow)?;
            explanation.towards.clone_from(&seen.towards);
            explanation.device = Some(flow.ifindex).filter(|ifindex| *ifindex != 0).and_then(device_name);
        } else {
            self.policy(&copy).tried(reading)?;
        }
        /// `TC_ACT_*`
        const STACK: i32 = -1;
        const DROPPED: i32 = 2;
        let told = match (dropped, code) {
            (Some(reason), _) => {
                let (name, sentence) = reason_words(reason);
                explanation.verdict = match DropReason::from_number(reason) {
                    Some(DropReason::PolicyDenied) => Outcome::Denied,
                    Some(DropReason::PolicyRejected) => Outcome::Rejected,
                    _ => Outcome::Dropped,
                };
                let told = format!("dropped, {name}: {sentence}");
                explanation.drop_reason = Some(Reason {
                    name,
                    number: reason,
                    sentence,
                });
                told
            }
            (None, STACK) => {
                explanation.towards = Some("host".to_owned());
                "left to the host's own stack, firewall and routes: it is no affair of the datapath".to_owned()
            }
            (None, DROPPED) => {
                explanation.verdict = Outcome::Dropped;
                "it ends here, and is no drop: it was answered or waits".to_owned()
            }
            (None, _) if opened.is_none() => {
                "forwarded without a conversation: a question to the resolver, or an answer by the datapath itself"
                    .to_owned()
            }
            (None, _) => "forwarded, and so are the answers".to_owned(),
        };
        self.step("verdict", told);
        explanation.steps = self.steps;
        Ok(explanation)
    }

    /// The conversation that the copy has opened.
    fn opened(&self, copy: &Copy) -> std::io::Result<Option<(Seen, Flow<F>)>> {
        for name in F::FLOWS {
            let table: Table<FlowKey<F>, Flow<F>> = copy.table(name)?;
            let entries = table.entries(|_, flow| flow.flags & FLOW_IS_REPLY == 0)?;
            if let Some((key, flow)) = entries.first() {
                let event = FlowEvent {
                    flow: *flow,
                    key: *key,
                    kind: u32::from(OPENED),
                    ..FlowEvent::default()
                };
                return Ok(Some((
                    see_flow(&event, self.ground.roster, &self.host, Clock::read()),
                    *flow,
                )));
            }
        }
        Ok(None)
    }

    fn translation(&mut self, seen: &Seen) {
        if let Some(to) = &seen.translated_destination {
            let told = format!("the port is published: the destination becomes {}", side_words(to));
            self.step("translation", told);
        }
        if let Some(from) = &seen.translated_source {
            let told = format!(
                "the source becomes {}, by a port that is free (another one may be)",
                side_words(from)
            );
            self.step("translation", told);
        }
        if seen.translated_source.is_none() && seen.translated_destination.is_none() {
            self.step("translation", "none: addresses and ports stay as they are".to_owned());
        }
    }

    /// The rules that have spoken.
    fn policy(&mut self, copy: &Copy) -> std::io::Result<()> {
        let table: Table<VerdictKey, Counter> = copy.table("VERDICTS")?;
        let mut spoken = table.entries(|_, _| true)?;
        spoken.sort_by_key(|(key, _)| (key.audited, key.rule));
        if spoken.is_empty() {
            self.step("policy", "no document speaks of it".to_owned());
        }
        for (key, _) in spoken {
            let rule = match (key.rule, self.ground.roster.rule(key.rule)) {
                (_, Some(rule)) => rule.clone(),
                (0, None) => "no rule".to_owned(),
                (number, None) => format!("rule {number:016x}"),
            };
            let said = match key.verdict {
                ALLOW => "allows it",
                REJECT => "rejects it",
                _ => "denies it",
            };
            let audit = if key.audited == 0 { "" } else { " (audit: only counted)" };
            self.step("policy", format!("{rule}: {said}{audit}"));
        }
        Ok(())
    }

    fn route(&mut self, flow: &Flow<F>) -> Result<(), Refusal> {
        let device = device_name(flow.ifindex).unwrap_or_else(|| format!("#{}", flow.ifindex));
        let name = || self.ground.roster.name(flow.destination_endpoint);
        let told = match flow.action {
            action if action == Action::Endpoint as u8 => {
                format!("straight into the namespace of {}, behind {device}", name())
            }
            action if action == Action::Host as u8 => format!(
                "to the host's stack, by {device}; what listens there or where it is routed is the host's affair"
            ),
            action if action == Action::Overlay as u8 => {
                let host = self.ground.maps.HOSTS.get(&host_of(flow.reverse_scope));
                let host = host.tried(|| "reading the other hosts".to_owned())?.unwrap_or_default();
                let address = std::net::Ipv6Addr::from(host.address);
                let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
                format!("to the host {address} by {device}, which judges it by its own tables: ask there")
            }
            _ => match flow.next_hop == F::ANY {
                true => format!("out of {device}, where the host's routes lead"),
                false => format!("out of {device} to {}", F::told(flow.next_hop)),
            },
        };
        self.step("route", told);
        Ok(())
    }

    fn step(&mut self, what: &str, told: String) {
        self.steps.push(Step {
            what: what.to_owned(),
            told,
        });
    }

    fn side(&self, address: IpAddr, port: Option<u16>) -> Option<Side> {
        let side = side(Some(address), port, self.ground.roster.at(address));
        side.map(|side| match side.name.is_empty() && self.host.contains(&address) {
            true => Side {
                name: "host".to_owned(),
                ..side
            },
            false => side,
        })
    }

    fn words(&self, address: IpAddr, port: Option<u16>) -> String {
        self.side(address, port)
            .map_or_else(String::new, |side| side_words(&side))
    }
}

/// Why the copy has dropped it.
fn dropped(copy: &Copy) -> std::io::Result<Option<u8>> {
    let table: PerCpuTable<DropKey, Counter> = copy.table("DROPS")?;
    let mut reason = None;
    table.each(|key, counters| {
        if counters.iter().any(|counter| counter.packets > 0) {
            reason = Some(key.reason);
        }
    })?;
    Ok(reason)
}

fn side_words(side: &Side) -> String {
    let address = side.address.map(|address| match side.port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    });
    match (address, side.name.as_str()) {
        (Some(address), "") => address,
        (Some(address), name) => format!("{name} ({address})"),
        (None, name) => name.to_owned(),
    }
}
