//! The short-lived process that makes a container's first one.
//!
//! It is a fork of the shim that reads the plan, so the shim itself never grows by it; it makes the first process the *shim's* child, in its cgroup of
//! the unified tree from birth and with the doors to those of v1 hierarchies in its hands, and is gone.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{channel, init, remapped, stdio};
use crate::{
    RuntimeError, namespaces,
    plan::{Cgroup1, Plan},
    syscall::{self, Cloned},
};

/// How the first process comes into its cgroups.
pub(crate) struct Entry {
    /// Those of v1 hierarchies it enters by itself; see [`doors`].
    pub doors: Vec<OwnedFd>,
    /// On this line it is told that it was put into that of the unified tree; none: it was born there.
    pub joined: Option<OwnedFd>,
}

/// Makes the container's first process. Runs in a fork of the shim, which it leaves by returning.
pub(crate) fn create(
    directory: &Path,
    streams: Option<stdio::Ends>,
    channel: BorrowedFd<'_>,
) -> Result<(), RuntimeError> {
    let plan = Plan::read(directory)?;
    let filter = plan.filter(directory)?;
    harden(plan.process.oom_score_adj)?;
    if let Some(ids) = &plan.ids {
        return remapped::create(&plan, ids, filter, streams, channel);
    }
    let cgroup = syscall::open(&plan.cgroup2, libc::O_PATH | libc::O_DIRECTORY)
        .map_err(|error| RuntimeError::Failed(format!("open the cgroup {}: {error}", plan.cgroup2.display())))?;
    // opened with our rights: in a user namespace the process could not
    let doors = doors(&plan)?;
    namespaces::join(&plan)?;
    let flags = namespaces::flags(&plan) | libc::CLONE_PARENT as u64;
    // SAFETY: the shim has one thread, and so has its fork.
    let cloned = unsafe { syscall::clone3(flags, 0, Some(cgroup.as_fd())) }
        .map_err(|error| RuntimeError::Failed(format!("make the container's first process: {error}")))?;
    match cloned {
        Cloned::Child => {
            let entry = Entry { doors, joined: None };
            init::run(&plan, filter, streams, channel, entry, None)
        }
        Cloned::Parent(pid) => channel::send_pid(channel, pid)
            .map_err(|error| RuntimeError::Failed(format!("report to the shim: {error}"))),
    }
}

/// What both a creator and an exec do before they touch a container: out of reach of its debuggers, killed as early as it.
pub(crate) fn harden(oom_score_adj: Option<i32>) -> Result<(), RuntimeError> {
    if let Some(score) = oom_score_adj {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|error| RuntimeError::Failed(format!("set oom_score_adj to {score}: {error}")))?;
    }
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })
        .map(drop)
        .map_err(|error| RuntimeError::Failed(format!("become undumpable: {error}")))
}

/// The files by which a thread enters the container's v1 cgroups, in the order of the plan.
///
/// It is `tasks`, not `cgroup.procs`: a thread that moves nobody but itself needs not keep its process from forking, and so the kernel spares it the lock for
/// that, which waits for a grace period of RCU (10 to 30 ms, with all cgroups locked).
pub(crate) fn doors(plan: &Plan) -> Result<Vec<OwnedFd>, RuntimeError> {
    let door = |cgroup: &Cgroup1| {
        let path = cgroup.path.join("tasks");
        syscall::open(&path, libc::O_WRONLY)
            .map_err(|error| RuntimeError::Failed(format!("open {}: {error}", path.display())))
    };
    plan.cgroup1.iter().map(door).collect()
}

/// Puts the calling thread into the container's v1 cgroups. It must be the only one of its process.
pub(crate) fn join_v1(plan: &Plan, doors: &[OwnedFd]) -> Result<(), RuntimeError> {
    for (cgroup, door) in plan.cgroup1.iter().zip(doors) {
        syscall::write(door.as_fd(), b"0")
            .map_err(|error| RuntimeError::Failed(format!("join {}: {error}", cgroup.path.display())))?;
    }
    Ok(())
}

/// Lets the first process go on: it is in its cgroup of the unified tree.
pub(crate) fn tell_joined(join: &OwnedFd) -> io::Result<()> {
    match syscall::write(join.as_fd(), b"j") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map(drop),
    }
}

/// Is the cgroup namespace the container's own?
pub(crate) fn own_cgroup_namespace(plan: &Plan) -> bool {
    plan.namespace(libc::CLONE_NEWCGROUP) == Some(None)
}
