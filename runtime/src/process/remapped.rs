//! A container in a user namespace: what only the host's root can do for it, done before the namespace is entered.
//!
//! Within it, root is nobody on the host: it can't pass the daemon's directories, make devices, raise limits, or own what others made. So its root, the
//! sources of its binds, its devices and its streams are made ready here and handed on as descriptors; all that can be made within is made there, so
//! that it belongs there.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    channel,
    creator::{self, Entry},
    init, stdio,
};
use crate::{
    RuntimeError,
    namespaces::{self, user},
    plan::{IdMap, Limit, Plan, Process},
    rootfs::{devices, mounts},
    syscall::{self, Cloned},
};

/// What the first process takes along into the user namespace.
pub(crate) struct Taken {
    /// The root file system, as a mount that is nowhere yet.
    pub root: OwnedFd,
    /// The sources of all binds.
    pub sources: mounts::Shared,
    /// A file system with the devices in it, by their numbers in the plan.
    pub devices: OwnedFd,
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |error| RuntimeError::Failed(format!("{what}: {error}"))
}

/// Makes the container's first process in its user namespace. It is made by a process that enters first, a child of the shim as well; this one stays
/// behind, as the host's root, and puts what was made into its cgroup of the unified tree.
pub(crate) fn create(
    plan: &Plan,
    ids: &IdMap,
    filter: Option<(Vec<u8>, u64)>,
    streams: Option<stdio::Ends>,
    channel: BorrowedFd<'_>,
) -> Result<(), RuntimeError> {
    let (joined, join) = syscall::pipe().map_err(failed("make a pipe"))?;
    let (told, tell) = syscall::pipe().map_err(failed("make a pipe"))?;
    let doors = creator::doors(plan)?;
    // SAFETY: the shim has one thread, and so has its fork.
    let cloned = unsafe { syscall::clone3(libc::CLONE_PARENT as u64, 0, None) }
        .map_err(failed("fork who enters the user namespace"))?;
    match cloned {
        Cloned::Child => {
            drop((join, told));
            let outcome = enter(plan, ids, streams.as_ref()).and_then(|taken| {
                let flags = namespaces::flags(plan) | libc::CLONE_PARENT as u64;
                // SAFETY: as above.
                match unsafe { syscall::clone3(flags, 0, None) }
                    .map_err(failed("make the container's first process"))?
                {
                    Cloned::Child => {
                        let joined = Some(joined);
                        init::run(plan, filter, streams, channel, Entry { doors, joined }, Some(taken))
                    }
                    Cloned::Parent(pid) => syscall::write(tell.as_fd(), &pid.to_le_bytes())
                        .map(drop)
                        .map_err(failed("tell of the first process")),
                }
            });
            if let Err(error) = &outcome {
                channel::send_failure(channel, error);
            }
            // SAFETY: ends the fork without running what the shim registered for its own end.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        Cloned::Parent(_) => {
            drop((joined, streams, tell, doors));
            let mut pid = [0; 4];
            // Who entered and failed has said why.
            if syscall::read(told.as_fd(), &mut pid).map_err(failed("hear of the first process"))? != pid.len() {
                return Ok(());
            }
            let pid = i32::from_le_bytes(pid);
            channel::send_pid(channel, pid).map_err(failed("report to the shim"))?;
            match fs::write(plan.cgroup2.join("cgroup.procs"), pid.to_string()) {
                // It has ended by itself: its end says more than we could.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
                other => other.map_err(failed("join the container's cgroup"))?,
            }
            creator::tell_joined(&join).map_err(failed("tell the first process"))
        }
    }
}

/// All that needs the host's root, then into the namespace.
fn enter(plan: &Plan, ids: &IdMap, streams: Option<&stdio::Ends>) -> Result<Taken, RuntimeError> {
    prepare_process(ids, &plan.process, &plan.process, streams)?;
    // Devices get the modes the spec says, not what the daemon's mask leaves of them.
    // SAFETY: takes no pointers.
    unsafe { libc::umask(0) };
    let sources = mounts::take_all(plan)?;
    let devices = devices::file_system(&plan.devices, ids).map_err(failed("make the container's devices"))?;
    let root = mounts::take_root(&plan.root)?;
    // Before the user namespace, as it is the host's root who may join what belongs to another one.
    namespaces::join(plan)?;
    let namespace = match plan.namespace(libc::CLONE_NEWUSER).flatten() {
        Some(path) => syscall::open(path, libc::O_RDONLY)
            .map_err(|error| RuntimeError::Failed(format!("open the user namespace {}: {error}", path.display())))?,
        None => user::make_user_namespace(ids)?.user,
    };
    user::enter(&namespace).map_err(failed("enter the user namespace"))?;
    Ok(Taken { root, sources, devices })
}

/// Streams and limits of a process that is about to be made in the namespace.
pub(crate) fn prepare_process(
    ids: &IdMap,
    process: &Process,
    container: &Process,
    streams: Option<&stdio::Ends>,
) -> Result<(), RuntimeError> {
    if let Some(streams) = streams {
        let owner = ids.user_on_host(process.uid).ok_or_else(|| not_mapped(process.uid))?;
        let group = ids.group_on_host(process.gid).ok_or_else(|| not_mapped(process.gid))?;
        streams.own(owner, group).map_err(failed("own the standard streams"))?;
    }
    container.limits.iter().try_for_each(raise)
}

fn not_mapped(id: u32) -> RuntimeError {
    RuntimeError::NoSuchUser(format!(
        "user or group {id} is not among those of the container's user namespace"
    ))
}

/// Only the host's root can raise a limit above what the daemon has; the process itself takes it down to where it shall be.
fn raise((resource, _, hard): &Limit) -> Result<(), RuntimeError> {
    // SAFETY: rlimit is plain data, all zeroes is valid.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is ours.
    syscall::result(unsafe { libc::getrlimit(*resource, &mut limit) }).map_err(failed("read a resource limit"))?;
    if limit.rlim_max >= *hard {
        return Ok(());
    }
    limit.rlim_max = *hard;
    // SAFETY: the struct outlives the call.
    syscall::result(unsafe { libc::setrlimit(*resource, &limit) })
        .map(drop)
        .map_err(|error| RuntimeError::Failed(format!("raise resource limit {resource} to {hard}: {error}")))
}

/// Joins a running container with its user namespace, and its cgroup before: nobody within may write to that.
pub(crate) fn join_running(plan: &Plan, first: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let path = plan.cgroup2.join("cgroup.procs");
    fs::write(&path, "0").map_err(|error| RuntimeError::Failed(format!("join {}: {error}", path.display())))?;
    namespaces::set(&first, namespaces::SHARED_BY_EXEC | libc::CLONE_NEWUSER)
        .and_then(|()| user::become_root())
        .map_err(failed("join the container's namespaces"))
}
