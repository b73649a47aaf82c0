//! Stops and starts.

use crate::{Engine, EngineError, container::signal};

impl Engine {
    /// Stops (if running) and starts.
    pub async fn restart_container(
        &self,
        name: &str,
        timeout: Option<i64>,
        stop_signal: Option<&str>,
    ) -> Result<(), EngineError> {
        let held = self.containers.find(name)?;
        let number = stop_signal
            .filter(|name| !name.is_empty())
            .map(signal::parse)
            .transpose()?;
        self.carry_out(|engine| async move {
            // a container that goes at its end is kept through a restart
            let removes = held.look(|container| container.host_config.auto_remove);
            held.change(|container| container.host_config.auto_remove = false);
            let stopped = engine.halt(&held, timeout, number).await;
            held.change(|container| container.host_config.auto_remove = removes);
            stopped?;
            let _story = held.story.lock().await;
            engine.begin_anew(&held).await?;
            engine.tell(&held, "restart", &[]);
            Ok(())
        })
        .await
    }
}
