//! Stops a container: a signal, some time, then SIGKILL.

use std::{sync::Arc, time::Duration};

use sluice_model::container::Phase;
use sluice_runtime::RuntimeError;

use crate::{
    Engine, EngineError,
    container::{held::Held, signal},
};

/// Docker's, seconds.
const TIMEOUT: i64 = 10;
/// How long the kernel may take after SIGKILL before we say so.
const AFTER_KILL: Duration = Duration::from_secs(10);

impl Engine {
    /// Stop signal, `timeout` seconds (none: the container's own; negative: for ever), then SIGKILL. Not running: `Ok(false)`.
    pub async fn stop_container(
        &self,
        name: &str,
        timeout: Option<i64>,
        stop_signal: Option<&str>,
    ) -> Result<bool, EngineError> {
        let held = self.containers.find(name)?;
        let number = stop_signal
            .filter(|name| !name.is_empty())
            .map(signal::parse)
            .transpose()?;
        self.carry_out(|engine| async move { engine.halt(&held, timeout, number).await })
            .await
    }

    /// The story itself. It does not take the container's lock: it waits for the end, which does.
    pub(crate) async fn halt(
        self: &Arc<Self>,
        held: &Arc<Held>,
        timeout: Option<i64>,
        signal: Option<i32>,
    ) -> Result<bool, EngineError> {
        let mut container = held.change(|container| container.state.stopped_by_user = true);
        while container.state.phase == Phase::Restarting {
            if self.call_restart_off(held).await? {
                self.tell(held, "stop", &[]);
                return Ok(true);
            }
            // it was just being started, which forgets who stopped it before
            container = held.change(|container| container.state.stopped_by_user = true);
        }
        if !container.state.is_alive() {
            // a restart to come is called off; that it stays so after a restart of the daemon is worth a record
            if !matches!(container.host_config.restart_policy.name.as_str(), "" | "no") {
                self.save(held).await?;
            }
            return Ok(false);
        }
        let own = container.config.stop_signal.as_deref().map(signal::parse).transpose()?;
        let number = signal.or(own).unwrap_or(libc::SIGTERM);
        let mut life = held.life();
        let ends = life.borrow().ends;
        let is_told = match self.deliver(held, number).await {
            // its shim does not answer: only force is left
            Err(error) if number != libc::SIGKILL => {
                tracing::warn!(
                    "container {} is killed, as it cannot be told to stop: {}",
                    held.id,
                    error.message
                );
                self.deliver(held, libc::SIGKILL).await?;
                false
            }
            told => told.map(|()| number != libc::SIGKILL)?,
        };
        if container.state.phase == Phase::Paused {
            self.thaw(held).await?;
        }
        let seconds = timeout.or(container.config.stop_timeout).unwrap_or(TIMEOUT);
        let mut in_time = false;
        if is_told {
            let ended = life.wait_for(|life| life.ends > ends || life.removed);
            in_time = match u64::try_from(seconds) {
                Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok(),
                Err(_) => ended.await.is_ok(),
            };
            if !in_time {
                self.deliver(held, libc::SIGKILL).await?;
            }
        }
        if !in_time {
            let ended = life.wait_for(|life| life.ends > ends || life.removed);
            if tokio::time::timeout(AFTER_KILL, ended).await.is_err() {
                return Err(EngineError::failed(format!(
                    "container {} did not end within {} seconds of SIGKILL",
                    held.id,
                    AFTER_KILL.as_secs()
                )));
            }
        }
        // it may have ended by itself just before it was told to, and its policy have decided already
        self.call_restart_off(held).await?;
        self.tell(held, "stop", &[]);
        Ok(true)
    }

    /// Sends a signal and tells so; fine when the process is just gone.
    pub(crate) async fn deliver(&self, held: &Held, number: i32) -> Result<(), EngineError> {
        let _in_order = held.signals.lock().await;
        match self.runtime.signal(held.id.as_str(), number).await {
            Ok(()) => self.tell(held, "kill", &[("signal", number.to_string())]),
            Err(RuntimeError::NoSuchContainer(_)) => {}
            Err(error) => {
                // it may have ended between our look and the signal, and be cleared away already
                let gone = match self.runtime.state(held.id.as_str()).await {
                    Ok(state) => state.status == sluice_runtime::Status::Stopped,
                    Err(RuntimeError::NoSuchContainer(_)) => true,
                    Err(_) => false,
                };
                if !gone {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}
