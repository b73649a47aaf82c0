//! Who may speak to whom, as the tables hold it: the ports that links open, and who hears what is said to many.

use std::collections::BTreeMap;

use sluice_datapath_common::policy::{LinkKey, MAX_LINKS, MAX_LISTENERS, MAX_MEMBERS, MemberKey};

use super::{Place, Troubles};
use crate::map::contents::{ByBytes, Tables};

/// Enters what links open, where the endpoints of a network may not speak to each other anyway.
pub fn add_links(tables: &mut Tables, troubles: &mut Troubles, places: &BTreeMap<&str, Place<'_>>) {
    let closed = |place: &&Place<'_>| !place.network.icc;
    let mut neighbours: BTreeMap<u32, Vec<&Place<'_>>> = BTreeMap::new();
    if !places
        .values()
        .any(|place| closed(&place) && !place.endpoint.links.is_empty())
    {
        return;
    }
    for place in places.values().filter(closed) {
        neighbours.entry(place.network.number).or_default().push(place);
    }
    for place in places.values().filter(closed) {
        for link in &place.endpoint.links {
            let others = neighbours.get(&place.network.number).into_iter().flatten();
            for target in others.filter(|other| link.leads_to(other.endpoint)) {
                for exposed in &target.endpoint.exposed {
                    let key = LinkKey {
                        from: place.endpoint.number,
                        to: target.endpoint.number,
                        port: exposed.port.to_be(),
                        protocol: exposed.protocol.number(),
                        padding: 0,
                    };
                    if tables.links.len() < MAX_LINKS {
                        tables.links.insert(ByBytes(key), 1);
                    } else {
                        let trouble = format!(
                            "endpoint {} is linked to more ports than there is room for ({MAX_LINKS} on a host)",
                            place.endpoint.id
                        );
                        troubles.insert(place.endpoint.id.to_string(), trouble);
                    }
                }
            }
        }
    }
}

/// Enters who hears what is said to many: by their numbers, so many as there may be in a network.
pub fn add_members(tables: &mut Tables, places: &BTreeMap<&str, Place<'_>>, veth_of: impl Fn(&str) -> Option<u32>) {
    let mut members: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for (id, place) in places.iter().filter(|(_, place)| place.network.multicast) {
        if let Some(ifindex) = veth_of(id) {
            members.insert((place.network.number, place.endpoint.number), ifindex);
        }
    }
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    for ((network, _), ifindex) in members.into_iter().take(MAX_LISTENERS) {
        let place = next.entry(network).or_default();
        if *place < MAX_MEMBERS {
            let key = MemberKey { network, place: *place };
            tables.members.insert(ByBytes(key), ifindex);
            *place += 1;
        }
    }
}
