//! Removes a container with all that it has.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use sluice_model::{Id, container::Phase};
use sluice_store::{Transaction, Write, key};
use tracing::{Instrument, debug_span};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{directory, held::Held},
    network::disconnect,
};

impl Engine {
    /// Removes it; a running one only with `force`. With `volumes`, those made for it alone go too.
    pub async fn remove_container(&self, name: &str, force: bool, volumes: bool) -> Result<(), EngineError> {
        let held = self.containers.find(name)?;
        let name = name.to_owned();
        self.carry_out(|engine| async move {
            if held.look(|container| container.state.is_up()) {
                if !force {
                    return Err(refusal(&held));
                }
                engine.halt(&held, Some(0), Some(libc::SIGKILL)).await?;
            }
            let _story = held.story.lock().await;
            let life = *held.life().borrow();
            if life.removed {
                // it went at its end; with force that is what was wanted
                return if force {
                    Ok(())
                } else {
                    Err(EngineError::not_found(format!("No such container: {name}")))
                };
            }
            if life.running || life.restarting {
                return Err(refusal(&held));
            }
            held.removes_volumes.store(volumes, Ordering::Relaxed);
            engine.remove_whole(&held).await
        })
        .await
    }

    /// Removes everything of a container that does not run; the caller holds its lock. A step that fails leaves it as `dead`, to be removed again.
    pub(crate) async fn remove_whole(self: &Arc<Self>, held: &Arc<Held>) -> Result<(), EngineError> {
        self.remove_by_steps(held).instrument(debug_span!("remove")).await
    }

    async fn remove_by_steps(self: &Arc<Self>, held: &Arc<Held>) -> Result<(), EngineError> {
        held.change(|container| container.state.phase = Phase::Removing);
        let endpoints = self.networks.of_container(&held.id);
        let name = held.look(|container| container.name.clone());
        let mut writes = disconnect::writes(&held.id, &endpoints);
        writes.push(Write::Delete(key::container(&held.id)));
        writes.push(Write::Delete(key::name(&name)));
        let gone = self.commit_release(Transaction {
            writes,
            ..Default::default()
        });
        let (cleared, committed) = tokio::join!(
            self.clear_whole(held).instrument(debug_span!("remains")),
            gone.instrument(debug_span!("record"))
        );
        self.release(&endpoints);
        self.tell_of_ended().await;
        if let Err(error) = cleared.and(committed) {
            held.change(|container| container.state.phase = Phase::Dead);
            if let Err(error) = self.save(held).await {
                tracing::warn!("cannot record that container {} could not be removed: {error}", held.id);
            }
            return Err(error.within(&format!("cannot remove container \"/{name}\"")));
        }
        self.tell_networks("disconnect", &held.id, &endpoints);
        self.tell(held, "destroy", &[]);
        self.execs.forget(&held.id);
        self.containers.strike(&held.id);
        let container = held.record();
        let volumes = container.host_config.auto_remove || held.removes_volumes.load(Ordering::Relaxed);
        self.leave_volumes(&container, volumes).await;
        held.removed();
        if container.host_config.auto_remove {
            self.sweep_later(&held.id);
        }
        Ok(())
    }

    async fn clear_whole(&self, held: &Held) -> Result<(), EngineError> {
        self.clear_all(held).await?;
        let (images, directory) = (self.images.clone(), self.config.container(&held.id));
        // nobody is told of trouble with the files of one that goes by itself, so nobody waits for them either
        let at_leisure = held.look(|container| container.host_config.auto_remove);
        blocking(move || match at_leisure {
            true => directory::abandon(&images, &directory),
            false => directory::remove(&images, &directory),
        })
        .instrument(debug_span!("files"))
        .await
    }

    /// Removes the files of a container that is gone, in the background and one container after another: on some disks each file costs milliseconds.
    /// What a daemon that dies leaves of them is removed by the next one, as it belongs to no record.
    fn sweep_later(&self, id: &Id) {
        let (images, directory, turn) = (self.images.clone(), self.config.container(id), self.sweeping.clone());
        let sweep = async move {
            let _turn = turn.lock().await;
            let removed = blocking({
                let directory = directory.clone();
                move || directory::remove(&images, &directory)
            });
            if let Err(error) = removed.instrument(debug_span!("sweep")).await {
                let left = directory.display();
                tracing::warn!("{left}, which belongs to no container any more, stays until the next start: {error}");
            }
        };
        let mut sweeps = self.sweeps.lock().unwrap_or_else(PoisonError::into_inner);
        while sweeps.try_join_next().is_some() {}
        sweeps.spawn(sweep);
    }
}

fn refusal(held: &Held) -> EngineError {
    let (name, phase) = held.look(|container| (container.name.clone(), container.state.phase));
    let advice = if phase == Phase::Paused {
        "unpause and then stop the container before removing or force remove"
    } else {
        "stop the container before removing or force remove"
    };
    let state = phase.as_str();
    EngineError::conflict(format!(
        "cannot remove container \"/{name}\": container is {state}: {advice}"
    ))
}
