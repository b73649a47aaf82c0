//! Which devices, sandboxes and addresses go and come.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use ipnet::IpNet;

use super::{
    Beside, Place,
    network::{gateways, is_placed},
};
use crate::{
    actual::{Actual, Veth},
    desired::Desired,
    link::veth::{Hang, Wish},
    names::Names,
};

/// What is to be done about devices, sandboxes and addresses, in this order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Devices {
    /// Veths to remove, by the index of their host end.
    pub remove_veths: Vec<u32>,
    /// Sandboxes to remove.
    pub remove_sandboxes: Vec<PathBuf>,
    /// Addresses to take from the host's leg.
    pub remove_gateways: Vec<IpNet>,
    /// The MTU that the host's leg gets.
    pub leg_mtu: Option<u32>,
    /// Addresses to give to the host's leg.
    pub add_gateways: Vec<IpNet>,
    /// Sandboxes to make: id and file.
    pub make_sandboxes: Vec<(String, PathBuf)>,
    /// Veths to make.
    pub make_veths: Vec<Wish>,
    /// Host ends that somebody has set down.
    pub lift: Vec<u32>,
    /// Veths that stay and lead elsewhere from their sandboxes by other ways than before, by the index of their host end.
    pub turn: Vec<(u32, Wish)>,
    /// Veths that stay and get another MTU, by the index of their host end.
    pub resize: Vec<(u32, Wish)>,
    /// Host ends that are no port of their bridge, and the bridge.
    pub attach: Vec<(u32, u32)>,
    /// What stands beside the datapath.
    pub beside: Beside,
}

/// Which devices, sandboxes and addresses go and come.
pub fn devices(desired: &Desired, places: &BTreeMap<&str, Place<'_>>, actual: &Actual, names: &Names) -> Devices {
    let mut plan = Devices {
        beside: Beside::of(desired, places.values(), actual, names),
        ..Devices::default()
    };
    let mut standing = BTreeSet::new();
    for (ifindex, veth) in &actual.veths {
        let place = places
            .get(veth.endpoint.as_str())
            .filter(|place| place.made_of.device == veth.made_of.device);
        let unreadable = desired.unreadable.contains_key(&veth.endpoint);
        let in_its_sandbox = |place: &&Place<'_>| actual.sandboxes.get(&place.wish.sandbox) != Some(&false);
        if (place.filter(in_its_sandbox).is_some() || unreadable) && standing.insert(veth.endpoint.as_str()) {
            if !veth.up {
                plan.lift.push(*ifindex);
            }
            if let Some(place) = place {
                plan.mend(*ifindex, veth, place, actual);
            }
        } else {
            plan.remove_veths.push(*ifindex);
        }
    }
    plan.make_veths = places
        .iter()
        .filter(|(id, place)| !standing.contains(**id) && !matches!(place.wish.hang, Hang::Child(_)))
        .map(|(_, place)| place.wish.clone())
        .collect();

    let sandboxes: BTreeMap<&PathBuf, &String> = desired
        .sandboxes
        .iter()
        .map(|(id, sandbox)| (&sandbox.path, id))
        .collect();
    let spoken_for = |path: &PathBuf| {
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        sandboxes.contains_key(path) || desired.unreadable.contains_key(id)
    };
    plan.remove_sandboxes = actual
        .sandboxes
        .keys()
        .filter(|path| !spoken_for(path))
        .cloned()
        .collect();
    plan.make_sandboxes = sandboxes
        .iter()
        .filter(|(path, _)| actual.sandboxes.get(**path) != Some(&true))
        .map(|(path, id)| ((*id).clone(), (*path).clone()))
        .collect();

    let gateways: BTreeSet<IpNet> = gateways(desired).map(|(gateway, _)| gateway).collect();
    plan.remove_gateways = actual.gateways.difference(&gateways).copied().collect();
    plan.add_gateways = gateways.difference(&actual.gateways).copied().collect();
    // As large as the largest network's, else what containers send to the host would be too large for it.
    let mtu = desired
        .networks
        .values()
        .filter(|network| is_placed(network))
        .map(|network| actual.mtu_of(network))
        .max();
    plan.leg_mtu = mtu.filter(|mtu| *mtu != actual.leg_mtu);
    plan
}

impl Devices {
    /// How many changes these are.
    pub fn count(&self) -> usize {
        self.remove_veths.len()
            + self.remove_sandboxes.len()
            + self.remove_gateways.len()
            + usize::from(self.leg_mtu.is_some())
            + self.add_gateways.len()
            + self.make_sandboxes.len()
            + self.make_veths.len()
            + self.lift.len()
            + self.turn.len()
            + self.resize.len()
            + self.attach.len()
            + self.beside.count()
    }

    /// Does somebody come who gets a place in the tables?
    pub fn come(&self) -> bool {
        !(self.make_veths.is_empty() && self.make_sandboxes.is_empty())
    }

    /// Is that all that happens before tables are written?
    pub fn only_come(&self) -> bool {
        let goes = !(self.remove_veths.is_empty() && self.remove_sandboxes.is_empty()) || self.beside.removes();
        let leg_changes = !(self.remove_gateways.is_empty() && self.add_gateways.is_empty()) || self.leg_mtu.is_some();
        self.come() && !goes && !leg_changes
    }

    /// What is to be done about a veth that stays.
    fn mend(&mut self, ifindex: u32, veth: &Veth, place: &Place<'_>, actual: &Actual) {
        if place.made_of.ways != veth.made_of.ways {
            self.turn.push((ifindex, place.wish.clone()));
        }
        if place.wish.mtu != veth.mtu {
            self.resize.push((ifindex, place.wish.clone()));
        }
        if let Hang::Port(bridge) = &place.wish.hang
            && let Some(bridge) = actual.bridges.get(bridge)
            && bridge.ifindex != veth.controller
        {
            self.attach.push((ifindex, bridge.ifindex));
        }
    }
}
