//! Which namespaces a container gets of its own, and which it joins.

pub(crate) mod user;

use std::{io, os::fd::AsRawFd};

use crate::{RuntimeError, plan::Plan, syscall};

/// Joined before the first process is made, in this order.
const JOINED_EARLY: [(i32, &str); 4] = [
    (libc::CLONE_NEWNET, "network"),
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWPID, "pid"),
];

/// All a process exec'd into a container shares with it.
pub(crate) const SHARED_BY_EXEC: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Joins those namespaces that the spec gives by path. They are inherited by the process made next.
pub(crate) fn join(plan: &Plan) -> Result<(), RuntimeError> {
    for (kind, name) in JOINED_EARLY {
        let Some(Some(path)) = plan.namespace(kind) else {
            continue;
        };
        let joined = syscall::open(path, libc::O_RDONLY).and_then(|namespace| set(&namespace, kind));
        joined.map_err(|error| {
            RuntimeError::Failed(format!("join the {name} namespace at {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

/// `setns(2)`, with a namespace or a pidfd.
pub(crate) fn set(namespace: &impl AsRawFd, kinds: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::setns(namespace.as_raw_fd(), kinds) }).map(drop)
}

/// Flags for `clone3` that make the namespaces that are the container's own. The cgroup namespace is not among them: its root is
/// where the process is when it is made, so the process makes it by itself once it is in its cgroups.
pub(crate) fn flags(plan: &Plan) -> u64 {
    [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
    ]
    .into_iter()
    .filter(|kind| plan.namespace(*kind) == Some(None))
    .fold(0, |flags, kind| flags | kind as u64)
}
