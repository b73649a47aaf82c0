//! What the agent measures of its own work, for those who collect figures.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Rounds, walks and answers, since the daemon started. Times are in seconds.
#[derive(Debug)]
pub struct Measures {
    rounds: Histogram,
    writes: Counter,
    walks: Histogram,
    masqueraded: Gauge,
    told: Histogram,
    forwarded: Histogram,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            rounds: Histogram::new(exponential_buckets(100e-6, 2.0, 16)),
            writes: Counter::default(),
            walks: Histogram::new(exponential_buckets(100e-6, 2.0, 16)),
            masqueraded: Gauge::default(),
            told: Histogram::new(exponential_buckets(10e-6, 2.0, 14)),
            forwarded: Histogram::new(exponential_buckets(100e-6, 2.0, 16)),
        }
    }
}

impl Measures {
    /// Enters them where figures are read from; names are those of docs/metrics.md.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "reconcile",
            "How long it took to make the kernel agree with the store",
            Unit::Seconds,
            self.rounds.clone(),
        );
        registry.register(
            "reconcile_writes",
            "Writes to tables, devices and namespaces",
            self.writes.clone(),
        );
        registry.register_with_unit(
            "flow_walk",
            "How long it took to look through all flows for those that are over",
            Unit::Seconds,
            self.walks.clone(),
        );
        registry.register(
            "masqueraded_connections",
            "Connections with the world that hold a port of the host, when the flows were last looked through",
            self.masqueraded.clone(),
        );
        registry.register_with_unit(
            "names_told",
            "How long questions for names waited for an answer that this host knew",
            Unit::Seconds,
            self.told.clone(),
        );
        registry.register_with_unit(
            "names_forwarded",
            "How long questions for names waited for the answer of another server",
            Unit::Seconds,
            self.forwarded.clone(),
        );
    }

    /// A round took so long and made so many writes.
    pub fn round(&self, took: Duration, writes: usize) {
        self.rounds.observe(took.as_secs_f64());
        self.writes.inc_by(writes as u64);
    }

    /// A walk through the flows took so long and met so many that are masqueraded.
    pub fn walk(&self, took: Duration, masqueraded: usize) {
        self.walks.observe(took.as_secs_f64());
        self.masqueraded.set(i64::try_from(masqueraded).unwrap_or(i64::MAX));
    }

    /// A question was answered from what is known here.
    pub fn told(&self, took: Duration) {
        self.told.observe(took.as_secs_f64());
    }

    /// A question was answered, or given up, after others were asked.
    pub fn forwarded(&self, took: Duration) {
        self.forwarded.observe(took.as_secs_f64());
    }
}
