//! What is known of a container.

use crate::{
    Exit, Runtime, RuntimeError,
    connection::{self, Connection},
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
    /// The host's pid of the container's first process as its shim wrote it down, while that process is there: for when the shim does not answer.
    pub fn recorded_pid(&self, id: &str) -> Result<Option<u32>, RuntimeError> {
        let (_, first) = connection::live_pids(&self.directory(id)?);
        Ok(first.and_then(|pid| u32::try_from(pid).ok()))
    }

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
        Ok(State {
            status: Status::Stopped,
            pid: None,
            exit: Some(self.exit_of(id, &directory).await?),
        })
    }
}
