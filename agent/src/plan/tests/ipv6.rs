//! IPv6 beside IPv4.

use super::*;

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
            lends: true,
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
