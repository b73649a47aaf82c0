//! Endpoints on other hosts that come and go: what is written for one that changes is what a plan of all would write.

use sluice_model::{EndpointLink, PortSpec, Protocol, RemoteEndpoint};

use super::*;
use crate::map::contents::Changes;

/// A host whose tables agree with the records, and who knows by what they were made.
fn settled(desired: &mut Desired) -> Actual {
    let mut actual = overlay::on_the_link(desired);
    actual.tables = tables_for(desired, &actual);
    let (_, ground) = tables_and_ground(desired, &actual);
    actual.settled.settle(ground, RemoteSteps::default());
    desired.remotes.settle();
    actual
}

/// What is written when nothing but records of endpoints elsewhere has changed.
fn alone(desired: &Desired, actual: &Actual) -> Option<RemoteSteps> {
    actual.settled.steps_alone(&desired.remotes, &actual.tables)
}

/// What is written when all are looked at.
fn of_all(desired: &Desired, actual: &Actual) -> RemoteSteps {
    let (_, ground) = tables_and_ground(desired, actual);
    Settled::default().steps(&desired.remotes, &ground, &actual.tables)
}

#[track_caller]
fn is_as_of_all(desired: &Desired, actual: &Actual) -> RemoteSteps {
    let (alone, all) = (alone(desired, actual).unwrap(), of_all(desired, actual));
    assert_eq!(
        (&alone.ipv4, &alone.ipv6, alone.moves_epoch),
        (&all.ipv4, &all.ipv6, all.moves_epoch)
    );
    alone
}

fn told(number: u32, host: u8) -> RemoteEndpoint {
    fixture::remote_endpoint(number, host)
}

#[test]
fn who_comes_elsewhere_moves_nothing_who_goes_or_moves_does() {
    let mut desired = overlay::cluster();
    let actual = settled(&mut desired);
    desired.remotes.put(told(7, 2));
    let coming = is_as_of_all(&desired, &actual);
    assert_eq!((coming.count(), coming.moves_epoch), (1, false));

    let actual = settled(&mut desired);
    desired.remotes.put(told(7, 3));
    let moving = is_as_of_all(&desired, &actual);
    assert_eq!((moving.ipv4.put.len(), moving.moves_epoch), (1, true));

    let actual = settled(&mut desired);
    desired.remotes.remove(told(7, 3).id.to_bytes());
    let going = is_as_of_all(&desired, &actual);
    assert_eq!(
        (going.ipv4.remove.len(), going.count(), going.moves_epoch),
        (1, 1, true)
    );
}

#[test]
fn an_address_goes_from_one_to_the_next_in_one_step() {
    let mut desired = overlay::cluster();
    let actual = settled(&mut desired);
    let gone = told(5, 2);
    desired.remotes.remove(gone.id.to_bytes());
    desired.remotes.put(RemoteEndpoint {
        addresses: gone.addresses,
        ..told(8, 3)
    });
    let steps = is_as_of_all(&desired, &actual);
    assert_eq!(
        (steps.ipv4.put.len(), steps.ipv4.remove.len(), steps.moves_epoch),
        (1, 0, true)
    );
}

#[test]
fn what_is_told_again_unchanged_is_not_written_again() {
    let mut desired = overlay::cluster();
    let actual = settled(&mut desired);
    desired.remotes.put(told(5, 2));
    desired.remotes.put(told(9, 2));
    desired.remotes.remove(told(9, 2).id.to_bytes());
    assert_eq!(is_as_of_all(&desired, &actual).count(), 0);
}

#[test]
fn an_address_of_two_is_the_firsts_until_it_leaves() {
    let mut desired = overlay::cluster();
    let mut actual = settled(&mut desired);
    let rival = RemoteEndpoint {
        addresses: told(5, 2).addresses,
        ..told(9, 3)
    };
    desired.remotes.put(rival.clone());
    assert!(alone(&desired, &actual).is_none(), "all are looked at");
    let (_, ground) = tables_and_ground(&desired, &actual);
    let steps = actual.settled.steps(&desired.remotes, &ground, &actual.tables);
    assert_eq!(steps.count(), 0);
    assert!(steps.troubles[rival.id.as_str()].contains("has the address 172.17.0.6 of another endpoint"));
    actual.settled.settle(ground, steps);
    desired.remotes.settle();
    desired.remotes.remove(told(5, 2).id.to_bytes());
    assert!(alone(&desired, &actual).is_none(), "the one who waits comes in");
    let (_, ground) = tables_and_ground(&desired, &actual);
    let steps = actual.settled.steps(&desired.remotes, &ground, &actual.tables);
    assert_eq!((steps.ipv4.put.len(), steps.moves_epoch), (1, true));
    assert!(steps.troubles.is_empty());
}

#[test]
fn a_host_or_network_that_comes_brings_those_who_waited_for_it() {
    let mut desired = overlay::cluster();
    let host = desired.hosts.remove("host3").unwrap();
    let actual = settled(&mut desired);
    assert_eq!(actual.tables.remotes4.len(), 1);
    desired.remotes.put(told(7, 3));
    assert_eq!(is_as_of_all(&desired, &actual).count(), 0, "no way leads there");
    desired.hosts.insert(host.id.clone(), host);
    let (_, ground) = tables_and_ground(&desired, &actual);
    let steps = actual.settled.steps(&desired.remotes, &ground, &actual.tables);
    assert_eq!(steps.ipv4.put.len(), 2);
}

#[test]
fn ports_for_all_hosts_and_links_are_looked_at_with_everything_else() {
    let mut desired = overlay::cluster();
    let actual = settled(&mut desired);
    let publishes = RemoteEndpoint {
        ports: vec![fixture::port("0.0.0.0", 8080, 80)],
        ..told(7, 2)
    };
    desired.remotes.put(publishes.clone());
    assert!(alone(&desired, &actual).is_none());
    let actual = settled(&mut desired);
    desired.remotes.remove(publishes.id.to_bytes());
    assert!(alone(&desired, &actual).is_none(), "its port goes");

    desired.networks.values_mut().next().unwrap().icc = false;
    let actual = settled(&mut desired);
    desired.remotes.put(told(8, 2));
    is_as_of_all(&desired, &actual);
    let exposes = RemoteEndpoint {
        exposed: vec![PortSpec {
            port: 80,
            protocol: Protocol::Tcp,
        }],
        ..told(7, 2)
    };
    desired.remotes.put(exposes);
    assert!(alone(&desired, &actual).is_none(), "a link may lead there");
    let actual = settled(&mut desired);
    endpoint_mut(&mut desired, 1).links = vec![EndpointLink {
        target: "web7".into(),
        alias: "store".into(),
    }];
    let (_, ground) = tables_and_ground(&desired, &actual);
    let steps = actual.settled.steps(&desired.remotes, &ground, &actual.tables);
    assert_eq!(steps.ipv4.put.len(), 1, "it gets a number for links");
    assert_ne!(steps.ipv4.put[0].1.endpoint, 0);
}

/// One change among so many that a plan of all would be felt: its cost must not be theirs.
#[test]
fn one_of_a_hundred_thousand_that_changes_is_all_that_is_looked_at() {
    let mut desired = overlay::cluster();
    let network = desired.networks.values().next().unwrap().clone();
    let numbered = |number: u32| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        RemoteEndpoint {
            id: sluice_model::Id::from_bytes(id),
            network: network.id.clone(),
            addresses: vec![format!("{address}/8").parse().unwrap()],
            ..told(5, 2)
        }
    };
    (0..100_000).for_each(|number| desired.remotes.put(numbered(number)));
    let mut actual = settled(&mut desired);
    assert_eq!(actual.tables.remotes4.len(), 100_002);
    // A thousand changes one by one; planned all each time they would be a hundred million look-ups.
    for number in 0..1000 {
        desired.remotes.put(numbered(200_000 + number));
        desired.remotes.remove(numbered(number * 7).id.to_bytes());
        let steps = alone(&desired, &actual).unwrap();
        assert_eq!(steps.count(), 2);
        write(&steps.ipv4, &mut actual.tables.remotes4);
        desired.remotes.settle();
    }
    assert_eq!(of_all(&desired, &actual).count(), 0);
}

fn write<K: aya::Pod, V: Copy>(changes: &Changes<K, V>, entries: &mut crate::map::contents::Entries<K, V>) {
    for key in &changes.remove {
        entries.remove(key);
    }
    entries.extend(changes.put.iter().copied());
}
