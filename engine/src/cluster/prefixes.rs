//! What hosts have for themselves: a network of the cluster is put where it takes nothing from any of them.
//!
//! It stands beside what every host follows: only who makes a network reads it.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sluice_model::Network;
use sluice_store::{Lease, Store, StoreError, Transaction, Write, etcd::Etcd, key::shared, record};
use tokio::time::timeout;

use super::Cluster;
use crate::{Engine, EngineError, network::pools::Occupied};

/// How often it is looked what this host has; what is made here is told at once.
const OFTEN: Duration = Duration::from_secs(10);
/// Of a host with more routes than this (a router that has the world's) only its networks are told.
const MOST_ROUTES: usize = 500;

/// What a host has for itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Prefixes {
    /// The host's name, for people.
    pub host: String,
    /// The subnets of networks that are on it alone.
    pub networks: Vec<IpNet>,
    /// What it has addresses in or routes to.
    pub routes: Vec<IpNet>,
}

// === impl Prefixes ===

impl Prefixes {
    /// As what keeps a network from being somewhere.
    fn occupied(&self) -> Occupied {
        Occupied {
            networks: self.networks.clone(),
            host: self.routes.clone(),
        }
    }

    /// Adds it to what keeps subnets from being chosen.
    pub fn add_to(&self, occupied: &mut Occupied) {
        occupied.networks.extend(&self.networks);
        occupied.host.extend(&self.routes);
    }

    /// Refuses a network whose subnets would take something from the host.
    pub fn check(&self, network: &Network) -> Result<(), EngineError> {
        let occupied = self.occupied();
        network.subnets.iter().try_for_each(|subnet| {
            let refused = |why: EngineError| why.within(&format!("on host {}", self.host));
            occupied.check(subnet.subnet).map_err(refused)
        })
    }
}

/// What the other hosts have told.
pub(super) async fn others(etcd: &Etcd, this_host: &str) -> Result<Vec<Prefixes>, StoreError> {
    let (entries, _) = etcd.list(shared::PREFIXES).await?;
    let own = shared::prefixes(this_host);
    let others = entries.iter().filter(|entry| entry.key != own);
    Ok(others
        .filter_map(|entry| super::follow::readable(&entry.key, &entry.value))
        .collect())
}

impl Engine {
    /// Tells what this host has for itself, and again when that has changed or hangs on a lease that is lost. Never ends.
    pub(super) async fn keep_telling_prefixes(self: Arc<Self>, cluster: Arc<Cluster>) {
        let mut told: Option<(Lease, Prefixes)> = None;
        let mut lease = cluster.lease.subscribe();
        loop {
            let (etcd, held) = (cluster.etcd.borrow().clone(), *cluster.lease.borrow());
            if let (Some(etcd), Some(held)) = (etcd, held) {
                match self.tell_prefixes(&etcd, held, told.as_ref()).await {
                    Ok(now) => told = Some((held, now)),
                    Err(why) => tracing::debug!("the cluster cannot be told what this host has for itself: {why}"),
                }
            }
            tokio::select! {
                _ = timeout(OFTEN, cluster.prefixes.notified()) => {}
                _ = lease.changed() => {}
            }
        }
    }

    async fn tell_prefixes(
        &self,
        etcd: &Etcd,
        lease: Lease,
        told: Option<&(Lease, Prefixes)>,
    ) -> Result<Prefixes, EngineError> {
        let own = self.networks.all().into_iter().filter(|network| !network.is_shared());
        let mut networks: Vec<IpNet> = own
            .filter(Network::is_placed)
            .flat_map(|network| network.subnets)
            .map(|subnet| subnet.subnet)
            .collect();
        networks.sort();
        let mut routes = self.agent.occupied_prefixes().await?;
        if routes.len() > MOST_ROUTES {
            routes.clear();
        }
        let prefixes = Prefixes {
            host: super::membership::host_name(),
            networks,
            routes,
        };
        if told != Some(&(lease, prefixes.clone())) {
            let writes = vec![Write::Lend(
                shared::prefixes(&self.identity),
                record::encode(&prefixes)?,
                lease,
            )];
            etcd.commit(Transaction {
                conditions: vec![],
                writes,
            })
            .await?;
        }
        Ok(prefixes)
    }

    /// Something that is on this host alone was made or is gone.
    pub(crate) fn prefixes_have_moved(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.prefixes.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::network::{Driver, Subnet};

    use super::*;
    use crate::network::defaults::bare;

    fn network(subnet: &str) -> Network {
        let subnet: IpNet = subnet.parse().unwrap();
        Network {
            subnets: vec![Subnet {
                subnet,
                gateway: subnet.addr(),
                range: None,
                auxiliary: Default::default(),
            }],
            ..bare("net", Driver::Overlay)
        }
    }

    #[test]
    fn a_network_that_would_take_something_from_a_host_is_refused_by_the_hosts_name() {
        let prefixes = Prefixes {
            host: "two".to_owned(),
            networks: vec!["10.5.0.0/16".parse().unwrap()],
            routes: vec!["10.6.1.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
        };
        for (subnet, by) in [
            ("10.5.1.0/24", "10.5.0.0/16 of another network"),
            ("10.6.0.0/16", "10.6.1.0/24, which the host has"),
        ] {
            let refused = prefixes.check(&network(subnet)).unwrap_err().message;
            assert!(
                refused.starts_with("on host two: Pool overlaps") && refused.contains(by),
                "{refused}"
            );
        }
        // a route to more than the network: the network goes before
        assert!(prefixes.check(&network("10.7.0.0/16")).is_ok());
    }
}
