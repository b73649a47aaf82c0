//! What is known of a container.

use crate::{
    Exit, Runtime, RuntimeError,
    connection::{self, Connection},
    wait,
    wire::Kind,
};

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

impl Runtime {
    /// What is known of the container, also when its shim is gone.
    pub async fn state(&self, id: &str) -> Result<State, RuntimeError> {
        let directory = self.directory(id)?;
        let answer = match Connection::open(&directory).await? {
            Some(connection) => connection.ask(Kind::State, &[]).await?,
            None => None,
        };
        if let Some((Kind::StateIs, payload)) = answer
            && let [started, pid @ ..] = &payload[..]
            && let Some(pid) = pid
                .first_chunk()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .filter(|pid| *pid != 0)
        {
            let status = match started {
                0 => Status::Created,
                _ if self.cgroups(id).is_frozen() => Status::Paused,
                _ => Status::Running,
            };
            return Ok(State {
                status,
                pid: Some(pid),
                exit: None,
            });
        }
        let exit = match wait::recorded(&directory) {
            Some(exit) => Some(exit),
            None if connection::live_pids(&directory).0.is_none() => Some(self.end_orphan(id, &directory).await),
            None => None,
        };
        Ok(State {
            status: Status::Stopped,
            pid: None,
            exit,
        })
    }
}
