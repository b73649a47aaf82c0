//! What `POST /containers/create` brings.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use sluice_engine::CreateContainer;
use sluice_model::{
    ContainerConfig,
    container::{NetworkMode, NetworkWish},
    health::Healthcheck,
    mac::InvalidMac,
};

use super::{host_config, ports};
use crate::{
    error::{Answer, ApiError},
    wire::network::EndpointConfig,
};

/// The body, as clients send it: nulls are gone already.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Create {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Option<Words>,
    entrypoint: Option<Words>,
    image: String,
    working_dir: String,
    labels: BTreeMap<String, String>,
    exposed_ports: BTreeMap<String, IgnoredAny>,
    volumes: BTreeMap<String, IgnoredAny>,
    stop_signal: String,
    stop_timeout: Option<i64>,
    mac_address: String,
    network_disabled: bool,
    healthcheck: Option<Check>,
    shell: Vec<String>,
    host_config: host_config::Wish,
    networking_config: NetworkingConfig,
}

/// `Healthcheck`; times in nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

/// One word, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Words {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkingConfig {
    endpoints_config: BTreeMap<String, EndpointConfig>,
}

// === impl Create ===

impl Create {
    /// As the engine takes it, and what the user should be warned of.
    pub(crate) fn into_request(self, name: Option<String>) -> Answer<(CreateContainer, Vec<String>)> {
        self.env.iter().try_for_each(|variable| check_variable(variable))?;
        let (host_config, mut warnings) = self.host_config.into_model()?;
        let networks = self
            .networking_config
            .into_wishes(&host_config.network_mode, &self.mac_address)?;
        if networks.values().any(|wish| !wish.aliases.is_empty()) {
            warnings.push(
                "Aliases have no effect in this version of Sluice: names of containers are not resolved yet".to_owned(),
            );
        }
        if self.network_disabled {
            warnings.push("NetworkDisabled has no effect in this version of Sluice: use network mode none".to_owned());
        }
        let given = |text: String| (!text.is_empty()).then_some(text);
        let config = ContainerConfig {
            hostname: given(self.hostname),
            domainname: given(self.domainname),
            user: self.user,
            env: self.env,
            cmd: self.cmd.map(Words::into_list).unwrap_or_default(),
            entrypoint: self.entrypoint.map(Words::into_list),
            working_dir: self.working_dir,
            image: self.image,
            labels: self.labels,
            exposed_ports: self
                .exposed_ports
                .keys()
                .map(|port| ports::spec(port))
                .collect::<Answer<_>>()?,
            volumes: self.volumes.into_keys().collect(),
            tty: self.tty,
            open_stdin: self.open_stdin,
            stdin_once: self.stdin_once,
            attach_stdin: self.attach_stdin,
            attach_stdout: self.attach_stdout,
            attach_stderr: self.attach_stderr,
            stop_signal: given(self.stop_signal),
            stop_timeout: self.stop_timeout,
            healthcheck: self.healthcheck.map(Check::into_model),
            shell: self.shell,
        };
        Ok((
            CreateContainer {
                name,
                config,
                host_config,
                networks,
            },
            warnings,
        ))
    }
}

// === impl Check ===

impl Check {
    fn into_model(self) -> Healthcheck {
        Healthcheck {
            test: self.test,
            interval: self.interval,
            timeout: self.timeout,
            start_period: self.start_period,
            start_interval: self.start_interval,
            retries: self.retries,
        }
    }
}

// === impl Words ===

impl Words {
    /// As a list.
    pub(crate) fn into_list(self) -> Vec<String> {
        match self {
            Self::One(word) => vec![word],
            Self::Many(words) => words,
        }
    }
}

// === impl NetworkingConfig ===

impl NetworkingConfig {
    /// Wishes by network, as the engine takes them. A MAC address of the container's own is one in the network of its mode.
    fn into_wishes(self, mode: &NetworkMode, mac_address: &str) -> Answer<BTreeMap<String, NetworkWish>> {
        let mut wishes = BTreeMap::new();
        for (network, config) in self.endpoints_config {
            let wish = config.into_wish(&network)?;
            wishes.insert(
                if network == "default" {
                    "bridge".to_owned()
                } else {
                    network
                },
                wish,
            );
        }
        if !mac_address.is_empty() {
            if matches!(mode, NetworkMode::Host | NetworkMode::Container(_)) {
                return Err(ApiError::invalid(
                    "conflicting options: mac-address and the network mode",
                ));
            }
            let of_container = mac_address
                .parse()
                .map_err(|error: InvalidMac| ApiError::invalid(error.to_string()))?;
            let wish: &mut NetworkWish = wishes.entry(mode.to_string()).or_default();
            if wish.mac.is_some_and(|mac| mac != of_container) {
                return Err(ApiError::invalid(
                    "the container-wide MAC address must match the endpoint-specific MAC address for the main network",
                ));
            }
            wish.mac = Some(of_container);
        }
        if !matches!(mode, NetworkMode::Default | NetworkMode::Network(_)) {
            let asks = wishes.values().any(|wish| *wish != NetworkWish::default());
            if asks || wishes.keys().any(|name| *name != mode.to_string()) {
                return Err(ApiError::invalid(format!(
                    "conflicting options: a container in network mode {mode} has no place in another network"
                )));
            }
            wishes.clear();
        }
        Ok(wishes)
    }
}

fn check_variable(variable: &str) -> Answer<()> {
    if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
        return Err(ApiError::invalid(format!("invalid environment variable: {variable}")));
    }
    Ok(())
}
