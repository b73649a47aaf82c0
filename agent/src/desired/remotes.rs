//! Endpoints on other hosts. There may be a hundred thousand, of which one changes: each takes little room, and what has changed since the tables were
//! written is remembered, so that nobody looks at all of them for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use sluice_model::RemoteEndpoint;

/// An endpoint's id.
pub type RemoteId = [u8; 32];

/// An endpoint on another host, as far as the tables know of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    /// The id of its host's daemon.
    pub host: Arc<str>,
    /// The id of its network.
    pub network: Arc<str>,
    /// Its addresses.
    pub addresses: Box<[IpAddr]>,
    /// The MAC of its device.
    pub mac: [u8; 6],
    /// What documents select it by.
    pub bearer: Box<Bearer>,
    /// All of it, where links may lead from or to it, or all hosts take packets for its ports.
    pub whole: Option<Box<RemoteEndpoint>>,
}

/// What documents on who may speak to whom know of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bearer {
    /// Its name.
    pub name: Box<str>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Endpoints on other hosts, by id.
#[derive(Clone, Default, Debug)]
pub struct Remotes {
    all: BTreeMap<RemoteId, Remote>,
    /// Those that are kept whole.
    whole: BTreeSet<RemoteId>,
    /// What has changed since [`Remotes::settle`], as it was then; none: it was not there.
    changed: BTreeMap<RemoteId, Option<Remote>>,
    /// Ids of hosts and networks, each once.
    words: BTreeSet<Arc<str>>,
}

impl Remotes {
    /// Takes a record in.
    pub fn put(&mut self, record: RemoteEndpoint) {
        let id = record.id.to_bytes();
        let is_more = !(record.links.is_empty() && record.exposed.is_empty() && record.ports.is_empty());
        let remote = Remote {
            host: self.word(&record.host),
            network: self.word(record.network.as_str()),
            addresses: record.addresses.iter().map(ipnet::IpNet::addr).collect(),
            mac: record.mac.0,
            bearer: Box::new(Bearer {
                name: record.name.as_str().into(),
                labels: record.labels.clone(),
            }),
            whole: is_more.then(|| Box::new(record)),
        };
        match is_more {
            true => self.whole.insert(id),
            false => self.whole.remove(&id),
        };
        let before = self.all.insert(id, remote);
        self.changed.entry(id).or_insert(before);
    }

    /// Takes a record away; true when it was there.
    pub fn remove(&mut self, id: RemoteId) -> bool {
        let Some(before) = self.all.remove(&id) else {
            return false;
        };
        self.whole.remove(&id);
        self.changed.entry(id).or_insert(Some(before));
        true
    }

    /// One of them.
    pub fn get(&self, id: &RemoteId) -> Option<&Remote> {
        self.all.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&RemoteId, &Remote)> {
        self.all.iter()
    }

    /// Those of which all is known: whoever has links, or what links and published ports lead to.
    pub fn whole(&self) -> impl Iterator<Item = (&RemoteId, &RemoteEndpoint)> {
        let records = self.whole.iter().filter_map(|id| self.all.get_key_value(id));
        records.filter_map(|(id, remote)| Some((id, &**remote.whole.as_ref()?)))
    }

    /// What has changed since [`Remotes::settle`], as it was then and as it is.
    pub fn changed(&self) -> impl Iterator<Item = (&RemoteId, Option<&Remote>, Option<&Remote>)> {
        self.changed
            .iter()
            .map(|(id, before)| (id, before.as_ref(), self.all.get(id)))
    }

    /// The tables are as the records are.
    pub fn settle(&mut self) {
        self.changed.clear();
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A word that many records have, once.
    fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(word) = self.words.get(text) {
            return word.clone();
        }
        // hosts and networks come seldom: those that are gone are looked for then
        self.words.retain(|word| Arc::strong_count(word) > 1);
        let word: Arc<str> = text.into();
        self.words.insert(word.clone());
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn what_has_changed_is_told_as_it_was_and_as_it_is_until_it_is_settled() {
        let mut remotes = Remotes::default();
        let (one, two) = (fixture::remote_endpoint(5, 2), fixture::remote_endpoint(6, 3));
        remotes.put(one.clone());
        remotes.put(two.clone());
        remotes.settle();
        assert_eq!(remotes.changed().count(), 0);
        let moved = RemoteEndpoint {
            host: "host3".into(),
            ..one.clone()
        };
        remotes.put(moved);
        remotes.put(one.clone());
        remotes.remove(two.id.to_bytes());
        let host = |remote: Option<&Remote>| remote.map(|remote| remote.host.to_string());
        let told: Vec<_> = remotes
            .changed()
            .map(|(id, before, now)| (*id, host(before), host(now)))
            .collect();
        let (host2, host3) = (Some("host2".to_owned()), Some("host3".to_owned()));
        assert_eq!(
            told,
            [
                (one.id.to_bytes(), host2.clone(), host2),
                (two.id.to_bytes(), host3, None)
            ]
        );
        assert!(!remotes.remove(two.id.to_bytes()));
    }

    #[test]
    fn who_has_only_an_address_takes_little_room() {
        let mut remotes = Remotes::default();
        let mut record = fixture::remote_endpoint(5, 2);
        remotes.put(record.clone());
        assert_eq!(remotes.whole().count(), 0);
        record.ports = vec![fixture::port("0.0.0.0", 8080, 80)];
        remotes.put(record.clone());
        assert_eq!(remotes.whole().next().unwrap().1, &record);
        record.ports.clear();
        remotes.put(record);
        assert_eq!(remotes.whole().count(), 0);
        assert!(size_of::<Remote>() <= 72, "{}", size_of::<Remote>());
    }

    #[test]
    fn words_of_hosts_that_are_gone_are_forgotten() {
        let mut remotes = Remotes::default();
        for number in 1..=200 {
            let record = fixture::remote_endpoint(5, number);
            remotes.put(record);
            remotes.settle();
        }
        assert!(remotes.words.len() <= 3, "{}", remotes.words.len());
    }
}
