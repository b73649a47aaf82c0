//! A process in the shim's care, with its streams.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Instant, SystemTime},
};

use super::{lines::Lines, log::Log};
use crate::{
    Exit,
    process::stdio::Kept,
    syscall,
    wire::{self, Kind},
};

/// Most that waits for a process to read its stdin, in bytes.
pub(crate) const MOST_STDIN: usize = 64 << 10;

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Being set up.
    Making,
    /// Set up, waiting to be let go.
    Ready,
    /// Let go; its own program has not taken over yet.
    Going,
    /// Its own program runs.
    Running,
}

/// The process.
pub(crate) struct Job {
    /// Empty for the container's first process.
    pub exec_id: String,
    /// In the shim's namespace; none until it is told.
    pub pid: Option<i32>,
    /// Who makes it, and tells its pid; none: he has ended, or is not the loop's business.
    pub maker: Option<i32>,
    pub stage: Stage,
    /// The line to it until its own program runs.
    pub channel: Option<OwnedFd>,
    /// Where its stdin is written to.
    pub stdin: Option<OwnedFd>,
    /// What waits to be written there.
    pub stdin_waiting: Vec<u8>,
    /// Close stdin once that is written.
    pub stdin_ends: bool,
    /// Does the end of a client's stdin end the process's?
    pub stdin_once: bool,
    /// Stdout and stderr; with a terminal the first only.
    pub outputs: [Option<OwnedFd>; 2],
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    /// Frame of the last piece read, until every attached client has it.
    pub piece: Vec<u8>,
    pub exit: Option<Exit>,
    /// When the exit was seen, for the patience with outputs that stay open.
    pub exited: Option<Instant>,
    /// Waiters have been told of the exit.
    pub told: bool,
    lines: [Lines; 2],
}

impl Job {
    pub fn new(exec_id: String, channel: OwnedFd, kept: Option<Kept>, stdin_once: bool) -> Self {
        let (stdin, outputs) = match kept {
            Some(kept) => (kept.stdin, [Some(kept.stdout), Some(kept.stderr)]),
            None => (None, [None, None]),
        };
        Self {
            exec_id,
            pid: None,
            maker: None,
            stage: Stage::Making,
            channel: Some(channel),
            stdin,
            stdin_waiting: Vec::new(),
            stdin_ends: false,
            stdin_once,
            outputs,
            terminal: None,
            piece: Vec::new(),
            exit: None,
            exited: None,
            told: false,
            lines: [Lines::of("stdout"), Lines::of("stderr")],
        }
    }

    /// Takes the master of its terminal, as stdin and output in one.
    pub fn take_terminal(&mut self, master: OwnedFd, stdin: bool) -> io::Result<()> {
        syscall::set_nonblocking(master.as_fd())?;
        if stdin {
            self.stdin = Some(master.try_clone()?);
        }
        self.outputs[0] = Some(master.try_clone()?);
        self.terminal = Some(master);
        Ok(())
    }

    /// May its output be passed on? Who asked for an exec'd process hears first that it runs, then what it says. The process may be
    /// quicker than its maker, which holds the line until it has ended.
    pub fn may_be_heard(&self) -> bool {
        self.exec_id.is_empty() || self.stage == Stage::Running
    }

    /// Nothing more will come.
    pub fn outputs_ended(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Reads a piece of an output into `piece` and the log. The caller has made sure that everybody has the previous one.
    pub fn read_output(&mut self, index: usize, log: Option<&mut Log>) {
        let Some(output) = &self.outputs[index] else { return };
        self.piece.resize(wire::HEADER + wire::PIECE, 0);
        match syscall::read(output.as_fd(), &mut self.piece[wire::HEADER..]) {
            Ok(length) if length > 0 => {
                self.piece.truncate(wire::HEADER + length);
                let kind = if index == 0 { Kind::Stdout } else { Kind::Stderr };
                self.piece[..wire::HEADER].copy_from_slice(&wire::header(kind, length));
                if let Some(log) = log {
                    self.lines[index].take(log, &self.piece[wire::HEADER..]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.piece.clear(),
            // EIO is how the master of a terminal says that the last slave is closed.
            Ok(_) | Err(_) => {
                self.piece.clear();
                self.close_output(index, log);
            }
        }
    }

    /// The end of an output.
    pub fn close_output(&mut self, index: usize, log: Option<&mut Log>) {
        self.outputs[index] = None;
        if let Some(log) = log {
            self.lines[index].end(log);
        }
    }

    /// Takes a piece for stdin. Whoever reads slowly makes writers wait: see `MOST_STDIN`.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if self.stdin_ends {
            return;
        }
        if self.stdin_waiting.is_empty() {
            bytes = &bytes[self.offer(bytes)..];
        }
        if self.stdin.is_some() {
            self.stdin_waiting.extend_from_slice(bytes);
        }
    }

    /// The end of what one client has to say.
    pub fn end_stdin(&mut self) {
        // A terminal has no end: its program reads it again and again.
        if self.stdin_once && self.terminal.is_none() {
            self.stdin_ends = true;
            self.write_stdin();
        }
    }

    /// Writes as much as the process takes of what waits.
    pub fn write_stdin(&mut self) {
        let waiting = std::mem::take(&mut self.stdin_waiting);
        let taken = self.offer(&waiting);
        if self.stdin.is_none() {
            return;
        }
        self.stdin_waiting = waiting;
        self.stdin_waiting.drain(..taken);
        if self.stdin_ends && self.stdin_waiting.is_empty() {
            self.stdin = None;
        }
    }

    /// How much the process takes of it now. One that reads no more has no stdin from then on.
    fn offer(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(stdin) = self.stdin.as_ref().filter(|_| taken < bytes.len()) {
            match syscall::write(stdin.as_fd(), &bytes[taken..]) {
                Ok(written) => taken += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.stdin = None,
            }
        }
        taken
    }

    /// Gives back memory that was needed while much was said and heard; `heard`: everybody has the last piece.
    pub fn shrink(&mut self, heard: bool) {
        if heard {
            self.piece = Vec::new();
        }
        self.stdin_waiting.shrink_to(0);
    }

    /// Records how it ended.
    pub fn ended(&mut self, status: i32, oom_killed: bool) {
        let code = if libc::WIFSIGNALED(status) {
            128 + libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        };
        self.exit = Some(Exit {
            code,
            oom_killed,
            at: SystemTime::now(),
        });
        self.exited = Some(Instant::now());
        self.stdin = None;
        self.stdin_waiting = Vec::new();
    }
}
