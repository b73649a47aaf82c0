//! Turns a bundle into a process and watches over it.
//!
//! The contract is the OCI bundle: a directory with a `config.json`. The runtime is handed a network namespace path in it and asks no questions.
//! Each container has one shim, a small process that outlives the daemon; everything a [`Runtime`] knows it reads from the shims' directories,
//! so a restarted daemon finds all of them again.

mod attach;
mod cgroup;
mod connection;
mod create;
mod delete;
mod digest;
mod error;
mod exec;
mod namespaces;
mod pages;
mod pause;
mod plan;
mod process;
mod resources;
mod rootfs;
mod security;
mod signal;
pub mod spec;
mod start;
mod state;
mod syscall;
mod unread;
mod user;
mod view;
mod wait;
mod wire;

use std::{fs, os::fd::OwnedFd, os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc};

pub use attach::{Attachment, Input, Output, Promise, Stream};
pub use cgroup::{BlockStats, CpuStats, Features, MemoryStats, PidsStats, Stats};
pub use create::{Create, Log};
pub use error::RuntimeError;
pub use exec::Exec;
pub use namespaces::user::{UserNamespace, make_network_namespace, make_user_namespace, owner_of_namespace};
pub use pages::forget_pages;
pub use plan::{IdMap, IdRange};
pub use rootfs::shared_memory::{mount_shared_memory, unmount_shared_memory};
pub use security::apparmor::check_apparmor;
pub use state::{State, Status};
pub use unread::unread;
pub use user::{User, resolve_groups, resolve_user};
pub use view::{of_running, of_stopped};
pub use wait::Exit;

/// The shim's side; its binary is nothing but a call of this.
#[doc(hidden)]
pub mod shim {
    pub use crate::process::shim::main;
}

/// Where the runtime keeps things and what it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory with one directory per container (`<exec-root>/containers`): the shim's socket, pid and exit files.
    pub state_root: PathBuf,
    /// The `sluice-shim` binary.
    pub shim: PathBuf,
    /// The cgroup below each hierarchy's root under which containers live unless their specs say otherwise, e.g. `sluice`.
    pub cgroup_parent: String,
}

impl Config {
    /// Where a container's cgroup is unless its spec says otherwise.
    pub(crate) fn cgroup_of(&self, id: &str) -> PathBuf {
        std::path::Path::new(self.cgroup_parent.trim_matches('/')).join(id)
    }
}

/// Containers of one instance.
pub struct Runtime {
    config: Config,
    hierarchies: Arc<cgroup::Hierarchies>,
    filters: Arc<security::seccomp::Cache>,
    parents: Arc<cgroup::Parents>,
    /// A sealed copy of the shim: what a container could ever reach of it, it can't change.
    shim: Arc<OwnedFd>,
    features: std::sync::OnceLock<Features>,
}

impl Runtime {
    /// Opens the directory, finds out how cgroups are mounted.
    pub fn open(config: Config) -> Result<Self, RuntimeError> {
        let failed = |error| RuntimeError::Failed(format!("make {}: {error}", config.state_root.display()));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.state_root)
            .map_err(failed)?;
        let beside = config.state_root.parent().unwrap_or(&config.state_root);
        let filters = security::seccomp::Cache::new(beside.join("seccomp"));
        let hierarchies = cgroup::Hierarchies::find()?;
        let shim = create::seal(&config.shim)?;
        Ok(Self {
            hierarchies: Arc::new(hierarchies),
            filters: Arc::new(filters),
            parents: Arc::new(cgroup::Parents::new(beside.join("cgroup-parents"))),
            shim: Arc::new(shim),
            features: std::sync::OnceLock::new(),
            config,
        })
    }

    /// The ids of all containers that have a directory here.
    pub fn list(&self) -> Result<Vec<String>, RuntimeError> {
        let failed = |error| RuntimeError::Failed(format!("list {}: {error}", self.config.state_root.display()));
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.config.state_root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                ids.extend(entry.file_name().into_string().ok());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes what all containers share: the parent cgroups and the cache of filters. Does nothing while containers are there.
    pub fn clean_up(&self) {
        if self.list().is_ok_and(|ids| ids.is_empty()) {
            self.parents.sweep();
            self.hierarchies.remove_parent(&self.config.cgroup_parent);
            self.filters.remove();
        }
    }

    /// The directory of a container, if there is one.
    fn directory(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        let directory = self.path_of(id)?;
        if directory.is_dir() {
            Ok(directory)
        } else {
            Err(RuntimeError::NoSuchContainer(id.to_owned()))
        }
    }

    fn path_of(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        let is_plain = !id.is_empty()
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_plain {
            Ok(self.config.state_root.join(id))
        } else {
            Err(RuntimeError::NoSuchContainer(id.to_owned()))
        }
    }

    /// Where a container's cgroup is, below the root of each hierarchy.
    fn place(&self, id: &str) -> PathBuf {
        cgroup::Place::of_container(&self.config.state_root.join(id), self.config.cgroup_of(id)).0
    }

    fn cgroups(&self, id: &str) -> cgroup::Cgroups {
        self.hierarchies.cgroups(&self.place(id))
    }
}

/// Runs work that waits for the kernel where it holds nobody up.
async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let step = tracing::Span::current();
    tokio::task::spawn_blocking(move || step.in_scope(work))
        .await
        .unwrap_or_else(|error| Err(RuntimeError::Failed(format!("the work was cut short: {error}"))))
}
