//! What is checked before anything is made.

use std::path::{Component, Path};

use sluice_model::{
    ContainerConfig, HostConfig,
    container::{Mount, MountKind, NetworkMode},
    health::Healthcheck,
};

use crate::{
    EngineError,
    container::{capabilities, devices, limits, log, security, sharing, signal},
};

/// The least time in a health check, nanoseconds.
const LEAST_OF_HEALTH: i64 = 1_000_000;

/// Refuses what can't work; returns what the user should know.
pub(crate) fn validate(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<String>, EngineError> {
    let mut warnings = Vec::new();
    environment(&config.env)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    host_name(config)?;
    if let Some(name) = &config.stop_signal {
        signal::parse(name)?;
    }
    if let Some(check) = &config.healthcheck {
        healthcheck(check)?;
    }
    for mount in host.binds.iter().chain(&host.mounts) {
        check_mount(mount)?;
    }
    for target in config.volumes.iter().chain(host.tmpfs.keys()) {
        destination(target)?;
    }
    duplicate_targets(host)?;
    limits::check(host, &mut warnings)?;
    devices::check(host)?;
    sharing::check(config, host)?;
    sysctls(host)?;
    for options in host.tmpfs.values() {
        tmpfs(options)?;
    }
    restart_policy(host)?;
    capabilities::resolve(&host.cap_add, &host.cap_drop, host.privileged)?;
    security::Options::parse(&host.security_opt)?;
    for entry in &host.extra_hosts {
        extra_host(entry)?;
    }
    ports(host)?;
    cgroup_parent(&host.cgroup_parent)?;
    log::check(host)?;
    Ok(warnings)
}

/// `NAME=value` or `NAME`; the name can't be empty.
pub(crate) fn environment(variables: &[String]) -> Result<(), EngineError> {
    for variable in variables {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(EngineError::invalid(format!(
                "invalid environment variable: {variable}"
            )));
        }
        if variable.contains('\0') {
            return Err(EngineError::invalid("invalid environment variable: it holds a NUL"));
        }
    }
    Ok(())
}

fn host_name(config: &ContainerConfig) -> Result<(), EngineError> {
    let Some(name) = config.hostname.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let valid = name.len() <= 63
        && !name.starts_with(['-', '.'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if valid {
        Ok(())
    } else {
        Err(EngineError::invalid(format!("invalid hostname format: {name}")))
    }
}

fn healthcheck(check: &Healthcheck) -> Result<(), EngineError> {
    for (name, time) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if time != 0 && time < LEAST_OF_HEALTH {
            return Err(EngineError::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if check.retries < 0 {
        return Err(EngineError::invalid("Retries in Healthcheck cannot be negative"));
    }
    match check.test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => Err(EngineError::invalid(format!(
            "Unknown healthcheck type '{other}' (expected 'CMD', 'CMD-SHELL' or 'NONE')"
        ))),
    }
}

fn check_mount(mount: &Mount) -> Result<(), EngineError> {
    if mount.kind == MountKind::Bind && !mount.source.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "invalid volume specification: '{}:{}': the source must be an absolute path",
            mount.source, mount.target
        )));
    }
    if !matches!(
        mount.propagation.as_str(),
        "" | "rprivate" | "rslave" | "rshared" | "private" | "slave" | "shared"
    ) {
        return Err(EngineError::invalid(format!("invalid mode: {}", mount.propagation)));
    }
    destination(&mount.target)
}

fn destination(target: &str) -> Result<(), EngineError> {
    if !target.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    // the root itself can't be mounted over; `/a/..` is the root too
    let mut depth = 0_usize;
    for part in Path::new(target).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if depth == 0 || target.contains('\0') {
        return Err(EngineError::invalid(format!(
            "invalid specification: destination can't be '{target}'"
        )));
    }
    Ok(())
}

fn duplicate_targets(host: &HostConfig) -> Result<(), EngineError> {
    let mut seen = std::collections::BTreeSet::new();
    for target in host
        .binds
        .iter()
        .chain(&host.mounts)
        .map(|mount| &mount.target)
        .chain(host.tmpfs.keys())
    {
        if !seen.insert(target.trim_end_matches('/')) {
            return Err(EngineError::invalid(format!("Duplicate mount point: {target}")));
        }
    }
    Ok(())
}

/// Only what is in a namespace of the container's own: anything else would change the host.
fn sysctls(host: &HostConfig) -> Result<(), EngineError> {
    const OF_IPC: [&str; 8] = [
        "sem",
        "msgmax",
        "msgmnb",
        "msgmni",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    ];
    for name in host.sysctls.keys() {
        let dotted = name.replace('/', ".");
        let refused = |why: &str| EngineError::invalid(format!("sysctl \"{name}\" {why}"));
        let own_ipc = host.ipc_mode != "host";
        if dotted.starts_with("net.") {
            if host.network_mode == NetworkMode::Host {
                return Err(refused("not allowed in host network namespace"));
            }
        } else if dotted.starts_with("fs.mqueue.")
            || dotted
                .strip_prefix("kernel.")
                .is_some_and(|rest| OF_IPC.contains(&rest))
        {
            if !own_ipc {
                return Err(refused("is not allowed in the hosts ipc namespace"));
            }
        } else if dotted == "kernel.domainname" && host.uts_mode != "host" {
            // the NIS domain, which has an option of its own too
        } else if dotted == "kernel.hostname" {
            return Err(refused("is not allowed as it conflicts with the OCI hostname field"));
        } else {
            return Err(refused("is not in a separate kernel namespace"));
        }
    }
    Ok(())
}

/// The options of a tmpfs that its file system or the mount understands.
fn tmpfs(options: &str) -> Result<(), EngineError> {
    const FLAGS: [&str; 20] = [
        "defaults",
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
    ];
    const WITH_VALUE: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    const PROPAGATION: [&str; 8] = [
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
    ];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let is_known = match option.split_once('=') {
            Some((name, value)) => WITH_VALUE.contains(&name) && !value.is_empty(),
            None => FLAGS.contains(&option) || PROPAGATION.contains(&option),
        };
        if !is_known {
            return Err(EngineError::invalid(format!("invalid tmpfs option [\"{option}\"]")));
        }
    }
    Ok(())
}

fn restart_policy(host: &HostConfig) -> Result<(), EngineError> {
    check_restart_policy(&host.restart_policy)?;
    let restarts = !matches!(host.restart_policy.name.as_str(), "" | "no");
    if host.auto_remove && restarts {
        return Err(EngineError::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    Ok(())
}

/// A policy's name and number.
pub(crate) fn check_restart_policy(policy: &sluice_model::container::RestartPolicy) -> Result<(), EngineError> {
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => Err(EngineError::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        )),
        "on-failure" if policy.maximum_retry_count < 0 => Err(EngineError::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        )),
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(EngineError::invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn extra_host(entry: &str) -> Result<(), EngineError> {
    let invalid = || EngineError::invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry
        .split_once([':', '='])
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(invalid)?;
    let plain = |text: &str| !text.contains(char::is_whitespace) && !text.contains('\0');
    if !plain(name) || !plain(address) {
        return Err(invalid());
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(EngineError::invalid(format!(
            "invalid IP address in add-host: \"{address}\""
        )));
    }
    Ok(())
}

/// A path below the root of the cgroups, which leads nowhere else.
fn cgroup_parent(parent: &str) -> Result<(), EngineError> {
    let leads_out = parent.split('/').any(|name| name == "..");
    match leads_out || parent.contains(['\0', '\n']) {
        true => Err(EngineError::invalid(format!(
            "invalid cgroup parent '{parent}': a path such as /group/subgroup is wanted"
        ))),
        false => Ok(()),
    }
}

fn ports(host: &HostConfig) -> Result<(), EngineError> {
    for binding in &host.port_bindings {
        let (first, last) = binding.host_ports;
        if first > last || (first == 0 && last != 0) {
            return Err(EngineError::invalid(format!(
                "invalid port specification: \"{first}-{last}\""
            )));
        }
        // what makes several ports of one binding sees to it that there are so many
        let fits = |port: u16| port.checked_add(binding.count.saturating_sub(1)).is_some();
        let is_range = binding.count > 1;
        if binding.count == 0
            || (is_range && (first != last || first == 0))
            || !fits(first)
            || !fits(binding.container.port)
        {
            return Err(EngineError::invalid(format!(
                "invalid port specification: {} ports from {} on at {first}",
                binding.count, binding.container
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn refusal(config: ContainerConfig, host: HostConfig) -> String {
        let error = validate(&config, &host).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        error.message
    }

    fn bind(source: &str, target: &str) -> Mount {
        Mount {
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        }
    }

    #[test]
    fn an_ordinary_wish_passes_without_a_warning() {
        let config = ContainerConfig {
            env: vec!["A=b".into(), "B".into(), "C=".into()],
            ..Default::default()
        };
        let host = HostConfig {
            binds: vec![bind("/tmp", "/data")],
            memory: limits::LEAST_MEMORY,
            ..Default::default()
        };
        assert!(validate(&config, &host).unwrap().is_empty());
    }

    #[test]
    fn a_nameless_variable_is_refused() {
        let config = ContainerConfig {
            env: vec!["=x".into()],
            ..Default::default()
        };
        assert_eq!(
            refusal(config, HostConfig::default()),
            "invalid environment variable: =x"
        );
    }

    #[test]
    fn a_relative_working_directory_is_refused() {
        let config = ContainerConfig {
            working_dir: "srv".into(),
            ..Default::default()
        };
        assert!(refusal(config, HostConfig::default()).contains("needs to be an absolute path"));
    }

    #[test]
    fn mounts_need_absolute_paths_that_are_not_the_root() {
        for (source, target) in [
            ("tmp", "/a"),
            ("/tmp", "a"),
            ("/tmp", "/"),
            ("/tmp", "/a/.."),
            ("/tmp", "//."),
        ] {
            let host = HostConfig {
                binds: vec![bind(source, target)],
                ..Default::default()
            };
            assert!(
                validate(&ContainerConfig::default(), &host).is_err(),
                "{source}:{target}"
            );
        }
        let host = HostConfig {
            binds: vec![bind("/a", "/x"), bind("/b", "/x/")],
            ..Default::default()
        };
        assert!(refusal(ContainerConfig::default(), host).starts_with("Duplicate mount point"));
    }

    #[test]
    fn only_settings_of_the_containers_own_namespaces_can_be_changed() {
        let with = |name: &str, change: &dyn Fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            host.sysctls.insert(name.into(), "1".into());
            change(&mut host);
            validate(&ContainerConfig::default(), &host).map_err(|error| error.message)
        };
        for name in [
            "net.ipv4.ip_forward",
            "net/core/somaxconn",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
        ] {
            with(name, &|_| {}).unwrap();
        }
        assert_eq!(
            with("vm.swappiness", &|_| {}).unwrap_err(),
            "sysctl \"vm.swappiness\" is not in a separate kernel namespace"
        );
        assert!(with("net.core.x", &|host| host.network_mode = NetworkMode::Host).is_err());
        assert!(with("kernel.shmmax", &|host| host.ipc_mode = "host".into()).is_err());
    }

    #[test]
    fn a_tmpfs_takes_only_its_own_options() {
        assert!(tmpfs("size=64m,mode=1777,exec,ro").is_ok());
        for wrong in ["colour=red", "size=", "loud"] {
            assert!(tmpfs(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_restart_policy_and_one_with_auto_remove_are_refused() {
        let policy = |name: &str| sluice_model::container::RestartPolicy {
            name: name.into(),
            maximum_retry_count: 0,
        };
        let host = HostConfig {
            restart_policy: policy("sometimes"),
            ..Default::default()
        };
        assert!(refusal(ContainerConfig::default(), host).contains("unknown policy 'sometimes'"));
        let host = HostConfig {
            restart_policy: policy("always"),
            auto_remove: true,
            ..Default::default()
        };
        assert!(refusal(ContainerConfig::default(), host).contains("AutoRemove"));
    }

    #[test]
    fn added_hosts_need_a_name_and_an_address() {
        for (entry, fine) in [
            ("db:10.0.0.1", true),
            ("v6:::1", true),
            ("gw:host-gateway", true),
            ("db", false),
            (":1.2.3.4", false),
            ("db:x", false),
            ("a b:1.2.3.4", false),
        ] {
            assert_eq!(extra_host(entry).is_ok(), fine, "{entry}");
        }
    }
}
