//! Where networks are found, and who stands where in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ipnet::IpNet;
use sluice_model::{Endpoint, Id, Network, RemoteEndpoint, container::EndpointView};

use crate::{
    EngineError,
    network::{ipam::Ipam, numbers::Numbers, ports::Ports},
};

/// The least number of a network in the datapath; 0 and 1 are the world and the host.
const FIRST_NUMBER: u32 = 2;
/// The greatest: the datapath's table has so many places.
const GREATEST_NUMBER: u32 = 4_095;

/// All networks of this host and the endpoints in them.
pub(crate) struct Networks {
    /// Held while a network is made or removed: each looks at all others first.
    pub story: tokio::sync::Mutex<()>,
    all: RwLock<BTreeMap<Id, Network>>,
    places: Mutex<Places>,
    /// The number that was given last.
    last_number: AtomicU32,
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
            story: tokio::sync::Mutex::default(),
            all: RwLock::default(),
            places: Mutex::new(places),
            last_number: AtomicU32::new(FIRST_NUMBER - 1),
        }
    }

    /// Enters a network, or what it has become.
    pub fn enter(&self, network: Network) {
        self.last_number.fetch_max(network.number, Ordering::AcqRel);
        self.all
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(network.id.clone(), network);
    }

    /// Strikes a network out.
    pub fn strike(&self, id: &Id) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Strikes a network out that nobody is on and nobody will be; answers who is on it otherwise.
    pub fn strike_if_empty(&self, id: &Id) -> Result<(), Vec<Endpoint>> {
        // whoever takes a place looks under the same lock whether the network is still there
        let mut places = self.places();
        let there: Vec<Endpoint> = places
            .endpoints
            .values()
            .filter(|endpoint| endpoint.network == *id)
            .cloned()
            .collect();
        if there.is_empty() {
            places.ipam.forget(id);
            self.strike(id);
            Ok(())
        } else {
            Err(there)
        }
    }

    /// Is the network (still) there?
    pub fn has(&self, id: &Id) -> bool {
        self.all.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// A network by its id.
    pub fn by_id(&self, id: &Id) -> Option<Network> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The endpoints in networks that are on all hosts of a cluster.
    pub fn shared_endpoints(&self) -> BTreeMap<Id, Endpoint> {
        let shared: BTreeSet<Id> = self
            .all()
            .into_iter()
            .filter(Network::is_shared)
            .map(|network| network.id)
            .collect();
        let places = self.places();
        let endpoints = places.endpoints.iter();
        endpoints
            .filter(|(_, endpoint)| shared.contains(&endpoint.network))
            .map(|(id, endpoint)| (id.clone(), endpoint.clone()))
            .collect()
    }

    /// The addresses that endpoints on other hosts have in shared networks: these, and no others.
    pub fn others_have(&self, mut addresses: BTreeMap<Id, Vec<IpAddr>>) {
        let shared = self.all().into_iter().filter(Network::is_shared);
        let mut places = self.places();
        let own: Vec<(Id, IpAddr)> = places
            .endpoints
            .values()
            .flat_map(|endpoint| {
                endpoint
                    .addresses
                    .iter()
                    .map(|address| (endpoint.network.clone(), address.addr()))
            })
            .collect();
        for network in shared {
            let mut taken = addresses.remove(&network.id).unwrap_or_default();
            taken.extend(
                own.iter()
                    .filter(|(id, _)| *id == network.id)
                    .map(|(_, address)| *address),
            );
            places.ipam.replace(&network.id, &taken);
        }
    }

    /// An endpoint of another host came to a shared network, or left it.
    pub fn other_has(&self, endpoint: &RemoteEndpoint, is_there: bool) {
        let mut places = self.places();
        for address in endpoint.addresses.iter().map(IpNet::addr) {
            if is_there {
                places.ipam.enter(&endpoint.network, address);
                continue;
            }
            let is_ours = places.endpoints.values().any(|own| {
                own.network == endpoint.network && own.addresses.iter().any(|taken| taken.addr() == address)
            });
            if !is_ours {
                places.ipam.release(&endpoint.network, address);
            }
        }
    }

    /// The networks that somebody is on.
    pub fn used(&self) -> BTreeSet<Id> {
        let places = self.places();
        places
            .endpoints
            .values()
            .map(|endpoint| endpoint.network.clone())
            .collect()
    }

    /// The subnets of all networks.
    pub fn subnets(&self) -> Vec<IpNet> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values()
            .flat_map(|network| network.subnets.iter().map(|subnet| subnet.subnet))
            .collect()
    }

    /// A number for a new network. One that was given back is given again as late as possible: packets that are late meet nobody.
    pub fn take_number(&self) -> Result<u32, EngineError> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let last = self.last_number.load(Ordering::Acquire);
        let taken: BTreeSet<u32> = all.values().map(|network| network.number).collect();
        let number = (last + 1..=GREATEST_NUMBER)
            .chain(FIRST_NUMBER..=last.min(GREATEST_NUMBER))
            .find(|number| !taken.contains(number))
            .ok_or_else(|| {
                EngineError::failed(format!(
                    "there are {} networks, more than the datapath has numbers for",
                    taken.len()
                ))
            })?;
        self.last_number.store(number, Ordering::Release);
        Ok(number)
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

    /// The endpoints of a container, in the order of their devices.
    pub fn of_container(&self, container: &Id) -> Vec<Endpoint> {
        self.places().of_container(container)
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
            gateways: network
                .map(|network| network.subnets.iter().map(|subnet| subnet.gateway).collect())
                .unwrap_or_default(),
            mac: endpoint.mac,
            interface: endpoint.interface.clone(),
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

    /// The endpoints of a container, in the order of their devices.
    pub fn of_container(&self, container: &Id) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = self
            .endpoints
            .values()
            .filter(|endpoint| endpoint.container == *container)
            .cloned()
            .collect();
        endpoints.sort_by(|one, other| natural(&one.interface).cmp(&natural(&other.interface)));
        endpoints
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

/// `eth10` comes after `eth9`.
fn natural(name: &str) -> (&str, u64) {
    let letters = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (letters, name[letters.len()..].parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use sluice_model::network::Driver;

    use super::*;
    use crate::network::defaults::bare;

    #[test]
    fn a_number_of_a_network_comes_again_late() {
        let networks = Networks::new(0);
        let make = || {
            let network = Network {
                number: networks.take_number().unwrap(),
                ..bare("net", Driver::Bridge)
            };
            networks.enter(network.clone());
            network
        };
        let (first, second) = (make(), make());
        assert_eq!((first.number, second.number), (2, 3));
        networks.strike(&first.id);
        assert_eq!(make().number, 4);
        for _ in 0..4095 - 4 {
            make();
        }
        assert_eq!(make().number, 2, "the only one that is free");
        assert!(
            networks
                .take_number()
                .unwrap_err()
                .message
                .contains("there are 4094 networks")
        );
    }

    #[test]
    fn devices_are_in_the_order_of_their_numbers() {
        let mut names = ["eth10", "eth2", "eth0", "lan1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["eth0", "eth2", "eth10", "lan1"]);
    }
}
