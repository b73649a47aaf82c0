//! Memory that containers share as `/dev/shm`: mounted on the host, for as long as the first of them runs, and bound into each.

use std::{fs, io, os::fd::AsFd, path::Path};

use crate::{
    RuntimeError,
    syscall::{self, FsContext, mount_attr},
};

/// Mounts memory of `size` bytes at `place`, which is made; it belongs to `owner`, a user and a group of the host. Fine when it is there already.
pub fn mount_shared_memory(place: &Path, size: u64, owner: (u32, u32)) -> Result<(), RuntimeError> {
    let mounted = || -> io::Result<()> {
        match fs::create_dir(place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let onto = syscall::open(place, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
        if syscall::filesystem_magic(onto.as_fd())? == libc::TMPFS_MAGIC && is_mounted(place)? {
            return Ok(());
        }
        let context = FsContext::open("tmpfs")?;
        context.set("source", Some("shm"))?;
        context.set("mode", Some("1777"))?;
        context.set("size", Some(&size.to_string()))?;
        context.set("uid", Some(&owner.0.to_string()))?;
        context.set("gid", Some(&owner.1.to_string()))?;
        let memory = context.mount(mount_attr::NOSUID | mount_attr::NODEV | mount_attr::NOEXEC)?;
        syscall::attach_mount(memory.as_fd(), onto.as_fd())
    };
    mounted().map_err(|error| RuntimeError::Failed(format!("mount shared memory at {}: {error}", place.display())))
}

/// Unmounts it and removes the directory. Fine when there is none. Those who have it bound keep it.
pub fn unmount_shared_memory(place: &Path) -> Result<(), RuntimeError> {
    let unmounted = || -> io::Result<()> {
        let path = syscall::c_path(place)?;
        // SAFETY: the path is NUL-terminated and outlives the call.
        while unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) } == 0 {}
        match fs::remove_dir(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    };
    unmounted().map_err(|error| RuntimeError::Failed(format!("unmount shared memory at {}: {error}", place.display())))
}

/// Is it on another file system than the directory it is in?
fn is_mounted(place: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let above = place.parent().unwrap_or(place);
    Ok(fs::symlink_metadata(place)?.dev() != fs::metadata(above)?.dev())
}
