//! The container's first process, from its birth to its own program.

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    channel,
    creator::{self, Entry},
    identity::{self, Identity, Streams},
    remapped::Taken,
    stdio, tty,
};
use crate::{
    RuntimeError,
    plan::Plan,
    rootfs::{devices, masks, mounts, pivot},
    syscall::{self, FsContext},
};

const LAST_SIGNAL: libc::c_int = 64;

fn failed(what: &str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |error| RuntimeError::Failed(format!("{what}: {error}"))
}

/// Sets the container up from within and becomes its program.
pub(crate) fn run(
    plan: &Plan,
    filter: Option<(Vec<u8>, u64)>,
    streams: Option<stdio::Ends>,
    channel: BorrowedFd<'_>,
    entry: Entry,
    taken: Option<Taken>,
) -> ! {
    let error = match set_up(plan, filter, streams, channel, entry, taken) {
        Err(error) => error,
        Ok(never) => match never {},
    };
    channel::send_failure(channel, &error);
    // SAFETY: ends the process without running what the shim registered for its own end.
    unsafe { libc::_exit(error.exit_code()) }
}

fn set_up(
    plan: &Plan,
    filter: Option<(Vec<u8>, u64)>,
    streams: Option<stdio::Ends>,
    channel: BorrowedFd<'_>,
    entry: Entry,
    taken: Option<Taken>,
) -> Result<Infallible, RuntimeError> {
    let process = &plan.process;
    fresh_process()?;
    creator::join_v1(plan, &entry.doors)?;
    if let Some(joined) = &entry.joined {
        wait_for_cgroup(joined.as_fd())?;
    }
    drop(entry);
    // While there is still the host's /proc.
    let init = match plan.init {
        true => Some(syscall::open(Path::new("/proc/self/exe"), libc::O_PATH).map_err(failed("open the init"))?),
        false => None,
    };
    if creator::own_cgroup_namespace(plan) {
        // SAFETY: takes no pointers.
        syscall::result(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }).map_err(failed("make a cgroup namespace"))?;
    }
    if plan.namespace(libc::CLONE_NEWNET) == Some(None) {
        raise_loopback().map_err(failed("bring the loopback device up"))?;
    }
    // Devices get the modes the spec says, not what the daemon's mask leaves of them.
    // SAFETY: takes no pointers.
    unsafe { libc::umask(0) };
    let (root, sources, nodes) = match taken {
        None => {
            let shared = mounts::take_shared(plan)?;
            (pivot::prepare(&plan.root)?, shared, None)
        }
        Some(Taken { root, sources, devices }) => {
            let nodes = devices::single_out(&devices, plan.devices.len()).map_err(failed("take the devices"))?;
            pivot::put(&root)?;
            (root, sources, Some(nodes))
        }
    };
    mounts::all(root.as_fd(), plan, sources)?;
    devices::all(root.as_fd(), plan, nodes)?;
    let streams = match streams {
        Some(ends) => Streams::Pipes(ends),
        None => {
            let (master, slave) = tty::open(root.as_fd())?;
            devices::console(root.as_fd(), slave.as_fd())?;
            Streams::Terminal { master, slave }
        }
    };
    pivot::turn(&root)?;
    name_host(plan)?;
    if !plan.sysctls.is_empty() {
        set_sysctls(plan, &plan.sysctls)?;
    }
    masks::read_only(root.as_fd(), plan.read_only_paths.iter().map(String::as_str))?;
    if !plan.masked_paths.is_empty() {
        let null = masks::verified_null(root.as_fd())?;
        masks::hide(root.as_fd(), null.as_fd(), plan.masked_paths.iter().map(String::as_str))?;
    }
    make_working_directory(root.as_fd(), &process.cwd)?;
    pivot::finish(plan.root_propagation.as_deref(), plan.root_is_read_only)?;
    drop(root);
    join_keyring(&plan.id)?;
    identity::become_process(
        &Identity {
            process,
            container: process,
            owns_streams: plan.ids.is_some(),
            init,
            filter,
        },
        streams,
        channel,
    )
}

/// A session of its own and no signal blocked or ignored: the shim's ways are not the container's.
pub(crate) fn fresh_process() -> Result<(), RuntimeError> {
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::setsid() }).map_err(failed("make a session"))?;
    // The kernel's own call: the library's refuses the two signals it uses for threads, and those can be inherited as ignored as well.
    let default_action = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: four words of zeroes are a sigaction that says "default"; the old one is not asked for. SIGKILL and SIGSTOP are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default_action.as_ptr(),
                std::ptr::null::<u64>(),
                8usize,
            )
        };
    }
    // SAFETY: sigset_t is plain data; sigemptyset makes it a valid empty set.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe { libc::sigemptyset(&mut none) };
    // SAFETY: the set is valid; the old one is not asked for.
    syscall::result(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) })
        .map(drop)
        .map_err(failed("unblock signals"))
}

/// Waits until the creator has put us into the cgroup of the unified tree.
fn wait_for_cgroup(joined: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    match syscall::read(joined, &mut [0]) {
        Ok(1) => Ok(()),
        Ok(_) => Err(RuntimeError::Failed("the cgroup could not be joined".to_owned())),
        Err(error) => Err(failed("wait for the cgroup")(error)),
    }
}

fn raise_loopback() -> io::Result<()> {
    // SAFETY: takes no pointers.
    let socket = syscall::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel just gave it to us.
    let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket) };
    // SAFETY: ifreq is plain data, all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: this request reads one ifreq.
    syscall::result(unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SIOCSIFFLAGS as _,
            &request,
        )
    })
    .map(drop)
}

fn name_host(plan: &Plan) -> Result<(), RuntimeError> {
    if plan.namespace(libc::CLONE_NEWUTS).is_none() {
        return Ok(());
    }
    if let Some(name) = &plan.host_name {
        // SAFETY: the pointer and the length belong together.
        syscall::result(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
            .map_err(failed("set the host name"))?;
    }
    if let Some(name) = &plan.domain_name {
        // SAFETY: the pointer and the length belong together.
        syscall::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })
            .map_err(failed("set the domain name"))?;
    }
    Ok(())
}

/// Writes kernel settings through a procfs nobody else has seen: whatever stands at the container's /proc can't catch the write.
fn set_sysctls(plan: &Plan, settings: &[(String, String)]) -> Result<(), RuntimeError> {
    let proc = FsContext::open("proc")
        .and_then(|context| context.mount(0))
        .map_err(failed("mount a procfs"))?;
    for (name, value) in settings {
        let path = sysctl_path(name);
        if !is_the_containers_own(plan, &path) {
            return Err(RuntimeError::Failed(format!(
                "sysctl \"{name}\" is not in a namespace of the container's own: it would change the host"
            )));
        }
        let written = syscall::openat2(
            proc.as_fd(),
            &Path::new("sys").join(&path),
            libc::O_WRONLY,
            0,
            libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV,
        )
        .and_then(|file| syscall::write(file.as_fd(), value.as_bytes()));
        written.map_err(|error| RuntimeError::Failed(format!("set sysctl {name} to {value}: {error}")))?;
    }
    Ok(())
}

/// `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.1/forwarding`: what comes first of the two separates.
fn sysctl_path(name: &str) -> PathBuf {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => {
            let swapped = name.chars().map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            });
            PathBuf::from(swapped.collect::<String>())
        }
        _ => PathBuf::from(name),
    }
}

fn is_the_containers_own(plan: &Plan, path: &Path) -> bool {
    let has = |kind| plan.namespace(kind).is_some();
    if path.starts_with("net") {
        return has(libc::CLONE_NEWNET);
    }
    if path.starts_with("fs/mqueue") {
        return has(libc::CLONE_NEWIPC);
    }
    match path.strip_prefix("kernel").ok().and_then(Path::to_str) {
        Some("domainname" | "hostname") => has(libc::CLONE_NEWUTS),
        Some("sem" | "msgmax" | "msgmnb" | "msgmni" | "shmall" | "shmmax" | "shmmni" | "shm_rmid_forced") => {
            has(libc::CLONE_NEWIPC)
        }
        _ => false,
    }
}

/// Made here, where the root can still be written.
fn make_working_directory(root: BorrowedFd<'_>, cwd: &Path) -> Result<(), RuntimeError> {
    use crate::rootfs::resolve::{Wanted, ensure};
    match ensure(root, cwd, Wanted::Directory) {
        // A read-only volume, perhaps: entering it will tell.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        other => other
            .map(drop)
            .map_err(|error| RuntimeError::Failed(format!("make the working directory {}: {error}", cwd.display()))),
    }
}

fn join_keyring(id: &str) -> Result<(), RuntimeError> {
    match syscall::join_session_keyring(&format!("_ses.{id}")) {
        // No keys in this kernel, or none left for this user: as safe, since there are then none to be reached.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EDQUOT)) => {
            Err(failed("join a session keyring")(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_of_a_sysctl_counts() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), Path::new("net/ipv4/ip_forward"));
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.forwarding"),
            Path::new("net/ipv4/conf/eth0.1/forwarding")
        );
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/forwarding"),
            Path::new("net/ipv4/conf/eth0.1/forwarding")
        );
    }
}
