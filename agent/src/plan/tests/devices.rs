//! Devices, sandboxes and addresses that come, go and stay.

use super::*;

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
