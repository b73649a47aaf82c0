//! Further processes in a container.

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_engine::{CreateExec, ExecView};

use super::container::create::Words;
use crate::error::{Answer, ApiError};

/// What `POST /containers/{id}/exec` brings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Create {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    env: Vec<String>,
    cmd: Option<Words>,
    privileged: bool,
    user: String,
    working_dir: String,
    detach_keys: String,
}

/// What `POST /exec/{id}/start` brings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Start {
    pub(crate) detach: bool,
}

// === impl Create ===

impl Create {
    /// As the engine takes it.
    pub(crate) fn into_request(self) -> Answer<CreateExec> {
        let cmd = self.cmd.map(Words::into_list).unwrap_or_default();
        if cmd.is_empty() {
            return Err(ApiError::invalid("No exec command specified"));
        }
        let given = |text: String| (!text.is_empty()).then_some(text);
        Ok(CreateExec {
            cmd,
            env: self.env,
            user: given(self.user),
            working_dir: given(self.working_dir),
            tty: self.tty,
            attach_stdin: self.attach_stdin,
            attach_stdout: self.attach_stdout,
            attach_stderr: self.attach_stderr,
            privileged: self.privileged,
            detach_keys: self.detach_keys,
        })
    }
}

/// A session as `GET /exec/{id}/json` shows it.
pub(crate) fn document(view: &ExecView) -> Value {
    let request = &view.request;
    let mut words = request.cmd.iter();
    json!({
        "ID": view.id,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": words.next().cloned().unwrap_or_default(),
            "arguments": words.collect::<Vec<_>>(),
            "privileged": request.privileged,
            "user": request.user.as_deref().unwrap_or_default(),
        },
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": !view.running && view.exit_code.is_some(),
        "ContainerID": view.container,
        "DetachKeys": "",
        "Pid": view.pid,
    })
}
