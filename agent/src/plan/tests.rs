//! What is to be done for a few records and a host that has some of them.

use std::path::Path;

use sluice_datapath_common::{
    Family, Ipv4Address, Ipv6, Ipv6Address,
    endpoint::EndpointKey,
    network::{
        NETWORK_BRIDGED, NETWORK_EXISTS, NETWORK_ICC, NETWORK_INTERNAL, NETWORK_MASQUERADES, NETWORK_MASQUERADES6,
        NETWORK_ROUTED, NETWORK_ROUTED6,
    },
    publish::{PublishKey, reserved_at},
    uplink::LocalAddress,
};
use sluice_model::{
    Endpoint, Network,
    network::{self as model, Driver, GatewayMode, Hold},
};

use super::{
    endpoint::endpoint_key,
    network::{add_network, gateways},
    overlay::Ground,
    tables::prefix,
    *,
};
use crate::{
    actual::{Actual, Veth},
    desired::Desired,
    fixture,
    link::{
        host_leg::HostLeg,
        uplink::{self, World},
    },
    map::{
        contents::{ByBytes, Tables},
        handle::Prefix,
    },
    names::{MadeOf, Names},
};

mod beside;
mod devices;
mod ipv6;
mod overlay;
mod remotes;
mod rules;
mod tables;

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
    let (mut tables, ground) = tables_and_ground(desired, actual);
    let elsewhere = Settled::default().steps(&desired.remotes, &ground, &Tables::default());
    assert!(elsewhere.troubles.is_empty(), "{:?}", elsewhere.troubles);
    tables.remotes4.extend(elsewhere.ipv4.put);
    tables.remotes6.extend(elsewhere.ipv6.put);
    tables
}

fn tables_and_ground(desired: &Desired, actual: &Actual) -> (Tables, Ground) {
    let names = names();
    let (places, _) = places(desired, actual, &names);
    let (tables, ground, troubles) = tables(desired, &places, actual, &names, |id| {
        actual.veths_by_endpoint().get(id).copied()
    });
    assert!(troubles.is_empty(), "{troubles:?}");
    (tables, ground)
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
