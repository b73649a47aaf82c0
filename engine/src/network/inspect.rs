//! Networks for those who look.

use sluice_model::{Endpoint, Network};

use crate::{Engine, EngineError};

impl Engine {
    /// Networks, and whether somebody is on each.
    pub async fn list_networks(&self) -> Result<Vec<(Network, bool)>, EngineError> {
        let used = self.networks.used();
        Ok(self
            .networks
            .all()
            .into_iter()
            .map(|network| {
                let is_used = used.contains(&network.id);
                (network, is_used)
            })
            .collect())
    }

    /// By id, prefix or name; with its endpoints.
    pub async fn inspect_network(&self, name: &str) -> Result<(Network, Vec<Endpoint>), EngineError> {
        let network = self.networks.find(name)?;
        let endpoints = self.networks.in_network(&network.id);
        Ok((network, endpoints))
    }
}
