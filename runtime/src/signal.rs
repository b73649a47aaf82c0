//! Signals, and the size of terminals.

use crate::{Runtime, RuntimeError, connection::Connection, wire::Kind};

impl Runtime {
    /// Sends a signal to the first process.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        self.tell(id, Kind::Signal, &signal.to_le_bytes()).await
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
