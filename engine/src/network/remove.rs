//! Removes networks that nobody is on.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use sluice_model::{Id, Network};
use sluice_store::{Transaction, Write, key};

use crate::{Engine, EngineError, network::defaults};

/// What of networks is pruned.
#[derive(Clone, Debug, Default)]
pub struct PruneNetworks {
    /// Only those made before.
    pub until: Option<Timestamp>,
    /// Only those with all these labels (`name` or `name=value`).
    pub labels: Vec<String>,
    /// Only those with none of these.
    pub labels_not: Vec<String>,
}

impl Engine {
    /// Removes a network.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.carry_out(|engine| async move {
            let _story = engine.networks.story.lock().await;
            let network = engine.networks.find(&name)?;
            if defaults::is_built_in(&network.name) {
                return Err(EngineError::forbidden(format!(
                    "{} is a pre-defined network and cannot be removed",
                    network.name
                )));
            }
            engine.unmake(network).await
        })
        .await
    }

    /// Removes all networks that nobody is on, but those that are always there; answers their names.
    pub async fn prune_networks(&self, which: PruneNetworks) -> Result<Vec<String>, EngineError> {
        self.carry_out(|engine| async move {
            let _story = engine.networks.story.lock().await;
            let mut removed = Vec::new();
            for network in engine.networks.all() {
                if defaults::is_built_in(&network.name) || !which.wants(&network) {
                    continue;
                }
                let name = network.name.clone();
                match engine.unmake(network).await {
                    Ok(()) => removed.push(name),
                    // somebody is on it
                    Err(error) if error.kind == crate::Kind::Forbidden => {}
                    Err(error) => tracing::warn!("cannot prune network {name}: {error}"),
                }
            }
            Ok(removed)
        })
        .await
    }

    /// The story itself; the caller holds the lock of networks.
    async fn unmake(self: &Arc<Self>, network: Network) -> Result<(), EngineError> {
        self.networks.strike_if_empty(&network.id).map_err(|endpoints| {
            let endpoints = endpoints.iter().map(|endpoint| (endpoint.name.as_str(), &endpoint.id));
            in_use(&network, endpoints)
        })?;
        if network.is_shared() {
            let gone = self.unmake_shared(&network).await;
            gone.inspect_err(|_| self.networks.enter(network.clone()))?;
        }
        let mut writes = vec![Write::Delete(key::network(&network.id))];
        if !network.is_shared() {
            writes.push(Write::Delete(key::network_name(&network.name)));
        }
        let gone = self
            .commit(Transaction {
                writes,
                ..Default::default()
            })
            .await;
        let revision = gone.inspect_err(|_| self.networks.enter(network.clone()))?;
        self.agent.settled(revision, &[]).await?;
        self.tell_network("destroy", &network);
        Ok(())
    }
}

/// Docker's words for a network that somebody is on, named by name and id.
pub(crate) fn in_use<'a>(network: &Network, endpoints: impl Iterator<Item = (&'a str, &'a Id)>) -> EngineError {
    let names: Vec<String> = endpoints
        .map(|(name, id)| format!("name:\"{name}\" id:\"{}\"", id.short()))
        .collect();
    EngineError::forbidden(format!(
        "error while removing network: network {} id {} has active endpoints ({})",
        network.name,
        network.id,
        names.join(", ")
    ))
}

impl PruneNetworks {
    fn wants(&self, network: &Network) -> bool {
        let old = self.until.is_none_or(|until| network.created < until);
        let has = |label: &String| bears(label, &network.labels);
        old && self.labels.iter().all(has) && !self.labels_not.iter().any(has)
    }
}

fn bears(label: &str, labels: &BTreeMap<String, String>) -> bool {
    match label.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|given| given == value),
        None => labels.contains_key(label),
    }
}
