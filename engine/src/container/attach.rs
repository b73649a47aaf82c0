//! Connects clients to a container's streams, also before there is a process: `docker run` attaches, then starts.

use std::sync::PoisonError;

use sluice_model::container::Phase;
use sluice_runtime::Attachment;

use crate::{Engine, EngineError, container::held::Held};

impl Engine {
    /// Connects to its streams. Works on a created container (docker run attaches before it starts).
    pub async fn attach_container(&self, name: &str) -> Result<Attachment, EngineError> {
        let held = self.containers.find(name)?;
        // a start that is on its way must not finish between our look and our entry among the early clients
        let _story = held.story.lock().await;
        let container = held.record();
        match container.state.phase {
            Phase::Running => {
                self.tell(&held, "attach", &[]);
                Ok(self.runtime.attach(held.id.as_str()).await?)
            }
            Phase::Paused => Err(EngineError::conflict(format!(
                "container {} is paused, unpause the container before attach",
                held.id
            ))),
            Phase::Restarting => Err(is_restarting(&held)),
            Phase::Created | Phase::Exited => {
                self.tell(&held, "attach", &[]);
                let (attachment, early) = Attachment::later(container.config.open_stdin);
                held.early.lock().unwrap_or_else(PoisonError::into_inner).push(early);
                Ok(attachment)
            }
            Phase::Removing | Phase::Dead => Err(EngineError::conflict(format!(
                "container {} is marked for removal",
                held.id
            ))),
        }
    }

    /// Sets the terminal's size.
    pub async fn resize_container(&self, name: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let held = self.containers.find(name)?;
        if !held.look(|container| container.state.is_alive()) {
            return Err(EngineError::conflict(format!("Container {} is not running", held.id)));
        }
        self.runtime.resize(held.id.as_str(), None, rows, columns).await?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.tell(&held, "resize", &size);
        Ok(())
    }

    /// A client has left by its detach keys.
    pub fn client_detached(&self, name: &str) {
        if let Ok(held) = self.containers.find(name) {
            self.tell(&held, "detach", &[]);
        }
    }

    /// Joins those who attached early to the process, which waits to be started.
    pub(crate) async fn join_early_clients(&self, held: &Held) {
        let early = std::mem::take(&mut *held.early.lock().unwrap_or_else(PoisonError::into_inner));
        for client in early {
            match self.runtime.attach(held.id.as_str()).await {
                Ok(attachment) => client.keep(attachment),
                Err(error) => tracing::warn!("a client of container {} can't be attached: {error}", held.id),
            }
        }
    }
}

/// Docker's words for what has no process now but will have one soon.
pub(crate) fn is_restarting(held: &Held) -> EngineError {
    EngineError::conflict(format!(
        "Container {} is restarting, wait until the container is running",
        held.id
    ))
}
