//! What the tables hold, and when flows are judged again.

use super::*;

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
    let (tables, _, troubles) = tables(&desired, &places, &Actual::default(), &names, |_| Some(7));
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
        lends: true,
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
