//! Figures for Prometheus and all who read its format (OpenMetrics 1.0 text).
//!
//! What is counted elsewhere is asked for when somebody collects; what takes time is measured as it happens and kept here ([`Measures`]).

mod carried;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Mutex, time::Duration};

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};
use sluice_agent::view;
use sluice_engine::{Carried, ClusterStatus, Engine, PolicyVerdict};

use crate::error::{Answer, ApiError};
use carried::Totals;

/// What the format is called.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Begins every name.
const PREFIX: &str = "sluice";
/// So many endpoints are told one by one; the rest, those that carry least, as one without a name. Labels cost whoever keeps them.
const ENDPOINTS: usize = 500;
/// So many documents are told one by one, the rest as one without a name.
const POLICIES: usize = 200;

/// What the API measures of itself, shared by all its sockets.
#[derive(Debug)]
pub struct Measures {
    answers: Family<Route, Histogram, fn() -> Histogram>,
    totals: Mutex<Totals>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Route {
    method: String,
    path: String,
}

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;
type Levels = Family<Labels, Gauge>;

/// All that is asked of others when figures are collected.
pub(crate) struct Figures {
    pub(crate) status: view::Status,
    pub(crate) drops: Vec<view::Drop>,
    pub(crate) carried: Vec<Carried>,
    /// What documents have said.
    pub(crate) verdicts: Vec<PolicyVerdict>,
    /// Containers by their state.
    pub(crate) containers: [(&'static str, usize); 3],
    /// None: this host is in no cluster.
    pub(crate) cluster: Option<ClusterStatus>,
}

// === impl Measures ===

impl Default for Measures {
    fn default() -> Self {
        Self {
            answers: Family::new_with_constructor(|| Histogram::new(exponential_buckets(500e-6, 2.0, 16))),
            totals: Mutex::default(),
        }
    }
}

impl Measures {
    /// A request was answered, as far as the head of the answer.
    fn answered(&self, method: &str, path: &str, took: Duration) {
        let route = Route {
            method: method.to_owned(),
            path: path.to_owned(),
        };
        self.answers.get_or_create(&route).observe(took.as_secs_f64());
    }

    /// Everything, as text.
    pub(crate) async fn collect(&self, engine: &Engine) -> Answer<String> {
        let agent = engine.agent();
        let trouble = |error: sluice_agent::AgentError| ApiError::failed(error.to_string());
        let info = engine.info().await?;
        let figures = Figures {
            status: agent.figures().await.map_err(trouble)?,
            drops: agent.drops().await.map_err(trouble)?,
            carried: engine.carried().await?,
            verdicts: engine.policy_verdicts().await?,
            containers: [
                ("running", info.running),
                ("paused", info.paused),
                ("stopped", info.stopped),
            ],
            cluster: match engine.is_in_cluster() {
                true => Some(engine.cluster_status().await?),
                false => None,
            },
        };
        let mut kept = Registry::with_prefix(PREFIX);
        agent.register_measures(&mut kept);
        self.text(&figures, kept)
            .map_err(|error| ApiError::failed(format!("the figures cannot be written as text: {error}")))
    }

    /// `kept`: what others measure as it happens.
    fn text(&self, figures: &Figures, mut kept: Registry) -> Result<String, fmt::Error> {
        kept.register_with_unit(
            "api",
            "How long requests waited for the head of their answer",
            Unit::Seconds,
            self.answers.clone(),
        );
        let mut asked = Registry::with_prefix(PREFIX);
        let mut totals = self.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        totals.take(&figures.carried);
        enter_facts(&mut asked, figures);
        enter_tables(&mut asked, &figures.status);
        enter_drops(&mut asked, figures);
        enter_carried(&mut asked, &figures.carried, &totals);
        enter_verdicts(&mut asked, &figures.verdicts);
        if let Some(cluster) = &figures.cluster {
            enter_cluster(&mut asked, cluster);
        }
        let mut text = String::new();
        encode_registry(&mut text, &asked)?;
        encode_registry(&mut text, &kept)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Measures a request; stands behind the routing, which knows what was asked for.
pub(crate) async fn timed(measures: std::sync::Arc<Measures>, request: Request, next: Next) -> Response {
    let began = std::time::Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    if let Some(path) = path {
        measures.answered(method.as_str(), path.as_str(), began.elapsed());
    }
    response
}

fn enter_facts(registry: &mut Registry, figures: &Figures) {
    let status = &figures.status;
    let build = Info::new(vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("instance_name", status.instance.clone()),
    ]);
    registry.register("build", "This daemon", build);
    let containers = levels(registry, "containers", "Containers by their state");
    for (state, count) in figures.containers {
        set(&containers, vec![("state", state.to_owned())], count as u64);
    }
    level(registry, "endpoints", "Endpoints on this host", status.endpoints);
    level(
        registry,
        "revision",
        "The revision of the store that the kernel agrees with",
        status.revision,
    );
    level(
        registry,
        "troubles",
        "What could not be made real; sluice status tells each in a sentence",
        status.troubles.len() as u64,
    );
}

fn enter_tables(registry: &mut Registry, status: &view::Status) {
    let entries = levels(registry, "table_entries", "Entries of a table of the datapath");
    let capacity = levels(registry, "table_capacity", "How many it can hold");
    for table in &status.tables {
        let labels = vec![("table", table.name.clone())];
        set(&entries, labels.clone(), table.entries);
        set(&capacity, labels, table.capacity);
    }
    let (connections, half_open) = status.shares.iter().fold((0, 0), |(all, half), share| {
        (all + share.connections.max(0), half + share.half_open.max(0))
    });
    level(
        registry,
        "connections",
        "Connections in the flow tables",
        connections.unsigned_abs(),
    );
    level(
        registry,
        "half_open_connections",
        "Those of them that nobody has answered yet",
        half_open.unsigned_abs(),
    );
}

fn enter_drops(registry: &mut Registry, figures: &Figures) {
    let packets = counts(
        registry,
        "dropped_packets",
        "Packets that died, by reason and where they came by",
    );
    let bytes = counts(registry, "dropped_bytes", "Their bytes");
    for drop in &figures.drops {
        let labels = vec![("reason", drop.reason.clone()), ("direction", drop.direction.clone())];
        packets.get_or_create(&labels).inc_by(drop.packets);
        bytes.get_or_create(&labels).inc_by(drop.bytes);
    }
    let untold = counts(
        registry,
        "untold_drops",
        "Drops that those who follow them were not told of one by one",
    );
    for line in &figures.status.telling.untold {
        for (why, count) in [("too_many", line.too_many), ("lost", line.lost)] {
            let labels = vec![("reason", line.reason.clone()), ("why", why.to_owned())];
            untold.get_or_create(&labels).inc_by(count);
        }
    }
}

/// A pair of families for each measure: packets and bytes, of endpoints and of networks.
fn enter_carried(registry: &mut Registry, carried: &[Carried], totals: &Totals) {
    let endpoint = [
        counts(
            registry,
            "endpoint_received_bytes",
            "Received by a container on a network, since it started",
        ),
        counts(registry, "endpoint_received_packets", "As packets"),
        counts(
            registry,
            "endpoint_sent_bytes",
            "Sent by a container on a network, since it started",
        ),
        counts(registry, "endpoint_sent_packets", "As packets"),
    ];
    let network = [
        counts(
            registry,
            "network_received_bytes",
            "Received by all containers of a network, also those that are gone",
        ),
        counts(registry, "network_received_packets", "As packets"),
        counts(
            registry,
            "network_sent_bytes",
            "Sent by all containers of a network, also those that are gone",
        ),
        counts(registry, "network_sent_packets", "As packets"),
    ];
    let add = |families: &[Counts; 4], labels: &Labels, traffic: carried::Figures| {
        for (family, value) in families.iter().zip(traffic) {
            family.get_or_create(labels).inc_by(value);
        }
    };
    let mut by_size: Vec<&Carried> = carried.iter().collect();
    by_size.sort_by_key(|carried| std::cmp::Reverse(carried::figures(carried)[0] + carried::figures(carried)[2]));
    for (place, carried) in by_size.into_iter().enumerate() {
        let (container, network) = match place < ENDPOINTS {
            true => (carried.container.clone(), carried.network.clone()),
            false => (String::new(), String::new()),
        };
        add(
            &endpoint,
            &vec![("container", container), ("network", network)],
            carried::figures(carried),
        );
    }
    for (name, traffic) in totals.networks() {
        add(&network, &vec![("network", name.to_owned())], traffic);
    }
}

/// By document: rules may be many thousands.
fn enter_verdicts(registry: &mut Registry, verdicts: &[PolicyVerdict]) {
    let packets = counts(
        registry,
        "policy_packets",
        "Packets that were judged by a document, by what it said; audited: it is against them, and only counts",
    );
    let bytes = counts(registry, "policy_bytes", "Their bytes");
    let mut named = std::collections::BTreeSet::new();
    for verdict in verdicts {
        let is_named = named.len() < POLICIES || named.contains(&verdict.policy);
        if is_named {
            named.insert(&verdict.policy);
        }
        let policy = if is_named {
            verdict.policy.clone()
        } else {
            String::new()
        };
        let labels = vec![
            ("policy", policy),
            ("direction", verdict.direction.to_string()),
            ("verdict", verdict.verdict.to_owned()),
        ];
        packets.get_or_create(&labels).inc_by(verdict.count.packets);
        bytes.get_or_create(&labels).inc_by(verdict.count.bytes);
    }
}

fn enter_cluster(registry: &mut Registry, cluster: &ClusterStatus) {
    level(
        registry,
        "cluster_lease_held",
        "1 while this host is in the cluster, 0 while its lease is lost",
        u64::from(cluster.lease.is_some()),
    );
    level(
        registry,
        "cluster_hosts",
        "Hosts that are up, this one among them",
        cluster.hosts.len() as u64,
    );
    level(
        registry,
        "cluster_revision",
        "The revision of etcd that this host has come to",
        cluster.revision,
    );
    if let Some(behind) = cluster.behind {
        level(
            registry,
            "cluster_records_behind",
            "Records of etcd that have changed and are not known here yet; a hundred at most are counted",
            behind as u64,
        );
    }
    level(
        registry,
        "cluster_etcd_answers",
        "1 while etcd answers, 0 while it does not",
        u64::from(cluster.present.is_some()),
    );
}

fn level(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn set(levels: &Levels, labels: Labels, value: u64) {
    levels
        .get_or_create(&labels)
        .set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn levels(registry: &mut Registry, name: &str, help: &str) -> Levels {
    let family = Levels::default();
    registry.register(name, help, family.clone());
    family
}

fn counts(registry: &mut Registry, name: &str, help: &str) -> Counts {
    let family = Counts::default();
    registry.register(name, help, family.clone());
    family
}
