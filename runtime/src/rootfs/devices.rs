//! The container's `/dev`: nodes, links, and the console.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use super::resolve::{self, Wanted};
use crate::{
    RuntimeError,
    plan::{Device, Mount, Plan},
    syscall,
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
pub(crate) fn all(root: BorrowedFd<'_>, plan: &Plan) -> Result<(), RuntimeError> {
    if plan.mounts.iter().any(binds_dev) {
        return Ok(());
    }
    let failed = |what: &str, error: io::Error| RuntimeError::Failed(format!("make {what} in the container: {error}"));
    for device in &plan.devices {
        node(root, device).map_err(|error| failed(&format!("device {}", device.path.display()), error))?;
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
