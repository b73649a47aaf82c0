//! What this host should have: the store's networks, endpoints and sandboxes, folded from its entries and events.

use std::collections::BTreeMap;

use sluice_model::{Endpoint, Host, Network, RemoteEndpoint, Sandbox};
use sluice_store::{Entry, Event, StoreError, key, record};

/// Records by the last part of their keys, which is their id.
#[derive(Clone, Default, Debug)]
pub struct Desired {
    /// Networks.
    pub networks: BTreeMap<String, Network>,
    /// Endpoints.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Sandboxes.
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// This host as the others see it; none: it is in no cluster.
    pub this_host: Option<Host>,
    /// The other hosts of the cluster that are there.
    pub hosts: BTreeMap<String, Host>,
    /// Endpoints on other hosts. One whose host is not among those that are there has no way to it.
    pub remote: BTreeMap<String, RemoteEndpoint>,
    /// What could not be read, by id. It is passed over, never guessed; its devices are left alone until it can be read or is deleted.
    pub unreadable: BTreeMap<String, String>,
}

impl Desired {
    /// From everything under the store's root.
    pub fn of(entries: &[Entry]) -> Self {
        let mut desired = Self::default();
        for entry in entries {
            desired.put(&entry.key, &entry.value);
        }
        desired
    }

    /// Takes a change in and says whether it concerns the kernel at all.
    pub fn fold(&mut self, event: &Event) -> bool {
        match event {
            Event::Put(entry) => self.put(&entry.key, &entry.value),
            Event::Deleted(key, _) => self.delete(key),
        }
    }

    fn put(&mut self, key: &str, value: &[u8]) -> bool {
        let outcome = if let Some(id) = key.strip_prefix(key::NETWORKS) {
            keep(&mut self.networks, id, record::decode(key, value))
        } else if let Some(id) = key.strip_prefix(key::ENDPOINTS) {
            keep(&mut self.endpoints, id, record::decode(key, value))
        } else if let Some(id) = key.strip_prefix(key::SANDBOXES) {
            keep(&mut self.sandboxes, id, record::decode(key, value))
        } else if key.starts_with(key::REMOTE_ENDPOINTS) {
            keep(&mut self.remote, id_of(key), record::decode(key, value))
        } else if let Some(id) = key.strip_prefix(key::HOSTS) {
            keep(&mut self.hosts, id, record::decode(key, value))
        } else if key == key::THIS_HOST {
            record::decode(key, value).map(|host| self.this_host = Some(host))
        } else {
            return false;
        };
        let id = id_of(key).to_owned();
        match outcome {
            Ok(()) => drop(self.unreadable.remove(&id)),
            Err(error) => drop(self.unreadable.insert(id, error.to_string())),
        }
        true
    }

    fn delete(&mut self, key: &str) -> bool {
        let concerned = if let Some(id) = key.strip_prefix(key::NETWORKS) {
            self.networks.remove(id).is_some()
        } else if let Some(id) = key.strip_prefix(key::ENDPOINTS) {
            self.endpoints.remove(id).is_some()
        } else if let Some(id) = key.strip_prefix(key::SANDBOXES) {
            self.sandboxes.remove(id).is_some()
        } else if key.starts_with(key::REMOTE_ENDPOINTS) {
            self.remote.remove(id_of(key)).is_some()
        } else if let Some(id) = key.strip_prefix(key::HOSTS) {
            self.hosts.remove(id).is_some()
        } else if key == key::THIS_HOST {
            self.this_host.take().is_some()
        } else {
            return false;
        };
        self.unreadable.remove(id_of(key)).is_some() || concerned
    }
}

fn id_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

fn keep<T>(records: &mut BTreeMap<String, T>, id: &str, record: Result<T, StoreError>) -> Result<(), StoreError> {
    records.insert(id.to_owned(), record?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn put(key: String, value: Vec<u8>) -> Event {
        Event::Put(Entry {
            key,
            value,
            modified: 1,
        })
    }

    #[test]
    fn records_come_change_and_go_with_events() {
        let mut desired = Desired::default();
        let mut endpoint = fixture::endpoint(1, 7);
        assert!(desired.fold(&put(key::endpoint(&endpoint.id), record::encode(&endpoint).unwrap())));
        endpoint.generation = 9;
        assert!(desired.fold(&put(key::endpoint(&endpoint.id), record::encode(&endpoint).unwrap())));
        assert_eq!(desired.endpoints[endpoint.id.as_str()].generation, 9);
        assert!(desired.fold(&Event::Deleted(key::endpoint(&endpoint.id), 3)));
        assert!(desired.endpoints.is_empty());
        assert!(
            !desired.fold(&Event::Deleted(key::endpoint(&endpoint.id), 4)),
            "it was gone already"
        );
    }

    #[test]
    fn other_hosts_and_their_endpoints_come_and_go() {
        let mut desired = Desired::default();
        let (host, endpoint) = (fixture::host(2), fixture::remote_endpoint(5, 2));
        let place = key::remote_endpoint(&endpoint.network, &endpoint.id);
        assert!(desired.fold(&put(key::THIS_HOST.to_owned(), record::encode(&host).unwrap())));
        assert!(desired.fold(&put(key::host(&host.id), record::encode(&host).unwrap())));
        assert!(desired.fold(&put(place.clone(), record::encode(&endpoint).unwrap())));
        assert_eq!(desired.this_host.as_ref(), Some(&host));
        assert_eq!(desired.hosts[&host.id], host);
        assert_eq!(desired.remote[endpoint.id.as_str()], endpoint);
        for gone in [key::THIS_HOST.to_owned(), key::host(&host.id), place] {
            assert!(desired.fold(&Event::Deleted(gone.clone(), 3)));
            assert!(!desired.fold(&Event::Deleted(gone, 4)));
        }
        assert!(desired.remote.is_empty() && desired.hosts.is_empty() && desired.this_host.is_none());
    }

    #[test]
    fn what_is_not_for_the_kernel_is_passed_over() {
        let mut desired = Desired::default();
        assert!(!desired.fold(&put(key::name("web"), b"{}".to_vec())));
        assert!(!desired.fold(&Event::Deleted(key::name("web"), 2)));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_told_and_leaves_the_one_before_in_force() {
        let mut desired = Desired::default();
        let endpoint = fixture::endpoint(1, 7);
        let key = key::endpoint(&endpoint.id);
        desired.fold(&put(key.clone(), record::encode(&endpoint).unwrap()));
        assert!(desired.fold(&put(key.clone(), b"{\"version\":2}".to_vec())));
        assert!(desired.unreadable[endpoint.id.as_str()].contains("version 2"));
        assert_eq!(desired.endpoints[endpoint.id.as_str()], endpoint);
        desired.fold(&put(key, record::encode(&endpoint).unwrap()));
        assert!(desired.unreadable.is_empty());
    }
}
