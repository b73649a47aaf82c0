//! Who bears an endpoint's number, and who bore it: flows and drops outlive endpoints, and people want names.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
};

use sluice_model::Endpoint;
use sluice_policy::Policy;

use crate::desired::Desired;

/// How many of the gone are kept.
const REMEMBERED: usize = 256;

/// Whoever bears a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resident {
    /// The container's name.
    pub name: String,
    /// The container's id.
    pub container: String,
    /// The name of the network.
    pub network: String,
    /// The container's labels.
    pub labels: BTreeMap<String, String>,
}

/// Residents by number and by address, and rules of documents by their numbers.
#[derive(Clone, Default, Debug)]
pub struct Roster {
    policies: BTreeMap<String, Policy>,
    rules: HashMap<u64, String>,
    present: BTreeMap<u32, Resident>,
    addresses: HashMap<IpAddr, u32>,
    gone: VecDeque<(u32, Resident)>,
}

impl Roster {
    /// Takes over who is there now; whoever is not any more is remembered for a while.
    pub fn update(&mut self, desired: &Desired) {
        let resident = |endpoint: &Endpoint| Resident {
            name: endpoint.name.clone(),
            container: endpoint.container.to_string(),
            network: desired
                .networks
                .get(endpoint.network.as_str())
                .map_or_else(|| endpoint.network.to_string(), |network| network.name.clone()),
            labels: endpoint.labels.clone(),
        };
        if self.policies != desired.policies {
            self.policies.clone_from(&desired.policies);
            let origins = self.policies.values().flat_map(Policy::origins);
            self.rules = origins.map(|(number, origin)| (number.0, origin.to_string())).collect();
        }
        let endpoints = desired.endpoints.values();
        let present: BTreeMap<u32, Resident> = endpoints
            .clone()
            .map(|endpoint| (endpoint.number, resident(endpoint)))
            .collect();
        self.addresses = endpoints
            .flat_map(|endpoint| {
                endpoint
                    .addresses
                    .iter()
                    .map(|address| (address.addr(), endpoint.number))
            })
            .collect();
        let before = std::mem::replace(&mut self.present, present);
        for (number, resident) in before {
            if self.present.get(&number).map(|present| &present.name) != Some(&resident.name) {
                self.gone.push_back((number, resident));
            }
        }
        while self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
    }

    /// The name of who bears the number, or bore it last.
    pub fn name(&self, number: u32) -> String {
        match (self.present.get(&number), self.last(number)) {
            (Some(resident), _) => resident.name.clone(),
            (None, Some(gone)) => format!("{} (gone)", gone.name),
            (None, None) => format!("endpoint #{number} (gone)"),
        }
    }

    /// Who bears the number, or bore it last.
    pub fn resident(&self, number: u32) -> Option<&Resident> {
        self.present.get(&number).or_else(|| self.last(number))
    }

    /// Where the rule of a document stands that has this number.
    pub fn rule(&self, number: u64) -> Option<&String> {
        self.rules.get(&number)
    }

    /// Who lives at an address.
    pub fn at(&self, address: IpAddr) -> Option<&Resident> {
        self.present.get(self.addresses.get(&address)?)
    }

    fn last(&self, number: u32) -> Option<&Resident> {
        let mut gone = self.gone.iter().rev();
        gone.find(|(gone, _)| *gone == number).map(|(_, resident)| resident)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_gone_are_remembered_for_a_while() {
        let (mut roster, mut desired) = (Roster::default(), Desired::default());
        let endpoint = fixture::endpoint(7, 1);
        desired.endpoints.insert(endpoint.id.to_string(), endpoint);
        roster.update(&desired);
        assert_eq!(roster.name(7), "web7");
        let address = "172.17.0.8".parse().unwrap();
        assert_eq!(roster.at(address), roster.resident(7));
        roster.update(&Desired::default());
        assert_eq!(roster.name(7), "web7 (gone)");
        assert_eq!(roster.resident(7).map(|resident| resident.name.as_str()), Some("web7"));
        assert_eq!(roster.at(address), None, "the address is free");
        assert_eq!(roster.name(8), "endpoint #8 (gone)");
        for number in 100..400 {
            let mut desired = Desired::default();
            let mut endpoint = fixture::endpoint(9, 1);
            endpoint.number = number;
            desired.endpoints.insert(endpoint.id.to_string(), endpoint);
            roster.update(&desired);
        }
        assert_eq!(roster.name(7), "endpoint #7 (gone)");
        assert!(roster.gone.len() <= REMEMBERED);
    }
}
