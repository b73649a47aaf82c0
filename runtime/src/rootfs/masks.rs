//! What the container may see but not change, and what it may not see.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use super::resolve;
use crate::{
    RuntimeError,
    syscall::{self, FsContext, MountAttr, mount_attr},
};

/// Makes each of the paths (and what is mounted below) read-only. Those that don't exist are passed over.
pub(crate) fn read_only<'a>(root: BorrowedFd<'_>, paths: impl Iterator<Item = &'a str>) -> Result<(), RuntimeError> {
    for path in paths {
        let Some(target) = existing(root, path)? else { continue };
        let made = || -> io::Result<()> {
            let detached = syscall::clone_tree(target.as_fd(), c"", true)?;
            syscall::mount_setattr(
                detached.as_fd(),
                true,
                &MountAttr {
                    set: mount_attr::RDONLY,
                    ..MountAttr::default()
                },
            )?;
            syscall::attach_mount(detached.as_fd(), target.as_fd())
        };
        made().map_err(|error| RuntimeError::Failed(format!("make {path} read-only: {error}")))?;
    }
    Ok(())
}

/// Covers each of the paths: a directory with an empty one, all else with `null`.
pub(crate) fn hide<'a>(
    root: BorrowedFd<'_>,
    null: BorrowedFd<'_>,
    paths: impl Iterator<Item = &'a str>,
) -> Result<(), RuntimeError> {
    for path in paths {
        let Some(target) = existing(root, path)? else { continue };
        let made = || -> io::Result<()> {
            let cover = if syscall::fstat(target.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR {
                let context = FsContext::open("tmpfs")?;
                context.set("source", Some("tmpfs"))?;
                context.set("ro", None)?;
                context.mount(mount_attr::RDONLY)?
            } else {
                syscall::clone_tree(null, c"", false)?
            };
            syscall::attach_mount(cover.as_fd(), target.as_fd())
        };
        made().map_err(|error| RuntimeError::Failed(format!("mask {path}: {error}")))?;
    }
    Ok(())
}

/// The container's `/dev/null`, after a look at what it really is: masks made of anything else would hand the host's files out.
pub(crate) fn verified_null(root: BorrowedFd<'_>) -> Result<OwnedFd, RuntimeError> {
    let null = resolve::open_plain(root, Path::new("/dev/null"), libc::O_PATH)
        .map_err(|error| RuntimeError::Failed(format!("open /dev/null of the container: {error}")))?;
    let status = syscall::fstat(null.as_fd())
        .map_err(|error| RuntimeError::Failed(format!("look at /dev/null of the container: {error}")))?;
    if status.st_mode & libc::S_IFMT != libc::S_IFCHR || status.st_rdev != libc::makedev(1, 3) {
        return Err(RuntimeError::Failed(
            "/dev/null of the container is not the null device".to_owned(),
        ));
    }
    Ok(null)
}

fn existing(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, RuntimeError> {
    match resolve::open_in(root, Path::new(path), libc::O_PATH) {
        Ok(target) => Ok(Some(target)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(RuntimeError::Failed(format!("open {path} to cover it: {error}"))),
    }
}
