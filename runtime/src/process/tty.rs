//! A terminal out of the container's own devpts.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use crate::{RuntimeError, rootfs::resolve, syscall};

/// First major number of the slaves of pseudo terminals; there are eight.
const SLAVES: std::ops::Range<u32> = 136..144;

/// Opens a new terminal below `root`: (master, slave). The slave comes from the master, never from a path an image could have prepared.
pub(crate) fn open(root: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd), RuntimeError> {
    pair(root).map_err(|error| RuntimeError::Failed(format!("open a terminal in the container's /dev/pts: {error}")))
}

fn pair(root: BorrowedFd<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let master = resolve::open_plain(root, Path::new("/dev/pts/ptmx"), libc::O_RDWR | libc::O_NOCTTY)?;
    let is_terminal = |fd: BorrowedFd<'_>, number_fits: &dyn Fn(u32, u32) -> bool| -> io::Result<()> {
        let status = syscall::fstat(fd)?;
        let on_devpts = syscall::filesystem_magic(fd)? == libc::DEVPTS_SUPER_MAGIC;
        let is_character = status.st_mode & libc::S_IFMT == libc::S_IFCHR;
        if on_devpts && is_character && number_fits(libc::major(status.st_rdev), libc::minor(status.st_rdev)) {
            Ok(())
        } else {
            Err(io::Error::other("what is there is not a terminal of a devpts"))
        }
    };
    is_terminal(master.as_fd(), &|major, minor| (major, minor) == (5, 2))?;
    let unlock: libc::c_int = 0;
    // SAFETY: this request reads one int.
    syscall::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: this request takes flags by value and gives a descriptor.
    let slave = syscall::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel just gave it to us.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    is_terminal(slave.as_fd(), &|major, _| SLAVES.contains(&major))?;
    Ok((master, slave))
}

/// Makes standard input the terminal of this session.
pub(crate) fn control() -> io::Result<()> {
    // SAFETY: this request takes an int by value.
    syscall::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets the size, in characters.
pub(crate) fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: this request reads one winsize.
    syscall::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}
