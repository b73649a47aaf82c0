//! What the tables hold of endpoints on other hosts, and what makes them so.
//!
//! An entry is made by the endpoint's record, and by what its network and its host are called in the tables: the [`Ground`]. As long as that stays, a
//! record that comes or goes changes its own entries only, and nobody looks at the others. When it moves, or the tables were read anew, all are planned.

use std::{collections::BTreeSet, net::IpAddr};

use aya::Pod;
use sluice_datapath_common::{Ipv4, Ipv6, endpoint::EndpointKey, overlay};
use sluice_model::Id;

use super::{Troubles, overlay::Ground, tables::enter};
use crate::{
    desired::{Remote, RemoteId, Remotes},
    map::contents::{ByBytes, Changes, Entries, Tables},
};

/// What the tables were made by when they were written last.
#[derive(Clone, Default, Debug)]
pub struct Settled {
    /// None: it is not known.
    ground: Option<Ground>,
    /// Who could not be entered, as another has the address. While there is somebody, all are planned.
    troubles: Troubles,
}

/// What is to be done to `REMOTES4` and `REMOTES6`.
#[derive(Clone, Default, Debug)]
pub struct RemoteSteps {
    /// `REMOTES4`.
    pub ipv4: Changes<EndpointKey<Ipv4>, overlay::Remote>,
    /// `REMOTES6`.
    pub ipv6: Changes<EndpointKey<Ipv6>, overlay::Remote>,
    /// Who cannot be entered, and why.
    pub troubles: Troubles,
    /// Some flow that was judged before would be judged otherwise now: endpoints elsewhere have no generation here.
    pub moves_epoch: bool,
}

/// What goes and comes of one family.
struct Moves<K> {
    gone: BTreeSet<ByBytes<K>>,
    come: Entries<K, overlay::Remote>,
}

// === impl Settled ===

impl Settled {
    /// What makes the tables as they must be.
    pub fn steps(&self, remotes: &Remotes, ground: &Ground, mirror: &Tables) -> RemoteSteps {
        let is_same = self.troubles.is_empty() && self.ground.as_ref() == Some(ground);
        let changed = is_same.then(|| of_changed(remotes, ground, mirror)).flatten();
        changed.unwrap_or_else(|| of_all(remotes, ground, mirror))
    }

    /// The same where nothing has changed but records of endpoints elsewhere; none: more than their own entries depends on them.
    pub fn steps_alone(&self, remotes: &Remotes, mirror: &Tables) -> Option<RemoteSteps> {
        let ground = self.ground.as_ref().filter(|_| self.troubles.is_empty())?;
        let reaches_far = |remote: &Remote| {
            let whole = remote.whole.as_ref();
            whole.is_some_and(|whole| !whole.ports.is_empty() || ground.is_closed(&remote.network))
        };
        let mut concerned = remotes.changed().flat_map(|(_, before, now)| [before, now]).flatten();
        match concerned.any(reaches_far) {
            true => None,
            false => of_changed(remotes, ground, mirror),
        }
    }

    /// The tables are so now.
    pub fn settle(&mut self, ground: Ground, steps: RemoteSteps) {
        self.ground = Some(ground);
        self.troubles = steps.troubles;
    }
}

// === impl RemoteSteps ===

impl RemoteSteps {
    fn new(
        ipv4: Changes<EndpointKey<Ipv4>, overlay::Remote>,
        ipv6: Changes<EndpointKey<Ipv6>, overlay::Remote>,
        troubles: Troubles,
        mirror: &Tables,
    ) -> Self {
        let moves_epoch = !ipv4.remove.is_empty()
            || !ipv6.remove.is_empty()
            || ipv4.replaces(&mirror.remotes4)
            || ipv6.replaces(&mirror.remotes6);
        Self {
            ipv4,
            ipv6,
            troubles,
            moves_epoch,
        }
    }

    /// How many writes these are.
    pub fn count(&self) -> usize {
        self.ipv4.remove.len() + self.ipv4.put.len() + self.ipv6.remove.len() + self.ipv6.put.len()
    }
}

/// All entries, compared with those that are there. Of two who have an address the first by its id is entered.
fn of_all(remotes: &Remotes, ground: &Ground, mirror: &Tables) -> RemoteSteps {
    let (mut ipv4, mut ipv6, mut troubles) = (Entries::new(), Entries::new(), Troubles::new());
    for (id, remote) in remotes.iter() {
        let Some((network, entry)) = ground.entry(id, remote) else {
            continue;
        };
        for address in &remote.addresses {
            let taken = match *address {
                IpAddr::V4(address) => enter(&mut ipv4, key(network, address.into()), entry),
                IpAddr::V6(address) => enter(&mut ipv6, key(network, address.into()), entry),
            };
            if taken {
                let id = Id::from_bytes(*id).to_string();
                let trouble = format!(
                    "endpoint {id} on another host has the address {address} of another endpoint of network {}",
                    remote.network
                );
                troubles.insert(id, trouble);
            }
        }
    }
    let ipv4 = Changes::between(&mirror.remotes4, &ipv4);
    let ipv6 = Changes::between(&mirror.remotes6, &ipv6);
    RemoteSteps::new(ipv4, ipv6, troubles, mirror)
}

/// The entries of those that have changed; none: one wants an address that another has.
fn of_changed(remotes: &Remotes, ground: &Ground, mirror: &Tables) -> Option<RemoteSteps> {
    let (mut ipv4, mut ipv6) = (Moves::default(), Moves::default());
    for (id, before, now) in remotes.changed() {
        for (remote, comes) in [(before, false), (now, true)] {
            let Some((remote, (network, entry))) = remote.and_then(|remote| Some((remote, ground.entry(id, remote)?)))
            else {
                continue;
            };
            let entry = comes.then_some(entry);
            for address in &remote.addresses {
                match *address {
                    IpAddr::V4(address) => ipv4.take(key(network, address.into()), entry)?,
                    IpAddr::V6(address) => ipv6.take(key(network, address.into()), entry)?,
                }
            }
        }
    }
    let (ipv4, ipv6) = (ipv4.changes(&mirror.remotes4)?, ipv6.changes(&mirror.remotes6)?);
    Some(RemoteSteps::new(ipv4, ipv6, Troubles::new(), mirror))
}

fn key<F: sluice_datapath_common::Family>(network: u32, address: F::Address) -> EndpointKey<F> {
    EndpointKey { network, address }
}

// === impl Moves ===

impl<K> Default for Moves<K> {
    fn default() -> Self {
        Self {
            gone: BTreeSet::new(),
            come: Entries::new(),
        }
    }
}

impl<K: Pod> Moves<K> {
    /// Takes in that an entry comes, or (none) that the one that was there goes; none when two want to come to one place.
    fn take(&mut self, key: K, entry: Option<overlay::Remote>) -> Option<()> {
        match entry {
            Some(entry) => (!enter(&mut self.come, key, entry)).then_some(()),
            None => {
                self.gone.insert(ByBytes(key));
                Some(())
            }
        }
    }

    /// None when somebody else is where one wants to come.
    fn changes(self, mirror: &Entries<K, overlay::Remote>) -> Option<Changes<K, overlay::Remote>> {
        let mut changes = Changes::default();
        for (key, entry) in &self.come {
            match mirror.get(key) {
                Some(there) if there == entry && self.gone.contains(key) => {}
                Some(_) if !self.gone.contains(key) => return None,
                _ => changes.put.push((*key, *entry)),
            }
        }
        let leaves = |key: &ByBytes<K>| !self.come.contains_key(key) && mirror.contains_key(key);
        changes.remove = self.gone.iter().copied().filter(leaves).collect();
        Some(changes)
    }
}

impl Ground {
    /// The number of an endpoint's network, and its entry; none: no way leads to it.
    fn entry(&self, id: &RemoteId, remote: &Remote) -> Option<(u32, overlay::Remote)> {
        let network = self.networks.get(&*remote.network)?;
        let entry = overlay::Remote {
            host: self.hosts.get(&remote.host, network.encrypted)?,
            endpoint: self.in_links.get(id).copied().unwrap_or(0),
            mac: remote.mac,
            padding: [0; 2],
        };
        Some((network.number, entry))
    }

    /// May the endpoints of the network not speak to each other unless a link says so?
    fn is_closed(&self, network: &str) -> bool {
        self.networks.get(network).is_some_and(|network| !network.icc)
    }
}
