//! The short-lived process that makes a container's first one.
//!
//! It is a fork of the shim that reads the plan, so the shim itself never grows by it; it makes the first process the *shim's* child,
//! puts it into the v1 cgroups while that sets itself up, and is gone.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{channel, init, remapped, stdio};
use crate::{
    RuntimeError, namespaces,
    plan::Plan,
    syscall::{self, Cloned},
};

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
    namespaces::join(&plan)?;
    let (joined, join) = syscall::pipe().map_err(|error| RuntimeError::Failed(format!("make a pipe: {error}")))?;
    let flags = namespaces::flags(&plan) | libc::CLONE_PARENT as u64;
    // SAFETY: the shim has one thread, and so has its fork.
    let cloned = unsafe { syscall::clone3(flags, 0, Some(cgroup.as_fd())) }
        .map_err(|error| RuntimeError::Failed(format!("make the container's first process: {error}")))?;
    match cloned {
        Cloned::Child => {
            drop(join);
            init::run(&plan, filter, streams, channel, joined, None)
        }
        Cloned::Parent(pid) => {
            drop((joined, streams));
            channel::send_pid(channel, pid)
                .map_err(|error| RuntimeError::Failed(format!("report to the shim: {error}")))?;
            join_v1(&plan, &pid.to_string())?;
            tell_joined(&join).map_err(|error| RuntimeError::Failed(format!("tell the first process: {error}")))
        }
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

/// Puts a process (`0`: the calling one) into the container's v1 cgroups.
pub(crate) fn join_v1(plan: &Plan, pid: &str) -> Result<(), RuntimeError> {
    for cgroup in &plan.cgroup1 {
        let path = cgroup.path.join("cgroup.procs");
        match fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, pid.as_bytes()))
        {
            // It has ended by itself: its end says more than we could.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            other => other.map_err(|error| RuntimeError::Failed(format!("join {}: {error}", path.display())))?,
        }
    }
    Ok(())
}

/// Lets the first process go on: it is in all its cgroups.
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
