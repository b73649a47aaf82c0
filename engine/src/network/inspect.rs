//! Networks for those who look.

use sluice_model::{Endpoint, Network};

use crate::{Engine, EngineError, network::options};

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
    pub async fn inspect_network(&self, name: &str) -> Result<(Network, Vec<Endpoint>), EngineError> {
        let mut network = self.networks.find(name)?;
        self.tell_mtu(&mut network).await;
        let endpoints = self.networks.in_network(&network.id);
        Ok((network, endpoints))
    }

    /// Where the default network's options speak of an MTU that follows the way out, they say what it is now.
    async fn tell_mtu(&self, network: &mut Network) {
        if network.mtu_follows && !network.is_on_bridge() && network.options.contains_key(options::MTU) {
            network.mtu = self.agent.default_mtu().await;
            network.options.insert(options::MTU.to_owned(), network.mtu.to_string());
        }
    }
}
