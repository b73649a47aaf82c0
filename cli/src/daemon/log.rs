//! The daemon's own log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::fmt::{self, format::FmtSpan};

use crate::value::LogLevel;

/// From now on. The journal writes times itself.
pub(crate) fn begin(level: LogLevel) {
    // steps are spans of level debug: each is told, with the time it took, when it ends
    let log = fmt::fmt()
        .with_max_level(level.0)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}
