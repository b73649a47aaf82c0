//! Letting a container's first process run.

use crate::{Runtime, RuntimeError, connection::Connection, wire::Kind};

impl Runtime {
    /// Lets the process run. Errors of the execve itself come back here.
    pub async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let directory = self.directory(id)?;
        let gone = || RuntimeError::Failed(format!("the shim of container {id} is gone"));
        let connection = Connection::open(&directory).await?.ok_or_else(gone)?;
        connection.ask(Kind::Start, &[]).await?.map(drop).ok_or_else(gone)
    }
}
