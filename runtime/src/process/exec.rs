//! A further process in a running container.

use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{
    channel,
    creator::{doors, harden, join_v1},
    identity::{self, Identity, Streams},
    init::fresh_process,
    remapped, stdio, tty,
};
use crate::{
    RuntimeError, namespaces,
    plan::{Plan, Process},
    syscall::{self, Cloned},
};

/// Makes the process. Runs in a fork of the shim, which it leaves by returning.
pub(crate) fn create(
    directory: &Path,
    process: &[u8],
    first: BorrowedFd<'_>,
    streams: Option<stdio::Ends>,
    channel: BorrowedFd<'_>,
) -> Result<(), RuntimeError> {
    let plan = Plan::read(directory)?;
    let filter = plan.filter(directory)?;
    let process: Process = serde_json::from_slice(process)
        .map_err(|error| RuntimeError::Failed(format!("understand the process to be executed: {error}")))?;
    harden(plan.process.oom_score_adj)?;
    join_v1(&plan, &doors(&plan)?)?;
    let cgroup = match &plan.ids {
        None => {
            let cgroup = open_cgroup(&plan)?;
            namespaces::set(&first, namespaces::SHARED_BY_EXEC)
                .map_err(|error| RuntimeError::Failed(format!("join the container's namespaces: {error}")))?;
            Some(cgroup)
        }
        Some(ids) => {
            remapped::prepare_process(ids, &process, &plan.process, streams.as_ref())?;
            remapped::join_running(&plan, first)?;
            None
        }
    };
    // SAFETY: the shim has one thread, and so has its fork.
    let cloned = unsafe { syscall::clone3(libc::CLONE_PARENT as u64, 0, cgroup.as_ref().map(AsFd::as_fd)) }
        .map_err(|error| RuntimeError::Failed(format!("make a process in the container: {error}")))?;
    match cloned {
        Cloned::Child => {
            let error = match enter(&plan, &process, filter, streams, channel) {
                Err(error) => error,
                Ok(never) => match never {},
            };
            channel::send_failure(channel, &error);
            // SAFETY: ends the process without running what the shim registered for its own end.
            unsafe { libc::_exit(error.exit_code()) }
        }
        Cloned::Parent(pid) => channel::send_pid(channel, pid)
            .map_err(|error| RuntimeError::Failed(format!("report to the shim: {error}"))),
    }
}

fn open_cgroup(plan: &Plan) -> Result<OwnedFd, RuntimeError> {
    syscall::open(&plan.cgroup2, libc::O_PATH | libc::O_DIRECTORY)
        .map_err(|error| RuntimeError::Failed(format!("open the cgroup {}: {error}", plan.cgroup2.display())))
}

fn enter(
    plan: &Plan,
    process: &Process,
    filter: Option<(Vec<u8>, u64)>,
    streams: Option<stdio::Ends>,
    channel: BorrowedFd<'_>,
) -> Result<Infallible, RuntimeError> {
    fresh_process()?;
    let streams = match streams {
        Some(ends) => Streams::Pipes(ends),
        None => {
            let root = syscall::open(Path::new("/"), libc::O_PATH)
                .map_err(|error| RuntimeError::Failed(format!("open the container's root: {error}")))?;
            let (master, slave) = tty::open(root.as_fd())?;
            Streams::Terminal { master, slave }
        }
    };
    identity::become_process(
        &Identity {
            process,
            container: &plan.process,
            owns_streams: plan.ids.is_some(),
            init: None,
            filter,
        },
        streams,
        channel,
    )
}
