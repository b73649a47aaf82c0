//! The daemon's own log, on standard error.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    filter::Targets,
    fmt::{self, format::FmtSpan},
    prelude::*,
};

use crate::value::LogLevel;

/// From now on. The journal writes times itself.
pub(crate) fn begin(level: LogLevel) {
    // steps are spans of level debug: each is told, with the time it took, when it ends
    let log = fmt::fmt()
        .with_max_level(level.0)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // what is said of each frame on the way to etcd is nobody's business
    let theirs = level.0.min(LevelFilter::INFO);
    let loud = ["h2", "hyper", "hyper_util", "tonic", "tower"].map(|name| (name, theirs));
    let targets = Targets::new().with_default(level.0).with_targets(loud);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().finish().with(targets).init();
    } else {
        log.finish().with(targets).init();
    }
}
