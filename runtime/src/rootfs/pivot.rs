//! The turn of the root: the host's tree goes, the container's takes its place.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use crate::{
    RuntimeError,
    syscall::{self, MountAttr, mount_attr},
};

fn failed(what: &str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |error| RuntimeError::Failed(format!("{what}: {error}"))
}

/// Cuts the new namespace off from the host's and makes the root a mount of its own. Gives a descriptor of that mount.
pub(crate) fn prepare(root: &Path) -> Result<OwnedFd, RuntimeError> {
    let host = syscall::open(Path::new("/"), libc::O_PATH).map_err(failed("open the host's root"))?;
    // Slave, not private: a mount the administrator adds below an rslave volume shall arrive in the container.
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    syscall::mount_setattr(host.as_fd(), true, &slave).map_err(failed("stop mounts from reaching the host"))?;
    let at = syscall::open(root, libc::O_PATH | libc::O_DIRECTORY)
        .map_err(|error| RuntimeError::Failed(format!("open the root directory {}: {error}", root.display())))?;
    let tree = syscall::clone_tree(at.as_fd(), c"", true)
        .map_err(|error| RuntimeError::Failed(format!("take the tree at {}: {error}", root.display())))?;
    syscall::attach_mount(tree.as_fd(), at.as_fd())
        .map_err(|error| RuntimeError::Failed(format!("mount {} on itself: {error}", root.display())))?;
    Ok(tree)
}

/// Puts a root that was taken elsewhere over the host's, in a namespace whose mounts nothing leaves: it belongs to a user namespace.
pub(crate) fn put(root: &OwnedFd) -> Result<(), RuntimeError> {
    syscall::open(Path::new("/"), libc::O_PATH)
        .and_then(|host| syscall::attach_mount(root.as_fd(), host.as_fd()))
        .map_err(failed("mount the container's root over the host's"))
}

/// Makes `root` the root of the namespace and drops the old one, with all that was mounted there.
pub(crate) fn turn(root: &OwnedFd) -> Result<(), RuntimeError> {
    let old = syscall::open(Path::new("/"), libc::O_PATH | libc::O_DIRECTORY).map_err(failed("open the old root"))?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::fchdir(root.as_raw_fd()) }).map_err(failed("enter the new root"))?;
    // Both at the same place: the old root ends up mounted over the new one, and no directory is needed for it.
    // SAFETY: both strings are static and NUL-terminated.
    let turned = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    syscall::result(turned as i32).map_err(failed("pivot_root"))?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::fchdir(old.as_raw_fd()) }).map_err(failed("enter the old root"))?;
    // Unmounting must not reach the host, whatever it made shared since.
    // SAFETY: null and static strings are what mount(2) takes for a change of propagation.
    syscall::result(unsafe {
        libc::mount(
            std::ptr::null(),
            c".".as_ptr(),
            std::ptr::null(),
            libc::MS_SLAVE | libc::MS_REC,
            std::ptr::null(),
        )
    })
    .map_err(failed("cut the old root off"))?;
    // SAFETY: the string is static and NUL-terminated.
    syscall::result(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })
        .map_err(failed("unmount the old root"))?;
    // SAFETY: the string is static and NUL-terminated.
    syscall::result(unsafe { libc::chdir(c"/".as_ptr()) }).map_err(failed("enter /"))?;
    Ok(())
}

/// The last touch to the root mount itself: its propagation, and if it may be written.
pub(crate) fn finish(propagation: Option<&str>, read_only: bool) -> Result<(), RuntimeError> {
    let root = syscall::open(Path::new("/"), libc::O_PATH | libc::O_DIRECTORY).map_err(failed("open /"))?;
    if let Some((propagation, recursive)) = propagation.and_then(super::options::propagation) {
        let attributes = MountAttr {
            propagation,
            ..MountAttr::default()
        };
        syscall::mount_setattr(root.as_fd(), recursive, &attributes)
            .map_err(failed("set the propagation of the root"))?;
    }
    if read_only {
        let attributes = MountAttr {
            set: mount_attr::RDONLY,
            ..MountAttr::default()
        };
        syscall::mount_setattr(root.as_fd(), false, &attributes).map_err(failed("make the root read-only"))?;
    }
    Ok(())
}
