//! What etcd was told of this host's endpoints, and what there is: the difference is told.
//!
//! So it is after each end of a container, after a time without etcd, without a lease, or of another etcd than before; and once a minute.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sluice_model::{Endpoint, Id, RemoteEndpoint};
use tokio::time::{sleep, timeout};

use super::{
    Announced, Cluster,
    claim::{Taken, withdraw, withdraw_name},
};
use crate::{Engine, EngineError};

/// How often it is looked when nothing seems to have happened.
const OFTEN: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// For how long the end of a container waits until the others know of it.
const PATIENCE: Duration = Duration::from_secs(1);

impl Engine {
    /// Never ends.
    pub(super) async fn keep_agreeing(self: Arc<Self>, cluster: Arc<Cluster>) {
        loop {
            let _ = timeout(OFTEN, cluster.disagrees.notified()).await;
            while let Err(why) = self.agree(&cluster).await {
                cluster.trouble(format!("cannot tell the cluster of this host's endpoints: {why}"));
                sleep(PAUSE).await;
            }
        }
    }

    /// Tells the cluster of endpoints that are gone. What cannot be told now is told later.
    pub(crate) async fn tell_of_ended(&self) {
        let Some(cluster) = &self.cluster else { return };
        if cluster.told().endpoints.is_empty() {
            return;
        }
        if !matches!(timeout(PATIENCE, self.agree(cluster)).await, Ok(Ok(()))) {
            cluster.disagrees();
        }
    }

    /// The same, without waiting.
    pub(crate) fn others_are_told(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.disagrees();
        }
    }

    async fn agree(&self, cluster: &Arc<Cluster>) -> Result<(), EngineError> {
        let _alone = cluster.agreeing.lock().await;
        let Some(etcd) = cluster.etcd.borrow().clone() else {
            return Ok(());
        };
        let present: BTreeMap<Id, Endpoint> = self.networks.shared_endpoints();
        let gone: Vec<Announced> = {
            let told = cluster.told();
            let gone = told.endpoints.values().filter(|announced| {
                !present.contains_key(&announced.record.id) && !told.claiming.contains(&announced.record.id)
            });
            gone.cloned().collect()
        };
        for announced in gone {
            withdraw(&etcd, &announced.record).await?;
            cluster.told().endpoints.remove(&announced.record.id);
        }
        // without one everything is told when there is one again
        let Some(lease) = *cluster.lease.borrow() else {
            return Ok(());
        };
        for endpoint in present.into_values() {
            let record = RemoteEndpoint::of(&endpoint, &self.identity);
            let before = {
                let told = cluster.told();
                let before = told.endpoints.get(&endpoint.id).cloned();
                let is_told = before
                    .as_ref()
                    .is_some_and(|before| before.lease == Some(lease) && before.record == record);
                if is_told || told.claiming.contains(&endpoint.id) {
                    continue;
                }
                before
            };
            match self.announce(&etcd, lease, &record).await? {
                Ok(revision) => {
                    if let Some(before) = before.as_ref().filter(|before| before.record.name != record.name) {
                        withdraw_name(&etcd, &before.record).await?;
                    }
                    let announced = Announced {
                        record,
                        lease: Some(lease),
                        revision,
                    };
                    cluster.told().endpoints.insert(endpoint.id, announced);
                }
                // it is told anew, or its endpoints are taken off it
                Err(Taken::Network) => {
                    if let (Some(engine), Some(network)) = (self.me.upgrade(), self.networks.by_id(&endpoint.network)) {
                        engine.restore_network(cluster, network);
                    }
                }
                // the user gave it the name of another just now
                Err(Taken::Name(_)) if before.as_ref().is_some_and(|before| before.record.name != record.name) => {
                    tracing::warn!(
                        "container {} is still called {} on network {}: the name is another's there",
                        record.name,
                        before.map(|before| before.record.name).unwrap_or_default(),
                        record.network
                    );
                }
                Err(taken) => self.lose(endpoint, &taken),
            }
        }
        Ok(())
    }

    /// An endpoint lost its name or address to another while this host was cut off: it leaves the network.
    pub(super) fn lose(&self, endpoint: Endpoint, taken: &Taken) {
        let by = |by: &Option<Box<RemoteEndpoint>>| {
            by.as_ref().map_or_else(String::new, |by| {
                format!(" to container {} on host {}", by.name, by.host)
            })
        };
        let Some(engine) = self.me.upgrade() else { return };
        let Some(cluster) = self.cluster.clone() else { return };
        if !cluster.told().losing.insert(endpoint.id.clone()) {
            return;
        }
        let why = match taken {
            Taken::Name(other) => format!("its name went{}", by(other)),
            Taken::Address(address, other) => format!("its address {address} went{}", by(other)),
            Taken::Port(port, other) => format!("its port {port} went{}", by(other)),
            Taken::Network => "the network was removed".to_owned(),
        };
        tracing::error!(
            "container {} is taken off network {}: while this host was cut off from its cluster, {why}",
            endpoint.name,
            endpoint.network
        );
        self.in_background(async move {
            let (network, container) = (endpoint.network.to_string(), endpoint.container.to_string());
            if let Err(error) = engine.disconnect_network(&network, &container, true).await {
                tracing::error!(
                    "container {} cannot be taken off network {network}: {error}",
                    endpoint.name
                );
            }
            cluster.told().losing.remove(&endpoint.id);
        });
    }
}
