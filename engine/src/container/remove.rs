//! Removes a container with all that it has.

use std::sync::{Arc, atomic::Ordering};

use sluice_model::container::Phase;
use sluice_store::{Transaction, Write, key};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{directory, held::Held},
    network::disconnect,
    steps::{Steps, timed},
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
        let mut steps = Steps::of("remove");
        held.change(|container| container.state.phase = Phase::Removing);
        let endpoints = self.networks.of_container(&held.id);
        let name = held.look(|container| container.name.clone());
        let mut writes = disconnect::writes(&held.id, &endpoints);
        writes.push(Write::Delete(key::container(&held.id)));
        writes.push(Write::Delete(key::name(&name)));
        let ((cleared, files), (committed, record)) = tokio::join!(
            timed(self.clear_whole(held)),
            timed(self.commit_release(Transaction {
                writes,
                ..Default::default()
            }))
        );
        steps.beside("files", files);
        steps.beside("record", record);
        steps.did("both");
        self.release(&endpoints);
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
        steps.tell();
        Ok(())
    }

    async fn clear_whole(&self, held: &Held) -> Result<(), EngineError> {
        self.clear(held).await?;
        let (images, directory) = (self.images.clone(), self.config.container(&held.id));
        blocking(move || directory::remove(&images, &directory)).await
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
