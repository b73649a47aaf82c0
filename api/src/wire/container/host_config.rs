//! `HostConfig`: the part of a container's wish that concerns this host, in both directions.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_model::{
    HostConfig,
    container::{Link, NetworkMode, RestartPolicy},
};

use super::ports::{self, Bindings};
use crate::{
    error::{Answer, ApiError},
    wire::null_if_empty,
};

pub(crate) mod limits;
mod mount;
mod unhandled;

pub(crate) use mount::kind as mount_kind;

/// What a client sends. What stands in `rest` is acted on by nobody, see [`unhandled`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Wish {
    binds: Vec<String>,
    mounts: Vec<mount::Wish>,
    volumes_from: Vec<String>,
    volume_driver: String,
    network_mode: String,
    links: Vec<String>,
    port_bindings: Bindings,
    publish_all_ports: bool,
    auto_remove: bool,
    restart_policy: Restart,
    dns: Vec<String>,
    dns_search: Vec<String>,
    dns_options: Vec<String>,
    extra_hosts: Vec<String>,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    privileged: bool,
    readonly_rootfs: bool,
    tmpfs: BTreeMap<String, String>,
    shm_size: i64,
    security_opt: Vec<String>,
    sysctls: BTreeMap<String, String>,
    group_add: Vec<String>,
    ipc_mode: String,
    pid_mode: String,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    userns_mode: String,
    cgroupns_mode: String,
    cgroup_parent: String,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
    log_config: LogConfig,
    init: bool,
    #[serde(flatten)]
    limits: limits::Limits,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `RestartPolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Restart {
    name: String,
    maximum_retry_count: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LogConfig {
    r#type: String,
    config: BTreeMap<String, String>,
}

// === impl Wish ===

impl Wish {
    /// As the engine takes it, and what the user should be warned of.
    pub(crate) fn into_model(self) -> Answer<(HostConfig, Vec<String>)> {
        let rest = unhandled::sift(self.rest)?;
        let restart_policy = self.restart_policy.into_model()?;
        if self.auto_remove && !matches!(restart_policy.name.as_str(), "" | "no") {
            return Err(ApiError::invalid(
                "can't create 'AutoRemove' container with restart policy",
            ));
        }
        let (binds, mounts) = mount::all(&self.binds, self.mounts, &self.tmpfs, &self.volume_driver)?;
        self.volumes_from
            .iter()
            .try_for_each(|name| mount::check_volumes_from(name))?;
        let host_config = HostConfig {
            binds,
            mounts,
            volumes_from: self.volumes_from,
            network_mode: network_mode_of(&self.network_mode)?,
            links: self.links.iter().map(|text| link(text)).collect::<Answer<_>>()?,
            port_bindings: ports::bindings(&self.port_bindings)?,
            publish_all_ports: self.publish_all_ports,
            auto_remove: self.auto_remove,
            restart_policy,
            dns: self
                .dns
                .iter()
                .map(|server| dns_server(server))
                .collect::<Answer<_>>()?,
            dns_search: self.dns_search,
            dns_options: self.dns_options,
            extra_hosts: self.extra_hosts.into_iter().map(extra_host).collect::<Answer<_>>()?,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            privileged: self.privileged,
            read_only_rootfs: self.readonly_rootfs,
            tmpfs: self.tmpfs,
            shm_size: self.shm_size,
            security_opt: self.security_opt,
            sysctls: self.sysctls,
            group_add: self.group_add,
            ipc_mode: self.ipc_mode,
            pid_mode: self.pid_mode,
            uts_mode: self.uts_mode,
            userns_mode: self.userns_mode,
            cgroupns_mode: self.cgroupns_mode,
            cgroup_parent: self.cgroup_parent,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            log_driver: match self.log_config.r#type.as_str() {
                "" => "json-file".to_owned(),
                driver => driver.to_owned(),
            },
            log_options: self.log_config.config,
            init: self.init,
            unhandled: if rest.is_empty() {
                String::new()
            } else {
                Value::Object(rest.clone()).to_string()
            },
            ..self.limits.into_model()?
        };
        Ok((host_config, unhandled::warnings(&rest)))
    }
}

// === impl Restart ===

impl Restart {
    /// Does it say anything?
    pub(crate) fn is_named(&self) -> bool {
        !self.name.is_empty() || self.maximum_retry_count != 0
    }

    /// Docker's rules and words.
    pub(crate) fn into_model(self) -> Answer<RestartPolicy> {
        let name = self.name.as_str();
        if !matches!(name, "" | "no" | "always" | "unless-stopped" | "on-failure") {
            return Err(ApiError::invalid(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
        if self.maximum_retry_count < 0 {
            return Err(ApiError::invalid(
                "invalid restart policy: maximum retry count cannot be negative",
            ));
        }
        if self.maximum_retry_count != 0 && name != "on-failure" {
            return Err(ApiError::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        Ok(RestartPolicy {
            name: self.name,
            maximum_retry_count: self.maximum_retry_count,
        })
    }
}

fn network_mode_of(text: &str) -> Answer<NetworkMode> {
    match text {
        "" | "default" | "bridge" => Ok(NetworkMode::Default),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        shared if shared.starts_with("container:") => match &shared["container:".len()..] {
            "" => Err(ApiError::invalid(
                "Invalid network mode: invalid container format container:<name|id>",
            )),
            name => Ok(NetworkMode::Container(name.to_owned())),
        },
        name => Ok(NetworkMode::Network(name.to_owned())),
    }
}

/// `name:alias`, or `name` alone. `/name:/linked/alias` is how `inspect` shows one.
pub(crate) fn link(text: &str) -> Answer<Link> {
    let (target, alias) = match text.split(':').collect::<Vec<_>>()[..] {
        [""] => return Err(ApiError::invalid("empty string specified for links")),
        [target] => (target, target),
        [target, alias] if !target.is_empty() => (target, alias),
        _ => return Err(ApiError::invalid(format!("bad format for links: {text}"))),
    };
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    if alias.is_empty() || alias.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(ApiError::invalid(format!("bad format for links: {text}")));
    }
    Ok(Link {
        target: target.trim_start_matches('/').to_owned(),
        alias: alias.to_owned(),
        name: target.trim_start_matches('/').to_owned(),
    })
}

/// As `inspect` shows them.
pub(crate) fn links_document(links: &[Link]) -> Value {
    let texts: Vec<String> = links
        .iter()
        .map(|link| format!("{}:{}", link.target, link.alias))
        .collect();
    null_if_empty(&texts)
}

fn dns_server(text: &str) -> Answer<IpAddr> {
    text.parse()
        .map_err(|_| ApiError::invalid(format!("{text} is not an ip address")))
}

/// `name:address`, or `name:host-gateway`.
fn extra_host(text: String) -> Answer<String> {
    let Some((name, address)) = text.split_once(':').filter(|(name, _)| !name.is_empty()) else {
        return Err(ApiError::invalid(format!("bad format for add-host: {text:?}")));
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'))
        .unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(ApiError::invalid(format!(
            "invalid IP address in add-host: {address:?}"
        )));
    }
    Ok(format!("{name}:{bare}"))
}

// === outwards ===

/// The whole document. What a client sent and nobody acted on is in it too.
pub(crate) fn document(config: &HostConfig) -> Value {
    let mut document = unhandled::defaults();
    let rest: Map<String, Value> = serde_json::from_str(&config.unhandled).unwrap_or_default();
    document.extend(rest);
    document.extend(limits::document(config));
    document.extend(members(json!({
        "Binds": null_if_empty(&config.binds.iter().map(mount::text).collect::<Vec<_>>()),
        "VolumesFrom": null_if_empty(&config.volumes_from),
        "Links": links_document(&config.links),
        "NetworkMode": config.network_mode.to_string(),
        "PortBindings": ports::bindings_document(&config.port_bindings),
        "PublishAllPorts": config.publish_all_ports,
        "AutoRemove": config.auto_remove,
        "RestartPolicy": {
            "Name": if config.restart_policy.name.is_empty() { "no" } else { &config.restart_policy.name },
            "MaximumRetryCount": config.restart_policy.maximum_retry_count,
        },
        "LogConfig": {
            "Type": if config.log_driver.is_empty() { "json-file" } else { &config.log_driver },
            "Config": config.log_options,
        },
    })));
    document.extend(members(json!({
        "Dns": config.dns,
        "DnsSearch": config.dns_search,
        "DnsOptions": config.dns_options,
        "ExtraHosts": null_if_empty(&config.extra_hosts),
        "CapAdd": null_if_empty(&config.cap_add),
        "CapDrop": null_if_empty(&config.cap_drop),
        "Privileged": config.privileged,
        "ReadonlyRootfs": config.read_only_rootfs,
        "SecurityOpt": null_if_empty(&config.security_opt),
        "ShmSize": if config.shm_size == 0 { 64 << 20 } else { config.shm_size },
        "GroupAdd": null_if_empty(&config.group_add),
        "IpcMode": config.ipc_mode,
        "PidMode": config.pid_mode,
        "UTSMode": config.uts_mode,
        "UsernsMode": config.userns_mode,
        "CgroupnsMode": config.cgroupns_mode,
        "CgroupParent": config.cgroup_parent,
        "MaskedPaths": config.masked_paths,
        "ReadonlyPaths": config.readonly_paths,
    })));
    if config.init {
        document.insert("Init".to_owned(), json!(true));
    }
    if !config.mounts.is_empty() {
        document.insert("Mounts".to_owned(), config.mounts.iter().map(mount::document).collect());
    }
    if !config.tmpfs.is_empty() {
        document.insert("Tmpfs".to_owned(), json!(config.tmpfs));
    }
    if !config.sysctls.is_empty() {
        document.insert("Sysctls".to_owned(), json!(config.sysctls));
    }
    Value::Object(document)
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
