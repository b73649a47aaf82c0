//! Ctrl-C: what runs now fails or ends, and the way out is the ordinary one, so that everything is tidied up.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::step::{Doing, Failure, Outcome};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: i32) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on the signals that ask us to end are noted; [`check`] heeds them.
pub fn watch() -> Outcome {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but store into an atomic.
        unsafe { sigaction(signal, &action) }.doing(|| format!("handle {signal}"))?;
    }
    Ok(())
}

/// Fails when we were asked to end.
pub fn check() -> Outcome {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Failure::new("interrupted"));
    }
    Ok(())
}
