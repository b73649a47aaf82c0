//! The cluster for those who look.

use jiff::Timestamp;
use sluice_model::{Host, RemoteEndpoint};
use sluice_store::{
    Revision,
    etcd::MemberHealth,
    key::{self, shared},
    record,
};

use super::Advertise;
use crate::{Engine, EngineError};

/// How the cluster is, seen from this host.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// This host, when it has told of itself.
    pub host: Option<Host>,
    /// The id of this host's daemon.
    pub id: String,
    /// Where the others are told to reach it.
    pub advertise: Vec<Advertise>,
    /// Is it in the cluster now?
    pub lease: Option<i64>,
    /// How long a host is taken for alive of which nothing is heard, seconds.
    pub lease_seconds: u64,
    /// What stands before every key in etcd.
    pub prefix: String,
    /// Etcd's members.
    pub members: Vec<MemberHealth>,
    /// All is known up to here.
    pub revision: Revision,
    /// When that was reached.
    pub reached: Option<Timestamp>,
    /// Etcd's revision; none: it does not answer.
    pub present: Option<Revision>,
    /// Records that have changed since and are not known here yet; a hundred at most are counted.
    pub behind: Option<usize>,
    /// What is not as it should be.
    pub trouble: Option<String>,
    /// All hosts that are up, with the number of their endpoints on shared networks.
    pub hosts: Vec<(Host, usize)>,
}

impl Engine {
    /// Does this host share networks with others?
    pub fn is_in_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// How the cluster is; an error when this daemon belongs to none.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, EngineError> {
        let cluster = self.cluster_for("cannot tell how the cluster is")?;
        let followed = cluster.followed.borrow().clone();
        let etcd = cluster.etcd.borrow().clone();
        let (mut present, mut behind, mut members) = (None, None, Vec::new());
        let mut trouble = followed.trouble.clone();
        if let Some(etcd) = &etcd {
            let (since, health) = tokio::join!(etcd.since(shared::ALL, followed.revision), etcd.health());
            members = health;
            match since {
                Ok((revision, changed)) => (present, behind) = (Some(revision), Some(changed)),
                Err(why) => trouble = Some(why.to_string()),
            }
        }
        let mut hosts = Vec::new();
        let own = cluster.told().host.clone();
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for entry in self.store.list(key::REMOTE_ENDPOINTS).await?.0 {
            let endpoint: RemoteEndpoint = record::decode(&entry.key, &entry.value)?;
            *counts.entry(endpoint.host).or_default() += 1;
        }
        if let Some(own) = &own {
            hosts.push((own.clone(), self.networks.shared_endpoints().len()));
        }
        for entry in self.store.list(key::HOSTS).await?.0 {
            let host: Host = record::decode(&entry.key, &entry.value)?;
            let count = counts.get(&host.id).copied().unwrap_or(0);
            hosts.push((host, count));
        }
        hosts.sort_by(|one, two| (&one.0.name, &one.0.id).cmp(&(&two.0.name, &two.0.id)));
        let lease = *cluster.lease.borrow();
        Ok(ClusterStatus {
            host: own,
            id: self.identity.clone(),
            advertise: cluster.options.advertise.clone(),
            lease: lease.map(|lease| lease.0),
            lease_seconds: cluster.options.lease.as_secs(),
            prefix: cluster.options.etcd.prefix.clone(),
            members,
            // what nobody has changed is known
            revision: match (behind, present) {
                (Some(0), Some(present)) => present,
                _ => followed.revision,
            },
            reached: followed.at,
            present,
            behind,
            trouble,
            hosts,
        })
    }
}
