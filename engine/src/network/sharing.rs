//! Whose network a container shares: the host's (`--network host`), or another container's (`--network container:NAME`).

use std::path::PathBuf;

use sluice_model::{Container, ContainerConfig, HostConfig, Id, container::NetworkMode};

use crate::{Engine, EngineError, container::spec};

/// The network of another container, which one shares. It is called as the other is, and reads the same files in `/etc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shared {
    /// The file of the namespace; none: it is the host's.
    pub namespace: Option<PathBuf>,
    /// Whose host name and whose files: the container that stands at the end of the chain.
    pub owner: Id,
    /// Its host name.
    pub host_name: String,
    /// Its NIS domain.
    pub domain: Option<String>,
}

/// How often one may share with one that shares: beyond it goes round.
const LONGEST_CHAIN: usize = 16;

/// Refuses what cannot be together with a network mode, in Docker's words; answers what has no effect. To be asked before the image has its say:
/// what an image exposes is nobody's wish.
pub(crate) fn check(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<String>, EngineError> {
    let publishes = !host.port_bindings.is_empty() || host.publish_all_ports;
    if let NetworkMode::Container(_) = host.network_mode {
        let named = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
        for (asked, what) in [
            (named(&config.hostname), "hostname and the network mode"),
            (!host.dns.is_empty(), "dns and the network mode"),
            (
                !host.extra_hosts.is_empty(),
                "custom host-to-IP mapping and the network mode",
            ),
            (publishes, "port publishing and the container type network mode"),
            (
                !config.exposed_ports.is_empty(),
                "port exposing and the container type network mode",
            ),
        ] {
            if asked {
                return Err(EngineError::invalid(format!("conflicting options: {what}")));
            }
        }
    }
    let mut warnings = Vec::new();
    if matches!(host.network_mode, NetworkMode::Host | NetworkMode::None) && publishes {
        warnings.push(format!(
            "Published ports are discarded when using {} network mode",
            host.network_mode
        ));
    }
    Ok(warnings)
}

impl Engine {
    /// The network of the container that a mode names, which must be running.
    pub(crate) fn shared_network(&self, name: &str, asking: &Id) -> Result<Shared, EngineError> {
        let other = self.containers.find(name)?;
        if other.id == *asking {
            return Err(EngineError::invalid("cannot join own network"));
        }
        let record = other.record();
        if !record.state.is_up() {
            return Err(EngineError::conflict(format!(
                "cannot join network namespace of a non running container: {}",
                other.id
            )));
        }
        if !record.state.is_alive() || record.state.pid == 0 {
            return Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                other.id
            )));
        }
        let owner = self.owner_of_network(record.clone());
        Ok(Shared {
            namespace: match record.host_config.network_mode {
                NetworkMode::Host => None,
                // it is in the one that the other was in when it started, which may have another since
                NetworkMode::Container(_) => Some(format!("/proc/{}/ns/net", record.state.pid).into()),
                _ => Some(self.config.sandbox(&other.id)),
            },
            host_name: spec::host_name(&owner),
            domain: owner.config.domainname.clone(),
            owner: owner.id,
        })
    }

    /// Who has the network that a container is in: the end of the chain of those that share.
    pub(crate) fn owner_of_network(&self, container: Container) -> Container {
        let mut owner = container;
        for _ in 0..LONGEST_CHAIN {
            let NetworkMode::Container(name) = &owner.host_config.network_mode else {
                break;
            };
            match self.containers.find(name) {
                Ok(next) => owner = next.record(),
                Err(_) => break,
            }
        }
        owner
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::PortSpec;

    use super::*;

    fn with(
        mode: NetworkMode,
        change: impl FnOnce(&mut ContainerConfig, &mut HostConfig),
    ) -> Result<Vec<String>, String> {
        let mut config = ContainerConfig::default();
        let mut host = HostConfig {
            network_mode: mode,
            ..HostConfig::default()
        };
        change(&mut config, &mut host);
        check(&config, &host).map_err(|error| error.message)
    }

    #[test]
    fn who_shares_the_network_of_another_has_nothing_of_its_own_there() {
        let shared = || NetworkMode::Container("web".into());
        type Change = fn(&mut ContainerConfig, &mut HostConfig);
        let cases: [(Change, &str); 5] = [
            (
                |config, _| config.hostname = Some("me".into()),
                "conflicting options: hostname and the network mode",
            ),
            (
                |_, host| host.dns.push([9, 9, 9, 9].into()),
                "conflicting options: dns and the network mode",
            ),
            (
                |_, host| host.extra_hosts.push("db:10.0.0.1".into()),
                "conflicting options: custom host-to-IP mapping and the network mode",
            ),
            (
                |_, host| host.publish_all_ports = true,
                "conflicting options: port publishing and the container type network mode",
            ),
            (
                |config, _| {
                    config.exposed_ports.push(PortSpec {
                        port: 80,
                        protocol: sluice_model::Protocol::Tcp,
                    });
                },
                "conflicting options: port exposing and the container type network mode",
            ),
        ];
        for (change, words) in cases {
            assert_eq!(with(shared(), change).unwrap_err(), words);
            assert!(with(NetworkMode::Default, change).unwrap().is_empty(), "{words}");
        }
        assert!(with(shared(), |_, _| {}).unwrap().is_empty());
    }

    #[test]
    fn ports_that_cannot_be_published_are_warned_of() {
        let publish = |_: &mut ContainerConfig, host: &mut HostConfig| host.publish_all_ports = true;
        assert_eq!(
            with(NetworkMode::Host, publish).unwrap(),
            ["Published ports are discarded when using host network mode"]
        );
        assert!(with(NetworkMode::Host, |_, _| {}).unwrap().is_empty());
    }
}
