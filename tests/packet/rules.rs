//! What documents say, by the real programs: every verdict, with everybody, by every protocol, of conversations that are new and of those that are not.
//!
//! The tables are made by the crate that makes them for the agent, of documents as people write them. What they mean is tested there.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use sluice_datapath_common::counter::Counter;
use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES, NETWORK_UNPROTECTED};
use sluice_datapath_common::policy::{
    Cell, CellKey, DENY, Groups, Judgement, LIST_KEY_BITS, ListKey, REJECT, Subject, VerdictKey,
};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::{Ipv4Address, Ipv6Address};
use sluice_policy::{Facts, Surroundings, compile, document, verdict::Spoken};

use crate::datapath::{NO_PORT, Outcome, PROHIBITED, Verdict};
use crate::frame::{ACK, ECHO_REPLY, ECHO_REQUEST, Frame, ICMP, Packet, RST, SYN, TCP, UDP, UNREACHABLE};
use crate::scene::{self, CLIENT, Container, GATEWAY, LONE, NIC_ADDRESS, SECOND_ADDRESS, SERVER, SHOP, Scene, WEB};
use crate::twin;

impl Scene {
    /// These documents are in force from now on.
    pub fn rule(&mut self, documents: &str, further: &[(Option<u32>, Facts)]) {
        let policies = document::read(documents).unwrap_or_else(|error| panic!("{error}\n{documents}"));
        let both = |address: Ipv4Addr| [IpAddr::from(address), IpAddr::from(twin::of(address))];
        let facts = |container: Container, name: &str| Facts {
            name: name.to_owned(),
            network: format!("net{}", container.network),
            addresses: both(container.address).to_vec(),
            ..Facts::default()
        };
        let mut endpoints: Vec<_> = [(WEB, "web"), (SHOP, "shop"), (LONE, "lone")]
            .into_iter()
            .map(|(container, name)| (Some(container.number), facts(container, name)))
            .collect();
        endpoints.extend(further.iter().cloned());
        let subnets = ["10.9.0.0/24", "10.8.0.0/24", "10.7.0.0/24"].map(|net| net.parse::<IpNet>().unwrap());
        let twins = subnets.map(|net| match net.addr() {
            IpAddr::V4(address) => IpNet::new(twin::of(address).into(), 120).unwrap(),
            other => other.into(),
        });
        let surroundings = Surroundings {
            endpoints,
            host: [GATEWAY, NIC_ADDRESS, SECOND_ADDRESS]
                .into_iter()
                .flat_map(both)
                .collect(),
            subnets: subnets.into_iter().chain(twins).collect(),
        };
        let tables = compile(&policies, &surroundings);
        self.forget_rules();
        for (number, subject) in &tables.subjects {
            let subject = Subject {
                ingress: subject.ingress.0,
                egress: subject.egress.0,
            };
            self.insert("SUBJECTS", *number, subject);
        }
        for (net, numbers) in &tables.known {
            let mut groups = Groups::default();
            for (place, number) in numbers.iter().enumerate() {
                groups.groups[place] = number.0;
            }
            let bits = u32::from(net.prefix_len());
            match net.addr() {
                IpAddr::V4(address) => self.insert_prefix("KNOWN4", bits, Ipv4Address::from(address), groups),
                IpAddr::V6(address) => self.insert_prefix("KNOWN6", bits, Ipv6Address::from(address), groups),
            }
        }
        for ((subject, group), cell) in &tables.cells {
            let key = CellKey {
                subject: subject.0,
                group: group.0,
            };
            let cell = Cell {
                all: words(cell.all),
                list: cell.list.0,
            };
            self.insert("CELLS", key, cell);
        }
        for ((list, block), said) in &tables.lists {
            let key = ListKey::of(list.0, block.protocol, block.port.to_be());
            self.insert_prefix("LISTS", LIST_KEY_BITS + u32::from(block.bits), key, words(*said));
        }
        let settings: Settings = self.slot("SETTINGS", 0);
        self.set(
            "SETTINGS",
            0,
            Settings {
                policies: 1,
                ..settings
            },
        );
        self.move_epoch();
    }

    /// Packets that were judged by a rule: by verdict, those under audit apart.
    fn judged(&mut self, verdict: u8, audited: bool) -> u64 {
        let counters = self.entries::<VerdictKey, Counter>("VERDICTS");
        let those = counters
            .iter()
            .filter(|(key, _)| key.verdict == verdict && (key.audited != 0) == audited);
        those.map(|(_, counter)| counter.packets).sum()
    }
}

fn words(said: sluice_policy::Judgement) -> Judgement {
    let words = |spoken: Option<Spoken>| spoken.map_or((0, 0), |spoken| (spoken.verdict as u8, spoken.rule.0));
    let ((said, rule), (audited, audited_rule)) = (words(said.enforced), words(said.audited));
    Judgement {
        rule,
        audited_rule,
        said,
        audited,
        padding: [0; 6],
    }
}

/// What a document says of `WEB` and of who is on the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Say {
    Allow,
    Deny,
    Reject,
    /// It would deny.
    Audit,
}

pub const SAYS: [Say; 4] = [Say::Allow, Say::Deny, Say::Reject, Say::Audit];

impl Say {
    /// The document, about one direction; beside its rule it allows everybody.
    pub fn document(self, direction: &str, peer: &str) -> String {
        let (list, whom) = if direction == "in" {
            ("ingress", "from")
        } else {
            ("egress", "to")
        };
        let (action, audit) = match self {
            Self::Allow => ("allow", false),
            Self::Deny => ("deny", false),
            Self::Reject => ("reject", false),
            Self::Audit => ("deny", true),
        };
        let everybody = if self == Self::Allow { "" } else { ", {}" };
        format!(
            "{{name: rule, audit: {audit}, select: {{name: web}}, {list}: [{{action: {action}, {whom}: [{peer}]}}{everybody}]}}"
        )
    }

    /// The reason that a packet dies for.
    pub fn reason(self) -> Option<DropReason> {
        match self {
            Self::Allow | Self::Audit => None,
            Self::Deny => Some(DropReason::PolicyDenied),
            Self::Reject => Some(DropReason::PolicyRejected),
        }
    }
}

/// Who speaks with `WEB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Other {
    Neighbour,
    World,
    Host,
}

/// A conversation between `WEB` and another, which one of them has opened.
struct Talk {
    other: Other,
    protocol: u8,
    web_opens: bool,
    /// How `WEB`'s packets to the world left: by what they are answered.
    left: Option<Frame>,
}

const PORT: u16 = 20_000;

impl Talk {
    fn address(&self) -> Ipv4Addr {
        match (self.other, self.web_opens) {
            (Other::Neighbour, _) => SHOP.address,
            (Other::World, true) => SERVER,
            (Other::World, false) => CLIENT,
            (Other::Host, _) => GATEWAY,
        }
    }

    /// The opener's next packet, or the answer to it.
    fn packet(&self, of_opener: bool, flags: u8) -> Packet {
        let (web, other) = (WEB.address, self.address());
        let (opener, asked) = if self.web_opens { (web, other) } else { (other, web) };
        let (from, to) = if of_opener {
            ((opener, PORT), (asked, 80))
        } else {
            ((asked, 80), (opener, PORT))
        };
        match self.protocol {
            TCP => Packet::tcp(from, to, flags),
            UDP => Packet::udp(from, to),
            _ => {
                let kind = if of_opener { ECHO_REQUEST } else { ECHO_REPLY };
                Packet::echo(from.0, to.0, kind, PORT)
            }
        }
    }

    fn send(&mut self, scene: &mut Scene, of_opener: bool, flags: u8) -> Outcome {
        let mut packet = self.packet(of_opener, flags);
        if of_opener == self.web_opens {
            let outcome = scene.says(WEB, &packet);
            if self.other == Other::World && self.web_opens && outcome.verdict == Verdict::Sent {
                self.left.get_or_insert(outcome.frame.clone());
            }
            return outcome;
        }
        // Who answers a masqueraded packet answers the NIC's address.
        if let Some(left) = &self.left {
            packet.destination = NIC_ADDRESS;
            if self.protocol == ICMP {
                packet.source_port = left.identifier();
            } else {
                packet.destination_port = left.source_port();
            }
        }
        match self.other {
            Other::Neighbour => scene.says(SHOP, &packet),
            Other::World => scene.world_says(&packet),
            Other::Host => scene.host_says(&packet),
        }
    }

    /// Both have spoken.
    fn establish(&mut self, scene: &mut Scene) {
        for (of_opener, flags) in [(true, SYN), (false, SYN | ACK), (true, ACK)] {
            assert_eq!(self.send(scene, of_opener, flags).verdict, Verdict::Sent);
        }
        scene.assert_no_drops();
    }
}

fn set() -> Scene {
    let mut scene = scene::set();
    scene.forget_rules();
    scene.network(
        2,
        NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES | NETWORK_UNPROTECTED,
    );
    scene
}

fn all_talks() -> Vec<Talk> {
    let mut talks = Vec::new();
    for other in [Other::Neighbour, Other::World, Other::Host] {
        for protocol in [TCP, UDP, ICMP] {
            for web_opens in [true, false] {
                let left = None;
                talks.push(Talk {
                    other,
                    protocol,
                    web_opens,
                    left,
                });
            }
        }
    }
    talks
}

fn peer(other: Other) -> &'static str {
    match other {
        Other::Neighbour => "{name: shop}",
        Other::World => "world",
        Other::Host => "host",
    }
}

#[test]
fn every_verdict_is_done_to_everybody_by_every_protocol_at_once_and_later() {
    for say in SAYS {
        for mut talk in all_talks() {
            for established in [false, true] {
                for of_opener in [true, false] {
                    // Nobody answers before he is asked.
                    if !established && !of_opener {
                        continue;
                    }
                    let mut scene = set();
                    talk.left = None;
                    if established {
                        talk.establish(&mut scene);
                    }
                    let direction = if talk.web_opens { "out" } else { "in" };
                    scene.rule(&say.document(direction, peer(talk.other)), &[]);
                    let flags = if established { ACK } else { SYN };
                    let sent = talk.packet(of_opener, flags);
                    let outcome = talk.send(&mut scene, of_opener, flags);
                    let case = format!(
                        "{say:?} {:?} by {}, web opens: {}, established: {established}, opener's: {of_opener}",
                        talk.other, talk.protocol, talk.web_opens
                    );
                    check(&mut scene, say, &outcome, &sent, &talk, of_opener, &case);
                }
            }
        }
    }
}

fn check(scene: &mut Scene, say: Say, outcome: &Outcome, sent: &Packet, talk: &Talk, of_opener: bool, case: &str) {
    let reasons: Vec<DropReason> = scene.take_drops().iter().map(|drop| drop.0).collect();
    // The other side of a conversation that was ended may speak of it as of a new one, of which nobody has said anything.
    assert_eq!(reasons, say.reason().into_iter().collect::<Vec<_>>(), "{case}");
    match say {
        Say::Allow => assert_eq!(outcome.verdict, Verdict::Sent, "{case}"),
        Say::Audit => {
            assert_eq!(outcome.verdict, Verdict::Sent, "{case}");
            assert_eq!((scene.judged(DENY, true), scene.judged(DENY, false)), (1, 0), "{case}");
        }
        Say::Deny => {
            assert_eq!(outcome.verdict, Verdict::Dropped, "{case}");
            assert_eq!((scene.judged(DENY, false), scene.judged(DENY, true)), (1, 0), "{case}");
        }
        Say::Reject => {
            assert_eq!(outcome.verdict, Verdict::Sent, "{case}");
            assert_eq!(
                (scene.judged(REJECT, false), scene.judged(REJECT, true)),
                (1, 0),
                "{case}"
            );
            check_refusal(outcome, sent, talk, of_opener, case);
        }
    }
}

fn check_refusal(outcome: &Outcome, sent: &Packet, talk: &Talk, of_opener: bool, case: &str) {
    let frame = &outcome.frame;
    assert_eq!(frame.sums(), Ok(()), "{case}");
    // Who asked the NIC's address is answered by that.
    let asked = match (&talk.left, of_opener) {
        (Some(_), false) => NIC_ADDRESS,
        _ => sent.destination,
    };
    assert_eq!((frame.source(), frame.destination()), (asked, sent.source), "{case}");
    match talk.protocol {
        TCP => {
            let bytes = &frame.0[34..];
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            // What was sent bore the sequence number 1 and acknowledged 2, with 23 bytes behind.
            let (sequence, acknowledges, flags) = match sent.tcp_flags & ACK != 0 {
                true => (2, 0, RST),
                false => (0, 1 + 1 + 23, RST | ACK),
            };
            assert_eq!((word(4), word(8), bytes[13]), (sequence, acknowledges, flags), "{case}");
            assert_eq!(frame.0.len(), 14 + 20 + 20, "{case}");
            if talk.left.is_none() {
                assert_eq!(
                    (frame.source_port(), frame.destination_port()),
                    (sent.destination_port, sent.source_port),
                    "{case}"
                );
            }
        }
        protocol => {
            let code = if protocol == UDP { NO_PORT } else { PROHIBITED };
            assert_eq!(frame.icmp_kind_and_code(), (UNREACHABLE, code), "{case}");
            let quoted = frame.quoted();
            assert_eq!((quoted.source(), quoted.destination()), (sent.source, asked), "{case}");
        }
    }
}

/// From `WEB` to `SHOP`.
fn tcp(port: u16, flags: u8) -> Packet {
    Packet::tcp((WEB.address, PORT), (SHOP.address, port), flags)
}

#[test]
fn who_is_selected_is_closed_to_all_but_those_who_are_allowed() {
    let mut scene = set();
    scene.rule(
        "{name: shop, select: {name: shop}, ingress: [{from: [{name: web}], ports: [80, 8000-8010/udp, icmp/echo]}]}",
        &[],
    );
    for (packet, allowed) in [
        (tcp(80, SYN), true),
        (tcp(81, SYN), false),
        (Packet::udp((WEB.address, PORT), (SHOP.address, 8000)), true),
        (Packet::udp((WEB.address, PORT), (SHOP.address, 8010)), true),
        (Packet::udp((WEB.address, PORT), (SHOP.address, 8011)), false),
        (Packet::udp((WEB.address, PORT), (SHOP.address, 80)), false),
        (Packet::echo(WEB.address, SHOP.address, ECHO_REQUEST, 7), true),
    ] {
        let outcome = scene.says(WEB, &packet);
        let reasons: Vec<DropReason> = scene.take_drops().iter().map(|drop| drop.0).collect();
        let expected = if allowed {
            vec![]
        } else {
            vec![DropReason::PolicyDenied]
        };
        assert_eq!(
            (outcome.verdict == Verdict::Sent, reasons),
            (allowed, expected),
            "{:?}",
            packet.destination_port
        );
    }
    // What it says itself is its own affair, and the others' is theirs.
    assert_eq!(
        scene
            .says(SHOP, &Packet::tcp((SHOP.address, 9), (WEB.address, 9), SYN))
            .verdict,
        Verdict::Sent
    );
    let stranger = scene.world_says(&Packet::tcp((CLIENT, 9), (SHOP.address, 80), SYN));
    scene.assert_dropped(&stranger, DropReason::PolicyDenied, Direction::FromNic, 0);
}

#[test]
fn a_published_port_is_judged_by_who_really_asks_and_whom() {
    let mut scene = set();
    scene.publish(NIC_ADDRESS, 8080, TCP, WEB, 80);
    let of_client = Packet::tcp((CLIENT, PORT), (NIC_ADDRESS, 8080), SYN);
    let (net, twin) = (Ipv4Addr::new(192, 0, 2, 0), twin::of(Ipv4Addr::new(192, 0, 2, 0)));
    for (rule, allowed) in [
        ("{from: [world], ports: [80]}".to_owned(), true),
        ("{from: [world], ports: [8080]}".to_owned(), false),
        ("{from: [host]}".to_owned(), false),
        (format!("{{from: [{{cidr: {net}/24}}, {{cidr: '{twin}/120'}}]}}"), true),
        (
            format!(
                "{{from: [{{cidr: {net}/24, except: [{CLIENT}/32]}}, {{cidr: '{twin}/120', except: ['{}']}}]}}",
                twin::of(CLIENT)
            ),
            false,
        ),
    ] {
        scene.forget_flows();
        scene.rule(&format!("{{name: web, select: {{name: web}}, ingress: [{rule}]}}"), &[]);
        let outcome = scene.world_says(&of_client);
        let reasons: Vec<DropReason> = scene.take_drops().iter().map(|drop| drop.0).collect();
        let expected = if allowed {
            vec![]
        } else {
            vec![DropReason::PolicyDenied]
        };
        assert_eq!(
            (outcome.verdict == Verdict::Sent, reasons),
            (allowed, expected),
            "{rule}"
        );
    }
    // By its own published port it speaks to itself, and nobody is asked.
    scene.rule("{name: web, select: {name: web}, ingress: [], egress: []}", &[]);
    let hairpin = scene.says(WEB, &Packet::tcp((WEB.address, PORT), (NIC_ADDRESS, 8080), SYN));
    assert_eq!(hairpin.verdict, Verdict::Sent);
    scene.assert_no_drops();
}

#[test]
fn what_goes_on_is_not_judged_again_until_something_has_changed() {
    let mut scene = set();
    scene.rule(
        "{name: shop, select: {name: shop}, ingress: [{from: [{name: web}]}]}",
        &[],
    );
    for (container, packet) in [
        (WEB, tcp(80, SYN)),
        (SHOP, Packet::tcp((SHOP.address, 80), (WEB.address, PORT), SYN | ACK)),
        (WEB, tcp(80, ACK)),
        (WEB, tcp(80, ACK)),
    ] {
        assert_eq!(scene.says(container, &packet).verdict, Verdict::Sent);
    }
    assert_eq!(scene.judged(sluice_datapath_common::policy::ALLOW, false), 1);
    scene.move_epoch();
    assert_eq!(scene.says(WEB, &tcp(80, ACK)).verdict, Verdict::Sent);
    assert_eq!(scene.judged(sluice_datapath_common::policy::ALLOW, false), 2);
    scene.rule("{name: shop, select: {name: shop}, ingress: []}", &[]);
    let late = scene.says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, PORT), ACK));
    scene.assert_dropped(&late, DropReason::PolicyDenied, Direction::FromContainer, SHOP.number);
}

#[test]
fn an_rst_is_answered_by_none_and_pieces_neither() {
    let mut scene = set();
    scene.rule("{name: shop, select: {name: shop}, ingress: [{action: reject}]}", &[]);
    let reset = scene.says(WEB, &tcp(80, RST));
    assert_eq!(reset.verdict, Verdict::Dropped);
    let piece = scene.says(
        WEB,
        &Packet::udp((WEB.address, PORT), (SHOP.address, 53))
            .payload(&[1; 64])
            .fragment(7, 0, true),
    );
    assert_eq!(piece.verdict, Verdict::Dropped);
    let drops: Vec<DropReason> = scene.take_drops().iter().map(|drop| drop.0).collect();
    assert!(
        drops.iter().all(|reason| *reason == DropReason::PolicyRejected),
        "{drops:?}"
    );
}
