//! How long each step of a story takes, told at level debug: `cargo xtask bench` adds them up.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

/// A story being timed.
pub(crate) struct Steps {
    story: &'static str,
    begun: Instant,
    last: Instant,
    told: String,
}

impl Steps {
    /// Begins now.
    pub fn of(story: &'static str) -> Self {
        let now = Instant::now();
        Self {
            story,
            begun: now,
            last: now,
            told: String::new(),
        }
    }

    /// A step was done since the last one.
    pub fn did(&mut self, step: &str) {
        let now = Instant::now();
        self.note(step, now - self.last);
        self.last = now;
    }

    /// A step took so long beside others.
    pub fn beside(&mut self, step: &str, took: Duration) {
        self.note(step, took);
    }

    /// All is done.
    pub fn tell(self) {
        tracing::debug!(target: "sluice_engine::steps", "{}{} all={}", self.story, self.told, self.begun.elapsed().as_micros());
    }

    fn note(&mut self, step: &str, took: Duration) {
        // writing to a String does not fail
        let _ = write!(self.told, " {step}={}", took.as_micros());
    }
}

/// How long something takes, with what it gives.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (work.await, begun.elapsed())
}
