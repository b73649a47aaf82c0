//! Networks on all hosts: made and removed in one transaction each.

use std::{sync::Arc, time::Duration};

use sluice_model::{Network, RemoteEndpoint};
use sluice_store::{
    Condition, Entry, Store, StoreError, Transaction, Write,
    etcd::Etcd,
    key::{self, shared},
    record,
};
use tokio::time::sleep;

use super::{
    Cluster,
    claim::Taken,
    prefixes::{self, Prefixes},
};
use crate::{Engine, EngineError, Kind, network::remove::in_use};

/// How often the making of a network is begun again, as another was made meanwhile.
const ATTEMPTS: usize = 100;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// The least number on the wire that is chosen: small ones are left to those who name one.
const FIRST_VNI: u32 = 4_096;
/// The greatest: it has 24 bits.
pub(crate) const GREATEST_VNI: u32 = 0xff_ffff;

/// What there is in the cluster while a network is made.
pub(crate) struct Present {
    /// All its networks.
    pub networks: Vec<Network>,
    /// What its other hosts have for themselves.
    pub others: Vec<Prefixes>,
    /// The last one that was made; nobody else may make one meanwhile.
    last: Option<Entry>,
}

impl Engine {
    /// Makes a network on all hosts: `place` chooses its subnets among what is there, and is asked again when that has changed meanwhile. It is real
    /// on this host when this returns.
    pub(crate) async fn make_shared(
        self: &Arc<Self>,
        mut network: Network,
        mut place: impl FnMut(&mut Network, &Present) -> Result<(), EngineError>,
    ) -> Result<Network, EngineError> {
        let doing = format!("cannot make network {}", network.name);
        let cluster = self.cluster_for(&doing)?;
        let etcd = cluster.etcd().map_err(|why| why.within(&doing))?;
        self.check_seal(cluster, &network, &doing)?;
        let wanted = network.vni;
        for _ in 0..ATTEMPTS {
            let failed = |why: StoreError| EngineError::failed(format!("{doing}: {why}"));
            let present = Present::read(&etcd, &self.identity).await.map_err(failed)?;
            place(&mut network, &present)?;
            network.vni = match wanted {
                0 => present.free_vni()?,
                wanted => present.check_vni(wanted)?,
            };
            network.number = 0;
            match etcd.commit(present.transaction(&network)?).await {
                Ok(_) => {}
                Err(StoreError::Conflict(_)) => continue,
                Err(why) => return Err(failed(why)),
            }
            return self.take_over(network).await;
        }
        Err(EngineError::failed(format!(
            "{doing}: others were quicker {ATTEMPTS} times"
        )))
    }

    /// Makes a network of the cluster real on this host, unless the copy of the others' records was quicker.
    async fn take_over(self: &Arc<Self>, network: Network) -> Result<Network, EngineError> {
        let id = network.id.clone();
        let gone = || EngineError::not_found(format!("network {id} was removed while it was made"));
        self.copy_network(network)?;
        let network = self.networks.by_id(&id).ok_or_else(gone)?;
        let revision = self
            .commit(Transaction {
                conditions: vec![],
                writes: vec![Write::Put(key::network(&id), record::encode(&network)?)],
            })
            .await?;
        self.agent.settled(revision, &[id.as_str()]).await?;
        self.networks.by_id(&id).ok_or_else(gone)
    }

    /// Removes a network from all hosts; refused while any has endpoints on it. The caller has struck it out here.
    pub(crate) async fn unmake_shared(&self, network: &Network) -> Result<(), EngineError> {
        let doing = format!("error while removing network {}", network.name);
        if self.cluster.is_none() {
            // of a cluster that this daemon belongs to no more: nothing of it is left but the copy
            return Ok(());
        }
        let etcd = self.cluster_for(&doing)?.etcd().map_err(|why| why.within(&doing))?;
        let transaction = Transaction {
            conditions: vec![Condition::NoneUnder(shared::endpoints(&network.id))],
            writes: vec![
                Write::Delete(shared::network(&network.id)),
                Write::Delete(shared::network_name(&network.name)),
                Write::Delete(shared::vni(network.vni)),
            ],
        };
        match etcd.commit(transaction).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => {
                let (entries, _) = etcd
                    .list(&shared::endpoints(&network.id))
                    .await
                    .map_err(|why| EngineError::from(why).within(&doing))?;
                let endpoints: Vec<RemoteEndpoint> = entries
                    .iter()
                    .filter_map(|entry| record::decode(&entry.key, &entry.value).ok())
                    .collect();
                Err(in_use(
                    network,
                    endpoints.iter().map(|endpoint| (endpoint.name.as_str(), &endpoint.id)),
                ))
            }
            Err(why) => Err(EngineError::failed(format!("{doing}: {why}"))),
        }
    }

    /// Tells the cluster anew of a network that it has forgotten and containers of this host are on. When its name or number went to another meanwhile,
    /// they are taken off it.
    pub(super) fn restore_network(self: &Arc<Self>, cluster: &Arc<Cluster>, network: Network) {
        if !cluster.told().restoring.insert(network.id.clone()) {
            return;
        }
        let (engine, cluster) = (self.clone(), cluster.clone());
        self.in_background(async move {
            let id = network.id.clone();
            match restore(&cluster, &engine.identity, network.clone()).await {
                Ok(()) => {}
                Err(StoreError::Conflict(_)) => {
                    let endpoints = engine.networks.in_network(&id);
                    endpoints
                        .into_iter()
                        .for_each(|endpoint| engine.lose(endpoint, &Taken::Network));
                }
                Err(why) => {
                    cluster.trouble(format!("network {} cannot be told anew: {why}", network.name));
                    sleep(PAUSE).await;
                }
            }
            cluster.told().restoring.remove(&id);
            cluster.disagrees();
        });
    }
}

async fn restore(cluster: &Cluster, this_host: &str, network: Network) -> Result<(), StoreError> {
    let etcd = cluster.etcd().map_err(|why| StoreError::Failed(why.message))?;
    let (name, place) = (network.name.clone(), shared::network(&network.id));
    let network = Network { number: 0, ..network };
    loop {
        let present = Present::read(&etcd, this_host).await?;
        match etcd.commit(present.transaction(&network)?).await {
            Ok(revision) => {
                tracing::warn!(
                    "network {name} was forgotten by etcd while containers of this host were on it: told anew at revision {revision}"
                );
                return Ok(());
            }
            // another host was quicker
            Err(StoreError::Conflict(Condition::Absent(key))) if key == place => return Ok(()),
            Err(StoreError::Conflict(Condition::Absent(key) | Condition::Unchanged(key, _)))
                if key == shared::LAST_NETWORK => {}
            Err(why) => return Err(why),
        }
    }
}

// === impl Present ===

impl Present {
    async fn read(etcd: &Etcd, this_host: &str) -> Result<Self, StoreError> {
        // what is made after this is read breaks the transaction's condition
        let last = etcd.get(shared::LAST_NETWORK).await?;
        let (entries, _) = etcd.list(shared::NETWORKS).await?;
        let networks = entries
            .iter()
            .map(|entry| record::decode(&entry.key, &entry.value))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            networks,
            others: prefixes::others(etcd, this_host).await?,
            last,
        })
    }

    fn transaction(&self, network: &Network) -> Result<Transaction, StoreError> {
        let (place, name, vni) = (
            shared::network(&network.id),
            shared::network_name(&network.name),
            shared::vni(network.vni),
        );
        let last = shared::LAST_NETWORK.to_owned();
        let id = network.id.as_str().as_bytes();
        Ok(Transaction {
            conditions: vec![
                Condition::Absent(place.clone()),
                match &self.last {
                    None => Condition::Absent(last.clone()),
                    Some(entry) => Condition::Unchanged(last.clone(), entry.modified),
                },
                Condition::Absent(name.clone()),
                Condition::Absent(vni.clone()),
            ],
            writes: vec![
                Write::Put(last, id.to_vec()),
                Write::Put(name, id.to_vec()),
                Write::Put(vni, id.to_vec()),
                Write::Put(place, record::encode(network)?),
            ],
        })
    }

    /// Given again as late as possible: who is late with a frame of a network that is gone meets no other.
    fn free_vni(&self) -> Result<u32, EngineError> {
        let taken = |vni: &u32| self.networks.iter().any(|network| network.vni == *vni);
        let newest = self.networks.iter().max_by_key(|network| network.created);
        let after = newest.map_or(FIRST_VNI, |network| network.vni + 1).max(FIRST_VNI);
        (after..=GREATEST_VNI)
            .chain(FIRST_VNI..after)
            .find(|vni| !taken(vni))
            .ok_or_else(|| EngineError::failed("no number on the wire is left for a network"))
    }

    fn check_vni(&self, wanted: u32) -> Result<u32, EngineError> {
        match self.networks.iter().find(|network| network.vni == wanted) {
            Some(other) => Err(EngineError::new(
                Kind::Forbidden,
                format!("VXLAN id {wanted} is that of network {} already", other.name),
            )),
            None => Ok(wanted),
        }
    }
}
