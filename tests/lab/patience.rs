//! How long to wait, and waiting.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// This long on a usual machine, ten times as long in an emulated one (where `SLUICE_VM` is set).
pub fn patience(seconds: u64) -> Duration {
    let factor = if std::env::var_os("SLUICE_VM").is_some() { 10 } else { 1 };
    Duration::from_secs(seconds * factor)
}

/// Waits until `what` is true, asking every few milliseconds.
///
/// # Panics
/// If it does not come true in so many seconds.
pub fn eventually(what: &str, seconds: u64, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + patience(seconds);
    while !is_so() {
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        sleep(Duration::from_millis(20));
    }
}
