//! A container's place: its sandbox, and in it an endpoint in each of its networks, with addresses, number and ports.
//!
//! Everything is chosen in memory under one lock, then committed in one transaction; the agent makes it real.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::atomic::Ordering};

use ipnet::IpNet;
use sluice_model::{
    Container, Endpoint, Id, MacAddress, Network, Sandbox,
    container::{NetworkMode, NetworkWish},
    network::{Driver, Family, GatewayMode},
};
use sluice_store::{Condition, Transaction, Write, key, record};

use crate::{
    DefaultBridge, Engine, EngineError, Kind,
    container::spec,
    network::{
        defaults::BRIDGE, endpoint_options, links::Linked, options, ports, register::Places, resolv, sharing::Shared,
        sources,
    },
};

/// The label that says where a container's published ports are: `mesh`, at all hosts of the cluster.
const PUBLISH: &str = "sluice.publish";

/// What a container has of the network while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Its namespace; none: the host's, or another container's.
    pub sandbox: Option<Sandbox>,
    /// The network of another that it shares.
    pub shared: Option<Shared>,
    /// Its endpoints and the networks they are in, in the order of their devices.
    pub endpoints: Vec<(Endpoint, Network)>,
    /// Those it is linked to on the default network.
    pub linked: Vec<Linked>,
}

/// One network that a container is to be on.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub network: Network,
    pub wish: NetworkWish,
}

impl Engine {
    /// The name of the network that a mode means; none where it means a namespace.
    pub(crate) fn network_name_of_mode(mode: &NetworkMode) -> Option<&str> {
        match mode {
            NetworkMode::Default => Some(BRIDGE),
            NetworkMode::Network(name) => Some(name),
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => None,
        }
    }

    /// The networks a container is to be on when it starts: that of its mode first, then the others by name. One that was taken off its last network
    /// is on none until it is put on one again.
    pub(crate) fn joinings(&self, container: &Container) -> Result<Vec<Joining>, EngineError> {
        let Some(of_mode) = Self::network_name_of_mode(&container.host_config.network_mode) else {
            return Ok(vec![]);
        };
        let mut joinings: Vec<Joining> = Vec::new();
        for (name, wish) in &container.networks {
            let network = self.networks.find(name)?;
            joinings.push(Joining {
                network,
                wish: wish.clone(),
            });
        }
        joinings.sort_by_key(|joining| joining.network.name != of_mode && joining.network.id.as_str() != of_mode);
        Ok(joinings)
    }

    /// Chooses a place. It is taken in memory until [`Engine::give_up_place`].
    pub(crate) async fn choose_place(&self, container: &Container) -> Result<Place, EngineError> {
        let before = self.released.load(Ordering::Acquire);
        let mut place = match self.try_place(container) {
            // the port of a container that just ended is refused by the kernel until the agent has caught up
            Err(error) if error.kind == Kind::Failed && before > 0 => {
                self.agent.settled(before, &[]).await?;
                self.try_place(container)
            }
            result => result,
        }?;
        match self.claim_place(container, &mut place).await {
            Ok(()) => Ok(place),
            Err(error) => {
                self.give_up_place(&place);
                Err(error)
            }
        }
    }

    /// In networks that are on several hosts the others must agree.
    async fn claim_place(&self, container: &Container, place: &mut Place) -> Result<(), EngineError> {
        for (endpoint, network) in &mut place.endpoints {
            let wish = container.networks.get(&network.name).cloned().unwrap_or_default();
            self.claim_endpoint(endpoint, network, &wish).await?;
        }
        Ok(())
    }

    fn try_place(&self, container: &Container) -> Result<Place, EngineError> {
        let sandbox = || {
            Some(Sandbox {
                id: container.id.clone(),
                path: self.config.sandbox(&container.id),
                resolver: resolv::Wish::of(&self.config, container).of_resolver(&resolv::of_host()),
            })
        };
        let mode = &container.host_config.network_mode;
        // as in Docker: without a default network a container that asks for none other has none
        let nowhere = self.config.bridge == DefaultBridge::None
            && *mode == NetworkMode::Default
            && container.networks.keys().all(|name| name == BRIDGE);
        match mode {
            NetworkMode::Default if nowhere => Ok(Place {
                sandbox: sandbox(),
                ..Place::default()
            }),
            NetworkMode::Host => Ok(Place::default()),
            NetworkMode::Container(name) => Ok(Place {
                shared: Some(self.shared_network(name, &container.id)?),
                ..Place::default()
            }),
            NetworkMode::None => Ok(Place {
                sandbox: sandbox(),
                ..Place::default()
            }),
            NetworkMode::Default | NetworkMode::Network(_) => {
                let linked = self.linked(container)?;
                let joinings = self.joinings(container)?;
                let endpoints = self.take_endpoints(container, &joinings)?;
                Ok(Place {
                    sandbox: sandbox(),
                    shared: None,
                    linked,
                    endpoints: endpoints
                        .into_iter()
                        .zip(joinings)
                        .map(|(endpoint, joining)| (endpoint, joining.network))
                        .collect(),
                })
            }
        }
    }

    /// Takes an endpoint in each of these networks, or none at all.
    fn take_endpoints(&self, container: &Container, joinings: &[Joining]) -> Result<Vec<Endpoint>, EngineError> {
        let mut places = self.networks.places();
        let mut taken: Vec<Endpoint> = Vec::new();
        let outcome = joinings.iter().try_for_each(|joining| {
            taken.push(self.take_endpoint(&mut places, container, joining)?);
            Ok(())
        });
        let outcome = outcome.and_then(|()| {
            let order = precedence(joinings);
            for family in Family::BOTH {
                let leader = order
                    .iter()
                    .copied()
                    .find(|index| leads(&joinings[*index].network, family));
                if let Some(index) = leader {
                    lead(&mut taken[index], &joinings[index].network, family);
                }
            }
            match order.iter().copied().find(|index| publishes(&joinings[*index].network)) {
                Some(index) => self.publish(&mut places, container, &mut taken[index], &joinings[index].network),
                None => Ok(()),
            }
        });
        if let Err(error) = outcome {
            taken.iter().for_each(|endpoint| places.release(endpoint));
            return Err(error);
        }
        for endpoint in &taken {
            places.endpoints.insert(endpoint.id.clone(), endpoint.clone());
        }
        Ok(taken)
    }

    /// Takes addresses, number and device name for an endpoint in one network: without ports, and leading nowhere yet.
    pub(crate) fn take_endpoint(
        &self,
        places: &mut Places,
        container: &Container,
        joining: &Joining,
    ) -> Result<Endpoint, EngineError> {
        let Joining { network, wish } = joining;
        let publish_from = sources::of(&container.config.labels, &self.config.publish_from)?;
        let offers_places = !matches!(network.driver, Driver::Host | Driver::Null);
        if !offers_places || !self.networks.has(&network.id) {
            return Err(EngineError::not_found(format!("network {} not found", network.name)));
        }
        let sysctls = endpoint_options::sysctls(wish)?;
        let addresses = take_addresses(places, network, wish)?;
        let give_back = |places: &mut Places| {
            for address in &addresses {
                places.ipam.release(&network.id, address.addr());
            }
        };
        let interface = match interface(places, container, network, wish) {
            Ok(interface) => interface,
            Err(error) => {
                give_back(places);
                return Err(error);
            }
        };
        let (number, generation) = places.numbers.take().inspect_err(|_| give_back(places))?;
        let endpoint = Endpoint {
            id: Id::from_bytes(rand::random()),
            number,
            generation,
            network: network.id.clone(),
            container: container.id.clone(),
            name: container.name.clone(),
            sandbox: container.id.clone(),
            interface,
            mac: wish.mac.unwrap_or_else(|| mac(&addresses)),
            addresses,
            ports: vec![],
            gateways: vec![],
            sysctls,
            labels: container.config.labels.clone(),
            aliases: aliases(container, wish),
            links: self.endpoint_links(container, network, wish),
            exposed: container.config.exposed_ports.clone(),
            publish_from,
            publish_mesh: network.is_shared() && container.config.labels.get(PUBLISH).is_some_and(|how| how == "mesh"),
        };
        // among those of the container at once: the next one must find another name for its device
        places.endpoints.insert(endpoint.id.clone(), endpoint.clone());
        Ok(endpoint)
    }

    /// Takes the container's ports for this endpoint.
    pub(crate) fn publish(
        &self,
        places: &mut Places,
        container: &Container,
        endpoint: &mut Endpoint,
        network: &Network,
    ) -> Result<(), EngineError> {
        let host = &container.host_config;
        let wishes = ports::wishes(
            &host.port_bindings,
            &container.config.exposed_ports,
            host.publish_all_ports,
        );
        if wishes.is_empty() {
            return Ok(());
        }
        if network.subnet(Family::V4).is_none()
            && let Some(wish) = wishes
                .iter()
                .find(|wish| wish.host_address.is_some_and(|address| address.is_ipv4()))
        {
            return Err(EngineError::invalid(format!(
                "port {} cannot be published at an IPv4 address: network {} has no IPv4",
                wish.container, network.name
            )));
        }
        let ephemeral = if wishes.iter().any(|wish| wish.host_ports == (0, 0)) {
            ports::ephemeral_range()
        } else {
            (0, 0)
        };
        endpoint.ports = places
            .ports
            .take(
                &endpoint.id,
                &wishes,
                ports::Binding::of(network),
                ephemeral,
                &ports::trial(wishes.iter().map(|wish| usize::from(wish.count)).sum()),
            )
            .map_err(|error| {
                let doing = format!(
                    "driver failed programming external connectivity on endpoint {} ({})",
                    container.name, endpoint.id
                );
                error.within(&doing)
            })?;
        Ok(())
    }

    /// Gives a place back, in memory.
    pub(crate) fn give_up_place(&self, place: &Place) {
        let mut places = self.networks.places();
        for (endpoint, _) in &place.endpoints {
            places.release(endpoint);
        }
        drop(places);
        self.others_are_told();
    }
}

/// The names a container has in a network besides its own: those the user gives it there, and its host name.
fn aliases(container: &Container, wish: &NetworkWish) -> Vec<String> {
    let mut aliases = wish.aliases.clone();
    let host_name = spec::host_name(container);
    if host_name != container.name && host_name != container.id.short() && !aliases.contains(&host_name) {
        aliases.push(host_name);
    }
    aliases
}

/// An address of each family that the network has: those the user asks for, else the next ones.
fn take_addresses(places: &mut Places, network: &Network, wish: &NetworkWish) -> Result<Vec<IpNet>, EngineError> {
    let mut addresses: Vec<IpNet> = Vec::new();
    let asked = |family| match family {
        Family::V4 => wish.ipv4.map(IpAddr::V4),
        Family::V6 => wish.ipv6.map(IpAddr::V6),
    };
    let outcome = Family::BOTH.into_iter().try_for_each(|family| {
        let Some(subnet) = network.subnet(family) else {
            return match asked(family) {
                Some(address) => Err(EngineError::invalid(format!(
                    "invalid config for network {}: no configured subnet contains IP address {address}",
                    network.name
                ))),
                None => Ok(()),
            };
        };
        let address = match asked(family) {
            Some(wanted) => {
                places.ipam.take_wanted(&network.id, subnet, wanted)?;
                wanted
            }
            None => places.ipam.take(&network.id, subnet)?,
        };
        addresses.extend(IpNet::new(address, subnet.subnet.prefix_len()));
        Ok(())
    });
    if let Err(error) = outcome {
        for address in &addresses {
            places.ipam.release(&network.id, address.addr());
        }
        return Err(error);
    }
    Ok(addresses)
}

/// The name of the device: the user's, else the first free one.
fn interface(
    places: &Places,
    container: &Container,
    network: &Network,
    wish: &NetworkWish,
) -> Result<String, EngineError> {
    let taken: BTreeSet<String> = places
        .endpoints
        .values()
        .filter(|endpoint| endpoint.container == container.id)
        .map(|endpoint| endpoint.interface.clone())
        .collect();
    match &wish.interface {
        Some(name) if taken.contains(name) => Err(EngineError::conflict(format!(
            "container {} has a device called {name} already",
            container.name
        ))),
        Some(name) => Ok(name.clone()),
        None => {
            let prefix = options::interface_prefix(network);
            let free = (0..)
                .map(|number| format!("{prefix}{number}"))
                .find(|name| !taken.contains(name));
            free.ok_or_else(|| EngineError::failed("no name is left for a device"))
        }
    }
}

/// Docker's rule where there is IPv4; of IPv6 alone none can be made that fits, so it is a random one, locally administered.
fn mac(addresses: &[IpNet]) -> MacAddress {
    let ipv4 = addresses.iter().find_map(|address| match address {
        IpNet::V4(address) => Some(address.addr()),
        IpNet::V6(_) => None,
    });
    ipv4.map_or_else(
        || {
            let [a, b, c, d] = rand::random::<u32>().to_be_bytes();
            MacAddress([0x02, 0x42, a, b, c, d])
        },
        MacAddress::of_ipv4,
    )
}

/// Which of several networks goes first in leading everywhere else: the one with the greatest priority, of these the first by name (Docker's rule).
fn precedence(joinings: &[Joining]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..joinings.len()).collect();
    order.sort_by_key(|index| {
        let Joining { network, wish } = &joinings[*index];
        (std::cmp::Reverse(wish.gateway_priority), network.name.clone())
    });
    order
}

/// Is there a way out of this network?
pub(crate) fn leads(network: &Network, family: Family) -> bool {
    !network.internal && network.subnet(family).is_some() && network.gateway_mode(family) != GatewayMode::Isolated
}

/// Can ports of a container be published by this network?
pub(crate) fn publishes(network: &Network) -> bool {
    network.is_placed() && Family::BOTH.into_iter().any(|family| leads(network, family))
}

/// Makes the endpoint's network the way out by a family.
pub(crate) fn lead(endpoint: &mut Endpoint, network: &Network, family: Family) {
    if let Some(subnet) = network.subnet(family)
        && !endpoint.gateways.contains(&subnet.gateway)
    {
        endpoint.gateways.push(subnet.gateway);
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
        for (endpoint, _) in &self.endpoints {
            write_endpoint(&mut transaction, endpoint)?;
        }
        Ok(transaction)
    }

    /// The ids the agent is asked about.
    pub fn subjects(&self) -> Vec<&str> {
        let endpoints = self.endpoints.iter().map(|(endpoint, _)| endpoint.id.as_str());
        endpoints
            .chain(self.sandbox.as_ref().map(|sandbox| sandbox.id.as_str()))
            .collect()
    }

    /// The file of its namespace; none: it is in the host's.
    pub fn namespace(&self) -> Option<&std::path::Path> {
        let own = self.sandbox.as_ref().map(|sandbox| &sandbox.path);
        let shared = self.shared.as_ref().and_then(|shared| shared.namespace.as_ref());
        own.or(shared).map(PathBuf::as_path)
    }
}

/// Adds a new endpoint and its addresses, which must be nobody's.
pub(crate) fn write_endpoint(transaction: &mut Transaction, endpoint: &Endpoint) -> Result<(), EngineError> {
    for address in &endpoint.addresses {
        let key = key::address(&endpoint.network, address.addr());
        transaction.conditions.push(Condition::Absent(key.clone()));
        transaction
            .writes
            .push(Write::Put(key, endpoint.id.as_str().as_bytes().to_vec()));
    }
    transaction
        .writes
        .push(Write::Put(key::endpoint(&endpoint.id), record::encode(endpoint)?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::defaults::bare;

    fn joining(name: &str, priority: i64) -> Joining {
        Joining {
            network: bare(name, Driver::Bridge),
            wish: NetworkWish {
                gateway_priority: priority,
                ..NetworkWish::default()
            },
        }
    }

    #[test]
    fn of_several_networks_the_one_with_the_greatest_priority_leads_then_the_first_by_name() {
        let order = |joinings: &[(&str, i64)]| {
            let joinings: Vec<Joining> = joinings
                .iter()
                .map(|(name, priority)| joining(name, *priority))
                .collect();
            let order = precedence(&joinings);
            order
                .into_iter()
                .map(|index| joinings[index].network.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(order(&[("zeta", 0), ("alpha", 0)]), ["alpha", "zeta"]);
        assert_eq!(order(&[("alpha", 0), ("zeta", 1)]), ["zeta", "alpha"]);
        assert_eq!(order(&[("alpha", -1), ("zeta", 0)]), ["zeta", "alpha"]);
    }

    #[test]
    fn a_mac_is_made_of_the_ipv4_address_or_made_up() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(
            mac(&[net("fd00::2/64"), net("10.0.0.2/24")]).to_string(),
            "02:42:0a:00:00:02"
        );
        assert_eq!(mac(&[net("fd00::2/64")]).0[..2], [0x02, 0x42]);
    }
}
