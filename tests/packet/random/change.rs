//! How a step changes the world.

use std::net::IpAddr;

use super::place::{FAMILIES, Place, STRANGERS, TENANTS};
use super::step::Step;
use super::world;
use crate::reference::world::{Family, Limits, Publication, Uplink, World};

/// Takes the step, if it changes the world.
pub fn world(world: &mut World, step: &Step) {
    match *step {
        Step::Rules {
            network,
            icc,
            masquerades,
            internal,
            mtu,
        } => {
            if let Some(rules) = world.networks.get_mut(&network) {
                (rules.icc, rules.masquerades, rules.internal, rules.mtu) = (icc, masquerades, internal, mtu);
            }
        }
        Step::Routed { network, routed6 } => {
            if let Some(rules) = world.networks.get_mut(&network) {
                rules.routed6 = routed6;
            }
        }
        Step::Limits {
            conversations,
            half_open,
        } => {
            world.limits = Limits {
                conversations,
                half_open,
            }
        }
        Step::Opens {
            network,
            host_access,
            unprotected,
        } => {
            if let Some(rules) = world.networks.get_mut(&network) {
                (rules.host_access, rules.unprotected) = (host_access, unprotected);
            }
        }
        Step::Carries { network, multicast } => {
            if let Some(rules) = world.networks.get_mut(&network) {
                rules.multicast = multicast;
            }
        }
        Step::Links {
            from,
            to,
            port,
            protocol,
            holds,
        } => {
            let link = (from, to, port, protocol);
            if holds {
                world.links.insert(link);
            } else {
                world.links.remove(&link);
            }
        }
        Step::Serves { endpoint, only } => match only {
            Some(place) => {
                let prefixes = FAMILIES.map(|family| match family {
                    Family::V4 => (place.address(family), 24),
                    Family::V6 => (place.address(family), 120),
                });
                world.sources.insert(endpoint, prefixes.into());
            }
            None => drop(world.sources.remove(&endpoint)),
        },
        Step::Starts(number) => world::move_in(world, &TENANTS[number as usize - 1]),
        Step::Stops(number) => world::move_out(world, &TENANTS[number as usize - 1]),
        Step::Epoch => world.epoch += 1,
        Step::Joins(port) => world::join(world, port),
        Step::Parts => world.overlay_port = None,
        Step::Meets {
            host,
            device,
            mtu,
            is_neighbour,
        } => world::meet(world, host, device, mtu, is_neighbour),
        Step::Misses(host) => drop(world.peers.remove(&host)),
        Step::Moves { place, host, is_linked } => {
            let stranger = STRANGERS.iter().find(|stranger| stranger.place == place);
            match stranger {
                Some(stranger) if host != 0 => world::settle(world, stranger, host, is_linked),
                _ => world
                    .remotes
                    .retain(|(_, address), _| FAMILIES.iter().all(|family| place.address(*family) != *address)),
            }
        }
        Step::Direct { network, direct } => {
            if let Some(rules) = world.networks.get_mut(&network) {
                rules.direct = direct;
            }
        }
        _ => FAMILIES.iter().for_each(|family| in_family(world, *family, step)),
    }
}

/// What is said of places is said in both families.
fn in_family(world: &mut World, family: Family, step: &Step) {
    let at = |place: Place| place.address(family);
    match *step {
        Step::Publishes {
            at: address,
            port,
            protocol,
            endpoint,
            inside,
            count,
        } => {
            let tenant = &TENANTS[endpoint as usize - 1];
            let publication = Publication {
                network: tenant.network,
                endpoint,
                address: at(tenant.place),
                port: inside,
                count,
            };
            publish(world, at(address), port, protocol, publication);
        }
        Step::Meshes {
            at: address,
            port,
            protocol,
            to,
            inside,
        } => {
            let Some(stranger) = STRANGERS.iter().find(|stranger| stranger.place == to) else {
                return;
            };
            let publication = Publication {
                network: stranger.network,
                endpoint: 0,
                address: at(to),
                port: inside,
                count: 1,
            };
            publish(world, at(address), port, protocol, publication);
        }
        Step::Accepts {
            endpoint,
            port,
            protocol,
        } => {
            let tenant = &TENANTS[endpoint as usize - 1];
            let publication = Publication {
                network: tenant.network,
                endpoint,
                address: at(tenant.place),
                port,
                count: 1,
            };
            publish(world, at(tenant.place), port, protocol, publication);
        }
        Step::Unpublishes {
            at: address,
            port,
            protocol,
        } => {
            world.published.remove(&(at(address), port, protocol));
        }
        Step::Uplink { device, lends, mtu } => {
            let address = lends.map(at);
            world.uplinks.insert((device, family), Uplink { address, mtu });
        }
        Step::NoUplink { device } => {
            world.uplinks.remove(&(device, family));
        }
        Step::Owns(place, true) => {
            world.local.insert(at(place), 0);
        }
        Step::Owns(place, false) => {
            world.local.remove(&at(place));
        }
        _ => {}
    }
}

/// Two ranges that overlap are refused before they come here.
fn publish(world: &mut World, address: IpAddr, port: u16, protocol: u8, publication: Publication) {
    let count = publication.count;
    let is_taken = world.published.iter().any(|(&(other, first, of), publication)| {
        let overlaps = first < port.saturating_add(count) && port < first.saturating_add(publication.count);
        (other, of) == (address, protocol) && overlaps && (first, publication.count) != (port, count)
    });
    if !is_taken {
        world.published.insert((address, port, protocol), publication);
    }
}
