//! What `POST /containers/create` brings.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};
use sluice_engine::CreateContainer;
use sluice_model::{ContainerConfig, health::Healthcheck};

use super::{host_config, ports};
use crate::error::{Answer, ApiError};

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
    endpoints_config: BTreeMap<String, Map<String, Value>>,
}

// === impl Create ===

impl Create {
    /// As the engine takes it, and what the user should be warned of.
    pub(crate) fn into_request(self, name: Option<String>) -> Answer<(CreateContainer, Vec<String>)> {
        self.env.iter().try_for_each(|variable| check_variable(variable))?;
        self.networking_config.check(&self.mac_address)?;
        let (host_config, mut warnings) = self.host_config.into_model()?;
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
    /// Refuses wishes about a place in a network that this version cannot fulfil. Clients send the members empty when nobody asked.
    fn check(&self, mac_address: &str) -> Answer<()> {
        if self.endpoints_config.len() > 1 {
            return Err(ApiError::not_offered("a container on several networks"));
        }
        if !mac_address.is_empty() {
            return Err(ApiError::not_offered(format!(
                "a MAC address of the user's choice ({mac_address})"
            )));
        }
        for (network, endpoint) in &self.endpoints_config {
            for member in ["IPAMConfig", "Links", "Aliases", "MacAddress", "DriverOpts"] {
                if endpoint.get(member).is_some_and(asks_for_something) {
                    return Err(ApiError::not_offered(format!("{member} in network {network}")));
                }
            }
        }
        Ok(())
    }
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => members.values().any(asks_for_something),
        _ => true,
    }
}

fn check_variable(variable: &str) -> Answer<()> {
    if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
        return Err(ApiError::invalid(format!("invalid environment variable: {variable}")));
    }
    Ok(())
}
