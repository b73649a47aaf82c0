//! By what the others reach this host when they encrypt: it is told with the host, and changed from time to time.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sluice_model::{Network, host::Seal};
use sluice_store::{Store, StoreError, Transaction, Write, etcd::Etcd, key::shared, record};
use tokio::time::{Instant, sleep};

use super::Cluster;
use crate::{Engine, EngineError, Kind};

/// How often it is looked whether the device is there, and has its key still.
const OFTEN: Duration = Duration::from_secs(10);
/// Between two attempts to tell.
const PAUSE: Duration = Duration::from_secs(1);

/// The host's clock, beside one that nobody sets.
///
/// WireGuard's greetings bear the time, and who has heard one from a key listens to no older one (so that nobody says it again): a host whose clock was
/// set back is heard when it has another key.
struct WallClock {
    began: Instant,
    /// The time at which the other clock began, by this one.
    origin: Duration,
}

impl WallClock {
    fn new() -> Self {
        let began = Instant::now();
        let origin = Self::now();
        Self { began, origin }
    }

    fn now() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Since the last look?
    fn was_set_back(&mut self) -> bool {
        self.has_moved_to(Self::now().saturating_sub(self.began.elapsed()))
    }

    /// By more than clocks drift.
    fn has_moved_to(&mut self, origin: Duration) -> bool {
        const DRIFT: Duration = Duration::from_secs(1);
        let before = std::mem::replace(&mut self.origin, origin);
        origin + DRIFT < before
    }
}

impl Engine {
    /// By what the others reach this host when they encrypt; none: it cannot, and why is remembered.
    pub(super) async fn own_seal(&self, cluster: &Cluster) -> Option<Seal> {
        // each question makes the kernel look for a module
        if cluster.no_wireguard.load(Ordering::Relaxed) {
            return None;
        }
        let (seal, why) = match self.agent.seal(cluster.options.seal_port).await {
            Ok(Some(seal)) => (Some(seal), None),
            Ok(None) => {
                cluster.no_wireguard.store(true, Ordering::Relaxed);
                (None, Some("its kernel has no WireGuard".to_owned()))
            }
            Err(error) => (None, Some(error.to_string())),
        };
        let mut unsealed = cluster.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        if *unsealed != why {
            if let Some(why) = &why {
                tracing::info!("this host cannot be on encrypted networks: {why}");
            }
            *unsealed = why;
        }
        seal
    }

    /// Refuses to have to do with a network on this host if it is to be encrypted and cannot be.
    pub(super) fn check_seal(&self, cluster: &Cluster, network: &Network, doing: &str) -> Result<(), EngineError> {
        if !network.encrypted {
            return Ok(());
        }
        let unsealed = cluster.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        match unsealed.as_ref() {
            None => Ok(()),
            Some(why) => Err(EngineError::new(
                Kind::Forbidden,
                format!("{doing}: the network is encrypted, and this host cannot encrypt: {why}"),
            )),
        }
    }

    /// Changes the key when it is old, and tells the others when what they were told is not so any more. Never ends.
    pub(super) async fn keep_sealed(self: Arc<Self>, cluster: Arc<Cluster>) {
        // by a clock that nobody sets
        let mut since = Instant::now();
        let life = cluster.options.key_life;
        let mut untold = false;
        let mut clock = WallClock::new();
        loop {
            sleep(OFTEN.min(life)).await;
            let (Some(etcd), true) = (cluster.etcd.borrow().clone(), cluster.lease.borrow().is_some()) else {
                continue;
            };
            let told = cluster.told().host.as_ref().and_then(|host| host.seal.clone());
            let was_set_back = clock.was_set_back();
            let changed = match (since.elapsed() >= life || was_set_back) && told.is_some() {
                true => {
                    since = Instant::now();
                    self.renew_key(&cluster, &etcd).await
                }
                false if untold || self.own_seal(&cluster).await != told => self.tell_self(&cluster, &etcd).await,
                false => Ok(()),
            };
            untold = changed.is_err();
            if let Err(why) = changed {
                cluster.trouble(format!("the cluster cannot be told of this host's key: {why}"));
            }
        }
    }

    /// A new key, and word of it. When nobody can be told the old one stays; whether they were told is not known then, so it is told anew.
    async fn renew_key(&self, cluster: &Cluster, etcd: &Etcd) -> Result<(), EngineError> {
        // whoever does not answer this will not take a key either
        let Some(lease) = *cluster.lease.borrow() else {
            return Ok(());
        };
        etcd.renew(lease).await?;
        let (_, old) = self.agent.renew_seal(cluster.options.seal_port).await?;
        let Err(why) = self.tell_self(cluster, etcd).await else {
            tracing::info!("this host has a new key for what is encrypted between hosts");
            return Ok(());
        };
        self.agent.put_seal_back(old).await?;
        while let Err(why) = self.tell_self(cluster, etcd).await {
            cluster.trouble(format!("the cluster cannot be told of this host's key: {why}"));
            sleep(PAUSE).await;
        }
        Err(why)
    }

    /// Tells the others of this host as it is now.
    async fn tell_self(&self, cluster: &Cluster, etcd: &Etcd) -> Result<(), EngineError> {
        let host = self.present_self(cluster).await?;
        // without a lease it is told with the next one
        let Some(lease) = *cluster.lease.borrow() else {
            return Ok(());
        };
        let writes = vec![Write::Lend(shared::host(&host.id), record::encode(&host)?, lease)];
        let transaction = Transaction {
            conditions: vec![],
            writes,
        };
        match etcd.commit(transaction).await {
            Ok(revision) => {
                let mut told = cluster.told();
                told.host_told = told.host_told.max(revision);
                Ok(())
            }
            Err(StoreError::LeaseLost(_)) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_is_noticed_once_and_one_that_drifts_or_is_set_forward_is_not() {
        let mut clock = WallClock::new();
        let at = clock.origin;
        assert!(!clock.was_set_back());
        assert!(!clock.has_moved_to(at + Duration::from_secs(3600)), "forward");
        assert!(clock.has_moved_to(at), "back");
        assert!(!clock.has_moved_to(at));
        assert!(!clock.has_moved_to(at - Duration::from_millis(300)), "drift");
    }
}
