//! What the other hosts tell, copied among this host's own records.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::FutureExt;
use jiff::Timestamp;
use sluice_model::{Id, Network, RemoteEndpoint};
use sluice_store::{
    Entry, Event, Revision, Store, StoreError, Transaction, Write,
    key::{self, shared},
    record,
    watch::Change,
};
use tokio::time::sleep;

use super::Cluster;
use crate::{Engine, EngineError};

/// Between two attempts, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Changes that are taken in together.
const TOGETHER: usize = 1000;

/// What is to be written here, and which addresses come and go with it.
#[derive(Default)]
pub(super) struct Copy {
    pub writes: BTreeMap<String, Write>,
    /// Remote endpoints that came, by the key of their record.
    came: BTreeMap<String, RemoteEndpoint>,
    /// Networks that are gone in etcd.
    pub networks_gone: Vec<Id>,
    /// The writes are more than what etcd tells again.
    pub must_last: bool,
}

impl Engine {
    /// Never ends.
    pub(super) async fn follow(self: Arc<Self>, cluster: Arc<Cluster>) {
        let mut pause = PAUSES.0;
        loop {
            // the first time it may take a while
            let _ = cluster.etcd.subscribe().wait_for(Option::is_some).await;
            match self.follow_on(&cluster, &mut pause).await {
                // what comes next is forgotten there, or never was: all is read again
                Err(StoreError::Compacted(_)) => {
                    tracing::info!("etcd does not know any more what comes next: its records are read again");
                    continue;
                }
                Err(why) => cluster.trouble(format!("the cluster's records cannot be followed: {why}")),
                Ok(()) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn follow_on(self: &Arc<Self>, cluster: &Arc<Cluster>, pause: &mut Duration) -> Result<(), StoreError> {
        let failed = |why: EngineError| StoreError::Failed(why.message);
        let etcd = cluster.etcd().map_err(failed)?;
        let revision = self.copy_all(cluster, &etcd).await?;
        let mut watch = etcd.watch(shared::ALL, revision).await?;
        cluster.reached(revision);
        self.tell_reached(cluster, revision);
        cluster.disagrees();
        *pause = PAUSES.0;
        loop {
            let gone = || StoreError::Failed("the watch has ended".to_owned());
            let mut changes = vec![watch.next().await.ok_or_else(gone)??];
            while changes.len() < TOGETHER
                && let Some(next) = watch.next().now_or_never()
            {
                changes.push(next.ok_or_else(gone)??);
            }
            let revision = changes.last().map_or(0, |change| change.0);
            self.copy_changes(cluster, changes).await.map_err(failed)?;
            cluster.reached(revision);
            self.tell_reached(cluster, revision);
        }
    }

    /// Takes in what has changed.
    async fn copy_changes(self: &Arc<Self>, cluster: &Arc<Cluster>, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut copy = Copy::default();
        for event in changes.into_iter().flat_map(|(_, events)| events) {
            match event {
                Event::Put(entry) => self.copy_put(&mut copy, entry)?,
                Event::Deleted(key, revision) => self.copy_deleted(cluster, &mut copy, &key, revision).await?,
            }
        }
        for endpoint in copy.came.values() {
            self.networks.other_has(endpoint, true);
        }
        for (key, write) in &copy.writes {
            if !key.starts_with(key::REMOTE_ENDPOINTS) {
                continue;
            }
            match (self.remote_endpoint(key).await?, write, copy.came.get(key)) {
                (None, Write::Put(..), Some(came)) => cluster.count(came, true),
                (Some(before), Write::Delete(_), _) => cluster.count(&before, false),
                _ => {}
            }
        }
        self.write_copy(cluster, copy).await
    }

    /// An endpoint of another host, as the copy has it.
    async fn remote_endpoint(&self, key: &str) -> Result<Option<RemoteEndpoint>, EngineError> {
        let found = self.store.get(key).await?;
        Ok(found.and_then(|entry| readable(key, &entry.value)))
    }

    fn copy_put(&self, copy: &mut Copy, entry: Entry) -> Result<(), EngineError> {
        if let Some(id) = entry.key.strip_prefix(shared::HOSTS) {
            if id != self.identity {
                copy.put(key::host(id), entry.value);
            }
        } else if let Some(name) = entry.key.strip_prefix(shared::POLICIES) {
            copy.put(key::policy(name), entry.value);
        } else if entry.key.starts_with(shared::NETWORKS) {
            if let Some(network) = readable::<Network>(&entry.key, &entry.value) {
                copy.networks_gone.retain(|gone| *gone != network.id);
                copy.network(self.copy_network(network)?);
            }
        } else if entry.key.starts_with(shared::ENDPOINTS)
            && let Some(endpoint) = readable::<RemoteEndpoint>(&entry.key, &entry.value)
            && endpoint.host != self.identity
        {
            copy.came(endpoint, entry.value);
        }
        Ok(())
    }

    async fn copy_deleted(
        &self,
        cluster: &Arc<Cluster>,
        copy: &mut Copy,
        key: &str,
        revision: Revision,
    ) -> Result<(), EngineError> {
        if let Some(id) = key.strip_prefix(shared::HOSTS) {
            if id != self.identity {
                copy.delete(key::host(id));
            } else if cluster.told().host_told < revision {
                cluster.doubt.notify_one();
            }
        } else if let Some(name) = key.strip_prefix(shared::POLICIES) {
            copy.delete(key::policy(name));
        } else if let Some(id) = key.strip_prefix(shared::NETWORKS).and_then(Id::parse) {
            copy.networks_gone.push(id);
        } else if let Some(place) = key.strip_prefix(shared::ENDPOINTS) {
            let id = place.rsplit('/').next().and_then(Id::parse);
            let own = id.and_then(|id| {
                let mut told = cluster.told();
                let is_later = told.endpoints.get(&id).is_some_and(|own| own.revision < revision);
                is_later.then(|| told.endpoints.remove(&id)).flatten()
            });
            if own.is_some() {
                cluster.disagrees();
            }
            let here = format!("{}{place}", key::REMOTE_ENDPOINTS);
            let before = match copy.came.remove(&here) {
                Some(came) => Some(came),
                None => self.remote_endpoint(&here).await?,
            };
            if let Some(before) = before {
                self.networks.other_has(&before, false);
                copy.delete(here);
            }
        }
        Ok(())
    }

    /// A network of the cluster as it is on this host; none: it is so already.
    pub(super) fn copy_network(&self, record: Network) -> Result<Option<(String, Write)>, EngineError> {
        let before = self.networks.by_id(&record.id);
        let number = match &before {
            Some(before) => before.number,
            None => self.networks.take_number()?,
        };
        let network = Network {
            number,
            default_binding: self.config.default_binding,
            ..record
        };
        if before.as_ref() == Some(&network) {
            return Ok(None);
        }
        let key = key::network(&network.id);
        let write = Write::Put(key.clone(), record::encode(&network)?);
        if before.is_none() {
            self.warn_of_overlap(&network);
        }
        self.networks.enter(network);
        Ok(Some((key, write)))
    }

    /// What was made elsewhere may be in the way of what is here.
    fn warn_of_overlap(&self, network: &Network) {
        for other in self.networks.all().iter().filter(|other| other.id != network.id) {
            for (theirs, ours) in network
                .subnets
                .iter()
                .flat_map(|one| other.subnets.iter().map(move |two| (one, two)))
            {
                if theirs.subnet.contains(&ours.subnet) || ours.subnet.contains(&theirs.subnet) {
                    tracing::warn!(
                        "network {} of the cluster has {}, which overlaps with {} of network {} on this host: containers here reach only one of them",
                        network.name,
                        theirs.subnet,
                        ours.subnet,
                        other.name
                    );
                }
            }
        }
    }

    pub(super) async fn write_copy(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        mut copy: Copy,
    ) -> Result<(), EngineError> {
        for id in std::mem::take(&mut copy.networks_gone) {
            let Some(network) = self.networks.by_id(&id) else {
                continue;
            };
            if self.networks.strike_if_empty(&id).is_ok() {
                let key = key::network(&id);
                copy.network(Some((key.clone(), Write::Delete(key))));
            } else {
                // containers of this host are on it: what really runs is told anew
                self.restore_network(cluster, network);
            }
        }
        if copy.writes.is_empty() {
            return Ok(());
        }
        let transaction = Transaction {
            conditions: vec![],
            writes: copy.writes.into_values().collect(),
        };
        match copy.must_last {
            true => self.store.commit(transaction).await?,
            // after a crash etcd tells it again
            false => self.store.commit_soon(transaction).await?,
        };
        Ok(())
    }
}

impl Cluster {
    fn reached(&self, revision: Revision) {
        self.followed.send_modify(|followed| {
            if followed.trouble.take().is_some() {
                tracing::info!("the cluster's records are followed again, at revision {revision}");
            }
            followed.revision = revision;
            followed.at = Some(Timestamp::now());
        });
    }
}

// === impl Copy ===

impl Copy {
    pub fn put(&mut self, key: String, value: Vec<u8>) {
        self.writes.insert(key.clone(), Write::Put(key, value));
    }

    pub fn delete(&mut self, key: String) {
        self.writes.insert(key.clone(), Write::Delete(key));
    }

    /// What becomes of a network, if anything does.
    pub fn network(&mut self, write: Option<(String, Write)>) {
        self.must_last |= write.is_some();
        self.writes.extend(write);
    }

    fn came(&mut self, endpoint: RemoteEndpoint, value: Vec<u8>) {
        let key = key::remote_endpoint(&endpoint.network, &endpoint.id);
        self.put(key.clone(), value);
        self.came.insert(key, endpoint);
    }
}

/// What cannot be read is told and passed over.
pub(super) fn readable<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    record::decode(key, value)
        .inspect_err(|error| tracing::error!("of the cluster's records: {error}"))
        .ok()
}
