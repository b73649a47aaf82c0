//! User namespaces: made with their mapping, by a child that lives for no other reason, and held by descriptor.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use crate::{
    RuntimeError,
    plan::{IdMap, IdRange},
    syscall::{self, Cloned},
};

/// A user namespace that nobody is in, and a network namespace that belongs to it. Both live as long as a descriptor, a mount or a process of theirs.
#[derive(Debug)]
pub struct UserNamespace {
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace, with a loopback device that is down.
    pub network: OwnedFd,
}

/// Makes a user namespace whose ids are these of the host.
pub fn make_user_namespace(ids: &IdMap) -> Result<UserNamespace, RuntimeError> {
    let made = || -> io::Result<UserNamespace> {
        let child = Child::make(None)?;
        fs::write(child.proc("uid_map"), lines(&ids.users))?;
        fs::write(child.proc("gid_map"), lines(&ids.groups))?;
        Ok(UserNamespace {
            user: syscall::open(&child.proc("ns/user"), libc::O_RDONLY)?,
            network: syscall::open(&child.proc("ns/net"), libc::O_RDONLY)?,
        })
    };
    made().map_err(|error| RuntimeError::Failed(format!("make a user namespace: {error}")))
}

/// Makes a network namespace that belongs to a user namespace that is there.
pub fn make_network_namespace(user: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    Child::make(Some(user))
        .and_then(|child| syscall::open(&child.proc("ns/net"), libc::O_RDONLY))
        .map_err(|error| RuntimeError::Failed(format!("make a network namespace in a user namespace: {error}")))
}

/// The user namespace that the namespace at this path belongs to; none: it is the one we are in.
pub fn owner_of_namespace(path: &Path) -> Result<Option<OwnedFd>, RuntimeError> {
    /// `NS_GET_USERNS` of linux/nsfs.h.
    const GET_USERNS: libc::Ioctl = 0xb701;
    let found = || -> io::Result<Option<OwnedFd>> {
        let namespace = syscall::open(path, libc::O_RDONLY)?;
        // SAFETY: this request takes no argument and gives a descriptor.
        let owner = syscall::result(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_USERNS) })?;
        // SAFETY: the kernel just gave it to us.
        let owner = unsafe { OwnedFd::from_raw_fd(owner) };
        let own = syscall::open(Path::new("/proc/self/ns/user"), libc::O_RDONLY)?;
        let identity = |fd: &OwnedFd| syscall::fstat(fd.as_fd()).map(|status| (status.st_dev, status.st_ino));
        Ok((identity(&owner)? != identity(&own)?).then_some(owner))
    };
    found().map_err(|error| RuntimeError::Failed(format!("find the user namespace of {}: {error}", path.display())))
}

/// A child in namespaces that are looked at from outside. It is ended and reaped, whatever happens.
struct Child {
    pid: i32,
    /// It ends when this is closed, however we end.
    _leave: OwnedFd,
}

impl Child {
    /// Makes it in a new network namespace, and in a user namespace that is new or this one.
    fn make(user: Option<&OwnedFd>) -> io::Result<Self> {
        let (stay, leave) = syscall::pipe()?;
        let (told, tell) = syscall::pipe()?;
        let flags = match user {
            Some(_) => 0,
            None => libc::CLONE_NEWUSER | libc::CLONE_NEWNET,
        };
        let user = user.map(AsRawFd::as_raw_fd);
        // SAFETY: the child makes nothing but system calls, in memory of its own, and so minds no lock that another thread of ours holds.
        match unsafe { syscall::clone3(flags as u64, 0, None) }? {
            Cloned::Child => {
                // SAFETY: all descriptors are open, the buffer is ours. The read ends when the parent lets go of its end.
                unsafe {
                    let mut byte = [0u8];
                    libc::close(leave.as_raw_fd());
                    let joined = user.is_none_or(|user| {
                        libc::setns(user, libc::CLONE_NEWUSER) == 0 && libc::unshare(libc::CLONE_NEWNET) == 0
                    });
                    if joined {
                        libc::write(tell.as_raw_fd(), byte.as_ptr().cast(), 1);
                        libc::read(stay.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
                    }
                    libc::_exit(0)
                }
            }
            Cloned::Parent(pid) => {
                let child = Self { pid, _leave: leave };
                drop(tell);
                match syscall::read(told.as_fd(), &mut [0])? {
                    0 => Err(io::Error::other("its first process could not enter it")),
                    _ => Ok(child),
                }
            }
        }
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: takes no pointers; the pid is our child's until it is reaped, which happens here only.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL);
        }
    }
}

fn lines(ranges: &[IdRange]) -> String {
    let line = |range: &IdRange| format!("{} {} {}\n", range.container, range.host, range.count);
    ranges.iter().map(line).collect()
}

/// Enters a user namespace and becomes its root. The process has one thread, and has nothing left to do that needs the host's.
pub(crate) fn enter(namespace: &impl AsRawFd) -> io::Result<()> {
    super::set(namespace, libc::CLONE_NEWUSER)?;
    become_root()
}

/// Root of the user namespace we are in already: the host's has no name here.
pub(crate) fn become_root() -> io::Result<()> {
    // SAFETY: no groups, so no pointer is read.
    syscall::result(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::setresgid(0, 0, 0) })?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::setresuid(0, 0, 0) }).map(drop)
}
