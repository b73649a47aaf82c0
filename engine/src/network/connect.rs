//! Gives a container its place in the network: a sandbox, and in it an endpoint with address, number and ports.
//!
//! Everything is chosen in memory under one lock, then committed in one transaction; the agent makes it real.

use std::sync::atomic::Ordering;

use ipnet::IpNet;
use sluice_model::{Container, Endpoint, Id, MacAddress, Network, Sandbox, container::NetworkMode, network::Driver};
use sluice_store::{Condition, Transaction, Write, key, record};

use crate::{
    Engine, EngineError, Kind,
    network::{defaults::BRIDGE, ports},
};

/// What a container has of the network while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Its namespace; none: the host's.
    pub sandbox: Option<Sandbox>,
    /// Its endpoint and the network that is in.
    pub endpoint: Option<(Endpoint, Network)>,
}

impl Engine {
    /// The network a mode means; none: the host's namespace, or one with only loopback.
    pub(crate) fn network_of_mode(&self, mode: &NetworkMode) -> Result<Network, EngineError> {
        self.networks.find(match mode {
            NetworkMode::Default => BRIDGE,
            NetworkMode::Host => "host",
            NetworkMode::None => "none",
            NetworkMode::Network(name) => name,
        })
    }

    /// Chooses a place. It is taken in memory until [`Engine::give_up_place`].
    pub(crate) async fn choose_place(&self, container: &Container) -> Result<Place, EngineError> {
        let before = self.released.load(Ordering::Acquire);
        match self.try_place(container) {
            // the port of a container that just ended is refused by the kernel until the agent has caught up
            Err(error) if error.kind == Kind::Failed && before > 0 => {
                self.agent.settled(before, &[]).await?;
                self.try_place(container)
            }
            result => result,
        }
    }

    fn try_place(&self, container: &Container) -> Result<Place, EngineError> {
        let network = self.network_of_mode(&container.host_config.network_mode)?;
        let sandbox = Sandbox {
            id: container.id.clone(),
            path: self.config.sandbox(&container.id),
        };
        match network.driver {
            Driver::Host => Ok(Place::default()),
            Driver::Null => Ok(Place {
                sandbox: Some(sandbox),
                endpoint: None,
            }),
            Driver::Bridge => {
                let endpoint = self.take_endpoint(container, &network)?;
                Ok(Place {
                    sandbox: Some(sandbox),
                    endpoint: Some((endpoint, network)),
                })
            }
        }
    }

    fn take_endpoint(&self, container: &Container, network: &Network) -> Result<Endpoint, EngineError> {
        let subnet = network
            .subnets
            .first()
            .ok_or_else(|| EngineError::failed(format!("network {} has no subnet", network.name)))?;
        let id = Id::from_bytes(rand::random());
        let host = &container.host_config;
        let wishes = ports::wishes(
            &host.port_bindings,
            &container.config.exposed_ports,
            host.publish_all_ports,
        );
        let ephemeral = if wishes.iter().any(|wish| wish.host_ports == (0, 0)) {
            ports::ephemeral_range()
        } else {
            (0, 0)
        };

        let mut places = self.networks.places();
        let published = places
            .ports
            .take(&id, &wishes, network.default_binding, ephemeral, &ports::try_bind)
            .map_err(|error| {
                let doing = format!(
                    "driver failed programming external connectivity on endpoint {} ({id})",
                    container.name
                );
                error.within(&doing)
            })?;
        let address = places
            .ipam
            .take(&network.id, subnet)
            .inspect_err(|_| places.ports.release(&id))?;
        let (number, generation) = places.numbers.take().inspect_err(|_| {
            places.ports.release(&id);
            places.ipam.release(&network.id, address);
        })?;
        let mac = match address {
            std::net::IpAddr::V4(address) => MacAddress::of_ipv4(address),
            std::net::IpAddr::V6(_) => MacAddress::default(),
        };
        let endpoint = Endpoint {
            id: id.clone(),
            number,
            generation,
            network: network.id.clone(),
            container: container.id.clone(),
            name: container.name.clone(),
            sandbox: container.id.clone(),
            interface: "eth0".to_owned(),
            addresses: IpNet::new(address, subnet.subnet.prefix_len()).into_iter().collect(),
            mac,
            ports: published,
        };
        places.endpoints.insert(id, endpoint.clone());
        Ok(endpoint)
    }

    /// Gives a place back, in memory.
    pub(crate) fn give_up_place(&self, place: &Place) {
        if let Some((endpoint, _)) = &place.endpoint {
            self.networks.places().release(endpoint);
        }
    }
}

impl Place {
    /// The writes that make it desired, and what must be true for them.
    pub fn write(&self) -> Result<Transaction, EngineError> {
        let mut transaction = Transaction::default();
        if let Some(sandbox) = &self.sandbox {
            transaction
                .writes
                .push(Write::Put(key::sandbox(&sandbox.id), record::encode(sandbox)?));
        }
        if let Some((endpoint, network)) = &self.endpoint {
            for address in &endpoint.addresses {
                let key = key::address(&network.id, address.addr());
                transaction.conditions.push(Condition::Absent(key.clone()));
                transaction
                    .writes
                    .push(Write::Put(key, endpoint.id.as_str().as_bytes().to_vec()));
            }
            transaction
                .writes
                .push(Write::Put(key::endpoint(&endpoint.id), record::encode(endpoint)?));
        }
        Ok(transaction)
    }

    /// The ids the agent is asked about.
    pub fn subjects(&self) -> Vec<&str> {
        let endpoint = self.endpoint.as_ref().map(|(endpoint, _)| endpoint.id.as_str());
        endpoint
            .into_iter()
            .chain(self.sandbox.as_ref().map(|sandbox| sandbox.id.as_str()))
            .collect()
    }
}
