//! Signals, and the size of terminals.

use std::os::fd::AsRawFd;

use crate::{
    Runtime, RuntimeError,
    connection::{self, Connection},
    syscall,
    wire::Kind,
};

impl Runtime {
    /// Sends a signal to the first process. SIGKILL reaches it also by a shim that does not answer, and ends that, too: its container could not end.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        match self.tell(id, Kind::Signal, &signal.to_le_bytes()).await {
            Err(RuntimeError::Unanswered(_)) if signal == libc::SIGKILL => self.end_by_force(id),
            told => told,
        }
    }

    /// Kills all processes of a container and the shim that does not answer.
    fn end_by_force(&self, id: &str) -> Result<(), RuntimeError> {
        let directory = self.directory(id)?;
        tracing::warn!(id, "the shim of a container does not answer and is killed with it");
        self.cgroups(id).kill();
        if let (Some(shim), _) = connection::live_pids(&directory)
            && let Ok(process) = syscall::pidfd_open(shim)
        {
            kill(&process);
        }
        Ok(())
    }

    /// Sends a signal to an exec'd process.
    pub async fn signal_exec(&self, id: &str, exec_id: &str, signal: i32) -> Result<(), RuntimeError> {
        let mut payload = signal.to_le_bytes().to_vec();
        payload.extend_from_slice(exec_id.as_bytes());
        self.tell(id, Kind::Signal, &payload).await
    }

    /// Sets the size of the container's terminal (`exec_id` none) or that of an exec'd process.
    pub async fn resize(&self, id: &str, exec_id: Option<&str>, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        let mut payload = Vec::new();
        payload.extend_from_slice(&rows.to_le_bytes());
        payload.extend_from_slice(&columns.to_le_bytes());
        payload.extend_from_slice(exec_id.unwrap_or_default().as_bytes());
        self.tell(id, Kind::Resize, &payload).await
    }

    async fn tell(&self, id: &str, kind: Kind, payload: &[u8]) -> Result<(), RuntimeError> {
        let directory = self.directory(id)?;
        let gone = || RuntimeError::Failed(format!("container {id} is not running"));
        let connection = Connection::open(&directory).await?.ok_or_else(gone)?;
        connection.ask(kind, payload).await?.map(drop).ok_or_else(gone)
    }
}

/// Sends SIGKILL to the process that a descriptor means. One that has ended is fine.
pub(crate) fn kill(process: &impl AsRawFd) {
    // SAFETY: takes no pointers; the descriptor can't mean another process.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<u8>(),
            0,
        )
    };
}
