//! Published ports as the tables hold them: ports alone, ranges by the blocks they consist of, and which of them are kept from others.

use std::net::IpAddr;

use aya::Pod;
use ipnet::IpNet;
use sluice_datapath_common::{
    Family, Ipv4, Ipv6, Ipv6Address,
    publish::{Publication, PublishKey, RangeKey, SourceKey, blocks, reserved_at},
};
use sluice_model::{
    Network, PublishedPort, RemoteEndpoint,
    network::{self as model, GatewayMode},
};

use super::{Place, Troubles, tables::enter};
use crate::map::{
    contents::{ByBytes, Entries, Tables},
    handle::Prefix,
};

/// The tables of one family that ports stand in.
struct Shelf<'a, F: Family> {
    published: &'a mut Entries<PublishKey<F>, Publication<F>>,
    ranges: &'a mut Entries<Prefix<RangeKey<F>>, Publication<F>>,
    reserved: &'a mut Entries<u32, u64>,
}

/// Where a port is found, and who answers.
struct Sign<F: Family> {
    network: u32,
    endpoint: u32,
    protocol: u8,
    host_address: F::Address,
    host_port: u16,
    address: F::Address,
    port: u16,
    count: u16,
    /// Is it for some clients only?
    limited: bool,
    /// Is it a port of the host, to be kept from its programs and from masquerading?
    reserves: bool,
}

/// Enters the ports of an endpoint.
pub fn publish(tables: &mut Tables, troubles: &mut Troubles, place: &Place<'_>) {
    let Place { endpoint, network, .. } = place;
    let (mut address4, mut address6) = (None, None);
    for address in &endpoint.addresses {
        match address.addr() {
            IpAddr::V4(address) => address4 = Some(address.into()),
            IpAddr::V6(address) => address6 = Some(address.into()),
        }
    }
    // Who has IPv4 only is still found at IPv6 addresses of the host, by its own processes.
    let address6_or_mapped = address6.or(address4.map(Ipv6Address::mapped));
    if !endpoint.ports.is_empty() {
        add_sources(tables, place);
    }
    for port in &endpoint.ports {
        let taken = match port.host_address {
            IpAddr::V4(host_address) => {
                let Some(address) = address4 else { continue };
                shelf4(tables).put(&sign(place, port, host_address.into(), address))
            }
            IpAddr::V6(host_address) => {
                let Some(address) = address6_or_mapped else { continue };
                shelf6(tables).put(&sign(place, port, host_address.into(), address))
            }
        };
        if let Some(first) = taken {
            let trouble = format!(
                "endpoint {} publishes {}:{first}/{}, which another endpoint does",
                endpoint.id, port.host_address, port.container.protocol
            );
            troubles.insert(endpoint.id.to_string(), trouble);
        }
        // The world reaches it at its own address, too. That two ports of the host lead to one of its own is nothing to be told of.
        // So do other hosts, for ports that they take packets for.
        let is_reached = |family| endpoint.publish_mesh || is_reached_at_its_own(network, family);
        if let Some(address) = address4.filter(|_| is_reached(model::Family::V4)) {
            shelf4(tables).put(&of_its_own(place, port, address));
        }
        if let Some(address) = address6.filter(|_| is_reached(model::Family::V6)) {
            shelf6(tables).put(&of_its_own(place, port, address));
        }
    }
}

/// Enters the ports that this host takes packets for and hands them on to an endpoint of another. Who may use them the other host knows.
pub fn publish_remote(tables: &mut Tables, troubles: &mut Troubles, remote: &RemoteEndpoint, network: &Network) {
    // A port at an address of its host is that host's alone.
    for port in remote.ports.iter().filter(|port| port.host_address.is_unspecified()) {
        let address = remote
            .addresses
            .iter()
            .map(|address| address.addr())
            .find(|address| address.is_ipv4() == port.host_address.is_ipv4());
        let taken = match (address, port.host_address) {
            (Some(IpAddr::V4(address)), IpAddr::V4(any)) => {
                shelf4(tables).put(&handed_on(network, port, any.into(), address.into()))
            }
            (Some(IpAddr::V6(address)), IpAddr::V6(any)) => {
                shelf6(tables).put(&handed_on(network, port, any.into(), address.into()))
            }
            _ => continue,
        };
        if let Some(first) = taken {
            let trouble = format!(
                "endpoint {} on another host publishes {first}/{} on all hosts, which another endpoint does here",
                remote.id, port.container.protocol
            );
            troubles.insert(remote.id.to_string(), trouble);
        }
    }
}

fn handed_on<F: Family>(network: &Network, port: &PublishedPort, any: F::Address, address: F::Address) -> Sign<F> {
    Sign {
        network: network.number,
        endpoint: 0,
        protocol: port.container.protocol.number(),
        host_address: any,
        host_port: port.host_port,
        address,
        port: port.container.port,
        count: port.count,
        limited: false,
        reserves: true,
    }
}

/// Do those who have a route reach the endpoints of the network at their own addresses?
fn is_reached_at_its_own(network: &Network, family: model::Family) -> bool {
    matches!(
        network.gateway_mode(family),
        GatewayMode::Routed | GatewayMode::NatUnprotected
    )
}

/// Enters who may use the endpoint's ports, where not everybody may.
fn add_sources(tables: &mut Tables, place: &Place<'_>) {
    fn key<F: Family>(endpoint: u32, bits: u8, address: F::Address) -> ByBytes<Prefix<SourceKey<F>>> {
        ByBytes(Prefix {
            length: u32::BITS + u32::from(bits),
            address: SourceKey { endpoint, address },
        })
    }
    let number = place.endpoint.number;
    for source in &place.endpoint.publish_from {
        match source {
            IpNet::V4(net) => drop(
                tables
                    .sources4
                    .insert(key::<Ipv4>(number, net.prefix_len(), net.network().into()), 1),
            ),
            IpNet::V6(net) => drop(
                tables
                    .sources6
                    .insert(key::<Ipv6>(number, net.prefix_len(), net.network().into()), 1),
            ),
        }
    }
}

fn shelf4(tables: &mut Tables) -> Shelf<'_, Ipv4> {
    Shelf {
        published: &mut tables.published4,
        ranges: &mut tables.ranges4,
        reserved: &mut tables.reserved,
    }
}

fn shelf6(tables: &mut Tables) -> Shelf<'_, Ipv6> {
    Shelf {
        published: &mut tables.published6,
        ranges: &mut tables.ranges6,
        reserved: &mut tables.reserved,
    }
}

fn sign<F: Family>(place: &Place<'_>, port: &PublishedPort, host_address: F::Address, address: F::Address) -> Sign<F> {
    Sign {
        network: place.network.number,
        endpoint: place.endpoint.number,
        protocol: port.container.protocol.number(),
        host_address,
        host_port: port.host_port,
        address,
        port: port.container.port,
        count: port.count,
        limited: !place.endpoint.publish_from.is_empty(),
        reserves: true,
    }
}

/// The port at the endpoint's own address.
fn of_its_own<F: Family>(place: &Place<'_>, port: &PublishedPort, address: F::Address) -> Sign<F> {
    Sign {
        host_port: port.container.port,
        reserves: false,
        ..sign(place, port, address, address)
    }
}

impl<F: Family> Shelf<'_, F>
where
    PublishKey<F>: Pod,
    Prefix<RangeKey<F>>: Pod,
{
    /// Enters a port, or a range by the blocks it consists of: those of one port are single ports to the datapath. Answers the first port of a
    /// block that somebody has already.
    fn put(&mut self, sign: &Sign<F>) -> Option<u16> {
        /// The bits of a port.
        const WHOLE: u32 = 16;
        let mut somebodys = None;
        let last = sign.host_port.saturating_add(sign.count.saturating_sub(1));
        for (first, bits) in blocks(sign.host_port, last) {
            let mut publication = Publication {
                network: sign.network as u16,
                limited: u16::from(sign.limited),
                endpoint: sign.endpoint,
                address: sign.address,
                port: sign.port.saturating_add(first - sign.host_port).to_be(),
                first: 0,
            };
            let taken = if bits == WHOLE {
                let key = PublishKey {
                    address: sign.host_address,
                    port: first.to_be(),
                    protocol: sign.protocol,
                    padding: 0,
                };
                enter(self.published, key, publication)
            } else {
                publication.first = first.to_be();
                let key = Prefix {
                    length: 8 * size_of::<F::Address>() as u32 + 16 + bits,
                    address: RangeKey {
                        address: sign.host_address,
                        protocol: u16::from(sign.protocol),
                        port: first.to_be(),
                    },
                };
                enter(self.ranges, key, publication)
            };
            if taken {
                somebodys.get_or_insert(first);
            } else if sign.reserves {
                self.reserve(
                    sign.protocol,
                    first,
                    first.saturating_add(((1u32 << (WHOLE - bits)) - 1) as u16),
                );
            }
        }
        somebodys
    }

    fn reserve(&mut self, protocol: u8, first: u16, last: u16) {
        for port in first..=last {
            if let Some((slot, bit)) = reserved_at(F::AF, protocol, port) {
                *self.reserved.entry(ByBytes(slot)).or_default() |= bit;
            }
        }
    }
}
