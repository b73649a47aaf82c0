//! Networks for those who look.

use sluice_model::{Endpoint, Network};

use crate::{Engine, EngineError};

impl Engine {
    /// Networks.
    pub async fn list_networks(&self) -> Result<Vec<Network>, EngineError> {
        Ok(self.networks.all())
    }

    /// By id, prefix or name; with its endpoints.
    pub async fn inspect_network(&self, name: &str) -> Result<(Network, Vec<Endpoint>), EngineError> {
        let network = self.networks.find(name)?;
        let endpoints = self.networks.in_network(&network.id);
        Ok((network, endpoints))
    }
}
