//! Network namespaces: made, kept by a file, entered, let go.
//!
//! A thread that changed its namespace is never used for anything else: each call here spends a thread of its own.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};

/// `NSFS_MAGIC` of linux/magic.h: the file is a namespace.
const NSFS: FsType = FsType(0x6e73_6673);

/// Makes a namespace, or takes one that somebody made, and mounts it on `path`, which is made when it is missing. `inside` runs in it before anybody else
/// can see it.
pub fn make(path: &Path, made: Option<OwnedFd>, inside: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o444).open(path) {
        Ok(_) => {}
        // Left behind by a crash or a reboot: an empty file, or one that another mount hides.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o444))?
        }
        Err(error) => return Err(error),
    }
    in_thread(|| {
        match &made {
            Some(namespace) => setns(namespace, CloneFlags::CLONE_NEWNET)?,
            None => unshare(CloneFlags::CLONE_NEWNET)?,
        }
        inside()?;
        mount(
            Some("/proc/thread-self/ns/net"),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        Ok(())
    })
}

/// Is a namespace mounted on the file?
pub fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|status| status.filesystem_type() == NSFS)
}

/// Unmounts the namespace and removes the file; fine when there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    // Once per mount: the daemon of an earlier life may have mounted one over another.
    while exists(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens the namespace mounted on `path`.
pub fn open(path: &Path) -> io::Result<File> {
    if !exists(path) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is no namespace", path.display()),
        ));
    }
    File::open(path)
}

/// Runs `inside` in a namespace.
pub fn within<T: Send>(namespace: &File, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    in_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        inside()
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("sluice-netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)?;
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// The number by which the kernel tells the calling thread's namespace from all others.
pub fn cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// The index of a device of the calling thread's namespace.
pub fn ifindex(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}
