//! Links: another container by a name of one's own.
//!
//! On the default network it is Docker's old kind: the other must be there when the container is made and must run when it starts; its addresses
//! stand in `/etc/hosts`, its ports and variables in the environment. In the networks of users the name is one more that is resolved in that network
//! for this container alone, whoever bears it then. Both open the other's exposed ports where a network lets nobody else speak.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use sluice_model::{
    Container, EndpointLink, HostConfig, Id, Network, PortSpec, Protocol,
    container::{Link, NetworkMode, NetworkWish},
};
use sluice_store::{Transaction, Write, key, record};

use crate::{
    Engine, EngineError,
    container::{directory, held::Held, spec},
    network::{defaults::BRIDGE, hosts},
};

/// A container that another is linked to on the default network, as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Linked {
    /// What it is called by the one who is linked.
    pub alias: String,
    /// Its own name.
    pub name: String,
    /// Its host name.
    pub host_name: String,
    /// Its addresses on the default network.
    pub addresses: Vec<IpAddr>,
    /// Its variables, `NAME=value`.
    pub env: Vec<String>,
    /// Its exposed ports.
    pub ports: Vec<PortSpec>,
}

impl Engine {
    /// Finds whom links mean when a container is made: on the default network they mean those containers from now on, whatever they are called later.
    pub(crate) fn resolve_links(&self, host: &mut HostConfig) -> Result<(), EngineError> {
        if host.links.is_empty() {
            return Ok(());
        }
        let conflict = |kind: &str| {
            EngineError::invalid(format!(
                "conflicting options: {kind} type networking can't be used with links. This would result in undefined behavior"
            ))
        };
        match &host.network_mode {
            NetworkMode::Network(_) => return Ok(()),
            NetworkMode::Host => return Err(conflict("host")),
            NetworkMode::Container(_) => return Err(conflict("container")),
            NetworkMode::Default | NetworkMode::None => {}
        }
        let mut aliases = BTreeSet::new();
        let mut links = Vec::new();
        for link in &host.links {
            let unknown = |error: EngineError| {
                EngineError::invalid(format!("could not get container for {}: {error}", link.target))
            };
            let mut target = self.containers.find(&link.target).map_err(unknown)?;
            // who shares another's network is reached there
            while let NetworkMode::Container(name) = target.record().host_config.network_mode {
                target = self.containers.find(&name).map_err(unknown)?;
            }
            if target.look(|container| container.host_config.network_mode == NetworkMode::Host) {
                return Err(conflict("host"));
            }
            // of two by the same name the first is meant, as in Docker
            if aliases.insert(link.alias.clone()) {
                links.push(Link {
                    target: target.id.to_string(),
                    alias: link.alias.clone(),
                    name: target.look(|container| container.name.clone()),
                });
            }
        }
        host.links = links;
        Ok(())
    }

    /// The links of an endpoint in one network, for its record.
    pub(crate) fn endpoint_links(
        &self,
        container: &Container,
        network: &Network,
        wish: &NetworkWish,
    ) -> Vec<EndpointLink> {
        let links = match network.name == BRIDGE {
            // those of one that was made for a user's network mean that network alone
            true => container.host_config.links.as_slice(),
            false => wish.links.as_slice(),
        };
        links
            .iter()
            .filter(|link| network.name != BRIDGE || Id::parse(&link.target).is_some())
            .map(|link| EndpointLink {
                target: link.target.clone(),
                alias: link.alias.clone(),
            })
            .collect()
    }

    /// The containers that one is linked to on the default network; those that were removed since are none any more.
    pub(crate) fn targets(&self, container: &Container) -> Vec<(String, Arc<Held>)> {
        if !is_linkable(container) {
            return Vec::new();
        }
        let links = container.host_config.links.iter();
        links
            .filter_map(|link| {
                let id = Id::parse(&link.target)?;
                Some((link.alias.clone(), self.containers.by_id(&id)?))
            })
            .collect()
    }

    /// What a container that starts is told of those it is linked to: all of them must run, on the default network.
    pub(crate) fn linked(&self, container: &Container) -> Result<Vec<Linked>, EngineError> {
        let refusal = |name: &str, alias: &str| {
            EngineError::failed(format!(
                "Cannot link to a non running container: /{name} AS /{}/{alias}",
                container.name
            ))
        };
        let targets = self.targets(container);
        // who was removed is missed until the link is taken away too, as in Docker
        if is_linkable(container)
            && let Some(gone) = container
                .host_config
                .links
                .iter()
                .filter(|link| Id::parse(&link.target).is_some())
                .find(|link| !targets.iter().any(|(alias, _)| *alias == link.alias))
        {
            return Err(refusal(&gone.name, &gone.alias));
        }
        let mut linked = Vec::new();
        for (alias, target) in targets {
            let record = target.record();
            if !is_linkable(&record) {
                return Err(EngineError::failed(format!(
                    "Cannot link to /{}, as it does not belong to the default network",
                    record.name
                )));
            }
            let neighbour = self.linked_now(alias.clone(), &record);
            if !record.state.is_alive() || neighbour.addresses.is_empty() {
                return Err(refusal(&record.name, &alias));
            }
            linked.push(neighbour);
        }
        Ok(linked)
    }

    /// The same of those that run.
    pub(crate) fn linked_and_running(&self, container: &Container) -> Vec<Linked> {
        self.targets(container)
            .into_iter()
            .map(|(alias, target)| self.linked_now(alias, &target.record()))
            .filter(|linked| !linked.addresses.is_empty())
            .collect()
    }

    fn linked_now(&self, alias: String, record: &Container) -> Linked {
        let endpoints = self.networks.of_container(&record.id);
        let default = self.networks.find(BRIDGE).map(|network| network.id);
        Linked {
            alias,
            name: record.name.clone(),
            host_name: spec::host_name(record),
            addresses: endpoints
                .iter()
                .filter(|endpoint| default.as_ref().is_ok_and(|default| endpoint.network == *default))
                .flat_map(|endpoint| endpoint.addresses.iter().map(ipnet::IpNet::addr))
                .collect(),
            env: record.config.env.clone(),
            ports: record.config.exposed_ports.clone(),
        }
    }

    /// The containers that are linked to this one on the default network, and what they call it.
    pub(crate) fn linked_from(&self, target: &Held) -> Vec<(Arc<Held>, String)> {
        let mut linked = Vec::new();
        for other in self.containers.all() {
            let aliases = other.look(|container| match is_linkable(container) {
                true => container
                    .host_config
                    .links
                    .iter()
                    .filter(|link| link.target == target.id.as_str())
                    .map(|link| link.alias.clone())
                    .collect(),
                false => Vec::new(),
            });
            linked.extend(aliases.into_iter().map(|alias| (other.clone(), alias)));
        }
        linked
    }

    /// A container has come to run: those that are linked to it find it at its new addresses. A file that cannot be written is no reason not to run.
    pub(crate) fn tell_linked(&self, target: &Held) {
        for (other, alias) in self.linked_from(target) {
            if !other.look(|container| container.state.is_alive()) {
                continue;
            }
            let now = self.linked_now(alias, &target.record());
            if let Err(error) = directory::follow_link(&self.config, &other.id, &now) {
                tracing::warn!(
                    "/etc/hosts of container {} names old addresses of {}: {error}",
                    other.id,
                    now.alias
                );
            }
        }
    }

    /// Takes a link away (`docker rm --link /web/cache`): the name, and what it opened.
    pub async fn remove_link(&self, name: &str) -> Result<(), EngineError> {
        let path = name.trim_start_matches('/').to_owned();
        let Some((parent, alias)) = path.split_once('/') else {
            self.containers.find(&path)?;
            return Err(EngineError::conflict(
                "Conflict, cannot remove the default name of the container",
            ));
        };
        self.containers.find(&path)?;
        let held = self
            .containers
            .find(parent)
            .map_err(|_| EngineError::failed(format!("Cannot get parent /{parent} for name /{path}")))?;
        let alias = alias.to_owned();
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            let mut after = held.record();
            after.host_config.links.retain(|link| link.alias != alias);
            let mut transaction = Transaction::default();
            let mut endpoints = engine.networks.of_container(&held.id);
            endpoints.retain(|endpoint| endpoint.links.iter().any(|link| link.alias == alias));
            if let Ok(default) = engine.networks.find(BRIDGE) {
                endpoints.retain(|endpoint| endpoint.network == default.id);
            }
            for endpoint in &mut endpoints {
                endpoint.links.retain(|link| link.alias != alias);
                let record = record::encode(&*endpoint)?;
                transaction.writes.push(Write::Put(key::endpoint(&endpoint.id), record));
            }
            transaction
                .writes
                .push(Write::Put(key::container(&held.id), record::encode(&after)?));
            let revision = engine.commit(transaction).await?;
            held.change(|container| container.host_config.links = after.host_config.links);
            {
                let mut places = engine.networks.places();
                for endpoint in endpoints {
                    places.endpoints.insert(endpoint.id.clone(), endpoint);
                }
            }
            engine.agent.settled(revision, &[]).await?;
            if held.look(|container| container.state.is_alive()) {
                engine.rewrite_hosts(&held);
            }
            Ok(())
        })
        .await
    }
}

/// Is it on the default network, where alone links of the old kind are?
fn is_linkable(container: &Container) -> bool {
    container.networks.contains_key(BRIDGE)
}

impl Linked {
    /// What it is called in `/etc/hosts`, the alias first.
    pub fn names(&self) -> String {
        match self.alias == self.name {
            true => format!("{} {}", self.alias, self.host_name),
            false => format!("{} {} {}", self.alias, self.host_name, self.name),
        }
    }

    /// Its lines of `/etc/hosts`.
    pub fn lines(&self) -> Vec<hosts::Line> {
        let line = |address: &IpAddr| hosts::Line {
            address: *address,
            names: self.names(),
        };
        self.addresses.iter().map(line).collect()
    }

    /// The variables that tell a container of it, in Docker's order.
    pub fn environment(&self, linked_by: &str) -> Vec<String> {
        let alias = self.alias.to_uppercase().replace('-', "_");
        // the old form knows one address
        let address = self
            .addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or(self.addresses.first());
        let Some(address) = address else { return Vec::new() };
        let mut ports = self.ports.clone();
        ports.sort_by_key(|port| (port.port, port.protocol != Protocol::Tcp, port.protocol));
        let url = |port: &PortSpec| format!("{}://{address}:{}", port.protocol, port.port);
        let of = |port: &PortSpec| format!("{alias}_PORT_{}_{}", port.port, port.protocol.as_str().to_uppercase());

        let mut env = Vec::new();
        env.extend(ports.first().map(|port| format!("{alias}_PORT={}", url(port))));
        for range in runs(&ports) {
            let ([first, ..], [.., last]) = (range, range) else {
                continue;
            };
            let name = of(first);
            env.push(format!("{name}_START={}", url(first)));
            env.push(format!("{name}_ADDR={address}"));
            env.push(format!("{name}_PROTO={}", first.protocol));
            env.push(format!("{name}_PORT_START={}", first.port));
            let name = format!("{alias}_PORT_{}_{}", first.port, last.protocol.as_str().to_uppercase());
            env.push(format!("{name}_END={}", url(last)));
            env.push(format!("{name}_PORT_END={}", last.port));
        }
        for port in &ports {
            let name = of(port);
            env.push(format!("{name}={}", url(port)));
            env.push(format!("{name}_ADDR={address}"));
            env.push(format!("{name}_PORT={}", port.port));
            env.push(format!("{name}_PROTO={}", port.protocol));
        }
        env.push(format!("{alias}_NAME=/{linked_by}/{}", self.alias));
        for variable in &self.env {
            // every container has its own of these
            if let Some((name, value)) = variable.split_once('=')
                && !matches!(name, "HOME" | "PATH")
            {
                env.push(format!("{alias}_ENV_{name}={value}"));
            }
        }
        env
    }
}

/// The runs of three and more ports without a gap, which are told of as ranges besides.
fn runs(ports: &[PortSpec]) -> impl Iterator<Item = &[PortSpec]> {
    ports
        .chunk_by(|one, next| next.port == one.port + 1)
        .filter(|run| run.len() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(alias: &str, ports: &[&str], env: &[&str]) -> Linked {
        Linked {
            alias: alias.into(),
            name: "redis".into(),
            host_name: "abababababab".into(),
            addresses: vec!["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            env: env.iter().map(|text| (*text).to_owned()).collect(),
            ports: ports.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_environment_tells_of_the_first_port_of_each_port_and_of_the_other_environment() {
        let env = linked(
            "my-cache",
            &["6379/udp", "6379", "53/udp"],
            &["PATH=/bin", "HOME=/", "MODE=fast", "bare"],
        )
        .environment("web");
        assert_eq!(
            env,
            [
                "MY_CACHE_PORT=udp://172.17.0.2:53",
                "MY_CACHE_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_CACHE_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_CACHE_PORT_53_UDP_PORT=53",
                "MY_CACHE_PORT_53_UDP_PROTO=udp",
                "MY_CACHE_PORT_6379_TCP=tcp://172.17.0.2:6379",
                "MY_CACHE_PORT_6379_TCP_ADDR=172.17.0.2",
                "MY_CACHE_PORT_6379_TCP_PORT=6379",
                "MY_CACHE_PORT_6379_TCP_PROTO=tcp",
                "MY_CACHE_PORT_6379_UDP=udp://172.17.0.2:6379",
                "MY_CACHE_PORT_6379_UDP_ADDR=172.17.0.2",
                "MY_CACHE_PORT_6379_UDP_PORT=6379",
                "MY_CACHE_PORT_6379_UDP_PROTO=udp",
                "MY_CACHE_NAME=/web/my-cache",
                "MY_CACHE_ENV_MODE=fast",
            ]
        );
    }

    #[test]
    fn three_ports_in_a_row_are_a_range_besides_and_two_are_not() {
        let ranges = |ports: &[&str]| {
            let env = linked("cache", ports, &[]).environment("web");
            env.into_iter()
                .filter(|line| line.contains("_START=") || line.contains("_END="))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ranges(&["7002", "7000", "7001", "80"]),
            [
                "CACHE_PORT_7000_TCP_START=tcp://172.17.0.2:7000",
                "CACHE_PORT_7000_TCP_PORT_START=7000",
                "CACHE_PORT_7000_TCP_END=tcp://172.17.0.2:7002",
                "CACHE_PORT_7000_TCP_PORT_END=7002",
            ]
        );
        assert!(ranges(&["7000", "7001"]).is_empty());
    }

    #[test]
    fn a_linked_container_is_found_by_alias_host_name_and_name() {
        assert_eq!(linked("cache", &[], &[]).names(), "cache abababababab redis");
        assert_eq!(linked("redis", &[], &[]).names(), "redis abababababab");
        assert_eq!(linked("cache", &[], &[]).lines().len(), 2);
    }
}
