//! Further processes in a running container.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sluice_model::{
    Container, Id,
    container::{NetworkMode, Phase},
};
use sluice_runtime::{Attachment, Exec};
use tokio::sync::oneshot;

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{
        attach::is_restarting,
        capabilities,
        held::Held,
        security::Options,
        spec::{self, Wanted},
        start::resolve_user,
        validate,
    },
};

/// A request for a further process.
#[derive(Clone, Debug, Default)]
pub struct CreateExec {
    /// The command.
    pub cmd: Vec<String>,
    /// Further environment.
    pub env: Vec<String>,
    /// `user[:group]`; none: the container's.
    pub user: Option<String>,
    /// Directory; none: the container's.
    pub working_dir: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// Streams wanted.
    pub attach_stdin: bool,
    /// As above.
    pub attach_stdout: bool,
    /// As above.
    pub attach_stderr: bool,
    /// All rights.
    pub privileged: bool,
    /// The keys that a client leaves a terminal with, unless it says others; empty: ctrl-p ctrl-q.
    pub detach_keys: String,
}

/// An exec session, for those who look.
#[derive(Clone, Debug)]
pub struct ExecView {
    /// Its id.
    pub id: String,
    /// The container's id.
    pub container: String,
    /// The request.
    pub request: CreateExec,
    /// Is it running?
    pub running: bool,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// The host's pid; 0: none.
    pub pid: u32,
    /// When it ended.
    pub ended: Option<std::time::Instant>,
}

/// How long an ended session is remembered for those who ask late, as in Docker.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(300);

/// Sessions, in memory: a restarted daemon has none, as Docker's.
#[derive(Default)]
pub(crate) struct Execs {
    all: Mutex<BTreeMap<String, ExecView>>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ExecView>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<ExecView, EngineError> {
        self.lock()
            .get(id)
            .cloned()
            .ok_or_else(|| EngineError::not_found(format!("No such exec instance: {id}")))
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut ExecView)) {
        if let Some(view) = self.lock().get_mut(id) {
            change(view);
        }
    }

    /// Ids of the sessions of a container that run.
    pub fn running_in(&self, container: &Id) -> Vec<String> {
        let here = |view: &&ExecView| view.running && view.container == container.as_str();
        self.lock().values().filter(here).map(|view| view.id.clone()).collect()
    }

    /// Forgets a session.
    pub fn forget_one(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Forgets all sessions of a container.
    pub fn forget(&self, container: &Id) {
        self.lock().retain(|_, view| view.container != container.as_str());
    }
}

impl Engine {
    /// Prepares a further process; returns the session's id. 409 when the container is not running.
    pub async fn create_exec(&self, container: &str, request: CreateExec) -> Result<String, EngineError> {
        let held = self.containers.find(container)?;
        must_run(&held)?;
        if request.cmd.is_empty() {
            return Err(EngineError::invalid("No exec command specified"));
        }
        validate::environment(&request.env)?;
        if request
            .working_dir
            .as_ref()
            .is_some_and(|directory| !directory.is_empty() && !directory.starts_with('/'))
        {
            return Err(EngineError::invalid(
                "the working directory of exec needs to be an absolute path",
            ));
        }
        let id = Id::from_bytes(rand::random()).to_string();
        self.tell(&held, &told("exec_create", &request.cmd), &[("execID", id.clone())]);
        let view = ExecView {
            id: id.clone(),
            container: held.id.to_string(),
            request,
            running: false,
            exit_code: None,
            pid: 0,
            ended: None,
        };
        let mut all = self.execs.lock();
        all.retain(|_, view| view.ended.is_none_or(|ended| ended.elapsed() < REMEMBERED));
        all.insert(id.clone(), view);
        drop(all);
        Ok(id)
    }

    /// Starts it, attached.
    pub async fn start_exec(&self, exec: &str) -> Result<Attachment, EngineError> {
        let view = self.execs.get(exec)?;
        let held = self.containers.find(&view.container)?;
        must_run(&held)?;
        {
            let mut all = self.execs.lock();
            let view = all
                .get_mut(exec)
                .ok_or_else(|| EngineError::not_found(format!("No such exec instance: {exec}")))?;
            if view.running || view.exit_code.is_some() {
                return Err(EngineError::conflict(format!(
                    "Error: Exec command {exec} is already running"
                )));
            }
            view.running = true;
        }
        self.carry_out(|engine| async move {
            let result = engine.run_exec(&held, &view).await;
            if let Err(error) = &result {
                let code = if error.kind == crate::Kind::Command {
                    exit_code(&error.message)
                } else {
                    128
                };
                engine.execs.change(&view.id, |view| {
                    (view.running, view.exit_code) = (false, Some(code));
                    view.ended = Some(std::time::Instant::now());
                });
            }
            result
        })
        .await
    }

    async fn run_exec(self: &Arc<Self>, held: &Arc<Held>, view: &ExecView) -> Result<Attachment, EngineError> {
        let mut container = held.record();
        if matches!(container.host_config.network_mode, NetworkMode::Container(_)) {
            let owner = self.owner_of_network(container.clone());
            container.config.hostname = Some(spec::host_name(&owner));
        }
        let rootfs = self.config.container(&held.id).join("merged");
        let user = view
            .request
            .user
            .clone()
            .filter(|user| !user.is_empty())
            .unwrap_or(container.config.user.clone());
        let groups = container.host_config.group_add.clone();
        let identity = blocking(move || resolve_user(&rootfs, &user, &groups)).await?;
        let linked: Vec<String> = self
            .linked_and_running(&container)
            .iter()
            .flat_map(|linked| linked.environment(&container.name))
            .collect();
        let process = process_of(&container, &view.request, &identity, &linked)?;
        let request = Exec {
            id: held.id.to_string(),
            exec_id: view.id.clone(),
            process,
            stdin: view.request.attach_stdin,
        };
        let (pid, attachment) = self.runtime.exec(&request).await.map_err(|error| {
            let error = EngineError::from(error);
            // the words that the docker CLI and its users know from exec
            let text = error.message.replace(
                "failed to create task for container: ",
                "OCI runtime exec failed: exec failed: ",
            );
            EngineError::new(error.kind, text)
        })?;
        self.execs.change(&view.id, |view| view.pid = pid);
        self.tell(
            held,
            &told("exec_start", &view.request.cmd),
            &[("execID", view.id.clone())],
        );
        Ok(self.watch_exec(held, &view.id, attachment))
    }

    /// Lets the output end only when the exit code is known: clients ask for the code as soon as the stream ends.
    fn watch_exec(self: &Arc<Self>, held: &Arc<Held>, id: &str, attachment: Attachment) -> Attachment {
        let (known, end) = oneshot::channel();
        let (engine, held, id) = (self.clone(), held.clone(), id.to_owned());
        tokio::spawn(async move {
            let code = engine
                .runtime
                .wait_exec(held.id.as_str(), &id)
                .await
                .unwrap_or_else(|error| {
                    tracing::debug!("exec {id} in container {}: {error}", held.id);
                    // it went with its container
                    128 + libc::SIGKILL
                });
            engine.execs.change(&id, |view| {
                (view.running, view.exit_code, view.pid) = (false, Some(code), 0);
                view.ended = Some(std::time::Instant::now());
            });
            engine.tell(
                &held,
                "exec_die",
                &[("execID", id.clone()), ("exitCode", code.to_string())],
            );
            // Whoever was attached may be gone.
            let _ = known.send(());
        });
        Attachment {
            stdin: attachment.stdin,
            output: attachment.output.ending_with(end),
        }
    }

    /// Sets its terminal's size.
    pub async fn resize_exec(&self, exec: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let view = self.execs.get(exec)?;
        Ok(self.runtime.resize(&view.container, Some(exec), rows, columns).await?)
    }

    /// A client has left the session by its detach keys.
    pub fn exec_client_detached(&self, exec: &str) {
        if let Ok(view) = self.execs.get(exec)
            && let Ok(held) = self.containers.find(&view.container)
        {
            self.tell(&held, "exec_detach", &[("execID", exec.to_owned())]);
        }
    }

    /// An exec session.
    pub async fn inspect_exec(&self, exec: &str) -> Result<ExecView, EngineError> {
        self.execs.get(exec)
    }
}

/// The words of an event about a command, with Docker's blank behind one that has no arguments.
fn told(action: &str, command: &[String]) -> String {
    let (program, arguments) = command
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    format!("{action}: {program} {}", arguments.join(" "))
}

fn must_run(held: &Held) -> Result<(), EngineError> {
    match held.look(|container| container.state.phase) {
        Phase::Running => Ok(()),
        Phase::Paused => Err(EngineError::conflict(format!(
            "Container {} is paused, unpause the container before exec",
            held.id
        ))),
        Phase::Restarting => Err(is_restarting(held)),
        _ => Err(EngineError::conflict(format!("container {} is not running", held.id))),
    }
}

fn exit_code(message: &str) -> i32 {
    if message.contains("executable file not found") || message.contains("no such file or directory") {
        127
    } else {
        126
    }
}

fn process_of(
    container: &Container,
    request: &CreateExec,
    identity: &spec::Identity,
    linked: &[String],
) -> Result<oci_spec::runtime::Process, EngineError> {
    let host = &container.host_config;
    let names = capabilities::resolve(&host.cap_add, &host.cap_drop, host.privileged || request.privileged)?;
    let options = Options::parse(&host.security_opt)?;
    let mut env = spec::environment(&spec::Origins {
        set: &container.config.env,
        linked,
        host_name: &spec::host_name(container),
        home: &identity.home,
        tty: request.tty,
    });
    spec::override_with(&mut env, &request.env);
    let cwd = request.working_dir.as_deref().filter(|directory| !directory.is_empty());
    let mut process = spec::process(&Wanted {
        args: request.cmd.clone(),
        env,
        cwd: cwd.unwrap_or(&container.config.working_dir),
        tty: request.tty,
        identity,
        capabilities: &names,
        no_new_privileges: options.no_new_privileges,
    })
    .map_err(|error| {
        EngineError::failed(format!(
            "cannot describe the process to run in container {}: {error}",
            container.id
        ))
    })?;
    if !request.privileged {
        process.set_apparmor_profile(options.apparmor);
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::held::tests::record;

    #[test]
    fn an_exec_inherits_from_its_container_what_it_does_not_say() {
        let mut container = record("web", 1);
        container.config.env = vec!["A=1".into(), "B=2".into()];
        container.config.working_dir = "/srv".into();
        let request = CreateExec {
            cmd: vec!["ls".into()],
            env: vec!["B=3".into()],
            ..Default::default()
        };
        let process = process_of(&container, &request, &spec::Identity::default(), &[]).unwrap();
        assert_eq!(process.cwd().to_str(), Some("/srv"));
        let env = process.env().clone().unwrap();
        assert!(env.contains(&"A=1".into()) && env.contains(&"B=3".into()) && !env.contains(&"B=2".into()));
        let elsewhere = CreateExec {
            working_dir: Some("/tmp".into()),
            ..request
        };
        let process = process_of(&container, &elsewhere, &spec::Identity::default(), &[]).unwrap();
        assert_eq!(process.cwd().to_str(), Some("/tmp"));
    }
}
