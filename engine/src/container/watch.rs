//! Watches a running container: when it ends, the end is recorded, what it had is given back, and the restart policy has its say.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use sluice_model::{
    Container,
    container::{ContainerState, Phase},
};
use sluice_runtime::{Exit, RuntimeError};
use sluice_store::{Transaction, Write, key, record};
use tracing::{Instrument, debug_span};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{directory, held::Held},
    network::disconnect,
};

/// The code of a container whose end nobody saw (Docker's).
const UNSEEN: i32 = 255;

impl Engine {
    /// Watches in the background until the end.
    pub(crate) fn watch(&self, held: &Arc<Held>) {
        let (engine, runtime, held) = (self.me.clone(), self.runtime.clone(), held.clone());
        self.in_background(async move {
            let mut tries = 0;
            let exit = loop {
                match runtime.wait(held.id.as_str()).await {
                    Ok(exit) => break exit,
                    Err(RuntimeError::NoSuchContainer(_)) => break unseen(),
                    Err(error) => {
                        tries += 1;
                        tracing::warn!("cannot wait for container {}: {error}", held.id);
                        if tries == 10 {
                            break unseen();
                        }
                        tokio::time::sleep(Duration::from_millis(100 << tries)).await;
                    }
                }
            };
            let Some(engine) = engine.upgrade() else { return };
            // a task of its own: it must not die with the watchers in the middle of its steps
            let ending = tokio::spawn(async move {
                let _story = held.story.lock().await;
                engine.end(&held, exit, Afterwards::AsThePolicySays).await;
            });
            if let Err(error) = ending.await {
                tracing::error!("the end of a container was not recorded: {error}");
            }
        });
    }

    /// The story of an end; the caller holds the container's lock.
    pub(crate) async fn end(self: &Arc<Self>, held: &Arc<Held>, exit: Exit, afterwards: Afterwards) {
        let ended = Timestamp::try_from(exit.at).unwrap_or_else(|_| Timestamp::now());
        let was = held.record();
        let container = held.change(|container| {
            container.state = end_of(&container.state, exit, ended);
            if afterwards == Afterwards::AsThePolicySays && restarts(container) {
                container.state.phase = Phase::Restarting;
                container.state.restart_count += 1;
            }
        });
        let again = container.state.phase == Phase::Restarting;
        held.send_early_clients_away();
        // whoever has just sent the signal that it ended by tells of that first
        drop(held.signals.lock().await);
        if exit.oom_killed {
            self.tell(held, "oom", &[]);
        }
        let ran = was
            .state
            .started_at
            .map_or(0, |started| (ended.as_second() - started.as_second()).max(0));
        self.tell(
            held,
            "die",
            &[("execDuration", ran.to_string()), ("exitCode", exit.code.to_string())],
        );

        if container.host_config.auto_remove {
            held.leaves_with(exit.code);
            if let Err(error) = self.remove_whole(held).await {
                tracing::warn!("cannot remove container {} at its end: {error}", held.id);
                held.ended(exit.code, false);
            }
            return;
        }
        if let Err(error) = self.give_back(held, &container).await {
            tracing::warn!("cannot tidy up after container {}: {error}", held.id);
        }
        // only now, so that who waited finds its ports free and its record true
        held.ended(exit.code, again);
        // nobody waits for this: it writes out all of the host's file system. Who starts the container again waits for the story's lock
        if let Err(error) = self.unmount_root(held).await {
            tracing::warn!("cannot unmount the root of container {}: {error}", held.id);
        }
        if again {
            self.restart_later(held, was.state.started_at, ended);
        }
    }

    /// Records the end and gives back what a running container has: endpoint, process, volumes.
    async fn give_back(&self, held: &Held, container: &Container) -> Result<(), EngineError> {
        let endpoints = self.networks.of_container(&held.id);
        let mut writes = disconnect::writes(&held.id, &endpoints);
        writes.push(Write::Put(key::container(&held.id), record::encode(container)?));
        let (committed, cleared) = tokio::join!(
            self.commit_release(Transaction {
                writes,
                ..Default::default()
            }),
            self.clear(held)
        );
        self.release(&endpoints);
        self.tell_of_ended().await;
        self.tell_networks("disconnect", &held.id, &endpoints);
        committed.and(cleared)
    }

    /// Takes the process's remains and the mounts of volumes away.
    async fn clear(&self, held: &Held) -> Result<(), EngineError> {
        let deleted = self.runtime.delete(held.id.as_str());
        let deleted = deleted.instrument(debug_span!("process")).await;
        let volumes = self.unmount_volumes(&held.record()).await;
        self.sizes.forget(&self.config.container(&held.id).join("upper"));
        deleted?;
        volumes
    }

    /// Unmounts the root, and images that were mounted in it. Fine when nothing is mounted.
    pub(crate) async fn unmount_root(&self, held: &Held) -> Result<(), EngineError> {
        let (images, directory) = (self.images.clone(), self.config.container(&held.id));
        let unmounted = blocking(move || directory::unmount(&images, &directory));
        unmounted.instrument(debug_span!("unmount")).await
    }

    /// All of that.
    pub(crate) async fn clear_all(&self, held: &Held) -> Result<(), EngineError> {
        // the process has ended; should others of the container still go, its mounts were never the same as these
        let (cleared, unmounted) = tokio::join!(self.clear(held), self.unmount_root(held));
        cleared.and(unmounted)
    }

    /// Starts it after a pause, unless somebody has changed its life meanwhile.
    pub(crate) fn restart_later(&self, held: &Arc<Held>, started: Option<Timestamp>, ended: Timestamp) {
        let pause = held.pause_before_restart(started, ended);
        let (engine, held) = (self.me.clone(), held.clone());
        let lives = *held.life().borrow();
        self.in_background(async move {
            tokio::time::sleep(pause).await;
            let Some(engine) = engine.upgrade() else { return };
            let restart = tokio::spawn(async move {
                let _story = held.story.lock().await;
                let life = *held.life().borrow();
                // somebody stopped or removed it meanwhile
                if life != lives || held.look(|container| container.state.phase != Phase::Restarting) {
                    return;
                }
                if let Err(error) = engine.begin(&held).await {
                    tracing::warn!("the restart policy cannot start container {}: {error}", held.id);
                    engine.try_again(&held).await;
                }
            });
            // a panic in there is reported by the runtime
            let _ = restart.await;
        });
    }

    /// A start by the restart policy has failed: that counts as an end.
    async fn try_again(&self, held: &Arc<Held>) {
        if held.life().borrow().removed || !restarts(&held.record()) {
            return;
        }
        let container = held.change(|container| {
            container.state.phase = Phase::Restarting;
            container.state.restart_count += 1;
        });
        held.ended(container.state.exit_code, true);
        if let Err(error) = self.save(held).await {
            tracing::warn!("cannot record that container {} is started again: {error}", held.id);
        }
        self.restart_later(held, None, Timestamp::now());
    }

    /// Calls a restart to come off. None was to come: false.
    pub(crate) async fn call_restart_off(&self, held: &Arc<Held>) -> Result<bool, EngineError> {
        let _story = held.story.lock().await;
        if held.look(|container| container.state.phase) != Phase::Restarting {
            return Ok(false);
        }
        held.change(|container| container.state.phase = Phase::Exited);
        held.rests();
        self.save(held).await?;
        Ok(true)
    }
}

/// What becomes of a container after its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Afterwards {
    /// Its restart policy decides.
    AsThePolicySays,
    /// It stays as it is: its end was that of the host.
    ItRests,
}

/// What is written when a container's end was seen by nobody, as after a crash of the host.
pub(crate) fn unseen() -> Exit {
    Exit {
        code: UNSEEN,
        oom_killed: false,
        at: std::time::SystemTime::now(),
    }
}

fn end_of(state: &ContainerState, exit: Exit, at: Timestamp) -> ContainerState {
    ContainerState {
        phase: Phase::Exited,
        pid: 0,
        exit_code: exit.code,
        oom_killed: exit.oom_killed,
        finished_at: Some(at),
        ..state.clone()
    }
}

/// Does the policy start it again after this end?
pub(crate) fn restarts(container: &Container) -> bool {
    let (policy, state) = (&container.host_config.restart_policy, &container.state);
    if state.stopped_by_user {
        return false;
    }
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            state.exit_code != 0
                && (policy.maximum_retry_count == 0 || i64::from(state.restart_count) < policy.maximum_retry_count)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::held::tests::record;

    fn ended(policy: &str, most: i64, change: impl FnOnce(&mut ContainerState)) -> bool {
        let mut container = record("web", 1);
        container.host_config.restart_policy = sluice_model::container::RestartPolicy {
            name: policy.into(),
            maximum_retry_count: most,
        };
        change(&mut container.state);
        restarts(&container)
    }

    #[test]
    fn the_policy_decides_who_starts_again() {
        assert!(!ended("", 0, |_| {}) && !ended("no", 0, |state| state.exit_code = 1));
        assert!(ended("always", 0, |_| {}) && ended("unless-stopped", 0, |_| {}));
        assert!(!ended("on-failure", 0, |_| {}));
        assert!(ended("on-failure", 0, |state| state.exit_code = 1));
    }

    #[test]
    fn on_failure_counts_its_tries() {
        let after = |count| move |state: &mut ContainerState| (state.exit_code, state.restart_count) = (1, count);
        assert!(ended("on-failure", 2, after(1)));
        assert!(!ended("on-failure", 2, after(2)));
    }

    #[test]
    fn what_the_user_stopped_stays_stopped() {
        for policy in ["always", "unless-stopped", "on-failure"] {
            assert!(!ended(policy, 0, |state| (state.exit_code, state.stopped_by_user) = (1, true)));
        }
    }
}
