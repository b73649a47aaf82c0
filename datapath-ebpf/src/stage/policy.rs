//! May they speak?

use sluice_datapath_common::{
    DropReason,
    endpoint::EndpointKey,
    flow::FlowKey,
    network::{NETWORK_ICC, NETWORK_INTERNAL, NETWORK_NO_HOST, NETWORK_ONLY_GATEWAY, Network},
    policy::LinkKey,
    publish::{Publication, SourceKey},
};

use super::route::Leg;
use crate::{
    family::Tables,
    maps::{self, Prefix, Table},
};

/// Judges what an endpoint says to another of its own network, at the ends of these legs. The way through a published port is not judged here: it is
/// open to all.
#[inline(always)]
pub fn judge_neighbours<F: Tables>(
    network: &Network,
    number: u32,
    key: &FlowKey<F>,
    from: &Leg<F>,
    to: &Leg<F>,
) -> Result<(), DropReason> {
    if network.flags & NETWORK_ICC != 0 {
        return Ok(());
    }
    let from = number_in_links::<F>(from.endpoint, number, &key.source);
    let to = number_in_links::<F>(to.endpoint, number, &key.destination);
    match from != 0 && to != 0 && is_linked(from, to, key.destination_port, key.protocol) != 0 {
        true => Ok(()),
        false => Err(DropReason::IccDisabled),
    }
}

/// What links know an endpoint by: its own number, or that of one on another host. 0: none speaks of it. Out of line for its stack.
#[inline(never)]
fn number_in_links<F: Tables>(endpoint: u32, network: u32, address: &F::Address) -> u32 {
    if endpoint != 0 {
        return endpoint;
    }
    let key = EndpointKey {
        network,
        address: *address,
    };
    F::REMOTES.get(&key).map_or(0, |remote| remote.endpoint)
}

/// Not 0: a link opens the port (network byte order). Out of line for its stack.
#[inline(never)]
fn is_linked(from: u32, to: u32, port: u16, protocol: u8) -> u32 {
    const TABLE: Table<LinkKey, u32> = Table::of(&raw const maps::LINKS);
    let link = LinkKey {
        from,
        to,
        port,
        protocol,
        padding: 0,
    };
    TABLE.find(&link).is_some() as u32
}

/// Judges what an endpoint says to the host itself: at the gateway of its network, or at another address.
#[inline(always)]
pub fn judge_host_access<F: Tables>(network: &Network, key: &FlowKey<F>) -> Result<(), DropReason> {
    if network.flags & (NETWORK_NO_HOST | NETWORK_ONLY_GATEWAY) == 0 {
        return Ok(());
    }
    let at_gateway = F::LOCAL
        .get(&key.destination)
        .is_some_and(|local| local.gateway_of == key.scope);
    match network.flags & NETWORK_NO_HOST == 0 && at_gateway {
        true => Ok(()),
        false if network.flags & NETWORK_INTERNAL != 0 => Err(DropReason::InternalNetwork),
        false => Err(DropReason::HostAccess),
    }
}

/// Judges who uses a published port. A process of the host that is sent to the endpoint at its socket is not asked.
#[inline(always)]
pub fn judge_client<F: Tables>(publication: &Publication<F>, client: &F::Address) -> Result<(), DropReason> {
    match publication.limited == 0 || is_source::<F>(publication.endpoint, client) != 0 {
        true => Ok(()),
        false => Err(DropReason::PublishFrom),
    }
}

/// Not 0: the address is among those that the endpoint's published ports are for. Out of line for its stack.
#[inline(never)]
fn is_source<F: Tables>(endpoint: u32, address: &F::Address) -> u32 {
    let key = SourceKey {
        endpoint,
        address: *address,
    };
    F::SOURCES.find(&Prefix::whole(key)).is_some() as u32
}
