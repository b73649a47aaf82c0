//! Networks that several hosts share.
//!
//! What the hosts tell each other stands in etcd; each follows it ([`follow`]) and keeps a copy among its own records, so that its agent reads one store,
//! and goes on with what it knows while etcd is away. A host tells of itself and of its endpoints on a lease ([`membership`]): when it dies, what it told
//! goes. Names and addresses are claimed in one transaction each before they are used ([`claim`]), and given back by comparing what was told with what is
//! there ([`agree`]), which is also how a host that was cut off tells anew what it really runs. Nothing is locked.

pub(crate) mod agree;
pub(crate) mod claim;
pub(crate) mod compare;
pub(crate) mod follow;
pub(crate) mod membership;
pub(crate) mod network;
pub(crate) mod prefixes;
pub(crate) mod reach;
pub(crate) mod seal;
pub(crate) mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use jiff::Timestamp;
use sluice_model::{Host, Id, RemoteEndpoint};
use sluice_store::{
    Lease, Revision, Transaction, Write,
    etcd::{Etcd, EtcdOptions},
    key,
};
use tokio::{sync::Notify, sync::watch, time};

use crate::{Engine, EngineError};

/// For how long a start of the daemon waits for etcd before it goes on without.
const PATIENCE_AT_START: Duration = Duration::from_secs(3);
/// For how long a container's start waits for etcd when this host is not (again) in the cluster.
const PATIENCE: Duration = Duration::from_secs(2);

/// How this host takes part in a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where etcd is.
    pub etcd: EtcdOptions,
    /// Where the other hosts reach this one: `--cluster-advertise`.
    pub advertise: Vec<Advertise>,
    /// The UDP port at which it takes what they send.
    pub vxlan_port: u16,
    /// The UDP port at which it takes what they send encrypted.
    pub seal_port: u16,
    /// How long the key that it is known by for that is used.
    pub key_life: Duration,
    /// How long the others take it for alive when nothing is heard of it.
    pub lease: Duration,
}

/// Where a host is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Advertise {
    /// At this address.
    Address(IpAddr),
    /// At those of this device.
    Device(String),
}

/// What the engine knows of its cluster.
pub(crate) struct Cluster {
    options: ClusterOptions,
    /// Open once etcd was reached for the first time.
    etcd: watch::Sender<Option<Arc<Etcd>>>,
    /// The lease, while this host has one.
    lease: watch::Sender<Option<Lease>>,
    /// How far the others' records were followed.
    followed: watch::Sender<Followed>,
    told: Mutex<Told>,
    /// How many endpoints each other host has in each network.
    residents: Mutex<Residents>,
    /// Held while what was told is compared with what is there.
    agreeing: tokio::sync::Mutex<()>,
    /// There is something to compare.
    disagrees: Notify,
    /// The lease may have ended.
    doubt: Notify,
    /// What this host has for itself may have changed.
    prefixes: Notify,
    /// Why this host cannot encrypt; none: it can, or nobody has looked yet.
    unsealed: Mutex<Option<String>>,
    /// The kernel was asked, and has no WireGuard.
    no_wireguard: AtomicBool,
}

/// How far the others' records were followed.
#[derive(Clone, Default, Debug)]
pub(crate) struct Followed {
    /// All is known up to here; 0: nothing yet.
    pub revision: Revision,
    /// When this was reached.
    pub at: Option<Timestamp>,
    /// Why it does not go on.
    pub trouble: Option<String>,
}

/// How many endpoints hosts have, by network and host.
type Residents = BTreeMap<Id, BTreeMap<String, usize>>;

/// What etcd was told of this host's endpoints.
#[derive(Default)]
struct Told {
    endpoints: BTreeMap<Id, Announced>,
    /// Endpoints that are being told of.
    claiming: BTreeSet<Id>,
    /// Endpoints that are being taken off their networks, as what they had went to others.
    losing: BTreeSet<Id>,
    /// Networks that etcd has forgotten and is being told of anew.
    restoring: BTreeSet<Id>,
    /// This host.
    host: Option<Host>,
    /// The revision at which it was told of.
    host_told: Revision,
    /// How far this host has come.
    reached: Revision,
    /// The others are about to be told how far.
    telling_reached: bool,
}

/// An endpoint that etcd knows of.
#[derive(Clone, Debug)]
struct Announced {
    record: RemoteEndpoint,
    /// Whose end is its end; none: another's, of an earlier life of this daemon.
    lease: Option<Lease>,
    revision: Revision,
}

// === impl Cluster ===

impl Cluster {
    pub(crate) fn new(options: ClusterOptions) -> Self {
        Self {
            options,
            etcd: watch::Sender::new(None),
            lease: watch::Sender::new(None),
            followed: watch::Sender::default(),
            told: Mutex::default(),
            residents: Mutex::default(),
            agreeing: Default::default(),
            disagrees: Notify::default(),
            doubt: Notify::default(),
            prefixes: Notify::default(),
            unsealed: Mutex::default(),
            no_wireguard: AtomicBool::default(),
        }
    }

    /// Etcd, once it was reached.
    pub(crate) fn etcd(&self) -> Result<Arc<Etcd>, EngineError> {
        self.etcd.borrow().clone().ok_or_else(|| {
            EngineError::failed(format!(
                "etcd at {} was not reached since the daemon started",
                self.options.etcd.members.join(", ")
            ))
        })
    }

    /// The lease, for which is waited a while: it may just be taken.
    async fn lease(&self) -> Result<Lease, EngineError> {
        let mut lease = self.lease.subscribe();
        let waited = time::timeout(PATIENCE, lease.wait_for(Option::is_some)).await;
        let lease = waited.ok().and_then(Result::ok).and_then(|lease| *lease);
        lease.ok_or_else(|| {
            let why = self.followed.borrow().trouble.clone();
            EngineError::failed(format!(
                "this host is cut off from its cluster: {}",
                why.unwrap_or_else(|| format!("etcd at {} does not answer", self.options.etcd.members.join(", ")))
            ))
        })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn residents(&self) -> MutexGuard<'_, Residents> {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint of another host came, or went.
    fn count(&self, endpoint: &RemoteEndpoint, comes: bool) {
        let mut residents = self.residents();
        let of_network = residents.entry(endpoint.network.clone()).or_default();
        let count = of_network.entry(endpoint.host.clone()).or_default();
        *count = match comes {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        if *count == 0 {
            of_network.remove(&endpoint.host);
        }
    }

    /// What is not as it should be is looked at soon.
    fn disagrees(&self) {
        self.disagrees.notify_one();
    }

    fn trouble(&self, why: String) {
        self.followed.send_if_modified(|followed| {
            let is_new = followed.trouble.as_ref() != Some(&why);
            if is_new {
                tracing::warn!("{why}");
                followed.trouble = Some(why);
            }
            is_new
        });
    }
}

impl Engine {
    /// Joins the cluster, if there is one, and waits a while until it is joined; goes on trying in the background.
    pub(crate) async fn join_cluster(self: &Arc<Self>) -> Result<(), EngineError> {
        let Some(cluster) = self.cluster.clone() else {
            return self.forget_cluster().await;
        };
        for task in [
            Box::pin(self.clone().belong(cluster.clone())) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
            Box::pin(self.clone().follow(cluster.clone())),
            Box::pin(self.clone().keep_agreeing(cluster.clone())),
            Box::pin(self.clone().keep_sealed(cluster.clone())),
            Box::pin(self.clone().keep_telling_prefixes(cluster.clone())),
        ] {
            self.in_background(task);
        }
        let mut followed = cluster.followed.subscribe();
        let joined = async {
            let _ = followed.wait_for(|followed| followed.revision > 0).await;
            let _ = cluster.lease.subscribe().wait_for(Option::is_some).await;
        };
        if time::timeout(PATIENCE_AT_START, joined).await.is_err() {
            tracing::warn!(
                "the cluster is not joined yet: etcd at {} does not answer; networks of this host work, and it is tried on",
                cluster.options.etcd.members.join(", ")
            );
        }
        Ok(())
    }

    /// What an earlier life knew of other hosts is no more.
    async fn forget_cluster(&self) -> Result<(), EngineError> {
        self.agent.unseal().await?;
        let mut writes = Vec::new();
        for prefix in [key::HOSTS, key::REMOTE_ENDPOINTS, key::THIS_HOST] {
            let (entries, _) = self.store.list(prefix).await?;
            writes.extend(entries.into_iter().map(|entry| Write::Delete(entry.key)));
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.commit(Transaction {
            conditions: vec![],
            writes,
        })
        .await
        .map(drop)
    }

    /// The cluster, for whoever wants to do something in it.
    pub(crate) fn cluster_for(&self, what: &str) -> Result<&Arc<Cluster>, EngineError> {
        self.cluster.as_ref().ok_or_else(|| {
            EngineError::new(
                crate::Kind::Forbidden,
                format!(
                    "{what}: this daemon belongs to no cluster: start it with --cluster-store etcd://… and --cluster-advertise"
                ),
            )
        })
    }
}
