use std::path::Path;

use sluice_datapath_common::publish::reserved_at;

use super::*;
use crate::{
    actual::Veth,
    fixture,
    link::{host_leg::HostLeg, uplink},
};

fn names() -> Names {
    Names::new("default", Path::new("/sys/fs/bpf")).unwrap()
}

fn desired(numbers: &[u32]) -> Desired {
    let mut desired = Desired::default();
    let network = fixture::network(2);
    desired.networks.insert(network.id.to_string(), network);
    for number in numbers {
        let (endpoint, sandbox) = (fixture::endpoint(*number, 10 + number), fixture::sandbox(*number));
        desired.endpoints.insert(endpoint.id.to_string(), endpoint);
        desired.sandboxes.insert(sandbox.id.to_string(), sandbox);
    }
    desired
}

/// A host that agrees with `desired`: the veth of endpoint `n` has the index `100 + n`.
fn agreeing(desired: &Desired) -> Actual {
    let names = names();
    let (places, troubles) = places(desired, &Actual::default(), &names);
    assert!(troubles.is_empty(), "{troubles:?}");
    let mut actual = Actual {
        leg: HostLeg { host: 5, datapath: 6 },
        leg_mtu: 1500,
        gateways: gateways(desired).map(|(gateway, _)| gateway).collect(),
        sandboxes: desired
            .sandboxes
            .values()
            .map(|sandbox| (sandbox.path.clone(), true))
            .collect(),
        ..Actual::default()
    };
    for (id, place) in &places {
        let veth = Veth {
            sandbox: None,
            endpoint: (*id).to_owned(),
            made_of: place.made_of,
            up: true,
            mtu: 1500,
            controller: 0,
        };
        actual.veths.insert(100 + place.endpoint.number, veth);
    }
    actual.tables = tables_for(desired, &actual);
    actual
}

fn tables_for(desired: &Desired, actual: &Actual) -> Tables {
    let names = names();
    let (places, _) = places(desired, actual, &names);
    let (tables, troubles) = tables(desired, &places, actual, &names, |id| actual.veth_of(id));
    assert!(troubles.is_empty(), "{troubles:?}");
    tables
}

fn plan(desired: &Desired, actual: &Actual) -> Devices {
    let names = names();
    devices(desired, &places(desired, actual, &names).0, actual, &names)
}

fn endpoint_mut(desired: &mut Desired, number: u32) -> &mut Endpoint {
    desired
        .endpoints
        .values_mut()
        .find(|endpoint| endpoint.number == number)
        .unwrap()
}

#[test]
fn a_host_that_agrees_with_the_store_is_left_alone() {
    let desired = desired(&[1, 2]);
    let actual = agreeing(&desired);
    assert_eq!(plan(&desired, &actual), Devices::default());
    assert!(steps(&actual.tables, &tables_for(&desired, &actual)).is_empty());
}

#[test]
fn an_empty_host_gets_everything() {
    let desired = desired(&[1, 2]);
    let plan = plan(&desired, &Actual::default());
    assert_eq!(plan.make_veths.len(), 2);
    assert_eq!(plan.make_sandboxes.len(), 2);
    assert_eq!(plan.add_gateways, ["172.17.0.1/16".parse().unwrap()]);
    assert_eq!(plan.leg_mtu, Some(1500));
    assert!(plan.remove_veths.is_empty() && plan.remove_sandboxes.is_empty() && plan.remove_gateways.is_empty());
}

#[test]
fn what_the_store_does_not_know_goes() {
    let actual = agreeing(&desired(&[1, 2]));
    let plan = plan(&Desired::default(), &actual);
    assert_eq!(plan.remove_veths, [101, 102]);
    assert_eq!(plan.remove_sandboxes.len(), 2);
    assert_eq!(plan.remove_gateways.len(), 1);
    let steps = steps(&actual.tables, &Tables::default());
    assert_eq!(
        (
            steps.endpoints4.remove.len(),
            steps.attachments.remove.len(),
            steps.generations.remove.len()
        ),
        (2, 2, 2)
    );
    assert!(steps.moves_epoch);
}

#[test]
fn a_veth_that_was_made_from_something_else_is_made_anew() {
    let mut desired = desired(&[1, 2]);
    let actual = agreeing(&desired);
    endpoint_mut(&mut desired, 1).addresses = vec!["172.17.0.77/16".parse().unwrap()];
    let plan = plan(&desired, &actual);
    assert_eq!(plan.remove_veths, [101]);
    assert_eq!(plan.make_veths.len(), 1);
    assert_eq!(plan.make_veths[0].addresses[0].to_string(), "172.17.0.77/16");
}

#[test]
fn a_draft_that_a_crash_left_is_made_anew() {
    let desired = desired(&[1]);
    let mut actual = agreeing(&desired);
    actual.veths.get_mut(&101).unwrap().made_of.device = 0;
    let plan = plan(&desired, &actual);
    assert_eq!((plan.remove_veths.len(), plan.make_veths.len()), (1, 1));
}

#[test]
fn a_veth_that_somebody_set_down_is_lifted() {
    let desired = desired(&[1]);
    let mut actual = agreeing(&desired);
    actual.veths.get_mut(&101).unwrap().up = false;
    assert_eq!(
        plan(&desired, &actual),
        Devices {
            lift: vec![101],
            ..Devices::default()
        }
    );
}

#[test]
fn a_sandbox_without_its_namespace_is_made_anew_with_its_veth() {
    let desired = desired(&[1]);
    let mut actual = agreeing(&desired);
    actual.sandboxes.values_mut().for_each(|mounted| *mounted = false);
    let plan = plan(&desired, &actual);
    assert_eq!(
        (
            plan.make_sandboxes.len(),
            plan.make_veths.len(),
            plan.remove_veths.len()
        ),
        (1, 1, 1)
    );
    assert!(plan.remove_sandboxes.is_empty());
}

#[test]
fn what_belongs_to_a_record_that_cannot_be_read_stays() {
    let before = desired(&[1]);
    let actual = agreeing(&before);
    let mut after = desired(&[]);
    for id in before.endpoints.keys().chain(before.sandboxes.keys()) {
        after.unreadable.insert(id.clone(), "version 2".into());
    }
    // A sandbox's file is called by its id.
    let plan = plan(&after, &actual);
    assert!(plan.remove_veths.is_empty());
}

#[test]
fn the_leg_is_as_large_as_the_largest_network() {
    let mut desired = desired(&[]);
    let actual = agreeing(&desired);
    let large = Network {
        mtu: 9000,
        ..fixture::network(3)
    };
    desired.networks.insert(large.id.to_string(), large);
    assert_eq!(plan(&desired, &actual).leg_mtu, Some(9000));
}

#[test]
fn an_endpoint_without_a_network_sandbox_or_number_is_told_and_the_others_are_made() {
    type Spoil = fn(&mut Endpoint);
    let cases: [(&str, Spoil); 6] = [
        ("in no known network", |endpoint| endpoint.network = endpoint.id.clone()),
        ("in no known sandbox", |endpoint| endpoint.sandbox = endpoint.id.clone()),
        ("has the number 0", |endpoint| endpoint.number = 0),
        ("has the number 70000", |endpoint| endpoint.number = 70_000),
        ("has the generation 0", |endpoint| endpoint.generation = 0),
        ("which no device can be", |endpoint| {
            endpoint.interface = "a-name-much-too-long".into()
        }),
    ];
    for (told, spoil) in cases {
        let mut desired = desired(&[1, 2]);
        spoil(endpoint_mut(&mut desired, 1));
        let names = names();
        let (places, troubles) = places(&desired, &Actual::default(), &names);
        assert_eq!(places.len(), 1);
        assert!(troubles.values().next().unwrap().contains(told), "{troubles:?}");
    }
}

#[test]
fn two_endpoints_with_one_number_are_not_both_made() {
    let mut desired = desired(&[1, 2]);
    endpoint_mut(&mut desired, 2).number = 1;
    let names = names();
    let (places, troubles) = places(&desired, &Actual::default(), &names);
    assert_eq!((places.len(), troubles.len()), (1, 1));
}

#[test]
fn the_tables_say_who_lives_where() {
    let mut desired = desired(&[1]);
    endpoint_mut(&mut desired, 1).ports = vec![fixture::port("0.0.0.0", 8080, 80)];
    let actual = agreeing(&desired);
    let tables = tables_for(&desired, &actual);
    let address = Ipv4Address::new([172, 17, 0, 2]);
    let endpoint = tables.endpoints4[&ByBytes(EndpointKey { network: 2, address })];
    assert_eq!(
        (endpoint.endpoint, endpoint.ifindex, endpoint.mac),
        (1, 101, [2, 0x42, 172, 17, 0, 2])
    );
    let attachment = tables.attachments[&ByBytes(101)];
    assert_eq!(
        (
            attachment.endpoint,
            attachment.generation,
            attachment.network,
            attachment.address4
        ),
        (1, 11, 2, address)
    );
    assert_eq!(tables.generations[&ByBytes(1)], 11);
    assert_eq!(
        tables.subnets4[&ByBytes(Prefix {
            length: 16,
            address: Ipv4Address::new([172, 17, 0, 0])
        })],
        2
    );
    let local = tables.local4[&ByBytes(Ipv4Address::new([172, 17, 0, 1]))];
    assert_eq!((local.ifindex, local.gateway_of), (5, 2));
    let key = PublishKey {
        address: Ipv4Address(0),
        port: 8080u16.to_be(),
        protocol: 6,
        padding: 0,
    };
    let publication = tables.published4[&ByBytes(key)];
    assert_eq!(
        (
            publication.network,
            publication.endpoint,
            publication.address,
            publication.port
        ),
        (2, 1, address, 80u16.to_be())
    );
}

#[test]
fn a_networks_rules_become_flags() {
    for (icc, masquerade, internal) in [(true, true, false), (false, true, false), (true, false, true)] {
        let network = Network {
            icc,
            masquerade,
            internal,
            ..fixture::network(2)
        };
        let mut tables = Tables::default();
        add_network(
            &mut tables,
            &mut Troubles::new(),
            &network,
            &Actual::default(),
            &names(),
        );
        let flags = tables.networks[&ByBytes(2)].flags;
        assert_eq!(flags & NETWORK_EXISTS, NETWORK_EXISTS);
        assert_eq!(flags & NETWORK_ICC != 0, icc);
        assert_eq!(flags & NETWORK_MASQUERADES != 0, masquerade);
        assert_eq!(flags & NETWORK_INTERNAL != 0, internal);
    }
}

#[test]
fn a_sandbox_gets_other_ways_out_without_losing_its_device() {
    let mut desired = desired(&[1]);
    let actual = agreeing(&desired);
    endpoint_mut(&mut desired, 1).gateways.clear();
    let plan = plan(&desired, &actual);
    assert!(plan.remove_veths.is_empty() && plan.make_veths.is_empty());
    let [(101, wish)] = plan.turn.as_slice() else {
        panic!("{:?}", plan.turn)
    };
    assert!(wish.gateways.is_empty());
}

/// Network 2 and endpoint 1 with IPv6 besides, in this mode.
fn desired6(mode: GatewayMode) -> Desired {
    let mut desired = desired(&[1]);
    for network in desired.networks.values_mut() {
        network.gateway_mode6 = mode;
        network.subnets.push(model::Subnet {
            subnet: "fd00:2::/64".parse().unwrap(),
            gateway: "fd00:2::1".parse().unwrap(),
            range: None,
            auxiliary: Default::default(),
        });
    }
    endpoint_mut(&mut desired, 1)
        .addresses
        .push("fd00:2::2/64".parse().unwrap());
    desired
}

fn address6(text: &str) -> Ipv6Address {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

fn key6(address: &str, port: u16) -> ByBytes<PublishKey<Ipv6>> {
    ByBytes(PublishKey {
        address: address6(address),
        port: port.to_be(),
        protocol: 6,
        padding: 0,
    })
}

#[test]
fn ipv6_stands_beside_ipv4_in_tables_of_its_own() {
    let mut desired = desired6(GatewayMode::Nat);
    endpoint_mut(&mut desired, 1).ports = vec![fixture::port("0.0.0.0", 8080, 80), fixture::port("::", 8080, 80)];
    let mut actual = agreeing(&desired);
    actual.world = World {
        addresses: vec![("2001:db8::1".parse().unwrap(), 9)],
        uplinks: vec![uplink::Uplink {
            ifindex: 9,
            name: "eth0".into(),
            mtu: 1500,
            ipv4: None,
            ipv6: "2001:db8::1".parse().ok(),
        }],
    };
    let tables = tables_for(&desired, &actual);
    assert_eq!(tables.subnets6[&ByBytes(prefix(64, address6("fd00:2::")))], 2);
    assert_eq!(
        tables.local6[&ByBytes(address6("fd00:2::1"))],
        LocalAddress {
            ifindex: 5,
            gateway_of: 2
        }
    );
    assert_eq!(tables.local6[&ByBytes(address6("2001:db8::1"))].ifindex, 9);
    assert_eq!(tables.uplinks6[&ByBytes(9)].address, address6("2001:db8::1"));
    let network = desired.networks.values().next().unwrap();
    let endpoint = tables.endpoints6[&ByBytes(endpoint_key(network, address6("fd00:2::2")))];
    assert_eq!((endpoint.endpoint, endpoint.ifindex), (1, 101));
    assert_eq!(tables.attachments[&ByBytes(101)].address6, address6("fd00:2::2"));
    assert_eq!(tables.networks[&ByBytes(2)].gateway6, address6("fd00:2::1"));
    assert_eq!(tables.published6[&key6("::", 8080)].address, address6("fd00:2::2"));
    let (slot, bit) = reserved_at(Ipv6::AF, 6, 8080).unwrap();
    assert_eq!(tables.reserved[&ByBytes(slot)], bit);
    assert!(steps(&actual.tables, &tables).moves_epoch);
}

#[test]
fn a_port_at_an_ipv6_address_leads_to_one_who_has_ipv4_only() {
    let mut desired = desired(&[1]);
    endpoint_mut(&mut desired, 1).ports = vec![fixture::port("::1", 8080, 80)];
    let tables = tables_for(&desired, &agreeing(&desired));
    assert_eq!(
        tables.published6[&key6("::1", 8080)].address,
        address6("::ffff:172.17.0.2")
    );
}

#[test]
fn in_a_routed_network_a_port_is_published_at_the_endpoints_own_address_too() {
    let published = |mode| {
        let mut desired = desired6(mode);
        endpoint_mut(&mut desired, 1).ports = vec![fixture::port("::", 8080, 80)];
        let tables = tables_for(&desired, &agreeing(&desired));
        let flags = tables.networks[&ByBytes(2)].flags;
        (tables.published6.contains_key(&key6("fd00:2::2", 80)), flags)
    };
    let (at_its_own, flags) = published(GatewayMode::Nat);
    assert!(!at_its_own && flags & NETWORK_MASQUERADES6 != 0 && flags & NETWORK_ROUTED6 == 0);
    let (at_its_own, flags) = published(GatewayMode::Routed);
    assert!(at_its_own && flags & NETWORK_MASQUERADES6 == 0 && flags & NETWORK_ROUTED6 != 0);
    assert!(
        flags & NETWORK_MASQUERADES != 0 && flags & NETWORK_ROUTED == 0,
        "IPv4 is another matter"
    );
}

#[test]
fn an_isolated_networks_gateway_is_nobody() {
    let mut desired = desired6(GatewayMode::Isolated);
    desired
        .networks
        .values_mut()
        .for_each(|network| network.internal = true);
    let gateways: Vec<String> = gateways(&desired).map(|(gateway, _)| gateway.to_string()).collect();
    assert_eq!(gateways, ["172.17.0.1/16"]);
    assert_eq!(
        tables_for(&desired, &agreeing(&desired)).networks[&ByBytes(2)].gateway6,
        Ipv6Address::default()
    );
}

#[test]
fn a_port_that_is_published_at_any_address_is_reserved() {
    let mut desired = desired(&[1]);
    endpoint_mut(&mut desired, 1).ports = vec![fixture::port("127.0.0.1", 80, 80), fixture::port("192.0.2.1", 80, 80)];
    let tables = tables_for(&desired, &agreeing(&desired));
    assert_eq!(tables.published4.len(), 2);
    let (slot, bit) = reserved_at(2, 6, 80).unwrap();
    assert_eq!(tables.reserved.len(), 1);
    assert_eq!(tables.reserved[&ByBytes(slot)], bit);
}

#[test]
fn a_port_that_two_endpoints_publish_belongs_to_one_and_is_told() {
    let mut desired = desired(&[1, 2]);
    for number in [1, 2] {
        endpoint_mut(&mut desired, number).ports = vec![fixture::port("0.0.0.0", 80, 80)];
    }
    let names = names();
    let (places, _) = places(&desired, &Actual::default(), &names);
    let (tables, troubles) = tables(&desired, &places, &Actual::default(), &names, |_| Some(7));
    assert_eq!((tables.published4.len(), troubles.len()), (1, 1));
}

#[test]
fn the_epoch_moves_when_a_judgement_could_change_and_not_when_an_endpoint_comes_or_goes() {
    let base = desired(&[1]);
    let actual = agreeing(&base);
    let moves = |desired: &Desired, actual: &Actual| {
        let steps = steps(&actual.tables, &tables_for(desired, actual));
        assert!(!steps.is_empty());
        steps.moves_epoch
    };

    let both = desired(&[1, 2]);
    let mut grown = agreeing(&both);
    grown.tables = actual.tables.clone();
    assert!(!moves(&both, &grown), "an endpoint came");
    grown.tables = tables_for(&both, &grown);
    grown.veths.remove(&102);
    assert!(!moves(&base, &grown), "an endpoint went");

    let mut without_icc = base.clone();
    without_icc
        .networks
        .values_mut()
        .for_each(|network| network.icc = false);
    assert!(moves(&without_icc, &actual), "a rule changed");

    let mut published = base.clone();
    endpoint_mut(&mut published, 1).ports = vec![fixture::port("0.0.0.0", 80, 80)];
    assert!(moves(&published, &actual), "a port was published");

    let mut moved = actual.clone();
    let uplink = uplink::Uplink {
        ifindex: 9,
        name: "eth0".into(),
        mtu: 1500,
        ipv4: "192.0.2.1".parse().ok(),
        ipv6: None,
    };
    moved.world = World {
        addresses: vec![("192.0.2.1".parse().unwrap(), 9)],
        uplinks: vec![uplink],
    };
    assert!(moves(&base, &moved), "the host moved");
}

#[test]
fn an_endpoint_of_a_new_life_changes_its_generation() {
    let mut desired = desired(&[1]);
    let actual = agreeing(&desired);
    endpoint_mut(&mut desired, 1).generation = 99;
    let steps = steps(&actual.tables, &tables_for(&desired, &actual));
    assert_eq!(steps.generations.put, [(ByBytes(1), 99)]);
    assert_eq!(steps.attachments.put[0].1.generation, 99);
}

#[test]
fn a_veth_gets_another_mtu_without_being_made_anew() {
    let mut desired = desired(&[1]);
    let actual = agreeing(&desired);
    desired.networks.values_mut().for_each(|network| network.mtu = 1400);
    let named = plan(&desired, &actual);
    assert!(named.remove_veths.is_empty() && named.make_veths.is_empty());
    assert!(matches!(named.resize.as_slice(), [(101, wish)] if wish.mtu == 1400));
    assert_eq!(named.leg_mtu, Some(1400));

    desired
        .networks
        .values_mut()
        .for_each(|network| network.mtu_follows = true);
    let follows = |egress_mtu| {
        let actual = Actual {
            egress_mtu,
            ..agreeing(&self::desired(&[1]))
        };
        let mtus = plan(&desired, &actual).resize.into_iter().map(|(_, wish)| wish.mtu);
        mtus.collect::<Vec<_>>()
    };
    assert_eq!(follows(1420), [1420], "the way out's");
    assert_eq!(follows(0), [1400], "not known: what it was when the network was made");
    assert_eq!(follows(65_536), [65_535], "what a veth can have");
    assert!(follows(1500).is_empty());
}

/// Network 3, on this parent, with an endpoint in a sandbox of its own.
fn beside(parent: model::Parent) -> Desired {
    let mut desired = desired(&[1]);
    for network in desired.networks.values_mut() {
        network.driver = Driver::Macvlan;
        network.number = 0;
        network.parent = Some(parent.clone());
    }
    desired
}

#[test]
fn devices_on_a_parent_come_after_it_and_go_before_it() {
    let desired = beside(model::Parent {
        device: "eth0.50".into(),
        made_of: Some(model::MadeParent::Vlan {
            of: "eth0".into(),
            tag: 50,
        }),
        hold: Hold::Macvlan(Default::default()),
    });
    let fresh = plan(&desired, &Actual::default());
    assert_eq!(fresh.beside.make_parents.len(), 1);
    assert_eq!(fresh.beside.make_children.len(), 1);
    assert!(
        fresh.make_veths.is_empty() && fresh.add_gateways.is_empty(),
        "{fresh:?}"
    );

    let wish = &fresh.beside.make_children[0];
    let (_, made_of) = names().read_alias(&wish.alias).unwrap();
    let child = crate::link::child::Child {
        endpoint: wish.endpoint.clone(),
        sandbox: wish.sandbox.clone(),
        interface: wish.interface.clone(),
        made_of,
    };
    let mut actual = Actual {
        sandboxes: [(wish.sandbox.clone(), true)].into(),
        parents: [("eth0.50".to_owned(), 50)].into(),
        children: vec![child.clone()],
        ..Actual::default()
    };
    assert_eq!(
        plan(&desired, &actual),
        Devices::default(),
        "what is right is left alone"
    );
    let gone = plan(&Desired::default(), &actual).beside;
    assert_eq!((gone.remove_children, gone.remove_parents), (vec![child], vec![50]));
    // half-made by an earlier life
    actual.children[0].made_of = MadeOf::default();
    let again = plan(&desired, &actual).beside;
    assert_eq!((again.remove_children.len(), again.make_children.len()), (1, 1));
    let (tables, troubles) = tables(
        &desired,
        &places(&desired, &actual, &names()).0,
        &actual,
        &names(),
        |_| None,
    );
    assert!(troubles.is_empty() && tables.networks.is_empty() && tables.subnets4.is_empty());
}

#[test]
fn a_device_of_the_users_name_bears_the_gateway_beside_the_leg() {
    let mut desired = desired(&[]);
    let mut actual = agreeing(&desired);
    let id = desired.networks.values().next().unwrap().id.clone();
    desired
        .networks
        .values_mut()
        .for_each(|network| network.gateway_device = Some("br-mine".into()));
    let fresh = plan(&desired, &actual);
    assert!(fresh.add_gateways.is_empty() && fresh.remove_gateways.is_empty());
    let [wish] = fresh.beside.make_gateway_devices.as_slice() else {
        panic!("{fresh:?}")
    };
    assert_eq!(wish.addresses, ["172.17.0.1/16".parse().unwrap()].into());
    let device = crate::link::gateway_device::GatewayDevice {
        ifindex: 9,
        alias: names().gateway_alias(&id),
        addresses: wish.addresses.clone(),
    };
    actual.gateway_devices.insert("br-mine".into(), device);
    assert_eq!(plan(&desired, &actual), Devices::default());
    actual.gateway_devices.get_mut("br-mine").unwrap().addresses.clear();
    let again = plan(&desired, &actual).beside;
    assert_eq!(
        (again.remove_gateway_devices, again.make_gateway_devices.len()),
        (vec![9], 1)
    );
}

#[test]
fn on_a_bridge_endpoints_are_entered_one_by_one_and_the_bridge_bears_the_gateway() {
    let mut desired = desired(&[1]);
    for network in desired.networks.values_mut() {
        network.mtu_follows = true;
        network.parent = Some(model::Parent {
            device: "br0".into(),
            made_of: None,
            hold: Hold::Port,
        });
    }
    let bridge = crate::link::listing::Device {
        ifindex: 30,
        name: "br0".into(),
        mac: [2, 0, 0, 0, 0, 30],
        mtu: 1490,
        bridge: true,
        ..Default::default()
    };
    let actual = Actual {
        bridges: [("br0".to_owned(), bridge)].into(),
        ..Actual::default()
    };
    let fresh = plan(&desired, &actual);
    assert!(fresh.add_gateways.is_empty());
    let [wish] = fresh.make_veths.as_slice() else {
        panic!("{fresh:?}")
    };
    assert_eq!((wish.mtu, wish.gateway_mac[0]), (1490, 0xfe));
    let (tables, _) = tables(
        &desired,
        &places(&desired, &actual, &names()).0,
        &actual,
        &names(),
        |_| Some(101),
    );
    let network = tables.networks.values().next().unwrap();
    assert_eq!(network.gateway_mac, [2, 0, 0, 0, 0, 30]);
    assert_ne!(network.flags & NETWORK_BRIDGED, 0);
    let subnets: Vec<u32> = tables.subnets4.keys().map(|key| key.0.length).collect();
    assert_eq!(subnets, [32]);

    // somebody has taken the port off its bridge
    let mut loose = actual.clone();
    let veth = Veth {
        sandbox: None,
        endpoint: wish.endpoint.clone(),
        made_of: names().read_alias(&wish.alias).unwrap().1,
        up: true,
        mtu: 1490,
        controller: 0,
    };
    loose.veths.insert(101, veth);
    loose.sandboxes = [(wish.sandbox.clone(), true)].into();
    assert_eq!(plan(&desired, &loose).attach, [(101, 30)]);
}
