//! The way back: what was done, and how each step is undone, newest first.

use std::{future::Future, pin::Pin};

use crate::EngineError;

type Step = Pin<Box<dyn Future<Output = Result<(), EngineError>> + Send>>;

/// Reverses of the steps taken so far. Dropping it keeps what was done.
#[derive(Default)]
pub(crate) struct Undo {
    steps: Vec<(&'static str, Step)>,
}

impl Undo {
    /// Remembers how to reverse a step that was just taken. `what` completes "cannot …".
    pub fn by(&mut self, what: &'static str, reverse: impl Future<Output = Result<(), EngineError>> + Send + 'static) {
        self.steps.push((what, Box::pin(reverse)));
    }

    /// Goes back, newest step first. A step that fails is told and the rest is undone all the same.
    pub async fn go_back(self) {
        for (what, step) in self.steps.into_iter().rev() {
            if let Err(error) = step.await {
                tracing::warn!("on the way back, cannot {what}: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn steps_are_undone_newest_first_and_a_failing_one_stops_nothing() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::default();
        for step in 1..=3 {
            let told = told.clone();
            undo.by("test", async move {
                told.lock().unwrap().push(step);
                if step == 2 {
                    Err(EngineError::failed("no"))
                } else {
                    Ok(())
                }
            });
        }
        undo.go_back().await;
        assert_eq!(*told.lock().unwrap(), [3, 2, 1]);
    }
}
