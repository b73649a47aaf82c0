//! Networks for those who look.

use sluice_model::{Endpoint, Host, Id, Network, RemoteEndpoint, container::NetworkMode, network::Driver};
use sluice_store::{Entry, StoreError, key, record};

use crate::{Engine, EngineError, network::options};

/// A network and who is on it.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// The network.
    pub network: Network,
    /// Its endpoints on this host.
    pub endpoints: Vec<Endpoint>,
    /// Containers that run with the network `host` or `none`, which gives them no place, with their names.
    pub placeless: Vec<(Id, String)>,
    /// This host, where the network is on others, too.
    pub host: Option<Host>,
    /// Its endpoints on other hosts, with these.
    pub remote: Vec<(RemoteEndpoint, Host)>,
}

fn read_one<T: serde::de::DeserializeOwned>(entry: Option<Entry>) -> Result<Option<T>, StoreError> {
    entry.map(|entry| record::decode(&entry.key, &entry.value)).transpose()
}

fn read_all<T: serde::de::DeserializeOwned>(entries: &[Entry]) -> Result<Vec<T>, StoreError> {
    let read = |entry: &Entry| record::decode(&entry.key, &entry.value);
    entries.iter().map(read).collect()
}

impl Engine {
    /// Networks, and whether somebody is on each.
    pub async fn list_networks(&self) -> Result<Vec<(Network, bool)>, EngineError> {
        let used = self.networks.used();
        let mut networks = Vec::new();
        for mut network in self.networks.all() {
            self.tell_mtu(&mut network).await;
            let is_used = used.contains(&network.id);
            networks.push((network, is_used));
        }
        Ok(networks)
    }

    /// By id, prefix or name; with its endpoints.
    pub async fn inspect_network(&self, name: &str) -> Result<NetworkView, EngineError> {
        let mut network = self.networks.find(name)?;
        self.tell_mtu(&mut network).await;
        let mut view = NetworkView {
            endpoints: self.networks.in_network(&network.id),
            placeless: self.placeless(&network),
            network,
            host: None,
            remote: vec![],
        };
        if view.network.is_shared() {
            view.host = read_one(self.store.get(key::THIS_HOST).await?)?;
            let hosts: Vec<Host> = read_all(&self.store.list(key::HOSTS).await?.0)?;
            let prefix = key::remote_endpoints(&view.network.id);
            let remote: Vec<RemoteEndpoint> = read_all(&self.store.list(&prefix).await?.0)?;
            // one whose host is gone is about to go
            view.remote = remote
                .into_iter()
                .filter_map(|endpoint| {
                    let host = hosts.iter().find(|host| host.id == endpoint.host)?;
                    Some((endpoint, host.clone()))
                })
                .collect();
        }
        Ok(view)
    }

    fn placeless(&self, network: &Network) -> Vec<(Id, String)> {
        let wanted = match network.driver {
            Driver::Host => NetworkMode::Host,
            Driver::Null => NetworkMode::None,
            _ => return Vec::new(),
        };
        let all = self.containers.all();
        let found = all.iter().filter_map(|held| {
            held.look(|container| {
                let is_there = container.state.is_alive() && container.host_config.network_mode == wanted;
                is_there.then(|| (container.id.clone(), container.name.clone()))
            })
        });
        found.collect()
    }

    /// Where the default network's options speak of an MTU that follows the way out, they say what it is now.
    async fn tell_mtu(&self, network: &mut Network) {
        if network.mtu_follows && !network.is_on_bridge() && network.options.contains_key(options::MTU) {
            network.mtu = self.agent.default_mtu().await;
            network.options.insert(options::MTU.to_owned(), network.mtu.to_string());
        }
    }
}
