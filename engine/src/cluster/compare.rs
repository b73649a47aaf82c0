//! The copy of what the other hosts tell is compared with all that etcd has, and what differs is changed.
//!
//! There may be a hundred thousand records on either side. Both tell them in the same order, a page at a time, so that they are compared as they come
//! and never held all at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use sluice_model::{Id, Network, RemoteEndpoint};
use sluice_policy::document::Kept;
use sluice_store::{
    Entry, Pages, Revision, Store, StoreError,
    etcd::Etcd,
    key::{self, shared},
};

use super::{
    Announced, Cluster, Residents,
    follow::{Copy, readable},
};
use crate::{Engine, EngineError};

/// The copy of one kind of records, in order.
struct Here {
    /// What keys of the copy begin with.
    prefix: &'static str,
    pages: Pages,
    page: VecDeque<Entry>,
}

/// What etcd has, as far as more than the copy is to know of it.
#[derive(Default)]
struct Found {
    networks: Vec<Network>,
    /// Also those that cannot be read.
    network_ids: BTreeSet<String>,
    /// Keys that documents on who may speak to whom have here.
    policies: BTreeSet<String>,
    /// Addresses of other hosts' endpoints, by network.
    addresses: BTreeMap<Id, Vec<IpAddr>>,
    /// How many endpoints other hosts have.
    residents: Residents,
    /// What was told of this host's endpoints.
    own: BTreeMap<Id, RemoteEndpoint>,
    /// Etcd knows of this host.
    is_told_of: bool,
}

impl Engine {
    /// Makes the copy what etcd has, and answers the revision that it has it at.
    pub(super) async fn copy_all(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        etcd: &Etcd,
    ) -> Result<Revision, StoreError> {
        let failed = |why: EngineError| StoreError::Failed(why.message);
        let (mut pages, revision) = etcd.pages(shared::ALL).await?;
        let mut hosts = self.here(key::HOSTS).await?;
        let mut endpoints = self.here(key::REMOTE_ENDPOINTS).await?;
        let mut found = Found::default();
        while let Some(page) = pages.next().await {
            let mut copy = Copy::default();
            for entry in page? {
                if let Some(id) = entry.key.strip_prefix(shared::HOSTS) {
                    if id == self.identity {
                        found.is_told_of = true;
                    } else {
                        hosts.becomes(key::host(id), entry.value, &mut copy).await?;
                    }
                } else if let Some(id) = entry.key.strip_prefix(shared::NETWORKS) {
                    found.network_ids.insert(id.to_owned());
                    found.networks.extend(readable(&entry.key, &entry.value));
                } else if let Some(name) = entry.key.strip_prefix(shared::POLICIES) {
                    let key = key::policy(name);
                    if self.store.get(&key).await?.is_none_or(|here| here.value != entry.value) {
                        copy.put(key.clone(), entry.value);
                    }
                    found.policies.insert(key);
                } else if let Some(place) = entry.key.strip_prefix(shared::ENDPOINTS)
                    && let Some(endpoint) = readable::<RemoteEndpoint>(&entry.key, &entry.value)
                {
                    if endpoint.host == self.identity {
                        found.own.insert(endpoint.id.clone(), endpoint);
                        continue;
                    }
                    let key = format!("{}{place}", key::REMOTE_ENDPOINTS);
                    endpoints.becomes(key, entry.value, &mut copy).await?;
                    let of_network = found.residents.entry(endpoint.network.clone()).or_default();
                    *of_network.entry(endpoint.host).or_default() += 1;
                    let of_network = found.addresses.entry(endpoint.network).or_default();
                    of_network.extend(endpoint.addresses.iter().map(IpNet::addr));
                }
            }
            self.write_copy(cluster, copy).await.map_err(failed)?;
        }
        let mut copy = Copy::default();
        hosts.ends(&mut copy).await?;
        endpoints.ends(&mut copy).await?;
        for entry in self.store.list(key::POLICIES).await?.0 {
            // Those of this host alone are none of the cluster's business.
            let is_copy = readable::<Kept>(&entry.key, &entry.value).is_some_and(|kept| kept.shared);
            if is_copy && !found.policies.contains(&entry.key) {
                copy.delete(entry.key);
            }
        }
        let shared_here = self.networks.all().into_iter().filter(Network::is_shared);
        copy.networks_gone = shared_here
            .map(|network| network.id)
            .filter(|id| !found.network_ids.contains(id.as_str()))
            .collect();
        for network in found.networks {
            copy.network(self.copy_network(network).map_err(failed)?);
        }
        self.networks.others_have(found.addresses);
        *cluster.residents() = found.residents;
        self.write_copy(cluster, copy).await.map_err(failed)?;
        self.compare_told(cluster, found.own, found.is_told_of, revision);
        Ok(revision)
    }

    async fn here(&self, prefix: &'static str) -> Result<Here, StoreError> {
        let (pages, _) = self.store.pages(prefix).await?;
        Ok(Here {
            prefix,
            pages,
            page: VecDeque::new(),
        })
    }

    /// What is believed to be told of this host is what is told.
    fn compare_told(&self, cluster: &Cluster, own: BTreeMap<Id, RemoteEndpoint>, is_told_of: bool, revision: Revision) {
        let known = cluster.followed.borrow().revision;
        let mut told = cluster.told();
        if revision < known {
            tracing::warn!(
                "etcd was restored from an older copy, of revision {revision} (revision {known} was known here): it is told all anew"
            );
            told.endpoints.clear();
            told.host_told = 0;
        }
        if !is_told_of && told.host_told <= revision {
            cluster.doubt.notify_one();
        }
        // what was told after the list was made is not in it
        told.endpoints
            .retain(|id, announced| announced.revision > revision || own.contains_key(id));
        for (id, record) in own {
            let before = told.endpoints.get(&id).filter(|before| before.record == record);
            let lease = before.and_then(|before| before.lease);
            if told.endpoints.get(&id).is_none_or(|before| before.revision <= revision) {
                let announced = Announced {
                    record,
                    lease,
                    revision,
                };
                told.endpoints.insert(id, announced);
            }
        }
    }
}

impl Here {
    /// The copy has this next: what comes before it is there no more.
    async fn becomes(&mut self, key: String, value: Vec<u8>, copy: &mut Copy) -> Result<(), StoreError> {
        while let Some(entry) = self.next_up_to(&key).await? {
            if entry.key != key {
                copy.delete(entry.key);
            } else if entry.value == value {
                return Ok(());
            }
        }
        copy.put(key, value);
        Ok(())
    }

    /// That was all.
    async fn ends(&mut self, copy: &mut Copy) -> Result<(), StoreError> {
        while let Some(entry) = self.next_up_to("\u{10ffff}").await? {
            copy.delete(entry.key);
        }
        Ok(())
    }

    /// The next one whose key does not come behind this one.
    async fn next_up_to(&mut self, key: &str) -> Result<Option<Entry>, StoreError> {
        while self.page.is_empty() {
            match self.pages.next().await {
                Some(page) => self
                    .page
                    .extend(page?.into_iter().filter(|entry| entry.key.starts_with(self.prefix))),
                None => return Ok(None),
            }
        }
        let is_due = self.page.front().is_some_and(|entry| entry.key.as_str() <= key);
        Ok(is_due.then(|| self.page.pop_front()).flatten())
    }
}
