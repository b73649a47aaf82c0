//! System calls that no crate of ours wraps: new mount API, `clone3`, `openat2`, pidfds.
//!
//! Each returns an [`io::Error`] with the kernel's errno; file descriptors come back owned and close-on-exec.

use std::{
    ffi::{CStr, CString},
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// A fresh instance's parameters are read and it is made (`FSCONFIG_CMD_CREATE`).
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
/// The C library's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `mount_setattr(2)` and `fsmount(2)` attributes.
pub(crate) mod mount_attr {
    /// Nothing may be written.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes can't be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field that holds the access-time mode; zero in it is relatime.
    pub const ATIME: u64 = 0x70;
    /// Access times are not kept.
    pub const NOATIME: u64 = 0x10;
    /// Access times are kept strictly.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not kept.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// What `mount_setattr(2)` changes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountAttr {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel just gave this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A path as the kernel wants it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path holds a NUL byte"))
}

/// A string as the kernel wants it.
pub(crate) fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the string holds a NUL byte"))
}

/// `openat2(2)`.
pub(crate) fn openat2(dir: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32, resolve: u64) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: open_how is plain data, all zeroes is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    loop {
        // SAFETY: path is NUL-terminated, how has the size given; both outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &how,
                size_of::<libc::open_how>(),
            )
        };
        match owned(result) {
            // A rename raced with the walk; the kernel asks to try again.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            other => return other,
        }
    }
}

/// A file system being configured (`fsopen(2)`).
pub(crate) struct FsContext(OwnedFd);

impl FsContext {
    pub fn open(kind: &str) -> io::Result<Self> {
        let kind = c_string(kind)?;
        // SAFETY: kind is NUL-terminated and outlives the call.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    pub fn set(&self, key: &str, value: Option<&str>) -> io::Result<()> {
        let key = c_string(key)?;
        let value = value.map(c_string).transpose()?;
        let (command, value) = match &value {
            Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
            None => (FSCONFIG_SET_FLAG, std::ptr::null()),
        };
        // SAFETY: key and value are NUL-terminated (or null, for a flag) and outlive the call.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key.as_ptr(), value, 0) })
            .map_err(|error| self.explain(error))
            .map(drop)
    }

    /// Makes the instance and a detached mount of it with attributes of [`mount_attr`].
    pub fn mount(self, attributes: u64) -> io::Result<OwnedFd> {
        // SAFETY: this command takes no pointers.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                FSCONFIG_CMD_CREATE,
                std::ptr::null::<u8>(),
                std::ptr::null::<u8>(),
                0,
            )
        })
        .map_err(|error| self.explain(error))?;
        // SAFETY: takes no pointers.
        owned(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes as libc::c_uint,
            )
        })
    }

    /// The file system's own words say more than an errno.
    fn explain(&self, error: io::Error) -> io::Error {
        let mut message = [0u8; 256];
        // SAFETY: the buffer is ours and of the length given.
        let read = unsafe { libc::read(self.0.as_raw_fd(), message.as_mut_ptr().cast(), message.len()) };
        match usize::try_from(read) {
            Ok(length) if length > 0 => {
                let words = String::from_utf8_lossy(&message[..length]);
                io::Error::new(error.kind(), format!("{error}: {}", words.trim()))
            }
            _ => error,
        }
    }
}

/// A detached copy of the mount (and, recursively, those on it) that `path` below `dir` is in. An empty path is `dir` itself.
pub(crate) fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: path is NUL-terminated and outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Puts a detached mount onto what `onto` stands for.
pub(crate) fn attach_mount(mount: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both paths are empty strings with static life.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            onto.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Changes attributes of the mount that `mount` is the root of.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attributes: &MountAttr) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the struct has the layout of the kernel's first version and the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes as *const MountAttr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// The child of a [`clone3`], or its pid.
pub(crate) enum Cloned {
    /// We are the new process.
    Child,
    /// We are the old one; this is the child's pid.
    Parent(i32),
}

/// `clone3(2)` as a fork: no shared memory, the child runs on a copy of our stack.
///
/// # Safety
/// The calling process must have one thread only: the C library is not told of the fork, so locks that other threads hold would stay held.
pub(crate) unsafe fn clone3(flags: u64, exit_signal: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    // SAFETY: clone_args is plain data, all zeroes is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = exit_signal as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the struct has the size given; without CLONE_VM and a stack this behaves as fork. The caller vouches for a single thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of::<libc::clone_args>()) })?;
    Ok(if pid == 0 {
        Cloned::Child
    } else {
        Cloned::Parent(pid as i32)
    })
}

/// A handle on a process that can't come to mean another one.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Marks all descriptors from `first` on close-on-exec.
pub(crate) fn close_from_on_exec(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes no pointers; closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Loads a compiled seccomp filter on the calling process (single-threaded, so no thread synchronisation).
pub(crate) fn load_seccomp(filter: &[u8], flags: u64) -> io::Result<()> {
    let length = filter.len() / size_of::<libc::sock_filter>();
    let program = libc::sock_fprog {
        len: u16::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        filter: filter.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: the kernel copies `len` instructions from the buffer, which holds that many; it does not write to it and does not ask for
    // alignment.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) }).map(drop)
}

/// A session keyring of its own, so that the host's keys are not reachable.
pub(crate) fn join_session_keyring(name: &str) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name = c_string(name)?;
    // SAFETY: name is NUL-terminated and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

/// The magic number of the file system a descriptor is on.
pub(crate) fn filesystem_magic(fd: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: statfs is plain data, all zeroes is valid.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is ours and of the right type.
    check(libc::c_long::from(unsafe {
        libc::fstatfs(fd.as_raw_fd(), &mut status)
    }))?;
    Ok(status.f_type)
}

/// Type, device number and so on of what a descriptor stands for.
pub(crate) fn fstat(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    // SAFETY: stat is plain data, all zeroes is valid.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is ours and of the right type.
    check(libc::c_long::from(unsafe { libc::fstat(fd.as_raw_fd(), &mut status) }))?;
    Ok(status)
}

/// Opens a path of the host (not of a container).
pub(crate) fn open(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: path is NUL-terminated and outlives the call.
    owned(libc::c_long::from(unsafe {
        libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600)
    }))
}

/// A connected pair of message sockets, close-on-exec.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array takes the two descriptors.
    check(libc::c_long::from(unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        )
    }))?;
    // SAFETY: the kernel just gave both to us.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A pipe, close-on-exec: (read end, write end).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array takes the two descriptors.
    check(libc::c_long::from(unsafe {
        libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC)
    }))?;
    // SAFETY: the kernel just gave both to us.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Reads and writes return at once with EAGAIN instead of waiting.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes no pointers.
    let flags = check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_GETFL) }))?;
    // SAFETY: takes no pointers.
    check(libc::c_long::from(unsafe {
        libc::fcntl(fd, libc::F_SETFL, flags as i32 | libc::O_NONBLOCK)
    }))
    .map(drop)
}

/// The result of a call of the C library as an [`io::Result`].
pub(crate) fn result(value: libc::c_int) -> io::Result<libc::c_int> {
    check(libc::c_long::from(value)).map(|value| value as libc::c_int)
}

/// `read(2)`, again when a signal came between.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is ours and of the length given.
        let read = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match check(read as libc::c_long) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => return other.map(|length| length as usize),
        }
    }
}

/// `write(2)`, again when a signal came between.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the bytes are ours and of the length given.
        let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match check(written as libc::c_long) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => return other.map(|length| length as usize),
        }
    }
}
