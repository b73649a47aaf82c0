//! Further processes in a running container.

use crate::{Attachment, Runtime, RuntimeError, attach::attachment, connection::Connection, digest, wire::Kind};

/// A further process in a running container.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// Names the process: 64 hex digits.
    pub exec_id: String,
    /// What to run (args, env, cwd, user, terminal), with which capabilities and AppArmor profile. It gets the container's own seccomp filter,
    /// no_new_privs, limits and cgroups.
    pub process: oci_spec::runtime::Process,
    /// Is stdin wanted? Else it is /dev/null.
    pub stdin: bool,
}

impl Runtime {
    /// Starts a further process, attached. Errors of the execve itself come back here. The end of its stdin is passed on to it.
    pub async fn exec(&self, exec: &Exec) -> Result<(u32, Attachment), RuntimeError> {
        const STDIN: u8 = 1;
        const TERMINAL: u8 = 2;
        let directory = self.directory(&exec.id)?;
        if self.cgroups(&exec.id).is_frozen() {
            return Err(RuntimeError::Failed(format!("container {} is paused", exec.id)));
        }
        let failed = |error| RuntimeError::Failed(format!("write the process to be executed as JSON: {error}"));
        let process = serde_json::to_vec(&digest::process(&exec.process)).map_err(failed)?;
        let gone = || RuntimeError::Failed(format!("container {} is not running", exec.id));
        let id_length = u8::try_from(exec.exec_id.len())
            .map_err(|_| RuntimeError::Failed(format!("the id {} is too long", exec.exec_id)))?;
        let mut payload = vec![0, id_length];
        payload[0] |= if exec.stdin { STDIN } else { 0 };
        payload[0] |= if exec.process.terminal() == Some(true) {
            TERMINAL
        } else {
            0
        };
        payload.extend_from_slice(exec.exec_id.as_bytes());
        payload.extend_from_slice(&process);
        let connection = Connection::open(&directory).await?.ok_or_else(gone)?;
        let (kind, answer) = connection.ask(Kind::Exec, &payload).await?.ok_or_else(gone)?;
        if kind != Kind::Done {
            let text = format!(
                "container {}: its shim answered a request to execute a process with {kind:?}",
                exec.id
            );
            return Err(RuntimeError::Failed(text));
        }
        let pid = answer.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        Ok((pid, attachment(connection, answer.get(4) == Some(&1))))
    }
}
