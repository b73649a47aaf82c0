//! Names and addresses in shared networks: an endpoint has them when etcd says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use sluice_model::{Endpoint, Id, MacAddress, Network, RemoteEndpoint, container::NetworkWish, network::Family};
use sluice_store::{
    Condition, Lease, Revision, Store, StoreError, Transaction, Write, etcd::Etcd, key::shared, record,
};

use super::{Announced, Cluster};
use crate::{Engine, EngineError, network::register::Places};

/// How often a claim is begun again. Each time somebody else was quicker, or etcd has forgotten the lease.
const ATTEMPTS: usize = 1000;

/// What somebody else has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// The name; whose it is, if that is known.
    Name(Option<Box<RemoteEndpoint>>),
    /// This address.
    Address(IpAddr, Option<Box<RemoteEndpoint>>),
    /// The network is there no more.
    Network,
}

/// An endpoint that is being told of, so that nobody takes it for forgotten.
struct Claiming<'a> {
    cluster: &'a Cluster,
    id: Id,
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.cluster.told().claiming.remove(&self.id);
        // what was told while the endpoint was given up is taken back
        self.cluster.disagrees();
    }
}

impl Engine {
    /// Claims name and addresses of an endpoint if its network is shared: the name is the user's, the addresses are changed until they are free, unless
    /// the user has asked for them. On failure the endpoint is the caller's to give back, as it is then.
    pub(crate) async fn claim_endpoint(
        &self,
        endpoint: &mut Endpoint,
        network: &Network,
        wish: &NetworkWish,
    ) -> Result<(), EngineError> {
        if !network.is_shared() {
            return Ok(());
        }
        let doing = format!("cannot put container {} on network {}", endpoint.name, network.name);
        let cluster = self.cluster_for(&doing)?;
        let etcd = cluster.etcd().map_err(|why| why.within(&doing))?;
        cluster.told().claiming.insert(endpoint.id.clone());
        let claiming = Claiming {
            cluster,
            id: endpoint.id.clone(),
        };
        for _ in 0..ATTEMPTS {
            let lease = cluster.lease().await.map_err(|why| why.within(&doing))?;
            let record = RemoteEndpoint::of(endpoint, &self.identity);
            // whether it is told or not is not known when no answer comes
            let outcome = self.announce(&etcd, lease, &record).await;
            let revision = match &outcome {
                Ok(Ok(revision)) => Some(*revision),
                Ok(Err(_)) | Err(StoreError::LeaseLost(_) | StoreError::Conflict(_)) => None,
                Err(_) => Some(0),
            };
            if let Some(revision) = revision {
                let announced = Announced {
                    record,
                    lease: Some(lease),
                    revision,
                };
                cluster.told().endpoints.insert(endpoint.id.clone(), announced);
            }
            match outcome {
                Ok(Ok(_)) => {
                    drop(claiming);
                    return Ok(());
                }
                Ok(Err(Taken::Address(address, _))) if asks_for(wish, address) => {
                    return Err(EngineError::forbidden(format!("Address already in use: {address}")));
                }
                Ok(Err(Taken::Address(address, _))) => {
                    let mut places = self.networks.places();
                    another_address(&mut places, endpoint, network, wish, address)?;
                }
                Ok(Err(Taken::Name(by))) => return Err(name_taken(endpoint, network, by.as_deref())),
                Ok(Err(Taken::Network)) => {
                    return Err(EngineError::not_found(format!("network {} not found", network.name)));
                }
                Err(StoreError::LeaseLost(lost)) => {
                    cluster.doubt.notify_one();
                    cluster.lease.send_if_modified(|lease| {
                        let is_this = *lease == Some(lost);
                        if is_this {
                            *lease = None;
                        }
                        is_this
                    });
                }
                Err(StoreError::Conflict(_)) => {}
                Err(why) => return Err(EngineError::failed(format!("{doing}: {why}"))),
            }
        }
        Err(EngineError::failed(format!(
            "{doing}: others were quicker {ATTEMPTS} times"
        )))
    }

    /// Claims another name for endpoints that are there, in those of their networks that are shared. On failure what was claimed is given back later, by
    /// comparing it with what is there.
    pub(crate) async fn claim_new_name(&self, endpoints: &[Endpoint], name: &str) -> Result<(), EngineError> {
        for endpoint in endpoints {
            let Some(network) = self.networks.by_id(&endpoint.network).filter(Network::is_shared) else {
                continue;
            };
            let mut renamed = Endpoint {
                name: name.to_owned(),
                ..endpoint.clone()
            };
            let mut wish = NetworkWish::default();
            for address in &endpoint.addresses {
                match address.addr() {
                    IpAddr::V4(address) => wish.ipv4 = Some(address),
                    IpAddr::V6(address) => wish.ipv6 = Some(address),
                }
            }
            self.claim_endpoint(&mut renamed, &network, &wish)
                .await
                .inspect_err(|_| self.others_are_told())?;
            if let Some(etcd) = self.cluster.as_ref().and_then(|cluster| cluster.etcd().ok()) {
                withdraw_name(&etcd, &RemoteEndpoint::of(endpoint, &self.identity)).await?;
            }
        }
        Ok(())
    }

    /// See [`announce`].
    pub(super) async fn announce(
        &self,
        etcd: &Etcd,
        lease: Lease,
        endpoint: &RemoteEndpoint,
    ) -> Result<Result<Revision, Taken>, StoreError> {
        let is_stale = |other: &RemoteEndpoint| {
            other.host == self.identity && !self.networks.places().endpoints.contains_key(&other.id)
        };
        announce(etcd, lease, endpoint, &is_stale).await
    }
}

/// Tells the cluster of an endpoint in one transaction: its name and addresses must be nobody else's. What a stale endpoint has, of an earlier life of this
/// host, is taken from it.
pub(super) async fn announce(
    etcd: &Etcd,
    lease: Lease,
    endpoint: &RemoteEndpoint,
    is_stale: &(dyn Fn(&RemoteEndpoint) -> bool + Sync),
) -> Result<Result<Revision, Taken>, StoreError> {
    let wanted = reservations(endpoint);
    let own = endpoint.id.as_str().as_bytes();
    // what is believed to be there; whose belief is wrong is told by a conflict
    let mut holders: BTreeMap<String, Option<Vec<u8>>> = wanted.keys().map(|key| (key.clone(), None)).collect();
    let mut buried: BTreeSet<String> = BTreeSet::new();
    loop {
        let mut transaction = Transaction {
            conditions: vec![Condition::Present(shared::network(&endpoint.network))],
            writes: buried.iter().cloned().map(Write::Delete).collect(),
        };
        for (key, holder) in &holders {
            transaction.conditions.push(match holder {
                None => Condition::Absent(key.clone()),
                Some(holder) => Condition::Holds(key.clone(), holder.clone()),
            });
            transaction.writes.push(Write::Lend(key.clone(), own.to_vec(), lease));
        }
        let place = shared::endpoint(&endpoint.network, &endpoint.id);
        transaction
            .writes
            .push(Write::Lend(place, record::encode(endpoint)?, lease));
        let broken = match etcd.commit(transaction).await {
            Ok(revision) => return Ok(Ok(revision)),
            Err(StoreError::Conflict(Condition::Absent(key) | Condition::Holds(key, _))) => key,
            Err(StoreError::Conflict(Condition::Present(_))) => return Ok(Err(Taken::Network)),
            Err(why) => return Err(why),
        };
        let found = etcd.get(&broken).await?.map(|entry| entry.value);
        if let Some(holder) = found.as_ref().filter(|holder| *holder != own) {
            match bearer(etcd, &endpoint.network, holder, is_stale).await? {
                Bearer::Nobody => {}
                Bearer::Stale(place) => drop(buried.insert(place)),
                Bearer::Lives(by) => {
                    return Ok(Err(match wanted.get(&broken).copied().flatten() {
                        Some(address) => Taken::Address(address, Some(by)),
                        None => Taken::Name(Some(by)),
                    }));
                }
            }
        }
        holders.insert(broken, found);
    }
}

/// Whose a reservation is. Those of endpoints that this host had in an earlier life are nobody's.
async fn bearer(
    etcd: &Etcd,
    network: &Id,
    holder: &[u8],
    is_stale: &(dyn Fn(&RemoteEndpoint) -> bool + Sync),
) -> Result<Bearer, StoreError> {
    let Some(id) = std::str::from_utf8(holder).ok().and_then(Id::parse) else {
        return Ok(Bearer::Nobody);
    };
    let place = shared::endpoint(network, &id);
    let Some(entry) = etcd.get(&place).await? else {
        return Ok(Bearer::Nobody);
    };
    let record: RemoteEndpoint = record::decode(&place, &entry.value)?;
    Ok(match is_stale(&record) {
        true => Bearer::Stale(place),
        false => Bearer::Lives(Box::new(record)),
    })
}

enum Bearer {
    Nobody,
    /// An endpoint that is no more, with its record's key.
    Stale(String),
    Lives(Box<RemoteEndpoint>),
}

/// Takes back what was told of an endpoint. What somebody else has by now stays theirs.
pub(super) async fn withdraw(etcd: &Etcd, endpoint: &RemoteEndpoint) -> Result<(), StoreError> {
    let mut held: BTreeSet<String> = reservations(endpoint).into_keys().collect();
    let own = endpoint.id.as_str().as_bytes();
    loop {
        let mut transaction = Transaction {
            conditions: vec![],
            writes: vec![Write::Delete(shared::endpoint(&endpoint.network, &endpoint.id))],
        };
        for key in &held {
            transaction.conditions.push(Condition::Holds(key.clone(), own.to_vec()));
            transaction.writes.push(Write::Delete(key.clone()));
        }
        match etcd.commit(transaction).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict(Condition::Holds(key, _))) => drop(held.remove(&key)),
            Err(why) => return Err(why),
        }
    }
}

/// Takes back a name that an endpoint had before.
pub(super) async fn withdraw_name(etcd: &Etcd, endpoint: &RemoteEndpoint) -> Result<(), StoreError> {
    let key = shared::name(&endpoint.network, &endpoint.name);
    let transaction = Transaction {
        conditions: vec![Condition::Holds(key.clone(), endpoint.id.as_str().into())],
        writes: vec![Write::Delete(key)],
    };
    match etcd.commit(transaction).await {
        Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
        Err(why) => Err(why),
    }
}

/// What an endpoint has for itself alone: the keys of its addresses and of its name.
fn reservations(endpoint: &RemoteEndpoint) -> BTreeMap<String, Option<IpAddr>> {
    let addresses = endpoint.addresses.iter().map(IpNet::addr);
    let mut all: BTreeMap<String, Option<IpAddr>> = addresses
        .map(|address| (shared::address(&endpoint.network, address), Some(address)))
        .collect();
    all.insert(shared::name(&endpoint.network, &endpoint.name), None);
    all
}

fn asks_for(wish: &NetworkWish, address: IpAddr) -> bool {
    [wish.ipv4.map(IpAddr::V4), wish.ipv6.map(IpAddr::V6)].contains(&Some(address))
}

/// Gives an endpoint the next address instead of one that is another's; that one stays taken here.
fn another_address(
    places: &mut Places,
    endpoint: &mut Endpoint,
    network: &Network,
    wish: &NetworkWish,
    taken: IpAddr,
) -> Result<(), EngineError> {
    let Some(subnet) = network.subnet(Family::of(taken)) else {
        return Err(EngineError::failed(format!(
            "network {} has no address like {taken}",
            network.name
        )));
    };
    let given = places.ipam.take(&network.id, subnet)?;
    for address in &mut endpoint.addresses {
        if address.addr() == taken
            && let Ok(next) = IpNet::new(given, subnet.subnet.prefix_len())
        {
            *address = next;
        }
    }
    if let (None, IpAddr::V4(address)) = (wish.mac, given) {
        endpoint.mac = MacAddress::of_ipv4(address);
    }
    places.endpoints.insert(endpoint.id.clone(), endpoint.clone());
    Ok(())
}

fn name_taken(endpoint: &Endpoint, network: &Network, by: Option<&RemoteEndpoint>) -> EngineError {
    let mut words = format!(
        "endpoint with name {} already exists in network {}",
        endpoint.name, network.name
    );
    if let Some(by) = by {
        words.push_str(&format!(" (container {} on host {})", by.container.short(), by.host));
    }
    EngineError::forbidden(words)
}

#[cfg(test)]
mod tests;
