//! Questions in, answers out.

use std::{net::IpAddr, sync::Arc};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use sluice_model::{Endpoint, EndpointLink, Id, Network, ResolverWish, Sandbox, network::Driver};
use sluice_store::{Entry, Event, SharedStore, Transaction, Write, embedded::Embedded, key, record};
use tokio::sync::watch;

use super::{
    Resolver,
    answer::{Decision, LIFETIME, Question, Road, decide},
    begin,
    directory::Directory,
    door::{Doors, Known, Wanted},
    follow,
    serve::Desk,
    servers::HostServers,
};
use crate::{fixture, progress::Progress};

fn entry(key: String, value: Vec<u8>) -> Entry {
    Entry {
        key,
        value,
        modified: 1,
    }
}

fn of_network(network: &Network) -> Entry {
    entry(key::network(&network.id), record::encode(network).unwrap())
}

fn of_endpoint(endpoint: &Endpoint) -> Entry {
    entry(key::endpoint(&endpoint.id), record::encode(endpoint).unwrap())
}

/// Endpoint `number` of network 2, at 172.17.0.`number + 1` and fd17::`number + 1`.
fn endpoint(number: u32) -> Endpoint {
    let mut endpoint = fixture::endpoint(number, 1);
    endpoint
        .addresses
        .push(format!("fd17::{:x}/64", number + 1).parse().unwrap());
    endpoint
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Networks 2 and 3; web1 and web2 (both `www`) in network 2, web3 in both, web4 in 3 with IPv4 only.
fn town() -> Directory {
    let mut entries = vec![of_network(&fixture::network(2)), of_network(&fixture::network(3))];
    for number in [1, 2] {
        let mut endpoint = endpoint(number);
        endpoint.aliases = vec!["WWW".into()];
        entries.push(of_endpoint(&endpoint));
    }
    let mut both = endpoint(3);
    both.links = vec![EndpointLink {
        target: "web1".into(),
        alias: "cache".into(),
    }];
    entries.push(of_endpoint(&both));
    for (id, number, interface) in [(0x33, 3, "eth1"), (4, 4, "eth0")] {
        let mut endpoint = fixture::endpoint(number, 1);
        endpoint.id = Id::from_bytes([id; 32]);
        endpoint.network = fixture::network(3).id;
        endpoint.addresses = vec![format!("172.18.0.{}/16", number + 1).parse().unwrap()];
        endpoint.interface = interface.into();
        entries.push(of_endpoint(&endpoint));
    }
    Directory::of(&entries)
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// What the endpoint at an address is told; none: others are asked.
fn ask(town: &Directory, from: &str, name: &str, kind: RecordType) -> Option<Message> {
    put(town, from, &question(name, kind), Road::Datagram, 0)
}

fn put(town: &Directory, from: &str, question: &Message, road: Road, turn: usize) -> Option<Message> {
    match decide(town.asker(address(from)), &question.to_vec().unwrap(), road, turn) {
        Decision::Say(bytes) => Some(Message::from_vec(&bytes).unwrap()),
        Decision::Ask(_) => None,
        Decision::Ignore => panic!("it is a question"),
    }
}

fn told(answer: &Message) -> Vec<String> {
    answer
        .answers
        .iter()
        .map(|record| {
            assert_eq!(record.ttl, LIFETIME);
            match &record.data {
                RData::A(address) => address.to_string(),
                RData::AAAA(address) => address.to_string(),
                RData::PTR(name) => name.to_string(),
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

const WEB2: &str = "172.17.0.3";
const WEB3: &str = "172.17.0.4";
const WEB4: &str = "172.18.0.5";

#[test]
fn a_container_is_known_by_name_alias_short_id_and_network_in_any_case() {
    let town = town();
    let short = fixture::endpoint(1, 1).container.short().to_owned();
    for name in ["web1.", "WEB1.", "web1.net2.", &format!("{short}.")] {
        let answer = ask(&town, WEB2, name, RecordType::A).unwrap();
        assert_eq!(told(&answer), ["172.17.0.2"], "{name}");
        assert_eq!((answer.metadata.id, answer.metadata.recursion_available), (77, true));
        assert_eq!(
            answer.queries[0].name().to_string(),
            name,
            "the question as it was asked"
        );
        assert_eq!(told(&ask(&town, WEB2, name, RecordType::AAAA).unwrap()), ["fd17::2"]);
    }
    assert_eq!(
        told(&ask(&town, "fd17::3", "web1.", RecordType::A).unwrap()),
        ["172.17.0.2"]
    );
}

#[test]
fn who_shares_an_alias_is_named_first_in_turn() {
    let town = town();
    let first = |turn| {
        let answer = put(&town, WEB3, &question("www.", RecordType::A), Road::Datagram, turn).unwrap();
        told(&answer)
    };
    assert_eq!(first(0), ["172.17.0.2", "172.17.0.3"]);
    assert_eq!(first(1), ["172.17.0.3", "172.17.0.2"]);
}

#[test]
fn only_names_of_ones_own_networks_are_known() {
    let town = town();
    assert!(ask(&town, WEB2, "web4.", RecordType::A).is_none());
    assert!(ask(&town, WEB2, "web4.net3.", RecordType::A).is_none());
    assert_eq!(told(&ask(&town, WEB3, "web4.", RecordType::A).unwrap()), [WEB4]);
    assert_eq!(told(&ask(&town, WEB3, "web2.", RecordType::A).unwrap()), [WEB2]);
    // one that is on both is found in the first of the asker's
    assert_eq!(told(&ask(&town, WEB4, "web3.", RecordType::A).unwrap()), ["172.18.0.4"]);
    assert_eq!(
        told(&ask(&town, WEB3, "web3.net3.", RecordType::A).unwrap()),
        ["172.18.0.4"]
    );
    assert!(ask(&town, WEB2, "nobody.", RecordType::A).is_none());
}

#[test]
fn a_link_is_a_name_for_one_container_alone() {
    let town = town();
    assert_eq!(
        told(&ask(&town, WEB3, "Cache.", RecordType::A).unwrap()),
        ["172.17.0.2"]
    );
    assert!(ask(&town, WEB2, "cache.", RecordType::A).is_none());
}

#[test]
fn a_name_without_such_an_address_or_record_exists_all_the_same() {
    let town = town();
    for (name, kind) in [
        ("web4.", RecordType::AAAA),
        ("web4.", RecordType::MX),
        ("web4.", RecordType::HTTPS),
    ] {
        let answer = ask(&town, WEB3, name, kind).unwrap();
        assert_eq!(
            (answer.metadata.response_code, told(&answer).len()),
            (ResponseCode::NoError, 0)
        );
    }
}

#[test]
fn an_address_of_ones_own_networks_has_a_name() {
    let town = town();
    for (from, name, expected) in [
        (WEB3, "2.0.17.172.in-addr.arpa.", Some("web1.net2.")),
        (WEB3, "5.0.18.172.in-addr.arpa.", Some("web4.net3.")),
        (WEB2, "5.0.18.172.in-addr.arpa.", None),
        (WEB2, "1.0.17.172.in-addr.arpa.", None),
        (
            WEB2,
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.1.d.f.ip6.arpa.",
            Some("web1.net2."),
        ),
        (WEB2, "0.17.172.in-addr.arpa.", None),
    ] {
        let answer = ask(&town, from, name, RecordType::PTR);
        assert_eq!(
            answer.map(|answer| told(&answer)),
            expected.map(|name| vec![name.to_owned()]),
            "{name}"
        );
    }
}

#[test]
fn names_come_change_and_go_with_records() {
    let mut town = town();
    let mut renamed = endpoint(1);
    renamed.name = "shop".into();
    town.fold(&Event::Put(of_endpoint(&renamed)));
    assert!(ask(&town, WEB2, "web1.", RecordType::A).is_none());
    assert_eq!(told(&ask(&town, WEB2, "shop.", RecordType::A).unwrap()), ["172.17.0.2"]);
    town.fold(&Event::Deleted(key::endpoint(&renamed.id), 2));
    assert!(ask(&town, WEB2, "shop.", RecordType::A).is_none());
    assert_eq!(told(&ask(&town, WEB3, "www.", RecordType::A).unwrap()), [WEB2]);
    let refused = ask(&town, "172.17.0.2", "web2.", RecordType::A).unwrap();
    assert_eq!(
        refused.metadata.response_code,
        ResponseCode::Refused,
        "nobody lives there any more"
    );
}

#[test]
fn the_default_network_has_no_names() {
    let mut network = fixture::network(2);
    network.name = sluice_model::network::DEFAULT_NETWORK.into();
    let town = Directory::of(&[
        of_network(&network),
        of_endpoint(&endpoint(1)),
        of_endpoint(&endpoint(2)),
    ]);
    assert!(ask(&town, WEB2, "web1.", RecordType::A).is_none());
}

/// Endpoint `number` of the network 5, which stands on a device of the host, in the sandbox of endpoint 1.
fn beside(number: u32, interface: &str) -> (Network, Endpoint) {
    let network = Network {
        driver: Driver::Macvlan,
        ..fixture::network(5)
    };
    let mut endpoint = fixture::endpoint(number, 1);
    endpoint.id = Id::from_bytes([0x55 + number as u8; 32]);
    endpoint.network = network.id.clone();
    endpoint.sandbox = fixture::sandbox(1).id;
    endpoint.interface = interface.into();
    endpoint.addresses = vec![format!("172.20.0.{}/16", number + 1).parse().unwrap()];
    (network, endpoint)
}

#[test]
fn who_stands_on_a_device_of_the_host_alone_asks_at_a_door_of_its_own() {
    let (network, own) = beside(1, "eth0");
    let sandbox = fixture::sandbox(1);
    let mut town = Directory::of(&[
        of_network(&fixture::network(2)),
        of_network(&network),
        of_endpoint(&own),
        entry(key::sandbox(&sandbox.id), record::encode(&sandbox).unwrap()),
    ]);
    let door = Wanted {
        path: sandbox.path,
        address: address("172.20.0.2"),
    };
    let wanted = |town: &Directory| town.doors().into_iter().collect::<Vec<_>>();
    assert_eq!(wanted(&town), [(sandbox.id.to_string(), door.clone())]);
    assert_eq!(
        told(&ask(&town, "172.20.0.2", "web1.", RecordType::A).unwrap()),
        ["172.20.0.2"]
    );
    // where a device of its own is the datapath's, it asks by that
    let mut second = fixture::endpoint(1, 1);
    second.interface = "eth1".into();
    town.fold(&Event::Put(of_endpoint(&second)));
    assert_eq!(wanted(&town), []);
    assert_eq!(
        told(&ask(&town, "172.17.0.2", "web1.net5.", RecordType::A).unwrap()),
        ["172.20.0.2"]
    );
    town.fold(&Event::Deleted(key::endpoint(&second.id), 2));
    assert_eq!(wanted(&town), [(sandbox.id.to_string(), door)]);
    town.fold(&Event::Deleted(key::endpoint(&own.id), 3));
    assert_eq!(wanted(&town), []);
}

#[test]
fn what_a_revision_asks_for_is_done_when_its_doors_are_open() {
    let mut known = Known {
        revision: 7,
        ..Known::default()
    };
    known.opening.insert("one".into(), 6);
    assert!(known.covers(7) && known.covers(5) && !known.covers(8));
    assert!(!known.covers(6), "its own door");
    known.opening.clear();
    assert!(known.covers(6));
}

#[test]
fn a_single_label_stays_here_when_its_asker_wants_that() {
    let mut town = town();
    let sandbox = Sandbox {
        resolver: ResolverWish {
            keeps_single_labels: true,
            ..ResolverWish::default()
        },
        ..fixture::sandbox(2)
    };
    let entry = entry(key::sandbox(&sandbox.id), record::encode(&sandbox).unwrap());
    town.fold(&Event::Put(entry));
    let answer = ask(&town, WEB2, "nobody.", RecordType::A).unwrap();
    assert_eq!(
        (answer.metadata.response_code, answer.answers.len()),
        (ResponseCode::NoError, 0)
    );
    assert!(ask(&town, WEB2, "nobody.example.", RecordType::A).is_none());
    assert!(ask(&town, WEB3, "nobody.", RecordType::A).is_none());
}

#[test]
fn an_answer_too_long_for_a_datagram_says_so_and_is_whole_in_a_stream() {
    let mut entries = vec![of_network(&fixture::network(2))];
    for number in 1..=100 {
        let mut endpoint = fixture::endpoint(number, 1);
        endpoint.aliases = vec!["all".into()];
        entries.push(of_endpoint(&endpoint));
    }
    let town = Directory::of(&entries);
    let mut question = question("all.", RecordType::A);
    let small = put(&town, WEB2, &question, Road::Datagram, 0).unwrap();
    assert!(small.metadata.truncation && small.to_vec().unwrap().len() <= 512);
    assert!(small.answers.len() > 20, "{} of 30", small.answers.len());
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    question.set_edns(edns);
    let large = put(&town, WEB2, &question, Road::Datagram, 0).unwrap();
    assert!(large.metadata.truncation && large.to_vec().unwrap().len() <= 1232);
    assert!(large.answers.len() > small.answers.len() && large.edns.is_some());
    let whole = put(&town, WEB2, &question, Road::Stream, 0).unwrap();
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 100));
}

#[test]
fn what_is_no_question_is_answered_so_or_not_at_all() {
    let town = town();
    let asker = || town.asker(address(WEB2));
    let code = |bytes: &[u8]| match decide(asker(), bytes, Road::Datagram, 0) {
        Decision::Say(answer) => Some(Message::from_vec(&answer).unwrap().metadata.response_code),
        Decision::Ask(_) => panic!("nobody is asked this"),
        Decision::Ignore => None,
    };
    assert_eq!(code(b"short"), None);
    let mut answer = question("web1.", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    assert_eq!(code(&answer.to_vec().unwrap()), None);
    let mut update = question("web1.", RecordType::A);
    update.metadata.op_code = OpCode::Status;
    assert_eq!(code(&update.to_vec().unwrap()), Some(ResponseCode::NotImp));
    let mut cut = question("web1.", RecordType::A).to_vec().unwrap();
    cut.truncate(14);
    assert_eq!(code(&cut), Some(ResponseCode::FormErr));
}

#[test]
fn only_an_answer_to_what_was_asked_is_believed() {
    let town = town();
    let asked = question("Example.com.", RecordType::A);
    let Decision::Ask(question) = decide(town.asker(address(WEB2)), &asked.to_vec().unwrap(), Road::Datagram, 0) else {
        panic!("nobody here is called so");
    };
    let code = |change: &dyn Fn(&mut Message)| {
        let mut answer = Message::response(5, OpCode::Query);
        answer.add_queries(asked.queries.iter().cloned());
        change(&mut answer);
        Question::is_answered_by(&question, &answer.to_vec().unwrap(), 5)
    };
    assert_eq!(code(&|_| {}), Some(ResponseCode::NoError));
    assert_eq!(code(&|answer| answer.metadata.id = 6), None);
    assert_eq!(code(&|answer| answer.metadata.message_type = MessageType::Query), None);
    let other = |name: &str, kind| Query::query(Name::from_ascii(name).unwrap(), kind);
    assert_eq!(
        code(&|answer| answer.queries = vec![other("example.COM.", RecordType::A)]),
        Some(ResponseCode::NoError)
    );
    assert_eq!(
        code(&|answer| answer.queries = vec![other("example.org.", RecordType::A)]),
        None
    );
    assert_eq!(
        code(&|answer| answer.queries = vec![other("example.com.", RecordType::AAAA)]),
        None
    );
    assert_eq!(code(&|answer| answer.queries.clear()), None);
    let failure = Message::from_vec(&question.failure().unwrap()).unwrap();
    assert_eq!(
        (failure.metadata.id, failure.metadata.response_code),
        (77, ResponseCode::ServFail)
    );
}

#[test]
fn endpoints_of_other_hosts_are_answered_as_those_of_this_one_and_may_share_a_name_with_them() {
    let mut town = town();
    let mut remote = fixture::remote_endpoint(9, 2);
    remote.aliases = vec!["www".into()];
    let place = key::remote_endpoint(&remote.network, &remote.id);
    town.fold(&Event::Put(entry(place.clone(), record::encode(&remote).unwrap())));
    let answer = |town: &Directory, name| told(&ask(town, WEB2, name, RecordType::A).unwrap());
    assert_eq!(answer(&town, "web9.net2."), ["172.17.0.10"]);
    assert_eq!(
        told(&ask(&town, WEB2, "10.0.17.172.in-addr.arpa.", RecordType::PTR).unwrap()),
        ["web9.net2."]
    );
    let mut shared = answer(&town, "www.");
    shared.sort();
    assert_eq!(shared, ["172.17.0.10", "172.17.0.2", "172.17.0.3"]);
    assert!(town.asker(address("172.17.0.10")).is_none(), "it asks its own host");
    town.fold(&Event::Deleted(place, 5));
    assert!(ask(&town, WEB2, "web9.", RecordType::A).is_none());
    assert_eq!(answer(&town, "www.").len(), 2);
}

#[tokio::test(flavor = "current_thread")]
async fn who_waits_for_a_revision_finds_its_names_told() {
    let path = std::env::temp_dir().join(format!("sluice-names-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let store: SharedStore = Arc::new(Embedded::open(&path).unwrap());
    let (directory, changes, revision) = begin(&store).await.unwrap();
    let (told, known) = watch::channel(Known {
        revision,
        ..Known::default()
    });
    let mut doors = Doors::new(Arc::new(told), watch::channel(Progress::default()).1);
    let desk = Arc::new(Desk::new(directory, HostServers::of("/nowhere"), Arc::default()));
    let put = async |entry: Entry| {
        let transaction = Transaction {
            writes: vec![Write::Put(entry.key, entry.value)],
            ..Transaction::default()
        };
        store.commit(transaction).await.unwrap()
    };
    put(of_network(&fixture::network(2))).await;
    let revision = put(of_endpoint(&endpoint(1))).await;
    let asker = || desk.directory.read().unwrap().asker(address("172.17.0.2")).is_some();
    // committed, and nobody has looked yet: who does not wait would be told that there is no such name
    assert!(!asker());
    let resolver = Resolver {
        stop: watch::channel(false).0,
        known,
        worker: None,
    };
    tokio::select! {
        () = follow(&desk, &store, changes, &mut doors) => panic!("it follows for ever"),
        () = resolver.named(revision) => {}
    }
    assert!(asker());
    let _ = std::fs::remove_file(&path);
}
