//! The tables say what the documents mean: random documents, random conversations, the same verdict by the same rule.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use sluice_policy::{
    Conversation, Direction, Facts, Number, Party, Policy, Surroundings, Tables, compile, document, meaning::judge_end,
    tables::MOST_GROUPS,
};

use crate::chance::Chance;

/// How many worlds are tried, and how many conversations in each. `SLUICE_SEED` begins elsewhere.
const WORLDS: u64 = 150;
const CONVERSATIONS: usize = 300;

fn seed() -> u64 {
    std::env::var("SLUICE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1)
}

#[test]
fn tables_and_meaning_agree_on_every_conversation() {
    let mut judged = BTreeMap::new();
    for world in seed()..seed() + WORLDS {
        let mut chance = Chance(world);
        let policies = policies(&mut chance);
        let surroundings = surroundings(&mut chance);
        let tables = compile(&policies, &surroundings);
        assert!(tables.known.values().all(|groups| groups.len() <= MOST_GROUPS));
        for _ in 0..CONVERSATIONS {
            let conversation = conversation(&mut chance, &surroundings);
            for direction in [Direction::Egress, Direction::Ingress] {
                agree(
                    world,
                    &policies,
                    &surroundings,
                    &tables,
                    &conversation,
                    direction,
                    &mut judged,
                );
            }
        }
    }
    // A test of nothing but silence would prove nothing.
    for verdict in ["allow", "reject", "deny"] {
        for kind in ["enforced", "audited"] {
            assert!(
                judged
                    .get(&(kind, verdict.to_owned()))
                    .is_some_and(|times| *times > 1_000),
                "{judged:?}"
            );
        }
    }
}

fn agree(
    world: u64,
    policies: &[Policy],
    surroundings: &Surroundings,
    tables: &Tables,
    conversation: &Conversation<'_>,
    direction: Direction,
    judged: &mut BTreeMap<(&'static str, String), usize>,
) {
    let (subject, peer) = match direction {
        Direction::Egress => (conversation.source, conversation.destination),
        Direction::Ingress => (conversation.destination, conversation.source),
    };
    let Party::Endpoint(facts, _) = subject else { return };
    let number = surroundings
        .endpoints
        .iter()
        .find(|(_, other)| std::ptr::eq(other, facts));
    let Some((Some(number), _)) = number else { return };
    let meant = judge_end(policies, direction, subject, peer, conversation);
    let Conversation { protocol, port, .. } = *conversation;
    let found = tables.judge(*number, direction, address_of(peer), protocol, port);
    assert_eq!(
        found, meant,
        "world {world}, {direction}: {conversation:#?}\n{policies:#?}"
    );
    for (kind, spoken) in [("enforced", meant.enforced), ("audited", meant.audited)] {
        let Some(spoken) = spoken else { continue };
        assert!(tables.rules.contains_key(&spoken.rule), "every rule has an origin");
        *judged.entry((kind, spoken.verdict.to_string())).or_default() += 1;
    }
}

fn address_of(party: Party<'_>) -> IpAddr {
    match party {
        Party::Endpoint(_, address) | Party::Host(address) | Party::World(address) | Party::Vacant(address) => address,
    }
}

const KEYS: [&str; 3] = ["app", "tier", "zone"];
const VALUES: [&str; 4] = ["a", "b", "c", "d"];
const NETWORKS: [(&str, &str, &str); 3] = [
    ("front", "10.1.0.0/24", "fd00:1::/64"),
    ("back", "10.2.0.0/16", "fd00:2::/64"),
    ("bridge", "172.17.0.0/16", "fd00:3::/64"),
];
const CIDRS: [&str; 14] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.4/32",
    "10.1.0.0/30",
    "192.0.2.0/24",
    "192.0.2.128/25",
    "192.0.2.1/32",
    "203.0.113.0/24",
    "172.16.0.0/12",
    "fd00::/8",
    "fd00:1::/64",
    "2001:db8::/32",
];
const TRAFFIC: [&str; 14] = [
    "80",
    "443/tcp",
    "1-1023/tcp",
    "8000-8100/udp",
    "53/udp",
    "tcp",
    "udp",
    "icmp",
    "icmp/echo",
    "icmp4/13",
    "icmp6",
    "proto/47",
    "sctp",
    "79-81/tcp",
];
const OUTSIDE: [&str; 8] = [
    "192.0.2.50",
    "192.0.2.200",
    "203.0.113.9",
    "8.8.8.8",
    "10.200.0.1",
    "2001:db8::7",
    "2600::1",
    "fd77::1",
];
const HOST: [&str; 5] = ["192.0.2.1", "10.1.0.1", "172.17.0.1", "fd00:1::1", "2001:db8::1"];

fn policies(chance: &mut Chance) -> Vec<Policy> {
    // Many documents about the same few now and then: then some belong to more groups than are told one by one.
    let count = if chance.once_in(4) { 20 } else { 1 + chance.below(5) };
    let documents: Vec<String> = (0..count).map(|number| document(chance, number)).collect();
    let text = documents.join("\n---\n");
    document::read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn document(chance: &mut Chance, number: usize) -> String {
    let mut text = format!("{{\"name\": \"p{number}\", \"select\": {}", selector(chance));
    if chance.once_in(4) {
        text += ", \"audit\": true";
    }
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        if chance.below(3) > 0 {
            let rules: Vec<String> = (0..chance.below(4)).map(|_| rule(chance, peers)).collect();
            text += &format!(", \"{list}\": [{}]", rules.join(", "));
        }
    }
    text + "}"
}

fn rule(chance: &mut Chance, peers: &str) -> String {
    let mut words = vec![format!(
        "\"action\": \"{}\"",
        chance.one(&["allow", "allow", "allow", "reject", "deny"])
    )];
    if !chance.once_in(5) {
        let named: Vec<String> = (0..=chance.below(3)).map(|_| peer(chance)).collect();
        words.push(format!("\"{peers}\": [{}]", named.join(", ")));
    }
    if !chance.once_in(3) {
        let traffic: Vec<String> = chance
            .some(&TRAFFIC, 4)
            .iter()
            .map(|one| format!("\"{one}\""))
            .collect();
        words.push(format!("\"ports\": [{}]", traffic.join(", ")));
    }
    format!("{{{}}}", words.join(", "))
}

fn peer(chance: &mut Chance) -> String {
    match chance.below(6) {
        0 => "\"host\"".to_owned(),
        1 => "\"world\"".to_owned(),
        2 | 3 => selector(chance),
        _ => {
            let cidr: IpNet = chance.one(&CIDRS).parse().unwrap();
            let inside: Vec<String> = CIDRS
                .iter()
                .filter(|other| cidr.contains(&other.parse::<IpNet>().unwrap()) && chance.once_in(3))
                .map(|other| format!("\"{other}\""))
                .collect();
            format!("{{\"cidr\": \"{cidr}\", \"except\": [{}]}}", inside.join(", "))
        }
    }
}

fn selector(chance: &mut Chance) -> String {
    let mut words = Vec::new();
    if chance.once_in(2) {
        let values: Vec<String> = chance
            .some(&VALUES, 2)
            .iter()
            .map(|value| format!("\"{value}\""))
            .collect();
        let values = if chance.once_in(5) {
            "\"*\"".to_owned()
        } else {
            format!("[{}]", values.join(", "))
        };
        words.push(format!("\"labels\": {{\"{}\": {values}}}", chance.one(&KEYS)));
    }
    if chance.once_in(4) {
        words.push(format!("\"network\": \"{}\"", chance.one(&NETWORKS).0));
    }
    if chance.once_in(5) {
        words.push(format!("\"name\": \"{}\"", chance.one(&["e1", "e2*", "*3", "e*"])));
    }
    format!("{{{}}}", words.join(", "))
}

fn surroundings(chance: &mut Chance) -> Surroundings {
    let mut surroundings = Surroundings::default();
    for (_, ipv4, ipv6) in NETWORKS {
        surroundings.subnets.insert(ipv4.parse().unwrap());
        surroundings.subnets.insert(ipv6.parse().unwrap());
    }
    surroundings.host = HOST.iter().map(|address| address.parse().unwrap()).collect();
    for number in 2..12_u32 {
        let (name, ipv4, ipv6) = *chance.one(&NETWORKS);
        let address = |net: &str| net.parse::<IpNet>().unwrap().hosts().nth(number as usize).unwrap();
        let mut labels = BTreeMap::new();
        for key in KEYS {
            if chance.once_in(2) {
                labels.insert(key.to_owned(), (*chance.one(&VALUES)).to_owned());
            }
        }
        let facts = Facts {
            labels,
            name: format!("e{number}"),
            network: name.to_owned(),
            network_id: format!("{name}-id"),
            addresses: vec![address(ipv4), address(ipv6)],
        };
        // Some live on other hosts.
        surroundings
            .endpoints
            .push(((!chance.once_in(4)).then_some(number), facts));
    }
    surroundings
}

fn conversation<'a>(chance: &mut Chance, surroundings: &'a Surroundings) -> Conversation<'a> {
    let family = chance.below(2);
    let of_family = |address: &IpAddr| address.is_ipv6() == (family == 1);
    let mut party = || {
        let choose = |chance: &mut Chance, from: &[&str]| {
            let fitting: Vec<IpAddr> = from
                .iter()
                .map(|text| text.parse().unwrap())
                .filter(of_family)
                .collect();
            *chance.one(&fitting)
        };
        match chance.below(6) {
            0 => Party::Host(choose(chance, &HOST)),
            1 => Party::World(choose(chance, &OUTSIDE)),
            2 if chance.once_in(3) => Party::Vacant(choose(chance, &["10.1.0.200", "fd00:2::ffff"])),
            _ => {
                let (_, facts) = chance.one(&surroundings.endpoints);
                Party::Endpoint(facts, facts.addresses[family])
            }
        }
    };
    let (source, destination) = (party(), party());
    let protocol = *chance.one(&[6, 6, 17, 1, 58, 132, 47]);
    let port = *chance.one(&[80, 79, 443, 22, 8, 128, 13, 53, 8050, 1023, 1024, 65535]);
    Conversation {
        source,
        destination,
        protocol,
        port,
    }
}

#[test]
fn numbers_of_tables_depend_on_nothing_but_what_they_say() {
    let mut chance = Chance(7);
    let (policies, surroundings) = (policies(&mut chance), surroundings(&mut chance));
    let mut backwards = policies.clone();
    backwards.reverse();
    let (one, other) = (compile(&policies, &surroundings), compile(&backwards, &surroundings));
    assert_eq!(one, other);
    assert!(one.cells.keys().all(|(subject, _)| *subject != Number::NONE));
}

/// What is said of a subject lies under a number made of it: a document about others changes nothing for it.
#[test]
fn a_further_document_leaves_alone_whom_it_does_not_select() {
    let mut chance = Chance(11);
    let surroundings = surroundings(&mut chance);
    let mut policies =
        document::read("{name: one, select: {name: e2}, ingress: [{from: [{labels: {app: a}}]}]}").unwrap();
    let before = compile(&policies, &surroundings);
    policies
        .extend(document::read("{name: two, select: {name: e3}, ingress: [{from: [{labels: {tier: b}}]}]}").unwrap());
    let after = compile(&policies, &surroundings);
    assert_eq!(after.subjects[&2], before.subjects[&2]);
    assert!(
        before
            .cells
            .iter()
            .all(|(key, cell)| after.cells.get(key) == Some(cell))
    );
}
