//! Puts a container on a further network: a running one gets a device at once, one that does not run when it starts.

use std::{collections::BTreeSet, sync::Arc};

use sluice_model::{
    Container, Endpoint, Network,
    container::{NetworkMode, NetworkWish},
    network::Family,
};
use sluice_store::{Transaction, Write, key, record};

use crate::{
    Engine, EngineError,
    container::{directory, held::Held},
    network::{
        defaults::BRIDGE,
        disconnect, endpoint_options,
        place::{self, Joining},
    },
    undo::Undo,
};

/// What is said to who wants a container of another's or no namespace on a network.
const SHARED: &str =
    "container sharing network namespace with another container or host cannot be connected to any other network";
const PRIVATE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

impl Engine {
    /// Puts a container on a network.
    pub async fn connect_network(&self, network: &str, container: &str, wish: NetworkWish) -> Result<(), EngineError> {
        let network = self.networks.find(network)?;
        let held = self.containers.find(container)?;
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            let record = held.record();
            check(&record, &network)?;
            check_wish(&network, &wish)?;
            if record.state.is_alive() {
                let mut undo = Undo::default();
                let result = engine.join(&held, &record, Joining { network, wish }, &mut undo).await;
                if result.is_err() {
                    undo.go_back().await;
                }
                return result;
            }
            if record.networks.contains_key(&network.name) {
                return Err(there_already(&record, &network));
            }
            held.change(|container| {
                container.networks.insert(network.name.clone(), wish);
            });
            engine.save(&held).await
        })
        .await
    }

    /// The story of a running container; the caller holds its lock.
    async fn join(
        self: &Arc<Self>,
        held: &Arc<Held>,
        container: &Container,
        joining: Joining,
        undo: &mut Undo,
    ) -> Result<(), EngineError> {
        let network = joining.network.clone();
        let present = self.networks.of_container(&held.id);
        if present.iter().any(|endpoint| endpoint.network == network.id) {
            return Err(there_already(container, &network));
        }
        let wish = joining.wish.clone();
        let (mut endpoint, yielding) = self.take_led_endpoint(container, &present, &joining)?;
        let claimed = self.claim_endpoint(&mut endpoint, &network, &wish).await;
        undo.by("give the place in the network back", {
            let (engine, endpoint, present) = (self.clone(), endpoint.clone(), present.clone());
            async move {
                let mut places = engine.networks.places();
                places.release(&endpoint);
                for before in present {
                    places.endpoints.insert(before.id.clone(), before);
                }
                drop(places);
                engine.others_are_told();
                Ok(())
            }
        });
        claimed?;
        let mut after = container.clone();
        after.networks.insert(network.name.clone(), wish);
        let mut transaction = Transaction::default();
        place::write_endpoint(&mut transaction, &endpoint)?;
        for other in &yielding {
            transaction
                .writes
                .push(Write::Put(key::endpoint(&other.id), record::encode(other)?));
        }
        let key = key::container(&held.id);
        transaction
            .writes
            .push(Write::Put(key.clone(), record::encode(&after)?));
        undo.by("take the endpoint away", {
            let (engine, endpoint) = (self.clone(), endpoint.clone());
            let before = record::encode(container)?;
            let led = present
                .iter()
                .map(|other| Ok(Write::Put(key::endpoint(&other.id), record::encode(other)?)))
                .collect::<Result<Vec<Write>, EngineError>>()?;
            async move {
                let mut writes = disconnect::endpoint_writes(&[endpoint]);
                writes.extend(led);
                writes.push(Write::Put(key, before));
                let transaction = Transaction {
                    writes,
                    ..Default::default()
                };
                engine.commit_release(transaction).await
            }
        });
        let revision = self.commit(transaction).await?;
        self.agent.settled(revision, &[endpoint.id.as_str()]).await?;
        self.wait_for_others(&[(endpoint.clone(), network)]).await;
        held.change(|container| container.networks = after.networks);
        self.rewrite_hosts(held);
        self.tell_networks("connect", &held.id, &[endpoint]);
        Ok(())
    }

    /// Takes an endpoint that leads where none of those present does, or where its user wants it more than what leads: these are changed by it.
    /// Among equals one that leads already goes on doing so: its flows stay as they are.
    fn take_led_endpoint(
        &self,
        container: &Container,
        present: &[Endpoint],
        joining: &Joining,
    ) -> Result<(Endpoint, Vec<Endpoint>), EngineError> {
        let network = &joining.network;
        let mut places = self.networks.places();
        let mut endpoint = self.take_endpoint(&mut places, container, joining)?;
        let (mut after, mut yielding) = (present.to_vec(), BTreeSet::new());
        for family in Family::BOTH {
            if !place::leads(network, family) {
                continue;
            }
            let leads = |other: &Endpoint| other.gateways.iter().any(|gateway| Family::of(*gateway) == family);
            match after.iter().position(leads) {
                None => place::lead(&mut endpoint, network, family),
                Some(index) if joining.wish.gateway_priority > self.priority(container, &after[index]) => {
                    after[index].gateways.retain(|gateway| Family::of(*gateway) != family);
                    yielding.insert(index);
                    place::lead(&mut endpoint, network, family);
                }
                Some(_) => {}
            }
        }
        if place::publishes(network) && present.iter().all(|other| other.ports.is_empty()) {
            self.publish(&mut places, container, &mut endpoint, network)
                .inspect_err(|_| places.release(&endpoint))?;
        }
        places.endpoints.insert(endpoint.id.clone(), endpoint.clone());
        let yielding: Vec<Endpoint> = yielding.into_iter().map(|index| after[index].clone()).collect();
        for other in &yielding {
            places.endpoints.insert(other.id.clone(), other.clone());
        }
        Ok((endpoint, yielding))
    }

    /// How much a container's user wants a network to lead.
    fn priority(&self, container: &Container, endpoint: &Endpoint) -> i64 {
        let network = self.networks.find(endpoint.network.as_str());
        let wish = network
            .ok()
            .and_then(|network| container.networks.get(&network.name).cloned());
        wish.map_or(0, |wish| wish.gateway_priority)
    }

    /// The container's `/etc/hosts` names its addresses as they are now. That it cannot be written is no reason to go back.
    pub(crate) fn rewrite_hosts(&self, held: &Held) {
        let endpoints = self.networks.of_container(&held.id);
        let gateway = endpoints.iter().find_map(|endpoint| endpoint.gateways.first().copied());
        let record = held.record();
        let linked = self.linked_and_running(&record);
        if let Err(error) = directory::write_hosts(&self.config, &record, &endpoints, gateway, &linked) {
            tracing::warn!("/etc/hosts of container {} names its old addresses: {error}", held.id);
        }
        let networks: Vec<Network> = endpoints
            .iter()
            .filter_map(|endpoint| self.networks.find(endpoint.network.as_str()).ok())
            .collect();
        if networks.len() == endpoints.len()
            && let Err(error) = directory::rewrite_resolv(&self.config, &held.record(), &endpoints, &networks)
        {
            tracing::warn!("/etc/resolv.conf of container {} is as it was: {error}", held.id);
        }
    }
}

fn there_already(container: &Container, network: &Network) -> EngineError {
    EngineError::forbidden(format!(
        "endpoint with name {} already exists in network {}",
        container.name, network.name
    ))
}

/// May the container be put on this network (or be taken off it)?
pub(crate) fn check(container: &Container, network: &Network) -> Result<(), EngineError> {
    match network.name.as_str() {
        "host" => {
            return Err(EngineError::invalid(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        "none" => return Err(EngineError::invalid(PRIVATE)),
        _ => {}
    }
    match container.host_config.network_mode {
        NetworkMode::Host | NetworkMode::Container(_) => Err(EngineError::invalid(SHARED)),
        NetworkMode::None => Err(EngineError::invalid(PRIVATE)),
        NetworkMode::Default | NetworkMode::Network(_) => Ok(()),
    }
}

/// Does what the user wants of a place fit the network?
pub(crate) fn check_wish(network: &Network, wish: &NetworkWish) -> Result<(), EngineError> {
    let asks = wish.ipv4.is_some() || wish.ipv6.is_some();
    if network.name == BRIDGE && asks {
        return Err(EngineError::invalid(
            "user specified IP address is supported on user defined networks only",
        ));
    }
    if network.name == BRIDGE && !wish.aliases.is_empty() {
        return Err(EngineError::invalid(
            "network-scoped alias is supported only for containers in user defined networks",
        ));
    }
    if network.name == BRIDGE && !wish.links.is_empty() {
        return Err(EngineError::invalid(
            "links in the configuration of a network are supported only for containers in user defined networks",
        ));
    }
    let addresses = [wish.ipv4.map(Into::into), wish.ipv6.map(Into::into)];
    for address in addresses.into_iter().flatten() {
        let address: std::net::IpAddr = address;
        if !network.subnets.iter().any(|subnet| subnet.subnet.contains(&address)) {
            return Err(EngineError::invalid(format!(
                "invalid config for network {}: no configured subnet contains IP address {address}",
                network.name
            )));
        }
    }
    if wish.mac.is_some_and(|mac| mac.0[0] & 1 != 0 || mac.0 == [0; 6]) {
        return Err(EngineError::invalid(format!(
            "invalid config for network {}: the MAC address is no device's: it is a group's, or all zeros",
            network.name
        )));
    }
    endpoint_options::sysctls(wish)?;
    if let Some(name) = &wish.interface
        && (name.is_empty() || name.len() > 15 || name == "lo" || name.contains(['/', ' ', '\0']))
    {
        return Err(EngineError::invalid(format!("no device can be called {name:?}")));
    }
    Ok(())
}
