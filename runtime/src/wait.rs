//! The end of a process, told once it has come.

use std::{fs, path::Path, time::SystemTime};

use crate::{
    Runtime, RuntimeError,
    connection::{self, Connection},
    delete, off_the_loop,
    plan::file,
    wire::{self, Kind},
};

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

/// What a container ends with whose shim was killed: there is nobody who could say.
const CODE_OF_ORPHANS: i32 = 137;

/// What the shim has left in writing.
fn recorded(directory: &Path) -> Option<Exit> {
    wire::decode_exit(&fs::read(directory.join(file::EXIT)).ok()?)
}

impl Runtime {
    /// Waits for the end of the first process, and until what it said is in the log. Works across restarts of the daemon.
    pub async fn wait(&self, id: &str) -> Result<Exit, RuntimeError> {
        let directory = self.directory(id)?;
        if let Some(exit) = self.ask_for_end(&directory, "").await? {
            return Ok(exit);
        }
        self.exit_of(id, &directory).await
    }

    /// How a container ended whose shim does not answer any more. It may be about to go: then it is waited for.
    pub(crate) async fn exit_of(&self, id: &str, directory: &Path) -> Result<Exit, RuntimeError> {
        if let (Some(shim), _) = connection::live_pids(directory) {
            off_the_loop(move || {
                delete::end(shim, delete::PATIENCE);
                Ok(())
            })
            .await?;
        }
        match recorded(directory) {
            Some(exit) => Ok(exit),
            None => Ok(self.end_orphan(id, directory).await),
        }
    }

    /// Waits for the end of an exec'd process.
    pub async fn wait_exec(&self, id: &str, exec_id: &str) -> Result<i32, RuntimeError> {
        let directory = self.directory(id)?;
        match self.ask_for_end(&directory, exec_id).await? {
            Some(exit) => Ok(exit.code),
            // It went down with its container.
            None => Ok(CODE_OF_ORPHANS),
        }
    }

    async fn ask_for_end(&self, directory: &Path, exec_id: &str) -> Result<Option<Exit>, RuntimeError> {
        let Some(connection) = Connection::open(directory).await? else {
            return Ok(None);
        };
        let answer = connection.ask(Kind::Wait, exec_id.as_bytes()).await?;
        Ok(answer.and_then(|(_, payload)| wire::decode_exit(&payload)))
    }

    /// A container without a shim has nobody to hold its streams or to see its end: it ends here.
    async fn end_orphan(&self, id: &str, directory: &Path) -> Exit {
        tracing::warn!(
            id,
            "the shim of a container is gone without having recorded an exit; the container is killed"
        );
        self.cgroups(id).kill();
        let exit = Exit {
            code: CODE_OF_ORPHANS,
            oom_killed: false,
            at: SystemTime::now(),
        };
        if let Err(error) = fs::write(directory.join(file::EXIT), wire::encode_exit(&exit)) {
            tracing::warn!(id, %error, "can't record the exit of a container");
        }
        exit
    }
}
