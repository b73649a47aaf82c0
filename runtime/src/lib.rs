//! Turns a bundle into a process and watches over it.
//!
//! The contract is the OCI bundle: a directory with a `config.json`. The runtime is handed a network namespace path in it and asks no questions.
//! Each container has one shim, a small process that outlives the daemon; everything a [`Runtime`] knows it reads from the shims' directories,
//! so a restarted daemon finds all of them again.

use std::{path::PathBuf, time::SystemTime};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

/// Where the runtime keeps things and what it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory with one directory per container (`<exec-root>/containers`): the shim's socket, pid and exit files.
    pub state_root: PathBuf,
    /// The `sluice-shim` binary.
    pub shim: PathBuf,
    /// The cgroup below each hierarchy's root under which containers live, e.g. `sluice`.
    pub cgroup_parent: String,
}

/// Containers of one instance.
pub struct Runtime {
    _config: Config,
}

/// A container to be made.
#[derive(Clone, Debug)]
pub struct Create {
    /// The container's id (64 hex digits); names its directory, cgroup and shim.
    pub id: String,
    /// The bundle: holds `config.json`; `root.path` of it is mounted already.
    pub bundle: PathBuf,
    /// Keep stdin open for attached clients (`-i`); else it is /dev/null.
    pub stdin: bool,
    /// After the first attached client's stdin ends, close the container's.
    pub stdin_once: bool,
    /// Write stdout and stderr there in Docker's json-file format, one object a line: `{"log":"…\n","stream":"stdout","time":"RFC 3339 ns"}`.
    pub log: Option<PathBuf>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The kernel's OOM killer took a process of the container.
    pub oom_killed: bool,
    /// When the shim saw it.
    pub at: SystemTime,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Made, waiting for `start`.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended; the shim may be gone.
    Stopped,
}

/// What is known of a container.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// What it is doing.
    pub status: Status,
    /// The host's pid of its first process, while there is one.
    pub pid: Option<u32>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// A further process in a running container.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// Names the process: 64 hex digits.
    pub exec_id: String,
    /// What to run (args, env, cwd, user, terminal); it gets the container's own seccomp filter, capabilities, no_new_privs and cgroups.
    pub process: oci_spec::runtime::Process,
    /// Is stdin wanted? Else it is /dev/null.
    pub stdin: bool,
}

/// Which output a chunk came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; all of it with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A live connection to a process's standard streams.
pub struct Attachment {
    /// Towards its stdin; shutting it down is the end of stdin. None: it has none.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it says from now on, in order; the channel ends when both outputs have ended. A slow reader slows the process down, never
    /// loses data, and can't take more memory than the channel holds.
    pub output: mpsc::Receiver<(Stream, Vec<u8>)>,
    _reader: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no container of this id.
    #[error("no container {0} in the runtime's directory")]
    NoSuchContainer(String),
    /// The program to run was not found in the container (Docker's exit code 127).
    #[error("{0}")]
    CommandNotFound(String),
    /// The program could not be executed (Docker's exit code 126).
    #[error("{0}")]
    CommandNotExecutable(String),
    /// Anything else: what was tried, on what, why it failed.
    #[error("{0}")]
    Failed(String),
}

impl Runtime {
    /// Opens the directory, finds out how cgroups are mounted.
    pub fn open(_config: Config) -> Result<Self, RuntimeError> {
        todo!()
    }

    /// Starts a shim, which makes the process; the process waits before it executes anything. Returns the host's pid of the process.
    pub async fn create(&self, _create: &Create) -> Result<u32, RuntimeError> {
        todo!()
    }

    /// Lets the process run. Errors of the execve itself come back here.
    pub async fn start(&self, _id: &str) -> Result<(), RuntimeError> {
        todo!()
    }

    /// Connects to the streams of the container's first process. May be called between `create` and `start`, so that nothing is missed.
    pub async fn attach(&self, _id: &str) -> Result<Attachment, RuntimeError> {
        todo!()
    }

    /// Sets the size of the container's terminal (`exec_id` none) or that of an exec'd process.
    pub async fn resize(&self, _id: &str, _exec_id: Option<&str>, _rows: u16, _columns: u16) -> Result<(), RuntimeError> {
        todo!()
    }

    /// Sends a signal to the first process.
    pub async fn signal(&self, _id: &str, _signal: i32) -> Result<(), RuntimeError> {
        todo!()
    }

    /// Freezes all processes.
    pub async fn pause(&self, _id: &str) -> Result<(), RuntimeError> {
        todo!()
    }

    /// Thaws them.
    pub async fn resume(&self, _id: &str) -> Result<(), RuntimeError> {
        todo!()
    }

    /// What is known of the container, also when its shim is gone.
    pub async fn state(&self, _id: &str) -> Result<State, RuntimeError> {
        todo!()
    }

    /// Waits for the end of the first process. Works across restarts of the daemon.
    pub async fn wait(&self, _id: &str) -> Result<Exit, RuntimeError> {
        todo!()
    }

    /// Starts a further process, attached.
    pub async fn exec(&self, _exec: &Exec) -> Result<(u32, Attachment), RuntimeError> {
        todo!()
    }

    /// Waits for the end of an exec'd process.
    pub async fn wait_exec(&self, _id: &str, _exec_id: &str) -> Result<i32, RuntimeError> {
        todo!()
    }

    /// The pids (of the host) of all processes in the container.
    pub async fn pids(&self, _id: &str) -> Result<Vec<u32>, RuntimeError> {
        todo!()
    }

    /// Kills what is left, removes cgroups (children first), the shim and its directory. Fine when already gone.
    pub async fn delete(&self, _id: &str) -> Result<(), RuntimeError> {
        todo!()
    }

    /// The ids of all containers that have a directory here.
    pub fn list(&self) -> Result<Vec<String>, RuntimeError> {
        todo!()
    }
}
