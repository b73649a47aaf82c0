//! Takes a container's places in networks away again: all of them at its end, or one while it runs.

use std::sync::Arc;

use sluice_model::{Container, Endpoint, Id, Network, network::Family};
use sluice_store::{Transaction, Write, key, record};

use crate::{
    Engine, EngineError,
    container::held::Held,
    network::{connect::check, defaults, place, register::Places},
};

/// The writes that end a container's sandbox and endpoints. Fine when there are none.
pub(crate) fn writes(container: &Id, endpoints: &[Endpoint]) -> Vec<Write> {
    let mut writes = vec![Write::Delete(key::sandbox(container))];
    writes.extend(endpoint_writes(endpoints));
    writes
}

/// The writes that end endpoints alone.
pub(crate) fn endpoint_writes(endpoints: &[Endpoint]) -> Vec<Write> {
    let mut writes = Vec::new();
    for endpoint in endpoints {
        writes.push(Write::Delete(key::endpoint(&endpoint.id)));
        for address in &endpoint.addresses {
            writes.push(Write::Delete(key::address(&endpoint.network, address.addr())));
        }
    }
    writes
}

impl Engine {
    /// Takes a container off a network; with `force` also one that nobody knows any more.
    pub async fn disconnect_network(&self, network: &str, container: &str, force: bool) -> Result<(), EngineError> {
        let network = self.networks.find(network)?;
        let held = match self.containers.find(container) {
            Ok(held) => held,
            // what a container that is gone had on a network went with it
            Err(_) if force => return Ok(()),
            Err(error) => return Err(error),
        };
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            let record = held.record();
            check(&record, &network)?;
            if record.state.is_alive() {
                return engine.leave(&held, &record, &network).await;
            }
            let mut after = record.clone();
            if after.networks.remove(&network.name).is_none() {
                return Err(not_there(&record, &network));
            }
            held.change(|container| container.networks = after.networks);
            engine.save(&held).await
        })
        .await
    }

    /// The story of a running container; the caller holds its lock.
    async fn leave(
        self: &Arc<Self>,
        held: &Arc<Held>,
        container: &Container,
        network: &Network,
    ) -> Result<(), EngineError> {
        let present = self.networks.of_container(&held.id);
        let (gone, mut left): (Vec<Endpoint>, Vec<Endpoint>) =
            present.into_iter().partition(|endpoint| endpoint.network == network.id);
        let [gone] = gone.as_slice() else {
            return Err(not_there(container, network));
        };
        let mut after = container.clone();
        after.networks.remove(&network.name);

        let heirs = self.inherit(gone, &mut left, &after);
        let mut writes = endpoint_writes(std::slice::from_ref(gone));
        for heir in &heirs {
            writes.push(Write::Put(key::endpoint(&heir.id), record::encode(heir)?));
        }
        writes.push(Write::Put(key::container(&held.id), record::encode(&after)?));
        self.commit_release(Transaction {
            writes,
            ..Default::default()
        })
        .await?;
        {
            let mut places = self.networks.places();
            places.release(gone);
            for heir in heirs {
                bequeath(&mut places, heir);
            }
        }
        held.change(|container| container.networks = after.networks);
        self.tell_of_ended().await;
        // the device is gone, and another leads out, when the answer comes
        let revision = self.released.load(std::sync::atomic::Ordering::Acquire);
        self.agent.settled(revision, &[]).await?;
        self.rewrite_hosts(held);
        self.tell_networks("disconnect", &held.id, std::slice::from_ref(gone));
        Ok(())
    }

    /// What the endpoint that goes did for its container, leading out and publishing ports, another does from now on: which have changed by it.
    fn inherit(&self, gone: &Endpoint, left: &mut [Endpoint], container: &Container) -> Vec<Endpoint> {
        let networks: Vec<Option<Network>> = left
            .iter()
            .map(|endpoint| self.networks.find(endpoint.network.as_str()).ok())
            .collect();
        let mut order: Vec<usize> = (0..left.len()).collect();
        order.sort_by_key(|index| {
            let name = networks[*index].as_ref().map(|network| network.name.clone());
            let wish = name.as_ref().and_then(|name| container.networks.get(name));
            (std::cmp::Reverse(wish.map_or(0, |wish| wish.gateway_priority)), name)
        });
        let mut changed = std::collections::BTreeSet::new();
        let heir = |leads: &dyn Fn(&Network) -> bool| {
            order
                .iter()
                .copied()
                .find(|index| networks[*index].as_ref().is_some_and(leads))
        };
        for gateway in &gone.gateways {
            let family = Family::of(*gateway);
            if let Some(index) = heir(&|network| place::leads(network, family))
                && let Some(network) = &networks[index]
            {
                place::lead(&mut left[index], network, family);
                changed.insert(index);
            }
        }
        if !gone.ports.is_empty()
            && let Some(index) = heir(&|network| place::publishes(network))
        {
            left[index].ports.extend(gone.ports.iter().copied());
            changed.insert(index);
        }
        changed.into_iter().map(|index| left[index].clone()).collect()
    }

    /// Gives back, in memory, what the endpoints had; to be called when their end is committed.
    pub(crate) fn release(&self, endpoints: &[Endpoint]) {
        let mut places = self.networks.places();
        for endpoint in endpoints {
            places.release(endpoint);
        }
        drop(places);
        self.others_are_told();
    }

    /// Tells that a container came to or left its networks.
    pub(crate) fn tell_networks(&self, action: &str, container: &Id, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            let view = self.networks.view(endpoint);
            let driver = self
                .networks
                .find(endpoint.network.as_str())
                .map(|network| network.driver);
            let attributes = vec![
                ("container".to_owned(), container.to_string()),
                ("name".to_owned(), view.network_name),
                (
                    "type".to_owned(),
                    driver.map_or("bridge", defaults::driver_name).to_owned(),
                ),
            ];
            self.events
                .tell("network", action, endpoint.network.as_str(), attributes);
        }
    }

    /// Tells that a network came or went.
    pub(crate) fn tell_network(&self, action: &str, network: &Network) {
        let attributes = vec![
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), defaults::driver_name(network.driver).to_owned()),
        ];
        self.events.tell("network", action, network.id.as_str(), attributes);
    }
}

/// Enters what an endpoint has become; the ports it got are its own now.
fn bequeath(places: &mut Places, heir: Endpoint) {
    places.ports.release(&heir.id);
    for port in &heir.ports {
        places.ports.enter(&heir.id, port);
    }
    places.endpoints.insert(heir.id.clone(), heir);
}

fn not_there(container: &Container, network: &Network) -> EngineError {
    EngineError::forbidden(format!(
        "container {} is not connected to network {}",
        container.id, network.name
    ))
}
