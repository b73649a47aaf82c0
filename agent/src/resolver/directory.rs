//! Who is called what, and who asks: folded from the store's records as they change, so that an answer is a few look-ups.
//!
//! In a cluster there may be a hundred thousand endpoints, nearly all of them on other hosts: each has a number here, and what is said of it is said once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use sluice_model::{Endpoint, EndpointLink, Id, Network, RemoteEndpoint, ResolverWish, Sandbox};
#[cfg(test)]
use sluice_store::Entry;
use sluice_store::{Event, key, record};

use super::door::Wanted;

/// Names and addresses of all networks.
#[derive(Default, Debug)]
pub struct Directory {
    networks: HashMap<Arc<str>, Known>,
    /// Endpoints by number; none: the number is free.
    residents: Vec<Option<Resident>>,
    /// Numbers that are free.
    free: Vec<u32>,
    /// The numbers of endpoints.
    numbers: HashMap<[u8; 32], u32>,
    /// Sandboxes by id: where they are, and what they want of the resolver.
    sandboxes: HashMap<String, (PathBuf, ResolverWish)>,
    /// Those with a device that stands on one of the host's, where questions do not pass the datapath.
    beside: BTreeSet<String>,
    /// Endpoints by address. Networks do not overlap.
    by_address: HashMap<IpAddr, u32>,
    /// Endpoints of a sandbox, by the name of their device: their networks are asked in this order.
    of_sandbox: HashMap<String, BTreeMap<String, u32>>,
}

/// An endpoint, of this host or another.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Resident {
    network: Arc<str>,
    name: Arc<str>,
    /// All its names, each once, in lower case.
    names: Box<[Arc<str>]>,
    addresses: Box<[IpAddr]>,
    /// None: it is on another host, from where nobody asks.
    place: Option<Box<Place>>,
}

/// Where an endpoint of this host is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    /// The id of its sandbox.
    sandbox: String,
    /// The name of its device there.
    device: String,
    /// Whom it calls by names of its own.
    links: Vec<EndpointLink>,
}

/// A network, and its endpoints by each of their names in lower case, oldest first.
#[derive(Default, Debug)]
struct Known {
    /// In lower case.
    name: String,
    internal: bool,
    has_names: bool,
    /// Its endpoints stand on a device of the host.
    is_beside: bool,
    names: HashMap<Arc<str>, Bearers>,
}

/// Who bears a name, oldest first. Nearly always it is one.
#[derive(Debug)]
enum Bearers {
    One(u32),
    #[expect(
        clippy::box_collection,
        reason = "it is rare, and a hundred thousand names are kept small"
    )]
    More(Box<Vec<u32>>),
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
    #[cfg(test)]
    pub fn of(entries: &[Entry]) -> Self {
        let mut directory = Self::default();
        for entry in entries {
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

    /// Takes a record in. What cannot be read leaves what was there in force; the agent tells of it.
    pub fn put(&mut self, key: &str, value: &[u8]) {
        if let Some(id) = key.strip_prefix(key::NETWORKS) {
            if let Ok(network) = record::decode(key, value) {
                self.put_network(id, &network);
            }
        } else if key.starts_with(key::ENDPOINTS) {
            if let Ok(endpoint) = record::decode::<Endpoint>(key, value) {
                let resident = self.resident_here(&endpoint);
                self.put_resident(&endpoint.id, resident);
            }
        } else if key.starts_with(key::REMOTE_ENDPOINTS) {
            if let Ok(endpoint) = record::decode::<RemoteEndpoint>(key, value) {
                let resident = self.resident_elsewhere(&endpoint);
                self.put_resident(&endpoint.id, resident);
            }
        } else if let Some(id) = key.strip_prefix(key::SANDBOXES)
            && let Ok(sandbox) = record::decode::<Sandbox>(key, value)
        {
            self.sandboxes.insert(id.to_owned(), (sandbox.path, sandbox.resolver));
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
            self.sandboxes.remove(id);
        }
    }

    fn put_network(&mut self, id: &str, network: &Network) {
        let known = self.networks.entry(id.into()).or_default();
        known.name = network.name.to_ascii_lowercase();
        known.internal = network.internal;
        known.has_names = network.has_names();
        known.is_beside = network.is_beside();
        // endpoints may have come before their network
        if known.is_beside {
            let here = self
                .residents
                .iter()
                .flatten()
                .filter(|resident| *resident.network == *id);
            let sandboxes = here.filter_map(|resident| Some(resident.place.as_ref()?.sandbox.clone()));
            self.beside.extend(sandboxes);
        }
    }

    fn resident_here(&mut self, endpoint: &Endpoint) -> Resident {
        let name: Arc<str> = endpoint.name.as_str().into();
        Resident {
            network: self.network(&endpoint.network),
            names: names(&name, &endpoint.container, &endpoint.aliases),
            name,
            addresses: endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
            place: Some(Box::new(Place {
                sandbox: endpoint.sandbox.to_string(),
                device: endpoint.interface.clone(),
                links: endpoint.links.clone(),
            })),
        }
    }

    fn resident_elsewhere(&mut self, endpoint: &RemoteEndpoint) -> Resident {
        let name: Arc<str> = endpoint.name.as_str().into();
        Resident {
            network: self.network(&endpoint.network),
            names: names(&name, &endpoint.container, &endpoint.aliases),
            name,
            addresses: endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
            place: None,
        }
    }

    /// A network's id, which is kept once.
    fn network(&mut self, id: &Id) -> Arc<str> {
        match self.networks.get_key_value(id.as_str()) {
            Some((id, _)) => id.clone(),
            None => {
                let id: Arc<str> = id.as_str().into();
                self.networks.insert(id.clone(), Known::default());
                id
            }
        }
    }

    fn resident(&self, number: u32) -> Option<&Resident> {
        self.residents.get(number as usize)?.as_ref()
    }

    fn put_resident(&mut self, id: &Id, resident: Resident) {
        let known = self.numbers.get(&id.to_bytes());
        if known.and_then(|number| self.resident(*number)) == Some(&resident) {
            return;
        }
        self.remove_resident(id.as_str());
        let number = self.free.pop().unwrap_or(self.residents.len() as u32);
        self.numbers.insert(id.to_bytes(), number);
        for address in &resident.addresses {
            self.by_address.insert(*address, number);
        }
        if let Some(place) = &resident.place {
            let devices = self.of_sandbox.entry(place.sandbox.clone()).or_default();
            devices.insert(place.device.clone(), number);
        }
        let known = self.networks.entry(resident.network.clone()).or_default();
        if let (true, Some(place)) = (known.is_beside, &resident.place) {
            self.beside.insert(place.sandbox.clone());
        }
        for name in &resident.names {
            match known.names.get_mut(name) {
                Some(bearers) => bearers.add(number),
                None => drop(known.names.insert(name.clone(), Bearers::One(number))),
            }
        }
        match self.residents.get_mut(number as usize) {
            Some(place) => *place = Some(resident),
            None => self.residents.push(Some(resident)),
        }
    }

    fn remove_resident(&mut self, id: &str) {
        let number = Id::parse(id).and_then(|id| self.numbers.remove(&id.to_bytes()));
        let Some((number, resident)) =
            number.and_then(|number| Some((number, self.residents.get_mut(number as usize)?.take()?)))
        else {
            return;
        };
        self.free.push(number);
        for address in &resident.addresses {
            // another may have it by now
            if self.by_address.get(address) == Some(&number) {
                self.by_address.remove(address);
            }
        }
        if let Some(place) = &resident.place
            && let Some(devices) = self.of_sandbox.get_mut(&place.sandbox)
        {
            devices.retain(|_, endpoint| *endpoint != number);
            if devices.is_empty() {
                self.of_sandbox.remove(&place.sandbox);
                self.beside.remove(&place.sandbox);
            }
        }
        if let Some(known) = self.networks.get_mut(&resident.network) {
            for name in &resident.names {
                if known.names.get_mut(name).is_some_and(|bearers| bearers.remove(number)) {
                    known.names.remove(name);
                }
            }
        }
    }

    /// The sandboxes whose questions do not pass the datapath, and as whom they ask: those with names on devices of the host alone. Where one of its networks
    /// has names and is the datapath's, a sandbox asks by that.
    pub fn doors(&self) -> BTreeMap<String, Wanted> {
        let door = |sandbox: &String| {
            let places = || {
                Asker {
                    directory: self,
                    sandbox,
                }
                .places()
            };
            let by_datapath = |(endpoint, network): (&Resident, &Known)| {
                !network.is_beside && endpoint.addresses.iter().any(IpAddr::is_ipv4)
            };
            if places().any(by_datapath) {
                return None;
            }
            let (endpoint, _) = places().find(|(_, network)| network.is_beside)?;
            let (path, _) = self.sandboxes.get(sandbox)?;
            let wanted = Wanted {
                path: path.clone(),
                address: *endpoint.addresses.first()?,
            };
            Some((sandbox.clone(), wanted))
        };
        self.beside.iter().filter_map(door).collect()
    }

    /// Who asks from an address. The datapath lets nobody speak from another's.
    pub fn asker(&self, address: IpAddr) -> Option<Asker<'_>> {
        let endpoint = self.resident(*self.by_address.get(&address)?)?;
        Some(Asker {
            directory: self,
            sandbox: &endpoint.place.as_ref()?.sandbox,
        })
    }
}

// === impl Bearers ===

impl Bearers {
    fn add(&mut self, number: u32) {
        match self {
            Self::One(first) => *self = Self::More(Box::new(vec![*first, number])),
            Self::More(all) => all.push(number),
        }
    }

    /// True when nobody is left.
    fn remove(&mut self, number: u32) -> bool {
        match self {
            Self::One(only) => *only == number,
            Self::More(all) => {
                all.retain(|bearer| *bearer != number);
                all.is_empty()
            }
        }
    }

    fn all(&self) -> &[u32] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::More(all) => all,
        }
    }
}

fn names(name: &Arc<str>, container: &Id, aliases: &[String]) -> Box<[Arc<str>]> {
    let lower = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.clone(),
    };
    let mut names: Vec<Arc<str>> = vec![lower, container.short().into()];
    names.extend(aliases.iter().map(|alias| alias.to_ascii_lowercase().into()));
    names.sort();
    names.dedup();
    names.into()
}

// === impl Asker ===

impl<'a> Asker<'a> {
    /// Its endpoints in networks whose endpoints have names, with these networks.
    fn places(self) -> impl Iterator<Item = (&'a Resident, &'a Known)> {
        let devices = self.directory.of_sandbox.get(self.sandbox);
        devices
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(move |number| {
                let endpoint = self.directory.resident(*number)?;
                let network = self.directory.networks.get(&endpoint.network)?;
                network.has_names.then_some((endpoint, network))
            })
    }

    /// The addresses of whoever bears the name, in the first network where anybody does: both families, in the order in which they came. None: nobody is
    /// called so. A name may be followed by that of its network.
    pub fn addresses(self, name: &str) -> Option<Vec<IpAddr>> {
        let whole = self.places().find_map(|(own, network)| {
            let links = own.place.iter().flat_map(|place| &place.links);
            let linked = links.into_iter().find(|link| link.alias.eq_ignore_ascii_case(name));
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
                .all()
                .iter()
                .filter_map(|number| self.directory.resident(*number))
                .flat_map(|endpoint| endpoint.addresses.iter().copied())
                .collect(),
        )
    }

    /// The name of whoever lives at an address of one of its networks: `name.network`.
    pub fn name_of(self, address: IpAddr) -> Option<String> {
        let endpoint = self.directory.resident(*self.directory.by_address.get(&address)?)?;
        let (_, network) = self.places().find(|(own, _)| own.network == endpoint.network)?;
        Some(format!("{}.{}", endpoint.name, network.name))
    }

    /// May its questions leave the host? Not when all of its networks are internal: names would carry out what packets cannot.
    pub fn may_ask_outside(self) -> bool {
        self.places().any(|(_, network)| !network.internal)
            || self.directory.of_sandbox.get(self.sandbox).is_some_and(|devices| {
                devices.values().any(|number| {
                    let endpoint = self.directory.resident(*number);
                    endpoint
                        .and_then(|endpoint| self.directory.networks.get(&endpoint.network))
                        .is_some_and(|network| !network.internal)
                })
            })
    }

    /// What its container wants of the resolver.
    pub fn wish(self) -> ResolverWish {
        let sandbox = self.directory.sandboxes.get(self.sandbox);
        sandbox.map(|(_, wish)| wish.clone()).unwrap_or_default()
    }
}
