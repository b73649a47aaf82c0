//! Stops and starts; and how the policy may be changed.

use sluice_model::container::RestartPolicy;

use crate::{
    Engine, EngineError,
    container::{signal, validate},
};

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

    /// Changes the restart policy.
    pub async fn update_restart_policy(&self, name: &str, policy: RestartPolicy) -> Result<(), EngineError> {
        validate::check_restart_policy(&policy)?;
        let held = self.containers.find(name)?;
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            let restarts = !matches!(policy.name.as_str(), "" | "no");
            if restarts && held.look(|container| container.host_config.auto_remove) {
                return Err(EngineError::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            held.change(|container| container.host_config.restart_policy = policy);
            engine.save(&held).await?;
            engine.tell(&held, "update", &[]);
            Ok(())
        })
        .await
    }
}
