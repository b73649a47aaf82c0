//! Endpoints that can be made, and the devices they are to have.

use std::{collections::BTreeMap, path::PathBuf};

use sluice_datapath_common::endpoint::MAX_ENDPOINTS;
use sluice_model::{Endpoint, Network, network::Hold};

use super::{
    Troubles,
    network::{hangs_beside, is_placed},
};
use crate::{
    actual::Actual,
    desired::Desired,
    link::veth::{Hang, Wish},
    names::{Fingerprint, MadeOf, Names, host_end},
};

/// An endpoint that can be made, and the device it is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Its network.
    pub network: &'a Network,
    /// Its veth.
    pub wish: Wish,
    /// What the veth is made from.
    pub made_of: MadeOf,
}

/// The endpoints that can be made, by id, and why others cannot.
pub fn places<'a>(desired: &'a Desired, actual: &Actual, names: &Names) -> (BTreeMap<&'a str, Place<'a>>, Troubles) {
    let (mut places, mut troubles) = (BTreeMap::new(), Troubles::new());
    let mut numbers: BTreeMap<u32, &str> = BTreeMap::new();
    for (id, endpoint) in &desired.endpoints {
        match place(endpoint, desired, actual, names) {
            Ok(place) => match numbers.get(&endpoint.number) {
                None => {
                    numbers.insert(endpoint.number, id);
                    places.insert(id.as_str(), place);
                }
                Some(other) => {
                    let trouble = format!("endpoint {id} has the number {} of endpoint {other}", endpoint.number);
                    troubles.insert(id.clone(), trouble);
                }
            },
            Err(trouble) => drop(troubles.insert(id.clone(), trouble)),
        }
    }
    (places, troubles)
}

fn place<'a>(
    endpoint: &'a Endpoint,
    desired: &'a Desired,
    actual: &Actual,
    names: &Names,
) -> Result<Place<'a>, String> {
    let id = &endpoint.id;
    let network = desired
        .networks
        .get(endpoint.network.as_str())
        .ok_or_else(|| format!("endpoint {id} is in no known network"))?;
    if !is_placed(network) && !hangs_beside(network) {
        return Err(format!(
            "endpoint {id} is in the network {}, which has no place in the datapath",
            network.name
        ));
    }
    let sandbox = desired
        .sandboxes
        .get(endpoint.sandbox.as_str())
        .ok_or_else(|| format!("endpoint {id} is in no known sandbox"))?;
    if endpoint.number == 0 || endpoint.number >= MAX_ENDPOINTS {
        return Err(format!(
            "endpoint {id} has the number {}; 1 to {} are wanted",
            endpoint.number,
            MAX_ENDPOINTS - 1
        ));
    }
    if endpoint.generation == 0 {
        return Err(format!(
            "endpoint {id} has the generation 0, which means that it is gone"
        ));
    }
    if endpoint.interface.is_empty() || endpoint.interface.len() > 15 || endpoint.interface.contains(['/', ' ', '\0']) {
        return Err(format!(
            "endpoint {id} wants a device called {:?}, which no device can be",
            endpoint.interface
        ));
    }
    let (mut wish, made_of) = wish(endpoint, network, sandbox.path.clone(), names);
    wish.mtu = actual.mtu_of(network);
    Ok(Place {
        endpoint,
        network,
        wish,
        made_of,
    })
}

/// Where devices of its endpoints hang.
fn hang(network: &Network) -> Hang {
    match &network.parent {
        None => Hang::Datapath,
        Some(parent) if parent.hold == Hold::Port => Hang::Port(parent.device.clone()),
        Some(parent) => Hang::Child(parent.clone()),
    }
}

/// The MAC of a host end that is a port of a bridge. A bridge that nobody gave a MAC takes the least of its ports': it shall not be ours.
fn mac_of_port(gateway_mac: [u8; 6]) -> [u8; 6] {
    let [_, rest @ ..] = gateway_mac;
    let mut mac = [0xfe; 6];
    mac[1..].copy_from_slice(&rest);
    mac
}

fn wish(endpoint: &Endpoint, network: &Network, sandbox: PathBuf, names: &Names) -> (Wish, MadeOf) {
    let mut wish = Wish {
        endpoint: endpoint.id.to_string(),
        host_end: host_end(&endpoint.id),
        draft_alias: names.alias(&endpoint.id, MadeOf::default()),
        alias: String::new(),
        gateway_mac: match network.is_on_bridge() {
            true => mac_of_port(names.gateway_mac().0),
            false => names.gateway_mac().0,
        },
        sandbox,
        interface: endpoint.interface.clone(),
        mac: endpoint.mac.0,
        addresses: endpoint.addresses.clone(),
        gateways: endpoint.gateways.clone(),
        mtu: 0,
        hang: hang(network),
        sysctls: endpoint
            .sysctls
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    };
    let mut fingerprint = Fingerprint::EMPTY;
    fingerprint.add_part(wish.sandbox.display());
    fingerprint.add_part(&wish.interface);
    fingerprint.add_part(endpoint.mac);
    wish.addresses.iter().for_each(|address| fingerprint.add_part(address));
    if wish.hang != Hang::Datapath {
        fingerprint.add_part(format_args!("{:?}", wish.hang));
    }
    for (name, value) in &wish.sysctls {
        fingerprint.add_part(format_args!("{name}={value}"));
    }
    let mut ways = Fingerprint::EMPTY;
    wish.gateways.iter().for_each(|gateway| ways.add_part(gateway));
    let made_of = MadeOf {
        // 0 is the draft's.
        device: fingerprint.value().max(1),
        ways: ways.value(),
    };
    wish.alias = names.alias(&endpoint.id, made_of);
    (wish, made_of)
}
