//! Starts a container: layer, place in the network, spec, process, one step after another, each with its way back.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;
use sluice_agent::Promise;
use sluice_model::{Container, IdMap, container::Phase};
use sluice_runtime::{Create, RuntimeError};
use sluice_store::{Transaction, Write, key, record};
use tracing::{Instrument, debug_span};

use crate::{
    Engine, EngineError, Kind,
    blocking::blocking,
    container::{
        capabilities, directory,
        held::Held,
        log, mounts, owners,
        security::Options,
        sharing,
        spec::{self, Identity, Surroundings},
    },
    error,
    network::{disconnect, place::Place},
    undo::Undo,
};

impl Engine {
    /// Starts it. Already running: `Ok(false)`.
    pub async fn start_container(&self, name: &str) -> Result<bool, EngineError> {
        let held = self.containers.find(name)?;
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            if held.look(|container| container.state.phase) == Phase::Restarting {
                return Ok(false);
            }
            engine.begin_anew(&held).await
        })
        .await
    }

    /// Starts it by the user's wish, which the restart policy's count begins with; the caller holds the container's lock.
    pub(crate) async fn begin_anew(self: &Arc<Self>, held: &Arc<Held>) -> Result<bool, EngineError> {
        if held.look(|container| !container.state.is_alive()) {
            held.failures.store(0, std::sync::atomic::Ordering::Relaxed);
            held.change(|container| {
                container.state.stopped_by_user = false;
                container.state.restart_count = 0;
            });
        }
        self.begin(held).await
    }

    /// The story itself; the caller holds the container's lock.
    pub(crate) async fn begin(self: &Arc<Self>, held: &Arc<Held>) -> Result<bool, EngineError> {
        match held.look(|container| container.state.phase) {
            Phase::Running => return Ok(false),
            Phase::Paused => {
                return Err(EngineError::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Phase::Removing | Phase::Dead => {
                return Err(EngineError::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Phase::Created | Phase::Exited | Phase::Restarting => {}
        }
        let mut undo = Undo::default();
        match self.steps(held, &mut undo).instrument(debug_span!("start")).await {
            Ok(()) => Ok(true),
            Err(error) => {
                undo.go_back().await;
                self.record_failure(held, &error).await;
                Err(error)
            }
        }
    }

    async fn steps(self: &Arc<Self>, held: &Arc<Held>, undo: &mut Undo) -> Result<(), EngineError> {
        let container = held.record();
        // one moment, in the record as in memory: a daemon that comes back tells the same
        let since = Timestamp::now();
        let place = self.choose_place(&container).instrument(debug_span!("place")).await?;
        undo.by("give the place in the network back", {
            let (engine, place) = (self.clone(), place.clone());
            async move {
                engine.give_up_place(&place);
                Ok(())
            }
        });

        // the agent makes devices and tables while the root is mounted, the spec written and the process set up, which runs nothing yet; all have
        // their way back noted before either can fail, as each may have come far when the other fails
        self.note_way_back(&container, &place, undo);
        let pid = match &container.id_map {
            None => {
                let (settled, made) = tokio::join!(
                    self.settle(&container, &place, since)
                        .instrument(debug_span!("network")),
                    self.make_ahead(&container, &place)
                );
                settled?;
                let (pid, promise) = made?;
                drop(promise);
                match pid {
                    Some(pid) => pid,
                    None => self.make(&container).await?,
                }
            }
            // the spec names the user namespace, which is known when the network is there
            Some(_) => {
                self.offer_namespace(&container, &place).await?;
                let settled = self.settle(&container, &place, since);
                let settled = settled.instrument(debug_span!("network")).await;
                let user = self.user_namespace_of(&container, &place);
                settled?;
                let user = user?;
                let prepared = self.prepare(&container, &place, user.as_ref());
                prepared.instrument(debug_span!("root")).await?;
                let pid = self.make(&container).await?;
                drop(user);
                pid
            }
        };
        self.join_early_clients(held).instrument(debug_span!("clients")).await;
        let go = self.runtime.start(container.id.as_str()).instrument(debug_span!("go"));
        go.await.map_err(cannot_start)?;

        held.change(|container| {
            container.state = running(container, pid, since);
        });
        held.began();
        self.tell_linked(held);
        self.wait_for_others(&place.endpoints).await;
        self.tell_networks("connect", &held.id, &self.networks.of_container(&held.id));
        self.tell(held, "start", &[]);
        self.watch(held);
        self.look_after(held, true);
        Ok(())
    }

    fn note_way_back(self: &Arc<Self>, container: &Container, place: &Place, undo: &mut Undo) {
        undo.by("take the endpoint away", {
            let (engine, id) = (self.clone(), container.id.clone());
            let endpoints: Vec<_> = place.endpoints.iter().map(|(endpoint, _)| endpoint.clone()).collect();
            async move {
                let writes = disconnect::writes(&id, &endpoints);
                engine
                    .commit_release(Transaction {
                        writes,
                        ..Default::default()
                    })
                    .await
            }
        });
        undo.by("unmount the volumes", {
            let (engine, container) = (self.clone(), container.clone());
            async move { engine.unmount_volumes(&container).await }
        });
        undo.by("unmount the root", {
            let (images, directory) = (self.images.clone(), self.config.container(&container.id));
            async move { blocking(move || directory::unmount(&images, &directory)).await }
        });
        undo.by("delete the process", {
            let (engine, id) = (self.clone(), container.id.clone());
            async move { Ok(engine.runtime.delete(id.as_str()).await?) }
        });
    }

    /// Commits the place, and that the container is about to run, in one transaction, and waits until the agent says it is real. Whether it does run is the
    /// runtime's knowledge; a daemon that dies here asks it when it starts again.
    async fn settle(&self, container: &Container, place: &Place, since: Timestamp) -> Result<(), EngineError> {
        let mut transaction = place.write()?;
        let mut about_to_run = container.clone();
        about_to_run.state = running(container, 0, since);
        transaction.writes.push(Write::Put(
            key::container(&container.id),
            record::encode(&about_to_run)?,
        ));
        let revision = self.commit(transaction).instrument(debug_span!("record")).await?;
        let subjects = place.subjects();
        if !subjects.is_empty() {
            let settled = self.agent.settled(revision, &subjects);
            settled.instrument(debug_span!("devices")).await?;
        }
        Ok(())
    }

    /// Mounts the root, writes the bundle, and makes the process already if it needs no more of its network than the namespace, and that can be had
    /// now. The promise is to be kept until the agent knows the record of the namespace.
    async fn make_ahead(
        &self,
        container: &Container,
        place: &Place,
    ) -> Result<(Option<u32>, Option<Promise>), EngineError> {
        let ahead = async {
            match &place.sandbox {
                // what is set of the network may be a device's
                Some(_) if container.host_config.sysctls.keys().any(|name| name.starts_with("net")) => Ok(None),
                Some(sandbox) => self.agent.sandbox_ahead(&sandbox.path).await,
                None => Ok(None),
            }
        };
        let (promise, prepared) = tokio::join!(
            ahead.instrument(debug_span!("sandbox")),
            self.prepare(container, place, None).instrument(debug_span!("root"))
        );
        prepared?;
        let promise = promise?;
        let pid = match promise.is_some() || place.sandbox.is_none() {
            true => Some(self.make(container).await?),
            false => None,
        };
        Ok((pid, promise))
    }

    /// Has the process made, which waits to be let go.
    async fn make(&self, container: &Container) -> Result<u32, EngineError> {
        let create = self.runtime_request(container)?;
        let made = self.runtime.create(&create).instrument(debug_span!("process"));
        made.await.map_err(cannot_start)
    }

    /// Mounts the root and writes the bundle.
    async fn prepare(&self, container: &Container, place: &Place, user: Option<&OwnedFd>) -> Result<(), EngineError> {
        // by way of this process: the namespace has no other name
        let user = user.map(|user| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), user.as_raw_fd())));
        self.sizes.forget(&self.config.container(&container.id).join("upper"));
        self.mount_volumes(container).await?;
        let (images, config) = (self.images.clone(), self.config.clone());
        let sharing = self.sharing_of(container)?;
        let (container, place) = (container.clone(), place.clone());
        blocking(move || {
            let directory = config.container(&container.id);
            let snapshot = owners::mount_root(&images, &container, &directory)?;
            owners::mount_images(&images, &container, &directory)?;
            directory::write_etc(&config, &container, &place)?;
            directory::make_bind_sources(&container)?;
            if let Some(log) = log::path(&directory, &container) {
                directory::make_parent(&log)?;
            }
            mounts::check_propagation(&container.mounts)?;
            let host = &container.host_config;
            let identity = resolve_user(&snapshot.merged, &container.config.user, &host.group_add)?;
            let names = capabilities::resolve(&host.cap_add, &host.cap_drop, host.privileged)?;
            let own_mounts = mounts::to_oci(&config.volumes(), &directory, &container.mounts, &host.tmpfs);
            let own_mounts = own_mounts.map_err(|why| {
                EngineError::failed(format!("cannot write the mounts of container {}: {why}", container.id))
            })?;
            let set = capabilities::to_oci(&names).into_iter().collect();
            if host.ipc_mode == "shareable" {
                let size = u64::try_from(host.shm_size).ok().filter(|size| *size > 0);
                let size = size.unwrap_or(sluice_runtime::spec::DEFAULT_SHM_SIZE);
                let owner = container.id_map.as_ref().and_then(IdMap::root).unwrap_or_default();
                sluice_runtime::mount_shared_memory(&sharing::place_of_memory(&directory), size, owner)?;
            }
            let shared = place.shared.as_ref();
            let linked: Vec<String> = place
                .linked
                .iter()
                .flat_map(|linked| linked.environment(&container.name))
                .collect();
            let spec = spec::build(
                &container,
                &Surroundings {
                    rootfs: &snapshot.merged,
                    etc: &shared.map_or_else(|| directory.clone(), |shared| config.container(&shared.owner)),
                    mounts: &own_mounts,
                    sandbox: place.namespace(),
                    user: user.as_deref(),
                    cgroup_parent: &config.cgroup_parent,
                    identity: &identity,
                    host_name: &shared.map_or_else(|| spec::host_name(&container), |shared| shared.host_name.clone()),
                    domain: shared.map_or(container.config.domainname.as_deref(), |shared| {
                        shared.domain.as_deref()
                    }),
                    seccomp: Options::parse(&host.security_opt)?.filter(&set, host.privileged)?,
                    sharing: &sharing,
                    linked: &linked,
                },
            )?;
            let path = directory.join("config.json");
            let text = serde_json::to_vec(&spec).map_err(|why| {
                EngineError::failed(format!("cannot write the spec of container {}: {why}", container.id))
            })?;
            std::fs::write(&path, text).map_err(|why| error::io("write", &path, &why))
        })
        .await
    }

    fn runtime_request(&self, container: &Container) -> Result<Create, EngineError> {
        let directory = self.config.container(&container.id);
        Ok(Create {
            id: container.id.to_string(),
            log: log::plan(&directory, container)?,
            bundle: directory,
            stdin: container.config.open_stdin,
            stdin_once: container.config.stdin_once,
        })
    }

    /// Writes down why the start failed, with the exit code that Docker gives; a container that was to be removed at its end is removed now.
    async fn record_failure(self: &Arc<Self>, held: &Arc<Held>, why: &EngineError) {
        held.send_early_clients_away();
        let exit_code = exit_code(why);
        let container = held.change(|container| {
            container.state.pid = 0;
            container.state.error.clone_from(&why.message);
            container.state.exit_code = exit_code;
            if container.state.phase == Phase::Restarting {
                container.state.phase = Phase::Exited;
            }
        });
        held.ended(exit_code, false);
        if container.host_config.auto_remove {
            if let Err(error) = self.remove_whole(held).await {
                tracing::warn!("cannot remove container {} after its failed start: {error}", held.id);
            }
        } else if let Err(error) = self.save(held).await {
            tracing::warn!("cannot record the failed start of container {}: {error}", held.id);
        }
    }

    /// Writes the record as it is in memory.
    pub(crate) async fn save(&self, held: &Held) -> Result<(), EngineError> {
        let value = held.look(record::encode)?;
        let writes = vec![Write::Put(key::container(&held.id), value)];
        self.commit(Transaction {
            writes,
            ..Default::default()
        })
        .await?;
        Ok(())
    }
}

/// The state of a container whose process has just begun.
fn running(container: &Container, pid: u32, since: Timestamp) -> sluice_model::container::ContainerState {
    sluice_model::container::ContainerState {
        phase: Phase::Running,
        pid,
        exit_code: 0,
        oom_killed: false,
        error: String::new(),
        started_at: Some(since),
        finished_at: container.state.finished_at,
        restart_count: container.state.restart_count,
        stopped_by_user: false,
    }
}

/// Docker's: 127 when the command is not there, 126 when it can't be run, 128 for everything else.
fn exit_code(error: &EngineError) -> i32 {
    let is = |text: &str| error.message.contains(text);
    match error.kind {
        Kind::Command if is("executable file not found") || is("no such file or directory") => 127,
        Kind::Command => 126,
        _ => 128,
    }
}

fn cannot_start(error: RuntimeError) -> EngineError {
    let error = EngineError::from(error);
    if error.kind == Kind::Command {
        error
    } else {
        error.within("failed to create task for container")
    }
}

/// Who the process runs as, by the container's own files.
pub(crate) fn resolve_user(rootfs: &std::path::Path, user: &str, further: &[String]) -> Result<Identity, EngineError> {
    let user = sluice_runtime::resolve_user(rootfs, user)?;
    let further = sluice_runtime::resolve_groups(rootfs, further)?;
    // The primary group stands among the others too, or a file that its group may not read could be read by leaving the group (CVE-2022-36109).
    let mut groups = vec![user.gid];
    for group in user.additional_gids.into_iter().chain(further) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        groups,
        home: user.home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_what_was_wrong_with_the_command() {
        let code = |kind, text: &str| exit_code(&EngineError::new(kind, text));
        assert_eq!(
            code(Kind::Command, "exec: \"foo\": executable file not found in $PATH"),
            127
        );
        assert_eq!(
            code(Kind::Command, "exec: \"/foo\": stat /foo: no such file or directory"),
            127
        );
        assert_eq!(code(Kind::Command, "exec: \"/etc\": permission denied"), 126);
        assert_eq!(code(Kind::Failed, "no address is left"), 128);
    }
}
