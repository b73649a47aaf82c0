//! Freezes and thaws a container.

use sluice_model::container::Phase;

use crate::{
    Engine, EngineError,
    container::{attach::is_restarting, held::Held},
};

impl Engine {
    /// Freezes it.
    pub async fn pause_container(&self, name: &str) -> Result<(), EngineError> {
        let held = self.containers.find(name)?;
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            match held.look(|container| container.state.phase) {
                Phase::Running => {}
                Phase::Paused => {
                    return Err(EngineError::conflict(format!(
                        "Container {} is already paused",
                        held.id
                    )));
                }
                Phase::Restarting => return Err(is_restarting(&held)),
                _ => return Err(EngineError::conflict(format!("Container {} is not running", held.id))),
            }
            engine.runtime.pause(held.id.as_str()).await?;
            held.change(|container| container.state.phase = Phase::Paused);
            engine.save(&held).await?;
            engine.tell(&held, "pause", &[]);
            Ok(())
        })
        .await
    }

    /// Thaws it.
    pub async fn unpause_container(&self, name: &str) -> Result<(), EngineError> {
        let held = self.containers.find(name)?;
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            if held.look(|container| container.state.phase) != Phase::Paused {
                return Err(EngineError::conflict(format!("Container {} is not paused", held.id)));
            }
            engine.thaw(&held).await?;
            engine.save(&held).await
        })
        .await
    }

    /// Lets a frozen container go on, also so that a signal reaches it.
    pub(crate) async fn thaw(&self, held: &Held) -> Result<(), EngineError> {
        self.runtime.resume(held.id.as_str()).await?;
        held.change(|container| {
            if container.state.phase == Phase::Paused {
                container.state.phase = Phase::Running;
            }
        });
        self.tell(held, "unpause", &[]);
        Ok(())
    }
}
