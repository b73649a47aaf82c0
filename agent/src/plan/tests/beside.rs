//! Networks on parents, on bridges and with devices of their own.

use sluice_datapath_common::resolver::ASKED4;

use super::*;

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
    let (tables, _, troubles) = tables(
        &desired,
        &places(&desired, &actual, &names()).0,
        &actual,
        &names(),
        |_| None,
    );
    assert!(troubles.is_empty() && tables.networks.is_empty() && tables.subnets4.is_empty());
    assert!(
        tables.resolvers.is_empty(),
        "nobody asks from a sandbox that is not there"
    );
}

#[test]
fn who_stands_on_a_parent_alone_asks_for_names_at_its_own_loopback() {
    let mut desired = beside(model::Parent {
        device: "eth0".into(),
        made_of: None,
        hold: Hold::Macvlan(Default::default()),
    });
    let path = desired.sandboxes.values().next().unwrap().path.clone();
    let mut actual = Actual {
        cookies: [(path, 77)].into(),
        ..Actual::default()
    };
    let asks_at = |desired: &Desired, actual: &Actual| {
        let (places, _) = places(desired, actual, &names());
        let veth_of = |id: &str| actual.veths_by_endpoint().get(id).copied();
        let (tables, ..) = tables(desired, &places, actual, &names(), veth_of);
        tables.resolvers[&ByBytes(77)].address4
    };
    assert_eq!(asks_at(&desired, &actual), ASKED4);
    // with a device of the datapath beside it, by that
    let mut other = fixture::network(3);
    other.number = 3;
    let mut second = fixture::endpoint(2, 1);
    second.sandbox = fixture::sandbox(1).id;
    second.network = other.id.clone();
    second.interface = "eth1".into();
    second.addresses = vec!["172.18.0.9/16".parse().unwrap()];
    desired.networks.insert(other.id.to_string(), other);
    let veth = Veth {
        sandbox: None,
        endpoint: second.id.to_string(),
        made_of: MadeOf::default(),
        up: true,
        mtu: 1500,
        controller: 0,
    };
    actual.veths.insert(102, veth);
    desired.endpoints.insert(second.id.to_string(), second);
    assert_eq!(asks_at(&desired, &actual), Ipv4Address::new([172, 18, 0, 1]));
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
    let (tables, ..) = tables(
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
    assert!(tables.local4.is_empty(), "the router's address is nobody's here");

    // the bridge's own address is the way out
    let mut own = actual.clone();
    let gateway: std::net::IpAddr = "172.17.0.1".parse().unwrap();
    own.world.addresses = vec![(gateway, 30), ("172.17.0.250".parse().unwrap(), 30)];
    let (tables, ..) = super::tables(&desired, &places(&desired, &own, &names()).0, &own, &names(), |_| None);
    let of = |last: u8| tables.local4[&ByBytes(Ipv4Address::new([172, 17, 0, last]))].gateway_of;
    assert_eq!((of(1), of(250)), (2, 0));

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
