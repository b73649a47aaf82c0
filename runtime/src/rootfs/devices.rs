//! The container's `/dev`: nodes, links, and the console.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use super::resolve::{self, Wanted};
use crate::{
    RuntimeError,
    plan::{Device, IdMap, Mount, Plan},
    syscall::{self, FsContext, mount_attr},
};

/// Links every program expects in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes the nodes of the spec and the links. A `/dev` that is bound from the host is left alone.
/// `nodes` are those made elsewhere, for who may not make any, in the plan's order.
pub(crate) fn all(root: BorrowedFd<'_>, plan: &Plan, nodes: Option<Vec<OwnedFd>>) -> Result<(), RuntimeError> {
    if plan.mounts.iter().any(binds_dev) {
        return Ok(());
    }
    let failed = |what: &str, error: io::Error| RuntimeError::Failed(format!("make {what} in the container: {error}"));
    for (number, device) in plan.devices.iter().enumerate() {
        let made = match nodes.as_ref().and_then(|nodes| nodes.get(number)) {
            Some(node) => resolve::ensure(root, &device.path, Wanted::File)
                .and_then(|onto| syscall::attach_mount(node.as_fd(), onto.as_fd())),
            None => node(root, device),
        };
        made.map_err(|error| failed(&format!("device {}", device.path.display()), error))?;
    }
    let dev = resolve::ensure(root, Path::new("/dev"), Wanted::Directory).map_err(|error| failed("/dev", error))?;
    for (target, name) in LINKS {
        // The link to a ptmx of the container's own replaces the node of an image.
        symlink(dev.as_fd(), target, name).map_err(|error| failed(&format!("link /dev/{name}"), error))?;
    }
    if resolve::open_in(root, Path::new("/proc/kcore"), libc::O_PATH).is_ok() {
        symlink(dev.as_fd(), "/proc/kcore", "core").map_err(|error| failed("link /dev/core", error))?;
    }
    Ok(())
}

fn binds_dev(mount: &Mount) -> bool {
    let is_bind = mount.kind == "bind"
        || mount
            .options
            .iter()
            .any(|option| matches!(option.as_str(), "bind" | "rbind"));
    is_bind && mount.destination.components().eq(Path::new("/dev").components())
}

/// A file system with these devices in it, called by their numbers: who is in a user namespace may open devices but not make them.
pub(crate) fn file_system(devices: &[Device], ids: &IdMap) -> io::Result<OwnedFd> {
    let context = FsContext::open("tmpfs")?;
    context.set("mode", Some("755"))?;
    let memory = context.mount(mount_attr::NOSUID | mount_attr::NOEXEC)?;
    for (number, device) in devices.iter().enumerate() {
        let name = syscall::c_string(&number.to_string())?;
        let kind = libc::makedev(device.major, device.minor);
        // SAFETY: name is NUL-terminated and outlives the call.
        syscall::result(unsafe { libc::mknodat(memory.as_raw_fd(), name.as_ptr(), device.mode, kind) })?;
        let not_mapped = || io::Error::new(io::ErrorKind::InvalidInput, "its owner is not in the user namespace");
        let uid = ids.user_on_host(device.uid).ok_or_else(not_mapped)?;
        let gid = ids.group_on_host(device.gid).ok_or_else(not_mapped)?;
        // SAFETY: as above.
        syscall::result(unsafe {
            libc::fchownat(memory.as_raw_fd(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW)
        })?;
    }
    Ok(memory)
}

/// Each of these devices as a mount of its own that is nowhere yet. Only what is mounted in our namespace can be taken apart, so it is for a moment.
pub(crate) fn single_out(devices: &OwnedFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let host = syscall::open(Path::new("/"), libc::O_PATH)?;
    syscall::attach_mount(devices.as_fd(), host.as_fd())?;
    let nodes = (0..count)
        .map(|number| syscall::clone_tree(devices.as_fd(), &syscall::c_string(&number.to_string())?, false))
        .collect::<io::Result<Vec<_>>>()?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::fchdir(devices.as_raw_fd()) })?;
    // SAFETY: the string is static and NUL-terminated.
    syscall::result(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })?;
    // SAFETY: as above.
    syscall::result(unsafe { libc::chdir(c"/".as_ptr()) })?;
    Ok(nodes)
}

fn node(root: BorrowedFd<'_>, device: &Device) -> io::Result<()> {
    let path = &device.path;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let directory = resolve::ensure(root, parent, Wanted::Directory)?;
    let name = syscall::c_path(Path::new(name))?;
    let number = libc::makedev(device.major, device.minor);
    // SAFETY: name is NUL-terminated and outlives the call.
    let made = syscall::result(unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), device.mode, number) });
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // SAFETY: name is NUL-terminated and outlives the call.
            syscall::result(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) })?;
            // SAFETY: as above.
            syscall::result(unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), device.mode, number) })?;
        }
        other => {
            other?;
        }
    }
    let (uid, gid) = (device.uid, device.gid);
    if (uid, gid) != (0, 0) {
        // SAFETY: name is NUL-terminated and outlives the call; links are not followed.
        syscall::result(unsafe {
            libc::fchownat(
                directory.as_raw_fd(),
                name.as_ptr(),
                uid,
                gid,
                libc::AT_SYMLINK_NOFOLLOW,
            )
        })?;
    }
    Ok(())
}

/// Makes a symbolic link, in place of one that is there.
pub(crate) fn symlink(dir: BorrowedFd<'_>, target: &str, name: &str) -> io::Result<()> {
    let target = syscall::c_string(target)?;
    let name = syscall::c_string(name)?;
    // SAFETY: both strings are NUL-terminated and outlive the call.
    match syscall::result(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // SAFETY: as above; a directory is not removed by this.
            syscall::result(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) })?;
            // SAFETY: as above.
            syscall::result(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(drop)
        }
        other => other.map(drop),
    }
}

/// Puts the terminal at `/dev/console`.
pub(crate) fn console(root: BorrowedFd<'_>, terminal: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let mounted = || -> io::Result<()> {
        let onto = resolve::ensure(root, Path::new("/dev/console"), Wanted::File)?;
        let detached = syscall::clone_tree(terminal, c"", false)?;
        syscall::attach_mount(detached.as_fd(), onto.as_fd())
    };
    mounted().map_err(|error| RuntimeError::Failed(format!("mount the terminal at /dev/console: {error}")))
}
