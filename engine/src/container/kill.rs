//! Sends a signal to a container.

use sluice_model::container::Phase;

use crate::{Engine, EngineError, container::signal};

impl Engine {
    /// Sends a signal (`KILL`, `SIGTERM`, `9`); empty: KILL. 409 when it is not running.
    pub async fn kill_container(&self, name: &str, signal_name: &str) -> Result<(), EngineError> {
        let number = if signal_name.is_empty() {
            libc::SIGKILL
        } else {
            signal::parse(signal_name)?
        };
        let held = self.containers.find(name)?;
        let container = held.record();
        if !container.state.is_up() {
            return Err(EngineError::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                held.id
            )));
        }
        let stop_signal = container
            .config
            .stop_signal
            .as_deref()
            .and_then(|name| signal::parse(name).ok());
        let ends_it = number == libc::SIGKILL || number == stop_signal.unwrap_or(libc::SIGTERM);
        self.carry_out(|engine| async move {
            if ends_it {
                held.change(|container| container.state.stopped_by_user = true);
            }
            while held.look(|container| container.state.phase) == Phase::Restarting {
                if !ends_it || engine.call_restart_off(&held).await? {
                    return Ok(());
                }
                // it was just being started, which forgets who stopped it before
                held.change(|container| container.state.stopped_by_user = true);
            }
            let mut life = held.life();
            let ends = life.borrow().ends;
            engine.deliver(&held, number).await?;
            if ends_it && container.state.phase == Phase::Paused {
                engine.thaw(&held).await?;
            }
            if number == libc::SIGKILL {
                // Docker answers when it is dead
                let ended = life.wait_for(|life| life.ends > ends || life.removed);
                if tokio::time::timeout(std::time::Duration::from_secs(10), ended)
                    .await
                    .is_err()
                {
                    tracing::warn!("container {} did not end within 10 seconds of SIGKILL", held.id);
                }
            }
            Ok(())
        })
        .await
    }
}
