//! What documents become for who is there.

use super::*;
use crate::plan::rules;

fn document(desired: &mut Desired, text: &str) {
    for policy in sluice_policy::document::read(text).unwrap() {
        desired.policies.insert(policy.name.as_str().to_owned(), policy);
    }
}

fn wanted(desired: &Desired, actual: &Actual) -> Option<rules::Wanted> {
    let (places, troubles) = places(desired, actual, &names());
    assert!(troubles.is_empty(), "{troubles:?}");
    rules::wanted(desired, &places, actual)
}

#[test]
fn without_documents_nothing_is_written_and_with_them_once() {
    let mut desired = desired(&[1, 2]);
    endpoint_mut(&mut desired, 1).labels.insert("app".into(), "db".into());
    let mut actual = Actual::default();
    assert!(wanted(&desired, &actual).is_none());
    document(
        &mut desired,
        "{name: db, select: {labels: {app: db}}, ingress: [{from: [{name: web2}], ports: [80]}]}",
    );
    let first = wanted(&desired, &actual).unwrap();
    assert!(first.other_documents);
    let subjects: Vec<u32> = first.rules.subjects.keys().map(|number| number.0).collect();
    assert_eq!(subjects, [1], "whom it selects");
    let known: Vec<_> = first
        .rules
        .known4
        .keys()
        .map(|key| (key.0.address, key.0.length))
        .collect();
    assert_eq!(
        known,
        [(Ipv4Address::new([172, 17, 0, 3]), 32)],
        "whom its rules speak of"
    );
    // what was written is there
    (actual.rules, actual.ruling) = (first.rules.clone(), first.ruling);
    assert!(wanted(&desired, &actual).is_none());
    // somebody comes whom it selects too
    let mut third = fixture::endpoint(3, 13);
    third.labels.insert("app".into(), "db".into());
    let sandbox = fixture::sandbox(3);
    desired.endpoints.insert(third.id.to_string(), third);
    desired.sandboxes.insert(sandbox.id.to_string(), sandbox);
    let second = wanted(&desired, &actual).unwrap();
    assert!(!second.other_documents);
    assert_eq!(second.rules.cells, first.rules.cells, "the same is said of it");
    assert_eq!(second.rules.subjects[&ByBytes(3)], second.rules.subjects[&ByBytes(1)]);
    // and gone
    (actual.rules, actual.ruling) = (second.rules, second.ruling);
    desired.policies.clear();
    assert!(wanted(&desired, &actual).unwrap().rules.is_empty());
}

#[test]
fn endpoints_of_other_hosts_are_known_by_their_labels_and_judged_there() {
    let mut desired = desired(&[1]);
    let mut remote = fixture::remote_endpoint(9, 2);
    remote.labels.insert("app".into(), "web".into());
    remote.network = fixture::network(2).id;
    let address = remote.addresses[0].addr();
    desired.remotes.put(remote);
    document(
        &mut desired,
        "{name: all, select: {}, ingress: [{from: [{labels: {app: web}}]}]}",
    );
    let wanted = wanted(&desired, &Actual::default()).unwrap();
    assert_eq!(wanted.rules.subjects.len(), 1);
    let std::net::IpAddr::V4(address) = address else {
        panic!("of IPv4")
    };
    let key = ByBytes(prefix(32, Ipv4Address::from(address)));
    assert!(wanted.rules.known4.contains_key(&key), "{:?}", wanted.rules.known4);
}
