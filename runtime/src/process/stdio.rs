//! Standard streams: the shim's ends and the process's ends.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use crate::syscall;

/// What a process without a terminal has as 0, 1 and 2.
pub(crate) struct Ends {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// What the shim keeps of them.
pub(crate) struct Kept {
    /// None: stdin is /dev/null.
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Pipes for a process; stdin is /dev/null unless wanted.
pub(crate) fn pipes(stdin: bool) -> io::Result<(Ends, Kept)> {
    let (stdin, kept_stdin) = if stdin {
        let (read, write) = syscall::pipe()?;
        syscall::set_nonblocking(write.as_fd())?;
        (read, Some(write))
    } else {
        (syscall::open(Path::new("/dev/null"), libc::O_RDONLY)?, None)
    };
    let (kept_stdout, stdout) = syscall::pipe()?;
    let (kept_stderr, stderr) = syscall::pipe()?;
    syscall::set_nonblocking(kept_stdout.as_fd())?;
    syscall::set_nonblocking(kept_stderr.as_fd())?;
    let kept = Kept {
        stdin: kept_stdin,
        stdout: kept_stdout,
        stderr: kept_stderr,
    };
    Ok((Ends { stdin, stdout, stderr }, kept))
}

impl Ends {
    /// Gives the pipes to a user and a group, as the host counts them.
    pub fn own(&self, uid: u32, gid: u32) -> io::Result<()> {
        for end in [&self.stdin, &self.stdout, &self.stderr] {
            if !is_null(end)? {
                // SAFETY: takes no pointers.
                syscall::result(unsafe { libc::fchown(end.as_raw_fd(), uid, gid) })?;
            }
        }
        Ok(())
    }
}

fn is_null(end: &OwnedFd) -> io::Result<bool> {
    let status = syscall::fstat(end.as_fd())?;
    Ok(status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == libc::makedev(1, 3))
}

/// Makes the three the process's own 0, 1 and 2, owned by `uid`, so that it may open `/dev/stdout` again.
pub(crate) fn take(streams: [&OwnedFd; 3], uid: u32) -> io::Result<()> {
    // Above 2 first: a source below would be overwritten by the target of another.
    let mut sources = Vec::with_capacity(3);
    for stream in streams {
        // SAFETY: takes no pointers.
        sources.push(syscall::result(unsafe {
            libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3)
        })?);
        if uid != 0 && !is_null(stream)? {
            // SAFETY: takes no pointers.
            syscall::result(unsafe { libc::fchown(stream.as_raw_fd(), uid, libc::gid_t::MAX) })?;
        }
    }
    for (source, target) in sources.into_iter().zip(0..) {
        // SAFETY: takes no pointers; what was 0, 1 or 2 before is closed, as meant.
        syscall::result(unsafe { libc::dup2(source, target) })?;
        // SAFETY: a duplicate of ours from above that nothing else refers to.
        syscall::result(unsafe { libc::close(source) })?;
    }
    Ok(())
}
