//! Other hosts in the tables: their numbers, the ways to them, and who lives there.

use std::net::IpAddr;

use sluice_datapath_common::overlay::{Host, Remote, SEALED};
use sluice_model::{RemoteEndpoint, host::Seal};

use super::*;
use crate::link::{
    listing::Device,
    uplink::{Route, Uplink},
};

/// What is told of endpoint 5 or 6.
fn told(number: u32) -> RemoteEndpoint {
    fixture::remote_endpoint(number, u8::try_from(number - 3).unwrap())
}

/// Endpoint 1 here, endpoints 5 and 6 on hosts 2 and 3, in an overlay.
pub(super) fn cluster() -> Desired {
    let mut desired = desired(&[1]);
    let network = desired.networks.values_mut().next().unwrap();
    (network.driver, network.vni) = (Driver::Overlay, 4097);
    desired.this_host = Some(fixture::host(1));
    for (number, host) in [(5, 2), (6, 3)] {
        let (host, remote) = (fixture::host(host), fixture::remote_endpoint(number, host));
        desired.hosts.insert(host.id.clone(), host);
        desired.remotes.put(remote);
    }
    desired
}

/// A host at 192.0.2.1, whose link leads to 192.0.2.0/24 and, by .254, to everywhere else.
pub(super) fn on_the_link(desired: &Desired) -> Actual {
    let route = |destination: &str, gateway: Option<&str>| Route {
        destination: destination.parse().unwrap(),
        ifindex: 2,
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        priority: 0,
        mtu: 0,
    };
    let mut actual = agreeing(desired);
    actual.world.uplinks.push(Uplink {
        ifindex: 2,
        name: "eth0".into(),
        mtu: 1500,
        lends: true,
        ipv4: Some([192, 0, 2, 1].into()),
        ipv6: None,
    });
    actual.world.addresses.push((IpAddr::from([192, 0, 2, 1]), 2));
    actual.routes = vec![route("192.0.2.0/24", None), route("0.0.0.0/0", Some("192.0.2.254"))];
    actual
}

fn address(last: u8) -> Ipv6Address {
    Ipv6Address::mapped(Ipv4Address::new([192, 0, 2, last]))
}

#[test]
fn every_other_host_has_a_number_and_a_way() {
    let mut desired = cluster();
    desired.hosts.get_mut("host3").unwrap().addresses = vec!["198.51.100.3".parse().unwrap()];
    let tables = tables_for(&desired, &on_the_link(&desired));
    let expected = Host {
        address: address(2),
        source: address(1),
        next_hop: address(2),
        neighbour4: Ipv4Address::new([192, 0, 2, 2]),
        ifindex: 2,
        mtu: 1450,
        port: 4789u16.to_be(),
        ..Host::default()
    };
    assert_eq!(tables.hosts[&ByBytes(1)], expected);
    let behind_a_router = tables.hosts[&ByBytes(2)];
    assert_eq!(behind_a_router.next_hop, address(254));
    assert_eq!(behind_a_router.neighbour4, Ipv4Address::default());
    assert_eq!(tables.senders[&ByBytes(address(2))], 1);
    assert_eq!(tables.vnis[&ByBytes(4097)], 2);
    let key = |last| {
        ByBytes(endpoint_key::<sluice_datapath_common::Ipv4>(
            desired.networks.values().next().unwrap(),
            Ipv4Address::new([172, 17, 0, last]),
        ))
    };
    assert_eq!(tables.remotes4[&key(6)].host, 1);
    assert_eq!(tables.remotes4[&key(7)].host, 2);
    assert!(!tables.endpoints4.contains_key(&key(6)) && tables.endpoints4.contains_key(&key(2)));
}

#[test]
fn a_host_keeps_its_number_while_others_come_and_go() {
    let mut desired = cluster();
    let mut actual = on_the_link(&desired);
    actual.tables = tables_for(&desired, &actual);
    assert_eq!(actual.tables.hosts[&ByBytes(2)].address, address(3));
    desired.hosts.remove("host2");
    actual.tables = tables_for(&desired, &actual);
    assert_eq!(actual.tables.hosts.len(), 1);
    assert_eq!(actual.tables.hosts[&ByBytes(2)].address, address(3));
    assert_eq!(actual.tables.remotes4.len(), 1, "nobody lives on a host that is gone");
    let newcomer = fixture::host(9);
    desired.hosts.insert(newcomer.id.clone(), newcomer);
    actual.tables = tables_for(&desired, &actual);
    assert_eq!(actual.tables.hosts[&ByBytes(1)].address, address(9));
    assert_eq!(actual.tables.hosts[&ByBytes(2)].address, address(3));
}

#[test]
fn a_host_to_which_no_route_leads_is_known_all_the_same() {
    let desired = cluster();
    let mut actual = on_the_link(&desired);
    actual.routes.clear();
    let tables = tables_for(&desired, &actual);
    assert_eq!(
        (tables.hosts[&ByBytes(1)].ifindex, tables.hosts[&ByBytes(1)].address),
        (0, address(2))
    );
    assert_eq!(tables.senders[&ByBytes(address(2))], 1);
}

#[test]
fn without_a_cluster_nothing_of_it_is_in_the_tables() {
    let mut desired = cluster();
    desired.this_host = None;
    let tables = tables_for(&desired, &on_the_link(&desired));
    assert!(tables.hosts.is_empty() && tables.senders.is_empty() && tables.vnis.is_empty());
    assert!(tables.remotes4.is_empty());
}

#[test]
fn links_are_opened_between_hosts_both_ways_and_keep_their_numbers() {
    let mut desired = cluster();
    desired.networks.values_mut().next().unwrap().icc = false;
    let link = |target: &str| sluice_model::EndpointLink {
        target: target.into(),
        alias: "other".into(),
    };
    let exposed = |port| {
        vec![sluice_model::PortSpec {
            port,
            protocol: sluice_model::Protocol::Tcp,
        }]
    };
    endpoint_mut(&mut desired, 1).links = vec![link("web5")];
    endpoint_mut(&mut desired, 1).exposed = exposed(80);
    for (number, links) in [(5, vec![]), (6, vec![link("web1")])] {
        desired.remotes.put(RemoteEndpoint {
            exposed: exposed(6379),
            links,
            ..told(number)
        });
    }
    let mut actual = on_the_link(&desired);
    let tables = tables_for(&desired, &actual);
    let mut opened: Vec<_> = tables
        .links
        .keys()
        .map(|key| (key.0.from, key.0.to, u16::from_be(key.0.port)))
        .collect();
    opened.sort_unstable();
    assert_eq!(opened, [(1, 65_536, 6379), (65_537, 1, 80)]);
    actual.tables = tables.clone();
    assert_eq!(tables_for(&desired, &actual), tables);
    let remotes: Vec<&Remote> = tables.remotes4.values().collect();
    assert_eq!((remotes[0].endpoint, remotes[1].endpoint), (65_536, 65_537));
}

#[test]
fn ports_for_all_hosts_are_entered_here_and_at_their_owner() {
    let mut desired = cluster();
    desired.remotes.put(RemoteEndpoint {
        ports: vec![fixture::port("0.0.0.0", 8080, 80), fixture::port("192.0.2.2", 9090, 80)],
        ..told(5)
    });
    let own = endpoint_mut(&mut desired, 1);
    own.ports = vec![fixture::port("0.0.0.0", 8081, 81)];
    own.publish_mesh = true;
    let tables = tables_for(&desired, &on_the_link(&desired));
    let key = |address: [u8; 4], port: u16| {
        ByBytes(PublishKey {
            address: Ipv4Address::new(address),
            port: port.to_be(),
            protocol: 6,
            padding: 0,
        })
    };
    let theirs = tables.published4[&key([0; 4], 8080)];
    assert_eq!(
        (theirs.endpoint, theirs.address, theirs.port),
        (0, Ipv4Address::new([172, 17, 0, 6]), 80u16.to_be())
    );
    assert!(
        !tables.published4.contains_key(&key([192, 0, 2, 2], 9090)),
        "an address of its own host"
    );
    assert_eq!(tables.published4[&key([172, 17, 0, 2], 81)].endpoint, 1);
    assert_eq!(tables.published4.len(), 3);
}

#[test]
fn the_mtu_of_an_overlay_is_what_its_underlay_leaves() {
    let desired = cluster();
    let mut actual = on_the_link(&desired);
    let this_host = desired.this_host.as_ref().unwrap();
    assert_eq!(super::super::overlay::mtu(this_host, &actual.world), Some(1450));
    actual.overlay_mtu = Some(1450);
    let mut network = fixture::network(2);
    (network.driver, network.mtu_follows) = (Driver::Overlay, true);
    assert_eq!(actual.mtu_of(&network), 1450);
    actual.overlay_mtu = None;
    assert_eq!(actual.mtu_of(&network), 1500, "as it was when the network was made");
}

fn seal(number: u8) -> Seal {
    Seal {
        key: format!("{number:02x}").repeat(32),
        address: format!("fd73:6c75:6963:6500::{number}").parse().unwrap(),
        port: 51_820,
    }
}

/// The cluster with an encrypted network; host 3 has no key.
fn encrypted() -> (Desired, Actual) {
    let mut desired = cluster();
    desired.networks.values_mut().next().unwrap().encrypted = true;
    desired.this_host.as_mut().unwrap().seal = Some(seal(1));
    desired.hosts.get_mut("host2").unwrap().seal = Some(seal(2));
    let mut actual = on_the_link(&desired);
    actual.seal_device = Some(Device {
        ifindex: 9,
        mtu: 1420,
        ..Device::default()
    });
    (desired, actual)
}

#[test]
fn an_encrypted_network_has_ways_of_its_own_and_no_others() {
    let (desired, actual) = encrypted();
    let tables = tables_for(&desired, &actual);
    let address = Ipv6Address::from(seal(2).address);
    let (number, way) = tables.hosts.iter().find(|(_, host)| host.sealed == 1).unwrap();
    assert_eq!((way.address, way.ifindex, way.mtu), (address, 9, 1350));
    assert_eq!(tables.hosts.len(), 3, "both hosts are reached in the clear too");
    assert_eq!(tables.senders[&ByBytes(address)], number.0 | SEALED);
    assert_eq!(tables.vnis[&ByBytes(4097)], 2 | SEALED);
    let of: Vec<u32> = tables.remotes4.values().map(|remote| remote.host).collect();
    assert_eq!(of, [number.0], "who lives on a host without a key is not reached");
}

#[test]
fn without_a_device_that_encrypts_nobody_on_an_encrypted_network_is_reached() {
    let (desired, mut actual) = encrypted();
    actual.seal_device = None;
    assert!(tables_for(&desired, &actual).remotes4.is_empty());
}

#[test]
fn the_device_knows_who_has_a_key_by_the_address_that_a_route_leads_to() {
    let (mut desired, actual) = encrypted();
    let host = desired.hosts.get_mut("host2").unwrap();
    host.addresses.insert(0, "2001:db8::2".parse().unwrap());
    let peers = crate::plan::overlay::seals(&desired, &actual);
    let known: Vec<_> = peers
        .values()
        .map(|peer| (peer.endpoint.to_string(), peer.address))
        .collect();
    assert_eq!(known, [("192.0.2.2:51820".to_owned(), seal(2).address)]);
}
