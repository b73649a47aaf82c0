//! All that is needed to make a container's processes, as the daemon leaves it in the container's directory.
//!
//! It says what an OCI spec says, in the fewest words: the shim's side reads this and never a spec, so it stays small. The shim of a
//! running container can be older than the daemon that asks it to execute something, hence fields are only ever added, with a default.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{RuntimeError, security::capabilities::Sets};

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

/// A namespace that is not the host's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Namespace {
    /// Its `CLONE_NEW…` flag.
    pub kind: i32,
    /// The one to join; none: a new one.
    pub path: Option<PathBuf>,
}

/// A run of ids: as many of the container's as of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first of them in the container.
    pub container: u32,
    /// The first of them on the host.
    pub host: u32,
    /// How many.
    pub count: u32,
}

/// Which of the host's users and groups those of a user namespace are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Users.
    pub users: Vec<IdRange>,
    /// Groups.
    pub groups: Vec<IdRange>,
}

impl IdMap {
    /// Who a user of the container is on the host.
    pub(crate) fn user_on_host(&self, uid: u32) -> Option<u32> {
        on_host(&self.users, uid)
    }

    /// The same for a group.
    pub(crate) fn group_on_host(&self, gid: u32) -> Option<u32> {
        on_host(&self.groups, gid)
    }
}

fn on_host(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let within = id.checked_sub(range.container).filter(|within| *within < range.count)?;
        range.host.checked_add(within)
    })
}

/// A mount.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Where, in the container.
    pub destination: PathBuf,
    /// The file system; `none` or `bind` for binds.
    pub kind: String,
    /// What; absolute for binds.
    pub source: Option<PathBuf>,
    /// In fstab's words.
    pub options: Vec<String>,
}

/// A device node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Device {
    pub path: PathBuf,
    /// `S_IFCHR` and so on, with the permissions.
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A resource limit: which (`RLIMIT_…`), soft, hard.
pub(crate) type Limit = (u32, u64, u64);

/// A process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
    /// Rows and columns of its terminal, if it is to have another size than none.
    pub terminal_size: Option<(u16, u16)>,
    pub capabilities: Sets,
    pub no_new_privileges: bool,
    pub limits: Vec<Limit>,
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile; none: unconfined.
    #[serde(default)]
    pub apparmor: Option<String>,
}

/// How to make the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The container's id.
    pub id: String,
    /// Where the root file system is mounted.
    pub root: PathBuf,
    pub root_is_read_only: bool,
    pub root_propagation: Option<String>,
    /// The container's cgroup in the unified tree.
    pub cgroup2: PathBuf,
    /// Its cgroups in v1 hierarchies, if there are any.
    pub cgroup1: Vec<Cgroup1>,
    pub namespaces: Vec<Namespace>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub sysctls: Vec<(String, String)>,
    pub read_only_paths: Vec<String>,
    pub masked_paths: Vec<String>,
    pub host_name: Option<String>,
    pub domain_name: Option<String>,
    /// Flags for loading the seccomp filter; none: there is no filter.
    pub seccomp_flags: Option<u64>,
    /// The ids of its user namespace; none: its users are the host's.
    #[serde(default)]
    pub ids: Option<IdMap>,
    /// The first process is the child of an init of ours.
    #[serde(default)]
    pub init: bool,
    /// The first process.
    pub process: Process,
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

    /// Outer option: does the container have such a namespace; inner: the path of the one to join.
    pub fn namespace(&self, kind: i32) -> Option<Option<&Path>> {
        let namespace = self.namespaces.iter().find(|namespace| namespace.kind == kind)?;
        Some(namespace.path.as_deref())
    }
}
