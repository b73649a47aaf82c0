//! Names and addresses in shared networks: an endpoint has them when etcd says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use sluice_model::{
    Endpoint, Id, MacAddress, Network, PortSpec, RemoteEndpoint, container::NetworkWish, network::Family,
};
use sluice_store::{
    Condition, Lease, Revision, Store, StoreError, Transaction, Write, etcd::Etcd, key::shared, record,
};

use super::{Announced, Cluster};
use crate::{Engine, EngineError, network::register::Places};

/// How often a claim is begun again. Each time somebody else was quicker, or etcd has forgotten the lease.
const ATTEMPTS: usize = 1000;

/// How many ports one container may have on all hosts.
const MOST_PORTS: usize = 100;

/// What somebody else has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// The name; whose it is, if that is known.
    Name(Option<Box<RemoteEndpoint>>),
    /// This address.
    Address(IpAddr, Option<Box<RemoteEndpoint>>),
    /// This port on all hosts.
    Port(PortSpec, Option<Box<RemoteEndpoint>>),
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
        self.check_seal(cluster, network, &doing)?;
        check_ports(&RemoteEndpoint::of(endpoint, &self.identity), &doing)?;
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
                Ok(Err(Taken::Port(port, by))) => return Err(port_taken(endpoint, port, by.as_deref())),
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
    // what is believed to be there; whose belief is wrong is told by a conflict
    let mut holders: BTreeMap<&String, Option<Vec<u8>>> = wanted.keys().map(|key| (key, None)).collect();
    let mut buried: BTreeSet<String> = BTreeSet::new();
    loop {
        let mut transaction = Transaction {
            conditions: vec![Condition::Present(shared::network(&endpoint.network))],
            writes: buried.iter().cloned().map(Write::Delete).collect(),
        };
        for (key, holder) in &holders {
            transaction.conditions.push(match holder {
                None => Condition::Absent((*key).clone()),
                Some(holder) => Condition::Holds((*key).clone(), holder.clone()),
            });
            let own = wanted.get(*key).map(|wanted| wanted.value.clone()).unwrap_or_default();
            transaction.writes.push(Write::Lend((*key).clone(), own, lease));
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
        let Some((key, reservation)) = wanted.get_key_value(&broken) else {
            return Err(StoreError::Failed(format!("{broken} was not asked for")));
        };
        if let Some(holder) = found.as_ref().filter(|holder| **holder != reservation.value) {
            match bearer(etcd, &endpoint.network, holder, is_stale).await? {
                Bearer::Nobody => {}
                Bearer::Stale(place) => drop(buried.insert(place)),
                Bearer::Lives(by) => {
                    return Ok(Err(match reservation.of {
                        Claimed::Address(address) => Taken::Address(address, Some(by)),
                        Claimed::Port(port) => Taken::Port(port, Some(by)),
                        Claimed::Name => Taken::Name(Some(by)),
                    }));
                }
            }
        }
        holders.insert(key, found);
    }
}

/// Whose a reservation is. Those of endpoints that this host had in an earlier life are nobody's.
async fn bearer(
    etcd: &Etcd,
    network: &Id,
    holder: &[u8],
    is_stale: &(dyn Fn(&RemoteEndpoint) -> bool + Sync),
) -> Result<Bearer, StoreError> {
    // what is of no network says whose it is by the network too
    let text = std::str::from_utf8(holder).unwrap_or_default();
    let (network, id) = match text.split_once('/') {
        Some((network, id)) => (Id::parse(network), Id::parse(id)),
        None => (Some(network.clone()), Id::parse(text)),
    };
    let (Some(network), Some(id)) = (network, id) else {
        return Ok(Bearer::Nobody);
    };
    let place = shared::endpoint(&network, &id);
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
    let mut held = reservations(endpoint);
    loop {
        let mut transaction = Transaction {
            conditions: vec![],
            writes: vec![Write::Delete(shared::endpoint(&endpoint.network, &endpoint.id))],
        };
        for (key, reservation) in &held {
            let own = reservation.value.clone();
            transaction.conditions.push(Condition::Holds(key.clone(), own));
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

/// Something that an endpoint has for itself alone.
struct Reservation {
    of: Claimed,
    /// What says that it is this endpoint's.
    value: Vec<u8>,
}

/// What it is.
#[derive(Clone, Copy)]
enum Claimed {
    Name,
    Address(IpAddr),
    Port(PortSpec),
}

/// What an endpoint has for itself alone, by key: its addresses and its name in its network, and its ports on all hosts.
fn reservations(endpoint: &RemoteEndpoint) -> BTreeMap<String, Reservation> {
    let in_network = |of| Reservation {
        of,
        value: endpoint.id.as_str().into(),
    };
    let addresses = endpoint.addresses.iter().map(IpNet::addr);
    let mut all: BTreeMap<String, Reservation> = addresses
        .map(|address| {
            let key = shared::address(&endpoint.network, address);
            (key, in_network(Claimed::Address(address)))
        })
        .collect();
    all.insert(
        shared::name(&endpoint.network, &endpoint.name),
        in_network(Claimed::Name),
    );
    all.extend(meshed(endpoint).into_iter().map(|port| {
        let reservation = Reservation {
            of: Claimed::Port(port),
            value: format!("{}/{}", endpoint.network, endpoint.id).into_bytes(),
        };
        (shared::port(port), reservation)
    }));
    all
}

/// The ports that every host takes packets for. One at an address of its host is that host's alone.
fn meshed(endpoint: &RemoteEndpoint) -> BTreeSet<PortSpec> {
    let of_all = endpoint.ports.iter().filter(|port| port.host_address.is_unspecified());
    let ports = of_all.flat_map(|port| port.singles());
    ports
        .map(|port| PortSpec {
            port: port.host_port,
            protocol: port.container.protocol,
        })
        .collect()
}

/// All are claimed in one transaction, which etcd takes up to a size (128 operations).
fn check_ports(endpoint: &RemoteEndpoint, doing: &str) -> Result<(), EngineError> {
    match meshed(endpoint).len() {
        0..=MOST_PORTS => Ok(()),
        many => Err(EngineError::invalid(format!(
            "{doing}: {many} ports are to be published on all hosts; {MOST_PORTS} may be by one container"
        ))),
    }
}

/// In Docker's words, as far as it has any.
fn port_taken(endpoint: &Endpoint, port: PortSpec, by: Option<&RemoteEndpoint>) -> EngineError {
    let at = endpoint.ports.iter().find_map(|own| {
        let is_it = own
            .singles()
            .any(|own| own.host_port == port.port && own.container.protocol == port.protocol);
        is_it.then(|| std::net::SocketAddr::new(own.host_address, port.port))
    });
    let mut words = format!(
        "driver failed programming external connectivity on endpoint {} ({}): Bind for {} failed: port is already allocated",
        endpoint.name,
        endpoint.id,
        at.map_or_else(|| port.port.to_string(), |at| at.to_string())
    );
    if let Some(by) = by {
        words.push_str(&format!(
            " (on all hosts, by container {} on host {})",
            by.name, by.host
        ));
    }
    EngineError::conflict(words)
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
