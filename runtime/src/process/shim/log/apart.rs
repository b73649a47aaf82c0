//! A log that a process of its own writes, by a pipe. What the pipe does not take waits here, as much as was said; an entry that finds no room is
//! lost.
//!
//! A thread would do too, but the shim forks, and stays small by being one thread.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{super::lines::LONGEST_PIECE, file::LogFile};
use crate::syscall::{self, Cloned};

/// How much its writer reads at a time, bytes.
const CHUNK: usize = 64 << 10;

pub(crate) struct Apart {
    pipe: OwnedFd,
    writer: OwnedFd,
    attrs: String,
    /// Entries that wait, from `passed` on; the first may have been passed on in part.
    waiting: Vec<u8>,
    passed: usize,
    /// How much may wait.
    room: usize,
}

impl Apart {
    pub fn open(rules: &crate::Log) -> io::Result<Self> {
        let file = LogFile::open(rules)?;
        let (from, pipe) = syscall::pipe()?;
        syscall::set_nonblocking(pipe.as_fd())?;
        // SAFETY: nothing in this binary starts a thread.
        match unsafe { syscall::clone3(0, libc::SIGCHLD, None) }? {
            Cloned::Child => {
                let code = i32::from(write_apart(file, from).is_err());
                // SAFETY: ends the fork without running what the shim registered for its own end.
                unsafe { libc::_exit(code) }
            }
            Cloned::Parent(pid) => Ok(Self {
                pipe,
                writer: syscall::pidfd_open(pid)?,
                attrs: rules.attrs.clone(),
                waiting: Vec::new(),
                passed: 0,
                room: usize::try_from(rules.buffer_bytes).unwrap_or(usize::MAX),
            }),
        }
    }

    pub fn append(&mut self, entry: impl FnOnce(&mut Vec<u8>, &str)) {
        let before = self.waiting.len();
        // full: the pipe may have taken something meanwhile
        if before - self.passed >= self.room {
            self.flush();
        }
        let before = self.waiting.len();
        entry(&mut self.waiting, &self.attrs);
        // one entry alone always has room, as in Docker
        if before > self.passed && self.waiting.len() - self.passed > self.room {
            self.waiting.truncate(before);
        }
    }

    /// Passes on what the pipe takes.
    pub fn flush(&mut self) {
        self.passed += pass_on(&self.pipe, &self.waiting[self.passed..]);
        // what has been passed on is forgotten in large pieces: the rest has to be moved
        if self.passed == self.waiting.len() || self.passed > self.room / 2 {
            self.waiting.drain(..self.passed);
            self.passed = 0;
            self.waiting.shrink_to(LONGEST_PIECE);
        }
    }

    pub fn is_behind(&self) -> Option<BorrowedFd<'_>> {
        (!self.waiting.is_empty()).then(|| self.pipe.as_fd())
    }

    pub fn end(mut self) {
        self.flush();
        while !self.waiting.is_empty() && wait(self.pipe.as_fd(), libc::POLLOUT) {
            self.flush();
        }
        drop(self.pipe);
        wait(self.writer.as_fd(), libc::POLLIN);
    }
}

/// How many bytes the pipe took.
fn pass_on(pipe: &OwnedFd, bytes: &[u8]) -> usize {
    let mut passed = 0;
    while passed < bytes.len() {
        match syscall::write(pipe.as_fd(), &bytes[passed..]) {
            Ok(written) => passed += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Nobody reads it any more: the log is lost, the container goes on.
            Err(_) => return bytes.len(),
        }
    }
    passed
}

/// Waits; false: nothing is to be expected any more.
fn wait(fd: BorrowedFd<'_>, events: libc::c_short) -> bool {
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    loop {
        // SAFETY: one entry, as said.
        let ready = unsafe { libc::poll(&mut polled, 1, -1) };
        if ready > 0 {
            return polled.revents & events != 0 && polled.revents & libc::POLLERR == 0;
        }
    }
}

/// The life of the writer: until the shim closes the pipe, or ends.
fn write_apart(mut file: LogFile, from: OwnedFd) -> io::Result<()> {
    // SAFETY: the name is static and NUL-terminated.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"sluice-log".as_ptr()) };
    keep_only(&[file.descriptor(), from.as_raw_fd()]);
    let mut waiting = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = syscall::read(from.as_fd(), &mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        waiting.extend_from_slice(&chunk[..read]);
        let whole = waiting.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for entry in waiting[..whole].split_inclusive(|byte| *byte == b'\n') {
            file.append(|text, _| text.extend_from_slice(entry));
        }
        file.flush();
        waiting.drain(..whole);
        // those that have packed a rotated file
        // SAFETY: the status is not asked for.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
}

/// Closes all else: streams of the container and sockets of the shim must not stay open for us.
fn keep_only(kept: &[libc::c_int]) {
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    let mut first: libc::c_int = 3;
    for fd in kept {
        if fd > first {
            // SAFETY: takes no pointers; nothing of what is closed is used again in this process.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = first.max(fd + 1);
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

#[cfg(test)]
mod tests {
    use super::{super::super::lines::Lines, super::Log};

    #[test]
    fn what_finds_no_room_is_lost_whole_and_the_rest_is_in_the_file_at_the_end() {
        let path = std::env::temp_dir().join(format!("sluice-log-apart-{}", std::process::id()));
        let rules = crate::Log {
            path: path.clone(),
            files: 1,
            buffer_bytes: 4096,
            ..crate::Log::default()
        };
        let mut log = Log::open(&rules).unwrap();
        let mut lines = Lines::of("stdout");
        for number in 0..20_000 {
            lines.take(&mut log, format!("{number} {}\n", "x".repeat(100)).as_bytes());
        }
        log.end();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut last = None;
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let number: u32 = line["log"]
                .as_str()
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!(last.is_none_or(|last| last < number), "{last:?} {number}");
            last = Some(number);
        }
        assert!(last.is_some() && text.starts_with("{\"log\":\"0 "));
    }
}
