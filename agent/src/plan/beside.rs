//! Devices that stand beside the datapath: endpoints' devices on parents of the host, parents that are ours, and devices that bear gateway
//! addresses by a name of their own.

use std::collections::{BTreeMap, BTreeSet};

use sluice_model::Network;

use super::{Place, network::gateways_of};
use crate::{
    actual::Actual,
    desired::Desired,
    link::{
        child::Child,
        gateway_device, parent,
        veth::{Hang, Wish},
    },
    names::Names,
};

/// What is to be done about them, in this order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Beside {
    /// Devices of endpoints to remove.
    pub remove_children: Vec<Child>,
    /// Parents to remove, by index.
    pub remove_parents: Vec<u32>,
    /// Devices of gateways to remove, by index.
    pub remove_gateway_devices: Vec<u32>,
    /// Parents to make.
    pub make_parents: Vec<parent::Wish>,
    /// Devices of gateways to make.
    pub make_gateway_devices: Vec<gateway_device::Wish>,
    /// Devices of endpoints to make.
    pub make_children: Vec<Wish>,
    /// Devices of endpoints that stay and are to lead elsewhere by other ways.
    pub turn_children: Vec<Wish>,
}

impl Beside {
    /// Desired minus actual.
    pub fn of<'a>(
        desired: &Desired,
        places: impl Iterator<Item = &'a Place<'a>>,
        actual: &Actual,
        names: &Names,
    ) -> Self {
        let mut beside = Self::default();
        beside.parents(desired, actual, names);
        beside.gateway_devices(desired, actual, names);
        let wanted: Vec<&Place<'_>> = places
            .filter(|place| matches!(place.wish.hang, Hang::Child(_)))
            .collect();
        let mut standing = BTreeSet::new();
        for child in &actual.children {
            let place = wanted.iter().find(|place| {
                place.wish.endpoint == child.endpoint
                    && place.wish.sandbox == child.sandbox
                    && place.made_of.device == child.made_of.device
            });
            match place {
                Some(place) if standing.insert(child.endpoint.as_str()) => {
                    if place.made_of.ways != child.made_of.ways {
                        beside.turn_children.push(place.wish.clone());
                    }
                }
                _ if desired.unreadable.contains_key(&child.endpoint) => {}
                _ => beside.remove_children.push(child.clone()),
            }
        }
        beside.make_children = wanted
            .iter()
            .filter(|place| !standing.contains(place.wish.endpoint.as_str()))
            .map(|place| place.wish.clone())
            .collect();
        beside
    }

    fn parents(&mut self, desired: &Desired, actual: &Actual, names: &Names) {
        // several networks may stand on one
        let wanted: BTreeMap<&str, parent::Wish> = desired
            .networks
            .values()
            .filter_map(|network| {
                let parent = network.parent.as_ref()?;
                let wish = parent::Wish {
                    network: network.id.to_string(),
                    name: parent.device.clone(),
                    alias: names.parent_alias(&parent.device),
                    made_of: parent.made_of.clone()?,
                };
                Some((parent.device.as_str(), wish))
            })
            .collect();
        // a network that cannot be read may be the one that wants it
        if desired.unreadable.is_empty() {
            let unwanted = actual
                .parents
                .iter()
                .filter(|(name, _)| !wanted.contains_key(name.as_str()));
            self.remove_parents = unwanted.map(|(_, index)| *index).collect();
        }
        self.make_parents = wanted
            .into_values()
            .filter(|wish| !actual.parents.contains_key(&wish.name))
            .collect();
    }

    fn gateway_devices(&mut self, desired: &Desired, actual: &Actual, names: &Names) {
        let wish = |network: &Network| {
            Some(gateway_device::Wish {
                network: network.id.to_string(),
                name: network.gateway_device.clone()?,
                alias: names.gateway_alias(&network.id),
                addresses: gateways_of(network).collect(),
            })
        };
        let wanted: Vec<gateway_device::Wish> = desired.networks.values().filter_map(wish).collect();
        let agrees = |wish: &gateway_device::Wish| {
            actual
                .gateway_devices
                .get(&wish.name)
                .is_some_and(|device| device.alias == wish.alias && device.addresses == wish.addresses)
        };
        for (name, device) in &actual.gateway_devices {
            let stays = wanted.iter().any(|wish| wish.name == *name && agrees(wish));
            let id = device.alias.rsplit('/').next().unwrap_or_default();
            if !stays && !desired.unreadable.contains_key(id) {
                self.remove_gateway_devices.push(device.ifindex);
            }
        }
        self.make_gateway_devices = wanted.into_iter().filter(|wish| !agrees(wish)).collect();
    }

    /// Does something go?
    pub fn removes(&self) -> bool {
        !(self.remove_children.is_empty() && self.remove_parents.is_empty() && self.remove_gateway_devices.is_empty())
    }

    /// How many changes these are.
    pub fn count(&self) -> usize {
        self.remove_children.len()
            + self.remove_parents.len()
            + self.remove_gateway_devices.len()
            + self.make_parents.len()
            + self.make_gateway_devices.len()
            + self.make_children.len()
            + self.turn_children.len()
    }
}
