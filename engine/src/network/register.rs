//! Where networks are found, and who stands where in them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use sluice_model::{Endpoint, Id, Network, container::EndpointView};

use crate::{
    EngineError,
    network::{ipam::Ipam, numbers::Numbers, ports::Ports},
};

/// All networks of this host and the endpoints in them.
pub(crate) struct Networks {
    all: RwLock<BTreeMap<Id, Network>>,
    places: Mutex<Places>,
}

/// What endpoints have: changed together, under one lock, so that a wish is granted whole or not at all.
#[derive(Default)]
pub(crate) struct Places {
    pub ipam: Ipam,
    pub numbers: Numbers,
    pub ports: Ports,
    /// By the endpoint's id.
    pub endpoints: BTreeMap<Id, Endpoint>,
}

impl Networks {
    /// Nothing yet; generations begin beyond this revision.
    pub fn new(revision: u64) -> Self {
        let places = Places {
            numbers: Numbers::beyond(revision),
            ..Default::default()
        };
        Self {
            all: RwLock::default(),
            places: Mutex::new(places),
        }
    }

    /// Enters a network, or what it has become.
    pub fn enter(&self, network: Network) {
        self.all
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(network.id.clone(), network);
    }

    /// All networks, oldest first.
    pub fn all(&self) -> Vec<Network> {
        let mut all: Vec<_> = self
            .all
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        all.sort_by_key(|network| network.created);
        all
    }

    /// By id, name, or the beginning of an id that no other begins with.
    pub fn find(&self, name: &str) -> Result<Network, EngineError> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = Id::parse(name).and_then(|id| all.get(&id)) {
            return Ok(network.clone());
        }
        if let Some(network) = all.values().find(|network| network.name == name) {
            return Ok(network.clone());
        }
        let mut beginning = all
            .values()
            .filter(|network| !name.is_empty() && network.id.as_str().starts_with(name));
        match (beginning.next(), beginning.next()) {
            (Some(network), None) => Ok(network.clone()),
            (Some(_), Some(_)) => Err(EngineError::invalid(format!(
                "network {name} is ambiguous: several ids begin so"
            ))),
            _ => Err(EngineError::not_found(format!("network {name} not found"))),
        }
    }

    /// The places, to take or give back.
    pub fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoints of a container.
    pub fn of_container(&self, container: &Id) -> Vec<Endpoint> {
        self.places()
            .endpoints
            .values()
            .filter(|endpoint| endpoint.container == *container)
            .cloned()
            .collect()
    }

    /// The endpoints in a network.
    pub fn in_network(&self, network: &Id) -> Vec<Endpoint> {
        self.places()
            .endpoints
            .values()
            .filter(|endpoint| endpoint.network == *network)
            .cloned()
            .collect()
    }

    /// An endpoint as people are shown it.
    pub fn view(&self, endpoint: &Endpoint) -> EndpointView {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let network = all.get(&endpoint.network);
        EndpointView {
            endpoint: endpoint.id.clone(),
            network_name: network.map(|network| network.name.clone()).unwrap_or_default(),
            network: endpoint.network.clone(),
            addresses: endpoint.addresses.clone(),
            gateway: network
                .and_then(|network| network.subnets.first())
                .map(|subnet| subnet.gateway),
            mac: endpoint.mac,
        }
    }
}

impl Places {
    /// Enters an endpoint that has its place already (read from the store).
    pub fn enter(&mut self, endpoint: Endpoint) {
        for address in &endpoint.addresses {
            self.ipam.enter(&endpoint.network, address.addr());
        }
        self.numbers.enter(endpoint.number, endpoint.generation);
        for port in &endpoint.ports {
            self.ports.enter(&endpoint.id, port);
        }
        self.endpoints.insert(endpoint.id.clone(), endpoint);
    }

    /// Gives back all that an endpoint has.
    pub fn release(&mut self, endpoint: &Endpoint) {
        for address in &endpoint.addresses {
            self.ipam.release(&endpoint.network, address.addr());
        }
        self.numbers.release(endpoint.number);
        self.ports.release(&endpoint.id);
        self.endpoints.remove(&endpoint.id);
    }
}
