//! A host tells that it is there, for as long as its lease lives.

use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use sluice_model::Host;
use sluice_store::{
    Lease, Store, StoreError, Transaction, Write,
    etcd::Etcd,
    key::{self, shared},
    record,
};
use tokio::time::{sleep, timeout};

use super::{Advertise, Cluster};
use crate::{Engine, EngineError};

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Reaches etcd, takes a lease, tells of this host, renews; begins again when the lease is lost. Never ends.
    pub(super) async fn belong(self: Arc<Self>, cluster: Arc<Cluster>) {
        let etcd = loop {
            match Etcd::connect(cluster.options.etcd.clone()).await {
                Ok(etcd) => break Arc::new(etcd),
                Err(why) => cluster.trouble(why.to_string()),
            }
            sleep(PAUSE).await;
        };
        cluster.etcd.send_replace(Some(etcd.clone()));
        loop {
            match self.enter(&cluster, &etcd).await {
                Ok(lease) => {
                    tracing::info!("this host is in the cluster, by lease {:x}", lease.0);
                    cluster.lease.send_replace(Some(lease));
                    cluster.disagrees();
                    renew(&cluster, &etcd, lease).await;
                    cluster.lease.send_replace(None);
                    tracing::warn!(
                        "lease {:x} was lost: the others take this host for dead until it has told them anew",
                        lease.0
                    );
                }
                Err(why) => {
                    cluster.trouble(format!("cannot join the cluster: {why}"));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn enter(&self, cluster: &Cluster, etcd: &Etcd) -> Result<Lease, EngineError> {
        let host = self.present_self(cluster).await?;
        let lease = etcd.grant(cluster.options.lease).await?;
        let writes = vec![Write::Lend(shared::host(&host.id), record::encode(&host)?, lease)];
        let revision = etcd
            .commit(Transaction {
                conditions: vec![],
                writes,
            })
            .await?;
        cluster.told().host_told = revision;
        Ok(lease)
    }

    /// What this host tells of itself; written down for the agent.
    pub(super) async fn present_self(&self, cluster: &Cluster) -> Result<Host, EngineError> {
        let addresses = self.own_addresses(&cluster.options.advertise).await?;
        let since = cluster
            .told()
            .host
            .as_ref()
            .map_or_else(Timestamp::now, |host| host.since);
        let host = Host {
            id: self.identity.clone(),
            name: host_name(),
            addresses,
            vxlan_port: cluster.options.vxlan_port,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since,
            seal: self.own_seal(cluster).await,
        };
        if cluster.told().host.as_ref() != Some(&host) {
            let writes = vec![Write::Put(key::THIS_HOST.to_owned(), record::encode(&host)?)];
            self.commit(Transaction {
                conditions: vec![],
                writes,
            })
            .await?;
            cluster.told().host = Some(host.clone());
        }
        Ok(host)
    }

    async fn own_addresses(&self, advertise: &[Advertise]) -> Result<Vec<IpAddr>, EngineError> {
        let devices = self.agent.host_devices().await?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for wish in advertise {
            match wish {
                Advertise::Address(address) => {
                    let is_ours = devices
                        .iter()
                        .any(|device| device.addresses.iter().any(|own| own.addr() == *address));
                    if !is_ours {
                        return Err(EngineError::invalid(format!(
                            "--cluster-advertise {address}: no device of this host has this address"
                        )));
                    }
                    addresses.push(*address);
                }
                Advertise::Device(name) => {
                    let device = devices.iter().find(|device| device.name == *name).ok_or_else(|| {
                        EngineError::invalid(format!(
                            "--cluster-advertise {name}: this host has no device of that name"
                        ))
                    })?;
                    if device.addresses.is_empty() {
                        return Err(EngineError::invalid(format!(
                            "--cluster-advertise {name}: the device has no address"
                        )));
                    }
                    addresses.extend(device.addresses.iter().map(ipnet::IpNet::addr));
                }
            }
        }
        addresses.dedup();
        Ok(addresses)
    }
}

/// Renews the lease until it is lost.
async fn renew(cluster: &Cluster, etcd: &Etcd, lease: Lease) {
    let often = cluster.options.lease / 3;
    loop {
        // Whoever follows the others' records hears it when this host's own is taken away.
        if timeout(often, cluster.doubt.notified()).await.is_ok() {
            return;
        }
        loop {
            match etcd.renew(lease).await {
                Ok(()) => {
                    cluster
                        .followed
                        .send_if_modified(|followed| followed.trouble.take().is_some());
                    break;
                }
                Err(StoreError::LeaseLost(_)) => return,
                Err(why) => {
                    cluster.trouble(format!("the lease of this host cannot be renewed: {why}"));
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What the kernel says this host is called.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
