//! Waits for a container's end or removal.

use tokio::sync::oneshot;

use crate::{Engine, EngineError, container::held::Life};

/// What `wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WaitCondition {
    /// It is not running (at once when it is not).
    #[default]
    NotRunning,
    /// It ends the next time.
    NextExit,
    /// It is removed.
    Removed,
}

impl WaitCondition {
    /// Has what is waited for happened, when `before` was the case as the waiting began?
    fn holds(self, before: Life, now: Life) -> bool {
        match self {
            // one that its policy starts again counts as running, but its end was an end
            Self::NotRunning => (!now.running && !now.restarting) || now.ends > before.ends,
            // a container that is gone has no next end
            Self::NextExit => now.ends > before.ends || now.removed,
            Self::Removed => now.removed,
        }
    }
}

impl Engine {
    /// Waits. The subscription is made before this returns its future's first poll result: call, then answer the client's headers, then await the
    /// receiver, which yields the exit code.
    pub async fn wait_container(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<oneshot::Receiver<Result<i32, EngineError>>, EngineError> {
        let held = self.containers.find(name)?;
        let mut life = held.life();
        let before = *life.borrow();
        let (mut sender, receiver) = oneshot::channel();
        self.in_background(async move {
            tokio::select! {
                // nobody waits any more
                () = sender.closed() => {}
                now = life.wait_for(|now| condition.holds(before, *now)) => {
                    let code = now.map(|now| now.exit_code);
                    let answer = code.map_err(|_| EngineError::failed(format!("container {} is lost", held.id)));
                    let _ = sender.send(answer);
                }
            }
        });
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_has_its_moment() {
        let created = Life::default();
        let running = Life {
            starts: 1,
            running: true,
            ..created
        };
        let ended = Life {
            starts: 1,
            ends: 1,
            exit_code: 3,
            ..created
        };
        let gone = Life { removed: true, ..ended };
        assert!(WaitCondition::NotRunning.holds(created, created));
        assert!(!WaitCondition::NotRunning.holds(running, running));
        assert!(!WaitCondition::NextExit.holds(created, running));
        assert!(WaitCondition::NextExit.holds(created, ended));
        assert!(!WaitCondition::NextExit.holds(ended, ended));
        assert!(WaitCondition::NextExit.holds(
            created,
            Life {
                removed: true,
                ..created
            }
        ));
        assert!(!WaitCondition::Removed.holds(running, ended));
        assert!(WaitCondition::Removed.holds(running, gone));
    }
}
