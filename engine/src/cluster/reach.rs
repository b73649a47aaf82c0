//! A container's start is answered when the other hosts know the way to it.
//!
//! Each host writes how far it has come. One that starts a container waits, for a second at most, until all that are concerned have come to the revision
//! that told of it: in a small cluster all hosts, in a large one those with endpoints on the network.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sluice_model::{Endpoint, Network};
use sluice_store::{
    Revision, Store, StoreError, Transaction, Write,
    etcd::Etcd,
    key::{self, shared},
};
use tokio::time::{Instant, sleep, timeout};

use super::Cluster;
use crate::{Engine, EngineError};

/// For how long the others are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many hosts are all waited for.
const SMALL: usize = 16;
/// Each further host lets every one wait so much longer before it writes again: all of them together write a thousand times a second at most.
const EACH: Duration = Duration::from_millis(1);

impl Engine {
    /// Tells the others that all up to this revision is real here, soon.
    pub(super) fn tell_reached(self: &Arc<Self>, cluster: &Arc<Cluster>, revision: Revision) {
        let is_first = {
            let mut told = cluster.told();
            told.reached = revision;
            !std::mem::replace(&mut told.telling_reached, true)
        };
        if !is_first {
            return;
        }
        let (engine, cluster) = (self.clone(), cluster.clone());
        self.in_background(async move {
            loop {
                let revision = cluster.told().reached;
                let began = Instant::now();
                if let Err(why) = engine.write_reached(&cluster, revision).await {
                    // who waits gives up after a second
                    tracing::debug!("the others were not told that revision {revision} is real here: {why}");
                }
                let hosts = engine.count_hosts().await;
                sleep((EACH * hosts).saturating_sub(began.elapsed())).await;
                let mut told = cluster.told();
                if told.reached == revision {
                    told.telling_reached = false;
                    return;
                }
            }
        });
    }

    async fn write_reached(&self, cluster: &Cluster, revision: Revision) -> Result<(), EngineError> {
        let (_, here) = self.store.list(key::THIS_HOST).await?;
        self.agent.settled(here, &[]).await?;
        let (etcd, Some(lease)) = (cluster.etcd()?, *cluster.lease.borrow()) else {
            return Ok(());
        };
        let key = shared::reached(&self.identity);
        let writes = vec![Write::Lend(key, revision.to_string().into_bytes(), lease)];
        etcd.commit(Transaction {
            conditions: vec![],
            writes,
        })
        .await?;
        Ok(())
    }

    async fn count_hosts(&self) -> u32 {
        let hosts = self.store.list(key::HOSTS).await;
        hosts.map_or(0, |(hosts, _)| u32::try_from(hosts.len()).unwrap_or(u32::MAX))
    }

    /// Waits until the other hosts that are up know of these endpoints, for a second at most.
    pub(crate) async fn wait_for_others(&self, endpoints: &[(Endpoint, Network)]) {
        let Some(cluster) = &self.cluster else { return };
        let shared: Vec<&(Endpoint, Network)> = endpoints.iter().filter(|(_, network)| network.is_shared()).collect();
        let revision = {
            let told = cluster.told();
            let revisions = shared
                .iter()
                .filter_map(|(endpoint, _)| told.endpoints.get(&endpoint.id));
            revisions.map(|announced| announced.revision).max()
        };
        let (Some(revision), Ok(etcd)) = (revision.filter(|revision| *revision > 0), cluster.etcd()) else {
            return;
        };
        let concerned = match self.concerned(cluster, &shared).await {
            Ok(concerned) if concerned.is_empty() => return,
            Ok(concerned) => concerned,
            Err(why) => return tracing::warn!("cannot find out who is to know of a new container: {why}"),
        };
        let mut waiting = concerned;
        let waited = timeout(PATIENCE, until_reached(&etcd, revision, &mut waiting)).await;
        match waited {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!("cannot find out whether the other hosts know of a new container: {why}"),
            Err(_) => tracing::warn!(
                "a container was started whose way these hosts did not know after {} s: {}",
                PATIENCE.as_secs(),
                waiting.into_iter().collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// The hosts that are up and are to know of it.
    async fn concerned(
        &self,
        cluster: &Cluster,
        endpoints: &[&(Endpoint, Network)],
    ) -> Result<BTreeSet<String>, EngineError> {
        let (hosts, _) = self.store.list(key::HOSTS).await?;
        let hosts: BTreeSet<String> = hosts
            .iter()
            .filter_map(|entry| entry.key.strip_prefix(key::HOSTS).map(str::to_owned))
            .collect();
        if hosts.len() <= SMALL {
            return Ok(hosts);
        }
        let residents = cluster.residents();
        let concerned: BTreeSet<String> = endpoints
            .iter()
            .filter_map(|(_, network)| residents.get(&network.id))
            .flat_map(|hosts| hosts.keys().cloned())
            .collect();
        Ok(concerned.intersection(&hosts).cloned().collect())
    }
}

/// Takes away from `waiting` who has come to a revision, until nobody is left.
async fn until_reached(etcd: &Etcd, revision: Revision, waiting: &mut BTreeSet<String>) -> Result<(), StoreError> {
    let mut take = |key: &str, value: &[u8]| {
        let reached = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        if reached.is_some_and(|reached: Revision| reached >= revision)
            && let Some(host) = key.strip_prefix(shared::REACHED)
        {
            waiting.remove(host);
        }
        waiting.is_empty()
    };
    let (entries, listed) = etcd.list(shared::REACHED).await?;
    if entries.iter().fold(false, |_, entry| take(&entry.key, &entry.value)) {
        return Ok(());
    }
    let mut watch = etcd.watch(shared::REACHED, listed).await?;
    while let Some(change) = watch.next().await {
        for event in change?.1 {
            if let sluice_store::Event::Put(entry) = event
                && take(&entry.key, &entry.value)
            {
                return Ok(());
            }
        }
    }
    Ok(())
}
