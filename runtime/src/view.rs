//! What a container sees of the file system, as a descriptor: for who copies files in and out.
//!
//! Nothing is mounted on the host for it, so nothing is left behind, whatever kills the daemon.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use crate::{
    Runtime, RuntimeError, Status,
    plan::Mount,
    rootfs::mounts,
    syscall::{self, MountAttr, mount_attr},
};

/// The root of a running container, with all that is mounted in it. Paths are to be resolved in it with `openat2(RESOLVE_IN_ROOT)`.
pub async fn of_running(runtime: &Runtime, id: &str) -> Result<OwnedFd, RuntimeError> {
    let failed = |error: io::Error| RuntimeError::Failed(format!("enter the root of container {id}: {error}"));
    let alive = |state: crate::State| match (state.status, state.pid) {
        (Status::Running | Status::Paused, Some(pid)) => Ok(pid),
        _ => Err(RuntimeError::NoSuchContainer(id.to_owned())),
    };
    let pid = alive(runtime.state(id).await?)?;
    let process =
        syscall::open(Path::new(&format!("/proc/{pid}")), libc::O_PATH | libc::O_DIRECTORY).map_err(failed)?;
    // the descriptor stays that process's; if it is still the container's now, it was when it was opened
    if alive(runtime.state(id).await?)? != pid {
        return Err(RuntimeError::NoSuchContainer(id.to_owned()));
    }
    syscall::openat2(
        process.as_fd(),
        Path::new("root"),
        libc::O_PATH | libc::O_DIRECTORY,
        0,
        0,
    )
    .map_err(failed)
}

/// The root of a container that does not run: `root` mounts it and tells where, then `binds` (OCI mounts of kind `bind`) are put in it. All of it happens in
/// a mount namespace of a thread's own, and is gone with the descriptor. Blocks.
pub fn of_stopped<E>(
    root: impl FnOnce() -> Result<PathBuf, E> + Send,
    binds: &[oci_spec::runtime::Mount],
    read_only: bool,
) -> Result<OwnedFd, E>
where
    E: From<RuntimeError> + Send,
{
    let binds: Vec<Mount> = binds.iter().map(mount_of).collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            leave_namespace()?;
            let root = root()?;
            Ok(assemble(&root, &binds, read_only)?)
        });
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err(RuntimeError::Failed("the thread that mounts a root ended early".into()).into()))
    })
}

/// A mount namespace of this thread's own, from which nothing reaches the host.
fn leave_namespace() -> Result<(), RuntimeError> {
    let failed = |error: io::Error| RuntimeError::Failed(format!("make a mount namespace: {error}"));
    // SAFETY: takes no pointers; the thread is ours and ends soon.
    syscall::result(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map_err(failed)?;
    let here = syscall::open(Path::new("/"), libc::O_PATH).map_err(failed)?;
    let private = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    syscall::mount_setattr(here.as_fd(), true, &private).map_err(failed)
}

fn assemble(root: &Path, binds: &[Mount], read_only: bool) -> Result<OwnedFd, RuntimeError> {
    let failed = |error: io::Error| RuntimeError::Failed(format!("take the tree at {}: {error}", root.display()));
    let at = syscall::open(root, libc::O_PATH | libc::O_DIRECTORY).map_err(failed)?;
    mounts::binds(at.as_fd(), binds)?;
    if read_only {
        let attributes = MountAttr {
            set: mount_attr::RDONLY,
            ..MountAttr::default()
        };
        syscall::mount_setattr(at.as_fd(), false, &attributes).map_err(failed)?;
    }
    // a tree of its own, which lives as long as the descriptor and holds none of the namespace's other mounts
    syscall::clone_tree(at.as_fd(), c"", true).map_err(failed)
}

fn mount_of(mount: &oci_spec::runtime::Mount) -> Mount {
    Mount {
        destination: mount.destination().clone(),
        kind: mount.typ().clone().unwrap_or_default(),
        source: mount.source().clone(),
        options: mount.options().clone().unwrap_or_default(),
    }
}
