//! What the tables must hold for the devices that are there.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::Pod;
use sluice_datapath_common::uplink::{LocalAddress, Uplink};
use sluice_model::Network;

use super::{
    Place, Troubles, endpoint,
    network::{add_network, gateways, is_placed},
    overlay::{self, Ground},
    policy,
};
use crate::{
    actual::Actual,
    desired::Desired,
    link::{uplink::World, veth::Hang},
    map::{
        contents::{ByBytes, Entries, Tables},
        handle::Prefix,
    },
    names::Names,
};

/// What the tables must hold, when `veth_of` answers the index of an endpoint's veth (none: it has none and is left out); and by what endpoints on other
/// hosts are entered, which are planned apart (see [`super::remotes`]).
pub fn tables(
    desired: &Desired,
    places: &BTreeMap<&str, Place<'_>>,
    actual: &Actual,
    names: &Names,
    veth_of: impl Fn(&str) -> Option<u32>,
) -> (Tables, Ground, Troubles) {
    let (mut tables, mut troubles) = (Tables::default(), Troubles::new());
    for network in desired.networks.values().filter(|network| is_placed(network)) {
        add_network(&mut tables, &mut troubles, network, actual, names);
    }
    add_world(&mut tables, &actual.world);
    for (gateway, number) in gateways(desired) {
        let local = LocalAddress {
            ifindex: actual.leg.host,
            gateway_of: number,
        };
        add_local(&mut tables, gateway.addr(), local);
    }
    let on_bridges = desired.networks.values().filter(|network| network.is_on_bridge());
    on_bridges.for_each(|network| name_gateways(&mut tables, network));
    let mut asking: BTreeMap<u64, Vec<&Place<'_>>> = BTreeMap::new();
    for (id, place) in places {
        if let Some(ifindex) = veth_of(id) {
            endpoint::add_endpoint(&mut tables, &mut troubles, place, ifindex);
        } else if !matches!(place.wish.hang, Hang::Child(_)) {
            continue;
        }
        if let Some(cookie) = actual.cookies.get(&place.wish.sandbox) {
            asking.entry(*cookie).or_default().push(place);
        }
    }
    for (cookie, places) in asking {
        tables
            .resolvers
            .extend(endpoint::resolver(&places).map(|resolver| (ByBytes(cookie), resolver)));
    }
    let ground = overlay::add(&mut tables, &mut troubles, desired, actual);
    policy::add_links(&mut tables, &mut troubles, places);
    overlay::add_links(&mut tables, desired, places, &ground);
    policy::add_members(&mut tables, places, veth_of);
    (tables, ground, troubles)
}

fn add_local(tables: &mut Tables, address: IpAddr, local: LocalAddress) {
    match address {
        IpAddr::V4(address) => drop(tables.local4.insert(ByBytes(address.into()), local)),
        IpAddr::V6(address) => drop(tables.local6.insert(ByBytes(address.into()), local)),
    }
}

/// Where the bridge's own address is the way out of it, the host is found there as at the gateway of any network.
fn name_gateways(tables: &mut Tables, network: &Network) {
    for subnet in &network.subnets {
        let local = match subnet.gateway {
            IpAddr::V4(gateway) => tables.local4.get_mut(&ByBytes(gateway.into())),
            IpAddr::V6(gateway) => tables.local6.get_mut(&ByBytes(gateway.into())),
        };
        if let Some(local) = local {
            local.gateway_of = network.number;
        }
    }
}

fn add_world(tables: &mut Tables, world: &World) {
    for (address, ifindex) in &world.addresses {
        let local = LocalAddress {
            ifindex: *ifindex,
            gateway_of: 0,
        };
        add_local(tables, *address, local);
    }
    for uplink in &world.uplinks {
        let (key, mtu) = (ByBytes(uplink.ifindex), uplink.mtu);
        // One without an address to lend leads there all the same: what is routed needs none.
        if let Some(address) = uplink.ipv4 {
            let address = if uplink.lends { address } else { Ipv4Addr::UNSPECIFIED }.into();
            tables.uplinks4.insert(key, Uplink { address, mtu });
        }
        let lent = uplink.ipv6.filter(|_| uplink.lends);
        let address = lent.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
        tables.uplinks6.insert(key, Uplink { address, mtu });
    }
}

/// The key of a prefix of so many bits.
pub fn prefix<A>(length: u8, address: A) -> Prefix<A> {
    Prefix {
        length: u32::from(length),
        address,
    }
}

/// Enters what is not there yet; true when something is.
pub fn enter<K: Pod, V>(entries: &mut Entries<K, V>, key: K, value: V) -> bool {
    match entries.entry(ByBytes(key)) {
        Entry::Occupied(_) => true,
        Entry::Vacant(place) => {
            place.insert(value);
            false
        }
    }
}
