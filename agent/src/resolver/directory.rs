//! Who is called what, and who asks: folded from the store's records as they change, so that an answer is a few look-ups.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use sluice_model::{Endpoint, EndpointLink, Id, Network, RemoteEndpoint, ResolverWish, Sandbox};
use sluice_store::{Entry, Event, key, record};

/// Names and addresses of all networks.
#[derive(Default, Debug)]
pub struct Directory {
    networks: HashMap<String, Known>,
    endpoints: HashMap<String, Resident>,
    /// What sandboxes want of the resolver, by id.
    wishes: HashMap<String, ResolverWish>,
    /// Endpoints by address. Networks do not overlap.
    by_address: HashMap<IpAddr, String>,
    /// Endpoints of a sandbox, by the name of their device: their networks are asked in this order.
    of_sandbox: HashMap<String, BTreeMap<String, String>>,
}

/// An endpoint, of this host or another.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Resident {
    network: String,
    name: String,
    /// All its names, each once, in lower case.
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// Whom it calls by names of its own.
    links: Vec<EndpointLink>,
    /// The id of its sandbox and the name of its device there; none: it is on another host.
    place: Option<(String, String)>,
}

/// A network, and its endpoints by each of their names in lower case, oldest first.
#[derive(Default, Debug)]
struct Known {
    /// In lower case.
    name: String,
    internal: bool,
    has_names: bool,
    names: HashMap<String, Vec<String>>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    directory: &'a Directory,
    /// The sandbox's id.
    pub sandbox: &'a str,
}

// === impl Directory ===

impl Directory {
    /// From everything under the store's root.
    pub fn of(entries: &[Entry]) -> Self {
        let mut directory = Self::default();
        // networks first: an endpoint's names are entered in its network
        let (networks, others): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| entry.key.starts_with(key::NETWORKS));
        for entry in networks.into_iter().chain(others) {
            directory.put(&entry.key, &entry.value);
        }
        directory
    }

    /// Takes a change in.
    pub fn fold(&mut self, event: &Event) {
        match event {
            Event::Put(entry) => self.put(&entry.key, &entry.value),
            Event::Deleted(key, _) => self.delete(key),
        }
    }

    /// What cannot be read leaves what was there in force; the agent tells of it.
    fn put(&mut self, key: &str, value: &[u8]) {
        if let Some(id) = key.strip_prefix(key::NETWORKS) {
            if let Ok(network) = record::decode(key, value) {
                self.put_network(id, &network);
            }
        } else if let Some(id) = key.strip_prefix(key::ENDPOINTS) {
            if let Ok(endpoint) = record::decode::<Endpoint>(key, value) {
                self.put_resident(id, (&endpoint).into());
            }
        } else if key.starts_with(key::REMOTE_ENDPOINTS) {
            if let Ok(endpoint) = record::decode::<RemoteEndpoint>(key, value) {
                self.put_resident(endpoint.id.as_str(), (&endpoint).into());
            }
        } else if let Some(id) = key.strip_prefix(key::SANDBOXES)
            && let Ok(sandbox) = record::decode::<Sandbox>(key, value)
        {
            self.wishes.insert(id.to_owned(), sandbox.resolver);
        }
    }

    fn delete(&mut self, key: &str) {
        if let Some(id) = key.strip_prefix(key::NETWORKS) {
            self.networks.remove(id);
        } else if let Some(id) = key.strip_prefix(key::ENDPOINTS) {
            self.remove_resident(id);
        } else if let Some(place) = key.strip_prefix(key::REMOTE_ENDPOINTS) {
            self.remove_resident(place.rsplit('/').next().unwrap_or(place));
        } else if let Some(id) = key.strip_prefix(key::SANDBOXES) {
            self.wishes.remove(id);
        }
    }

    fn put_network(&mut self, id: &str, network: &Network) {
        let known = self.networks.entry(id.to_owned()).or_default();
        known.name = network.name.to_ascii_lowercase();
        known.internal = network.internal;
        known.has_names = network.has_names();
    }

    fn put_resident(&mut self, id: &str, resident: Resident) {
        if self.endpoints.get(id) == Some(&resident) {
            return;
        }
        self.remove_resident(id);
        for address in &resident.addresses {
            self.by_address.insert(*address, id.to_owned());
        }
        if let Some((sandbox, device)) = &resident.place {
            let devices = self.of_sandbox.entry(sandbox.clone()).or_default();
            devices.insert(device.clone(), id.to_owned());
        }
        let known = self.networks.entry(resident.network.clone()).or_default();
        for name in &resident.names {
            known.names.entry(name.clone()).or_default().push(id.to_owned());
        }
        self.endpoints.insert(id.to_owned(), resident);
    }

    fn remove_resident(&mut self, id: &str) {
        let Some(resident) = self.endpoints.remove(id) else {
            return;
        };
        for address in &resident.addresses {
            // another may have it by now
            if self.by_address.get(address).is_some_and(|owner| owner == id) {
                self.by_address.remove(address);
            }
        }
        if let Some((sandbox, _)) = &resident.place
            && let Some(devices) = self.of_sandbox.get_mut(sandbox)
        {
            devices.retain(|_, endpoint| endpoint != id);
            if devices.is_empty() {
                self.of_sandbox.remove(sandbox);
            }
        }
        if let Some(known) = self.networks.get_mut(&resident.network) {
            for name in &resident.names {
                if let Some(bearers) = known.names.get_mut(name) {
                    bearers.retain(|bearer| bearer != id);
                    if bearers.is_empty() {
                        known.names.remove(name);
                    }
                }
            }
        }
    }

    /// Who asks from an address. The datapath lets nobody speak from another's.
    pub fn asker(&self, address: IpAddr) -> Option<Asker<'_>> {
        let endpoint = self.endpoints.get(self.by_address.get(&address)?)?;
        let (sandbox, _) = endpoint.place.as_ref()?;
        Some(Asker {
            directory: self,
            sandbox,
        })
    }
}

// === impl Resident ===

impl From<&Endpoint> for Resident {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            network: endpoint.network.to_string(),
            name: endpoint.name.clone(),
            names: names(&endpoint.name, &endpoint.container, &endpoint.aliases),
            addresses: endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
            links: endpoint.links.clone(),
            place: Some((endpoint.sandbox.to_string(), endpoint.interface.clone())),
        }
    }
}

impl From<&RemoteEndpoint> for Resident {
    fn from(endpoint: &RemoteEndpoint) -> Self {
        Self {
            network: endpoint.network.to_string(),
            name: endpoint.name.clone(),
            names: names(&endpoint.name, &endpoint.container, &endpoint.aliases),
            addresses: endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
            // nobody asks from there
            links: vec![],
            place: None,
        }
    }
}

fn names(name: &str, container: &Id, aliases: &[String]) -> Vec<String> {
    let mut names = vec![name.to_ascii_lowercase(), container.short().to_owned()];
    names.extend(aliases.iter().map(|alias| alias.to_ascii_lowercase()));
    names.sort();
    names.dedup();
    names
}

// === impl Asker ===

impl<'a> Asker<'a> {
    /// Its endpoints in networks whose endpoints have names, with these networks.
    fn places(self) -> impl Iterator<Item = (&'a Resident, &'a Known)> {
        let devices = self.directory.of_sandbox.get(self.sandbox);
        devices.into_iter().flat_map(BTreeMap::values).filter_map(move |id| {
            let endpoint = self.directory.endpoints.get(id)?;
            let network = self.directory.networks.get(&endpoint.network)?;
            network.has_names.then_some((endpoint, network))
        })
    }

    /// The addresses of whoever bears the name, in the first network where anybody does: both families, in the order in which they came. None: nobody is
    /// called so. A name may be followed by that of its network.
    pub fn addresses(self, name: &str) -> Option<Vec<IpAddr>> {
        let whole = self.places().find_map(|(own, network)| {
            let linked = own.links.iter().find(|link| link.alias.eq_ignore_ascii_case(name));
            match linked {
                Some(link) => self.bearers(network, &link.target.to_ascii_lowercase()),
                None => self.bearers(network, name),
            }
        });
        whole.or_else(|| {
            name.rmatch_indices('.').find_map(|(dot, _)| {
                let (name, of_network) = (&name[..dot], &name[dot + 1..]);
                self.places()
                    .filter(|(_, network)| network.name == of_network)
                    .find_map(|(_, network)| self.bearers(network, name))
            })
        })
    }

    fn bearers(self, network: &Known, name: &str) -> Option<Vec<IpAddr>> {
        let by_name = network.names.get(name);
        // a link may name a container by its whole id
        let by_id = || network.names.get(name.get(..12).filter(|_| name.len() == 64)?);
        let bearers = by_name.or_else(by_id)?;
        Some(
            bearers
                .iter()
                .filter_map(|id| self.directory.endpoints.get(id))
                .flat_map(|endpoint| endpoint.addresses.iter().copied())
                .collect(),
        )
    }

    /// The name of whoever lives at an address of one of its networks: `name.network`.
    pub fn name_of(self, address: IpAddr) -> Option<String> {
        let endpoint = self.directory.endpoints.get(self.directory.by_address.get(&address)?)?;
        let (_, network) = self.places().find(|(own, _)| own.network == endpoint.network)?;
        Some(format!("{}.{}", endpoint.name, network.name))
    }

    /// May its questions leave the host? Not when all of its networks are internal: names would carry out what packets cannot.
    pub fn may_ask_outside(self) -> bool {
        self.places().any(|(_, network)| !network.internal)
            || self.directory.of_sandbox.get(self.sandbox).is_some_and(|devices| {
                devices.values().any(|id| {
                    let endpoint = self.directory.endpoints.get(id);
                    endpoint
                        .and_then(|endpoint| self.directory.networks.get(&endpoint.network))
                        .is_some_and(|network| !network.internal)
                })
            })
    }

    /// What its container wants of the resolver.
    pub fn wish(self) -> ResolverWish {
        self.directory.wishes.get(self.sandbox).cloned().unwrap_or_default()
    }
}
