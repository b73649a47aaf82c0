//! What this host should have: the store's networks, endpoints, sandboxes and documents on who may speak to whom, folded from its entries and events.

use std::collections::BTreeMap;

use sluice_model::{Endpoint, Host, Id, Network, Sandbox};
use sluice_policy::{Policy, document::Kept};
use sluice_store::{Event, StoreError, key, record};

pub use remotes::{Remote, RemoteId, Remotes};

mod remotes;

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
    pub remotes: Remotes,
    /// Documents on who may speak to whom, by name.
    pub policies: BTreeMap<String, Policy>,
    /// What could not be read, by id. It is passed over, never guessed; its devices are left alone until it can be read or is deleted.
    pub unreadable: BTreeMap<String, String>,
}

/// What a change of a record has to do with the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Concern {
    /// Nothing.
    #[default]
    Nothing,
    /// It concerns endpoints on other hosts only, which have no devices here.
    Remotes,
    /// Everything is looked at.
    All,
}

impl Desired {
    /// Takes a change in and says what it concerns.
    pub fn fold(&mut self, event: &Event) -> Concern {
        match event {
            Event::Put(entry) => self.put(&entry.key, &entry.value),
            Event::Deleted(key, _) => self.delete(key),
        }
    }

    /// Takes a record in.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Concern {
        let mut concern = Concern::All;
        let outcome = if let Some(id) = key.strip_prefix(key::NETWORKS) {
            keep(&mut self.networks, id, record::decode(key, value))
        } else if let Some(id) = key.strip_prefix(key::ENDPOINTS) {
            keep(&mut self.endpoints, id, record::decode(key, value))
        } else if let Some(id) = key.strip_prefix(key::SANDBOXES) {
            keep(&mut self.sandboxes, id, record::decode(key, value))
        } else if key.starts_with(key::REMOTE_ENDPOINTS) {
            concern = Concern::Remotes;
            record::decode(key, value).map(|record| self.remotes.put(record))
        } else if let Some(id) = key.strip_prefix(key::HOSTS) {
            keep(&mut self.hosts, id, record::decode(key, value))
        } else if let Some(name) = key.strip_prefix(key::POLICIES) {
            keep(
                &mut self.policies,
                name,
                record::decode::<Kept>(key, value).map(|kept| kept.policy),
            )
        } else if key == key::THIS_HOST {
            record::decode(key, value).map(|host| self.this_host = Some(host))
        } else {
            return Concern::Nothing;
        };
        match outcome {
            Ok(()) if self.unreadable.is_empty() => concern,
            Ok(()) => match self.unreadable.remove(id_of(key)) {
                Some(_) => Concern::All,
                None => concern,
            },
            Err(error) => {
                self.unreadable.insert(id_of(key).to_owned(), error.to_string());
                Concern::All
            }
        }
    }

    fn delete(&mut self, key: &str) -> Concern {
        let mut concern = Concern::All;
        let concerned = if let Some(id) = key.strip_prefix(key::NETWORKS) {
            self.networks.remove(id).is_some()
        } else if let Some(id) = key.strip_prefix(key::ENDPOINTS) {
            self.endpoints.remove(id).is_some()
        } else if let Some(id) = key.strip_prefix(key::SANDBOXES) {
            self.sandboxes.remove(id).is_some()
        } else if key.starts_with(key::REMOTE_ENDPOINTS) {
            concern = Concern::Remotes;
            Id::parse(id_of(key)).is_some_and(|id| self.remotes.remove(id.to_bytes()))
        } else if let Some(id) = key.strip_prefix(key::HOSTS) {
            self.hosts.remove(id).is_some()
        } else if let Some(name) = key.strip_prefix(key::POLICIES) {
            self.policies.remove(name).is_some()
        } else if key == key::THIS_HOST {
            self.this_host.take().is_some()
        } else {
            return Concern::Nothing;
        };
        match self.unreadable.remove(id_of(key)) {
            Some(_) => Concern::All,
            None if concerned => concern,
            None => Concern::Nothing,
        }
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
    use sluice_store::Entry;

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
        let there = put(key::endpoint(&endpoint.id), record::encode(&endpoint).unwrap());
        assert_eq!(desired.fold(&there), Concern::All);
        endpoint.generation = 9;
        let there = put(key::endpoint(&endpoint.id), record::encode(&endpoint).unwrap());
        assert_eq!(desired.fold(&there), Concern::All);
        assert_eq!(desired.endpoints[endpoint.id.as_str()].generation, 9);
        let gone = Event::Deleted(key::endpoint(&endpoint.id), 3);
        assert_eq!(desired.fold(&gone), Concern::All);
        assert!(desired.endpoints.is_empty());
        assert_eq!(desired.fold(&gone), Concern::Nothing, "it was gone already");
    }

    #[test]
    fn other_hosts_and_their_endpoints_come_and_go() {
        let mut desired = Desired::default();
        let (host, endpoint) = (fixture::host(2), fixture::remote_endpoint(5, 2));
        let place = key::remote_endpoint(&endpoint.network, &endpoint.id);
        let host_record = record::encode(&host).unwrap();
        assert_eq!(
            desired.fold(&put(key::THIS_HOST.to_owned(), host_record.clone())),
            Concern::All
        );
        assert_eq!(desired.fold(&put(key::host(&host.id), host_record)), Concern::All);
        let there = put(place.clone(), record::encode(&endpoint).unwrap());
        assert_eq!(desired.fold(&there), Concern::Remotes);
        assert_eq!(desired.this_host.as_ref(), Some(&host));
        assert_eq!(desired.hosts[&host.id], host);
        let remote = desired.remotes.get(&endpoint.id.to_bytes()).unwrap();
        assert_eq!(
            (&*remote.host, &*remote.network),
            (host.id.as_str(), endpoint.network.as_str())
        );
        for (gone, concern) in [
            (key::THIS_HOST.to_owned(), Concern::All),
            (key::host(&host.id), Concern::All),
            (place, Concern::Remotes),
        ] {
            assert_eq!(desired.fold(&Event::Deleted(gone.clone(), 3)), concern);
            assert_eq!(desired.fold(&Event::Deleted(gone, 4)), Concern::Nothing);
        }
        assert!(desired.remotes.is_empty() && desired.hosts.is_empty() && desired.this_host.is_none());
    }

    #[test]
    fn what_is_not_for_the_kernel_is_passed_over() {
        let mut desired = Desired::default();
        assert_eq!(desired.fold(&put(key::name("web"), b"{}".to_vec())), Concern::Nothing);
        assert_eq!(desired.fold(&Event::Deleted(key::name("web"), 2)), Concern::Nothing);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_told_and_leaves_the_one_before_in_force() {
        let mut desired = Desired::default();
        let endpoint = fixture::endpoint(1, 7);
        let key = key::endpoint(&endpoint.id);
        desired.fold(&put(key.clone(), record::encode(&endpoint).unwrap()));
        assert_eq!(
            desired.fold(&put(key.clone(), b"{\"version\":2}".to_vec())),
            Concern::All
        );
        assert!(desired.unreadable[endpoint.id.as_str()].contains("version 2"));
        assert_eq!(desired.endpoints[endpoint.id.as_str()], endpoint);
        desired.fold(&put(key, record::encode(&endpoint).unwrap()));
        assert!(desired.unreadable.is_empty());
    }
}
