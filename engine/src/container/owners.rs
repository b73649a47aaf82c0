//! Containers in a user namespace (`--userns-remap`): whose their users are, and what the rooms below are told of it.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use oci_spec::{
    OciSpecError,
    runtime::{LinuxIdMapping, LinuxIdMappingBuilder},
};
use sluice_image::{Images, OwnerRange, Owners, Snapshot};
use sluice_model::{Container, HostConfig, IdMap, IdRange, container::NetworkMode};

use crate::{Engine, EngineError, container::directory, error, network::place::Place};

/// Has the container a user namespace of its own, where the daemon makes them?
pub(crate) fn is_private(host: &HostConfig) -> bool {
    host.userns_mode != "host"
}

/// Refuses, in Docker's words, what root of a user namespace may not have.
pub(crate) fn check(host: &HostConfig) -> Result<(), EngineError> {
    if !is_private(host) {
        return Ok(());
    }
    let refused = |words: &str| Err(EngineError::invalid(words));
    if host.privileged {
        return refused(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        );
    }
    if host.network_mode == NetworkMode::Host {
        return refused("cannot share the host's network namespace when user namespaces are enabled");
    }
    if host.pid_mode == "host" {
        return refused("cannot share the host PID namespace when user namespaces are enabled");
    }
    // Docker lets this pass and fails at the start, as nobody in a user namespace may mount the message queues of the host
    if host.ipc_mode == "host" {
        return refused("cannot share the host's IPC namespace when user namespaces are enabled");
    }
    Ok(())
}

/// As the images are told.
pub(crate) fn of_files(ids: &IdMap) -> Owners {
    let ranges = |ranges: &[IdRange]| {
        let ranges = ranges.iter();
        ranges.map(|range| (range.container, range.host, range.count)).collect()
    };
    Owners {
        users: ranges(&ids.users),
        groups: ranges(&ids.groups),
    }
}

/// As a spec says it.
pub(crate) fn to_oci(ranges: &[IdRange]) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let one = |range: &IdRange| {
        LinuxIdMappingBuilder::default()
            .container_id(range.container)
            .host_id(range.host)
            .size(range.count)
            .build()
    };
    ranges.iter().map(one).collect()
}

/// As the runtime is told.
fn of_namespace(owners: &Owners) -> sluice_runtime::IdMap {
    let ranges = |ranges: &[OwnerRange]| {
        let ranges = ranges.iter();
        let range = |(container, host, count): &OwnerRange| sluice_runtime::IdRange {
            container: *container,
            host: *host,
            count: *count,
        };
        ranges.map(range).collect()
    };
    sluice_runtime::IdMap {
        users: ranges(&owners.users),
        groups: ranges(&owners.groups),
    }
}

/// A user namespace for a mount of a container's root.
fn for_mount(owners: &Owners) -> std::io::Result<OwnedFd> {
    match sluice_runtime::make_user_namespace(&of_namespace(owners)) {
        Ok(made) => Ok(made.user),
        Err(why) => Err(std::io::Error::other(why.to_string())),
    }
}

/// Can the file system of the data root show layers with other owners? Asked when the daemon starts, not when a container needs it.
pub(crate) fn check_layers(images: &Images, ids: &IdMap) -> Result<(), EngineError> {
    let namespace = sluice_runtime::make_user_namespace(&of_namespace(&of_files(ids)))?;
    images
        .check_idmapped(&namespace.user)
        .map_err(|why| EngineError::from(why).within("cannot remap users of containers"))
}

/// Gives a file or directory of ours to the container's root.
pub(crate) fn give(ids: Option<&IdMap>, path: &Path) -> Result<(), EngineError> {
    match ids.and_then(IdMap::root) {
        Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .map_err(|why| error::io("change the owner of", path, &why)),
        None => Ok(()),
    }
}

/// Mounts a container's root, with the owners it has on the host.
pub(crate) fn mount_root(images: &Images, container: &Container, directory: &Path) -> Result<Snapshot, EngineError> {
    let owners = container.id_map.as_ref().map(of_files);
    let writes = directory::writes(container);
    Ok(images.mount(&container.image_id, directory, writes, owners.as_ref(), for_mount)?)
}

/// The same for the images that are mounted in it.
pub(crate) fn mount_images(images: &Images, container: &Container, directory: &Path) -> Result<(), EngineError> {
    let owners = container.id_map.as_ref().map(of_files);
    let writes = directory::writes(container);
    for (image, place) in directory::images_of(container, directory) {
        images.mount(image, &place, writes, owners.as_ref(), for_mount)?;
    }
    Ok(())
}

impl Engine {
    /// Makes the user namespace of a container that is about to start, by way of the network namespace that belongs to it: that shall be the sandbox which
    /// the agent is about to make.
    pub(super) async fn offer_namespace(&self, container: &Container, place: &Place) -> Result<(), EngineError> {
        let (Some(ids), Some(sandbox)) = (&container.id_map, &place.sandbox) else {
            return Ok(());
        };
        if sandbox.path.exists() {
            // that of an earlier life, of which the agent has yet to hear that it is over
            self.agent.settled(self.released.load(Ordering::Acquire), &[]).await?;
        }
        let network = match self.donor_of_user_namespace(container)? {
            None => sluice_runtime::make_user_namespace(&of_namespace(&of_files(ids)))?.network,
            Some(path) => {
                let user = std::fs::File::open(&path).map_err(|why| error::io("open", &path, &why))?;
                sluice_runtime::make_network_namespace(&user.into())?
            }
        };
        self.agent.offer_namespace(&sandbox.path, network);
        Ok(())
    }

    /// The user namespace of a container whose sandbox is there: the one that its network belongs to, whoever made it.
    pub(super) fn user_namespace_of(
        &self,
        container: &Container,
        place: &Place,
    ) -> Result<Option<OwnedFd>, EngineError> {
        if container.id_map.is_none() {
            return Ok(None);
        }
        if let Some(sandbox) = &place.sandbox {
            self.agent.withdraw_namespace(&sandbox.path);
        }
        let owner = match place.namespace() {
            Some(network) => sluice_runtime::owner_of_namespace(network)?,
            None => None,
        };
        let owner = owner.ok_or_else(|| {
            EngineError::conflict(format!(
                "container {} has a user namespace of its own, and the network it is to be in is not of one: start both with --userns=host or none",
                container.name
            ))
        })?;
        if let Some(path) = self.donor_of_user_namespace(container)? {
            use std::os::unix::fs::MetadataExt;
            let of = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
            let own = format!("/proc/self/fd/{}", owner.as_raw_fd());
            if of(&path).ok() != of(Path::new(&own)).ok() {
                return Err(EngineError::conflict(
                    "cannot share namespaces of containers that have different user namespaces",
                ));
            }
        }
        Ok(Some(owner))
    }

    /// Who shares the IPC or PID namespace of another shares its user namespace, as in Docker.
    fn donor_of_user_namespace(&self, container: &Container) -> Result<Option<PathBuf>, EngineError> {
        let host = &container.host_config;
        for (mode, what) in [(&host.ipc_mode, "IPC"), (&host.pid_mode, "PID")] {
            if mode.starts_with("container:") {
                let (pid, donor) = self.donor(mode, container, what)?;
                if donor.id_map != container.id_map {
                    return Err(EngineError::conflict(format!(
                        "cannot join {what} of container {}: one of both has a user namespace of its own: start both with --userns=host or none",
                        donor.name
                    )));
                }
                return Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/user"))));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_namespace_cannot_have_is_refused_in_dockers_words() {
        let with = |change: &dyn Fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            change(&mut host);
            check(&host).map_err(|error| error.message)
        };
        with(&|_| {}).unwrap();
        for (change, words) in [
            (
                (&|host: &mut HostConfig| host.privileged = true) as &dyn Fn(&mut HostConfig),
                "privileged mode is incompatible",
            ),
            (
                &|host| host.network_mode = NetworkMode::Host,
                "cannot share the host's network",
            ),
            (&|host| host.pid_mode = "host".into(), "cannot share the host PID"),
            (&|host| host.ipc_mode = "host".into(), "cannot share the host's IPC"),
        ] {
            assert!(with(change).unwrap_err().starts_with(words));
            with(&|host| {
                change(host);
                host.userns_mode = "host".into();
            })
            .unwrap();
        }
    }
}
