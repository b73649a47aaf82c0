//! All that is needed to make a container's processes, as the daemon leaves it in the container's directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::RuntimeError;

/// File names in a container's directory.
pub(crate) mod file {
    /// The plan, as JSON.
    pub const PLAN: &str = "plan.json";
    /// The compiled seccomp filter, if there is one.
    pub const FILTER: &str = "seccomp.bpf";
    /// The socket the shim listens on.
    pub const SOCKET: &str = "shim.sock";
    /// Pid and start time of the shim and of the container's first process.
    pub const PIDS: &str = "pids";
    /// How the first process ended.
    pub const EXIT: &str = "exit";
}

/// A cgroup of a v1 hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cgroup1 {
    /// What the hierarchy is called below `/sys/fs/cgroup`.
    pub hierarchy: String,
    /// The container's directory in it.
    pub path: PathBuf,
}

/// How to make the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The container's id.
    pub id: String,
    /// The bundle; relative paths in the spec start here.
    pub bundle: PathBuf,
    /// Where the root file system is mounted.
    pub root: PathBuf,
    /// The container's cgroup in the unified tree.
    pub cgroup2: PathBuf,
    /// Its cgroups in v1 hierarchies, if there are any.
    pub cgroup1: Vec<Cgroup1>,
    /// Flags for loading the seccomp filter; none: there is no filter.
    pub seccomp_flags: Option<u64>,
    /// The spec, without its seccomp profile: that is compiled already.
    pub spec: Spec,
}

impl Plan {
    pub fn read(directory: &Path) -> Result<Self, RuntimeError> {
        let path = directory.join(file::PLAN);
        let bytes =
            fs::read(&path).map_err(|error| RuntimeError::Failed(format!("read {}: {error}", path.display())))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| RuntimeError::Failed(format!("understand {}: {error}", path.display())))
    }

    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::write(directory.join(file::PLAN), serde_json::to_vec(self)?)
    }

    /// The compiled filter and the flags to load it with.
    pub fn filter(&self, directory: &Path) -> Result<Option<(Vec<u8>, u64)>, RuntimeError> {
        let Some(flags) = self.seccomp_flags else {
            return Ok(None);
        };
        let path = directory.join(file::FILTER);
        let filter =
            fs::read(&path).map_err(|error| RuntimeError::Failed(format!("read {}: {error}", path.display())))?;
        Ok(Some((filter, flags)))
    }

    pub fn process(&self) -> Result<&Process, RuntimeError> {
        self.spec
            .process()
            .as_ref()
            .ok_or_else(|| RuntimeError::Failed("the spec names no process".to_owned()))
    }

    /// Outer option: is the namespace in the spec; inner: the path of the one to join.
    pub fn namespace(&self, kind: LinuxNamespaceType) -> Option<Option<&Path>> {
        let namespaces = self.spec.linux().as_ref()?.namespaces().as_ref()?;
        let namespace = namespaces.iter().find(|namespace| namespace.typ() == kind)?;
        Some(namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()))
    }
}
