//! Which namespaces a container shares, and with whom: `--ipc`, `--pid`, `--uts`, `--cgroupns`, `--userns`.

use std::path::{Path, PathBuf};

use oci_spec::{
    OciSpecError,
    runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType},
};
use sluice_model::{Container, ContainerConfig, HostConfig, container::Phase};
use sluice_runtime::Features;

use crate::{Engine, EngineError};

/// Whose namespace it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Whose {
    /// One of its own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// Another's, at this path.
    Of(PathBuf),
}

/// What is at `/dev/shm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SharedMemory {
    /// Memory of its own.
    #[default]
    Own,
    /// Nothing.
    None,
    /// What is mounted there on the host.
    At(PathBuf),
}

/// With whom a container shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sharing {
    pub pid: Whose,
    pub ipc: Whose,
    pub shared_memory: SharedMemory,
    pub uts: Whose,
    pub own_cgroups: bool,
}

/// Where the memory is mounted that a container shares with others.
pub(crate) fn place_of_memory(directory: &Path) -> PathBuf {
    directory.join("shm")
}

/// Says what is done when nobody said anything, so that `inspect` tells.
pub(crate) fn complete(host: &mut HostConfig, features: &Features) {
    if host.ipc_mode.is_empty() {
        host.ipc_mode = "private".to_owned();
    }
    if host.cgroupns_mode.is_empty() {
        // on cgroup v1 Docker leaves the host's cgroup namespace; a private one is what cgroup2 hosts get
        host.cgroupns_mode = if features.is_unified { "private" } else { "host" }.to_owned();
    }
}

/// Refuses unknown words and what contradicts, in Docker's words.
pub(crate) fn check(config: &ContainerConfig, host: &HostConfig) -> Result<(), EngineError> {
    let of_container = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let known = |mode: &str, words: &[&str]| mode.is_empty() || words.contains(&mode);
    let invalid = |what: &str, mode: &str| Err(EngineError::invalid(format!("invalid {what} mode: {mode}")));
    if !known(&host.ipc_mode, &["none", "private", "shareable", "host"]) && !of_container(&host.ipc_mode) {
        return invalid("IPC", &host.ipc_mode);
    }
    if !known(&host.pid_mode, &["host"]) && !of_container(&host.pid_mode) {
        return invalid("PID", &host.pid_mode);
    }
    if !known(&host.uts_mode, &["host"]) {
        return invalid("UTS", &host.uts_mode);
    }
    if !known(&host.cgroupns_mode, &["private", "host"]) {
        return invalid("cgroup namespace", &host.cgroupns_mode);
    }
    if !known(&host.userns_mode, &["host"]) {
        return invalid("USER", &host.userns_mode);
    }
    if host.uts_mode == "host" && config.hostname.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err(EngineError::invalid("conflicting options: hostname and the UTS mode"));
    }
    if host.uts_mode == "host" && config.domainname.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err(EngineError::invalid("conflicting options: domainname and the UTS mode"));
    }
    Ok(())
}

impl Engine {
    /// Finds those a container shares namespaces with. They must be running.
    pub(crate) fn sharing_of(&self, container: &Container) -> Result<Sharing, EngineError> {
        let host = &container.host_config;
        let mut sharing = Sharing {
            own_cgroups: match host.cgroupns_mode.as_str() {
                "private" => true,
                "host" => false,
                _ => self.runtime.features().is_unified,
            },
            ..Sharing::default()
        };
        if host.uts_mode == "host" {
            sharing.uts = Whose::Host;
        }
        sharing.pid = match host.pid_mode.as_str() {
            "" => Whose::Own,
            "host" => Whose::Host,
            mode => {
                let (pid, _) = self.donor(mode, container, "PID")?;
                Whose::Of(PathBuf::from(format!("/proc/{pid}/ns/pid")))
            }
        };
        match host.ipc_mode.as_str() {
            "" | "private" => {}
            "none" => sharing.shared_memory = SharedMemory::None,
            "shareable" => {
                let directory = self.config.container(&container.id);
                sharing.shared_memory = SharedMemory::At(place_of_memory(&directory));
            }
            "host" => {
                sharing.ipc = Whose::Host;
                sharing.shared_memory = SharedMemory::At(PathBuf::from("/dev/shm"));
            }
            mode => {
                let (pid, donor) = self.donor(mode, container, "IPC")?;
                if donor.host_config.ipc_mode != "shareable" {
                    return Err(EngineError::invalid(format!(
                        "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                        donor.id
                    )));
                }
                sharing.ipc = Whose::Of(PathBuf::from(format!("/proc/{pid}/ns/ipc")));
                let directory = self.config.container(&donor.id);
                sharing.shared_memory = SharedMemory::At(place_of_memory(&directory));
            }
        }
        Ok(sharing)
    }

    /// The pid and the record of the container that a mode names.
    pub(super) fn donor(&self, mode: &str, asking: &Container, what: &str) -> Result<(u32, Container), EngineError> {
        let name = mode.strip_prefix("container:").unwrap_or(mode);
        let held = self.containers.find(name)?;
        if held.id == asking.id {
            return Err(EngineError::invalid(format!(
                "cannot join {what} of container {name}: it is the container itself"
            )));
        }
        let donor = held.record();
        match donor.state.phase {
            Phase::Running | Phase::Paused if donor.state.pid != 0 => Ok((donor.state.pid, donor)),
            Phase::Restarting => Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                donor.id
            ))),
            _ => Err(EngineError::conflict(format!(
                "cannot join {what} of a non running container: {}",
                donor.id
            ))),
        }
    }
}

/// The namespaces of the spec.
pub(crate) fn namespaces(sharing: &Sharing, sandbox: Option<&Path>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let mut all = vec![
        LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Mount)
            .build()?,
    ];
    for (typ, whose) in [
        (LinuxNamespaceType::Uts, &sharing.uts),
        (LinuxNamespaceType::Pid, &sharing.pid),
        (LinuxNamespaceType::Ipc, &sharing.ipc),
    ] {
        let namespace = LinuxNamespaceBuilder::default().typ(typ);
        match whose {
            Whose::Own => all.push(namespace.build()?),
            Whose::Host => {}
            Whose::Of(path) => all.push(namespace.path(path).build()?),
        }
    }
    if let Some(path) = sandbox {
        all.push(
            LinuxNamespaceBuilder::default()
                .typ(LinuxNamespaceType::Network)
                .path(path)
                .build()?,
        );
    }
    if sharing.own_cgroups {
        all.push(
            LinuxNamespaceBuilder::default()
                .typ(LinuxNamespaceType::Cgroup)
                .build()?,
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_modes_are_refused_in_dockers_words() {
        let with = |change: &dyn Fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            change(&mut host);
            check(&ContainerConfig::default(), &host).map_err(|error| error.message)
        };
        assert_eq!(
            with(&|host| host.ipc_mode = "x".into()).unwrap_err(),
            "invalid IPC mode: x"
        );
        assert_eq!(
            with(&|host| host.pid_mode = "container:".into()).unwrap_err(),
            "invalid PID mode: container:"
        );
        assert_eq!(
            with(&|host| host.uts_mode = "me".into()).unwrap_err(),
            "invalid UTS mode: me"
        );
        for mode in ["none", "private", "shareable", "host", "container:a"] {
            with(&|host| host.ipc_mode = mode.into()).unwrap();
        }
        let config = ContainerConfig {
            hostname: Some("me".into()),
            ..ContainerConfig::default()
        };
        let host = HostConfig {
            uts_mode: "host".into(),
            ..HostConfig::default()
        };
        assert_eq!(
            check(&config, &host).unwrap_err().message,
            "conflicting options: hostname and the UTS mode"
        );
    }

    #[test]
    fn the_hosts_namespace_is_the_absence_of_one() {
        let sharing = Sharing {
            pid: Whose::Host,
            ipc: Whose::Of("/proc/7/ns/ipc".into()),
            ..Sharing::default()
        };
        let all = namespaces(&sharing, None).unwrap();
        let of = |typ| all.iter().find(|namespace| namespace.typ() == typ);
        assert!(of(LinuxNamespaceType::Pid).is_none() && of(LinuxNamespaceType::Cgroup).is_none());
        let path = of(LinuxNamespaceType::Ipc).unwrap().path().clone();
        assert_eq!(path, Some(PathBuf::from("/proc/7/ns/ipc")));
        assert_eq!(of(LinuxNamespaceType::Uts).unwrap().path(), &None);
    }
}
