//! A loop that has begun: it follows changes until trouble comes.

use std::{mem, time::Duration};

use futures_util::FutureExt;
use sluice_store::{Revision, SharedStore, Watch, key, watch::Change};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, debug_span};

use super::{FIRST_RETRY, LAST_RETRY, Scope, Setup, Shared, blocking, events::Events, kernel::Kernel, lock};
use crate::{
    AgentError,
    desired::{Concern, Desired},
    kernel::sysctl,
    progress::Progress,
};

/// Events of the host's network come in swarms: this long after the first one is looked what came of them.
const SWARM: Duration = Duration::from_millis(100);
/// How often it is looked whether what was made is still there.
const CHECK: Duration = Duration::from_secs(10);
/// How often the host's range of ephemeral ports is read. Of everything else that is followed the kernel tells; a setting of /proc/sys it tells
/// nobody of (`proc_sys_poll` knows the host's name only), and reading one file costs microseconds.
const GLANCE: Duration = Duration::from_secs(1);
/// How often young veths are given what they wait for. It is looked at them alone: a check of everything, twice a second while containers start, would
/// keep starts waiting the longer the more there are.
const GROWTH: Duration = Duration::from_millis(500);
/// Every so many checks the tables are read again, too.
const CHECKS_PER_TABLE_CHECK: u32 = 6;

/// A loop that has begun.
pub struct Session {
    /// None only while a round has it.
    kernel: Option<Kernel>,
    desired: Desired,
    revision: Revision,
    changes: Watch,
    events: Events,
}

impl Session {
    /// Listens, opens everything, reads the store, and makes host and store agree once.
    pub async fn begin(setup: &Setup, store: &SharedStore, shared: &Shared) -> Result<Self, AgentError> {
        let events = Events::open()?;
        let (opening, at_work, offers) = (setup.clone(), shared.at_work.clone(), shared.offers.clone());
        let kernel = blocking(move || {
            let _at_work = lock(&at_work);
            Kernel::open(&opening, offers)
        })
        .await??;
        *lock(&shared.facts) = kernel.facts;
        *lock(&shared.open) = Some((kernel.maps.clone(), kernel.attacher.clone()));
        let (mut pages, revision) = store.pages(key::ROOT).await?;
        let changes = store.watch(key::ROOT, revision).await?;
        let mut desired = Desired::default();
        while let Some(page) = pages.next().await {
            for entry in page? {
                desired.put(&entry.key, &entry.value);
            }
        }
        let mut session = Self {
            kernel: Some(kernel),
            desired,
            revision,
            changes,
            events,
        };
        session
            .round(
                shared,
                Scope {
                    devices: true,
                    tables: true,
                    routes: false,
                },
            )
            .await?;
        Ok(session)
    }

    /// Follows changes until trouble comes, or until the programs must be loaded with other facts.
    pub async fn follow(&mut self, shared: &Shared) -> Result<(), AgentError> {
        let mut checks = 0;
        let mut next_check = Instant::now() + CHECK;
        let mut next_glance = Instant::now() + GLANCE;
        let mut next_growth = Some(Instant::now() + GROWTH);
        let (mut pending, mut swarm_ends) = (Scope::default(), None);
        let (mut retry_in, mut retry_at) = (FIRST_RETRY, self.retry(shared, FIRST_RETRY));
        let (names, leg) = match &self.kernel {
            Some(kernel) => (kernel.names.clone(), kernel.actual.leg.host),
            None => return Err(AgentError::Stopped),
        };
        loop {
            let wake = [Some(next_check), Some(next_glance), next_growth, swarm_ends, retry_at]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(next_check);
            let scope = tokio::select! {
                biased;
                change = self.changes.next() => {
                    let concern = self.take(change)?.max(self.take_waiting()?);
                    if concern == Concern::Nothing || concern == Concern::Remotes && self.follow_remotes(shared).await? {
                        let (revision, endpoints) = (self.revision, self.endpoints());
                        shared.progress.send_modify(|progress| {
                            progress.revision = revision;
                            progress.endpoints = endpoints;
                        });
                        continue;
                    }
                    Scope::default()
                }
                scope = self.events.next(&names, leg) => {
                    let scope = scope.ok_or_else(|| AgentError::Failed("no more is heard of the host's network".to_owned()))?;
                    if scope != Scope::default() {
                        pending = pending.and(scope);
                        swarm_ends.get_or_insert(Instant::now() + SWARM);
                    }
                    continue;
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= next_glance {
                        next_glance = now + GLANCE;
                        if self.ephemeral_ports_have_moved() {
                            tracing::info!("the host's range of ephemeral ports has changed: the programs are loaded anew");
                            return Ok(());
                        }
                    }
                    if [Some(next_check), swarm_ends, retry_at].into_iter().flatten().all(|due| due > now) {
                        if next_growth.is_some_and(|due| due <= now) {
                            next_growth = self.grow(shared).await?;
                        }
                        continue;
                    }
                    let mut scope = Scope { devices: true, ..Scope::default() };
                    if now >= next_check {
                        checks += 1;
                        scope.tables = checks % CHECKS_PER_TABLE_CHECK == 0;
                        next_check = now + CHECK;
                    }
                    swarm_ends = None;
                    scope.and(mem::take(&mut pending))
                }
            };
            next_growth = match self.round(shared, scope).await? {
                0 => None,
                _ => next_growth.or_else(|| Some(Instant::now() + GROWTH)),
            };
            retry_at = self.retry(shared, retry_in);
            retry_in = if retry_at.is_some() {
                (retry_in * 2).min(LAST_RETRY)
            } else {
                FIRST_RETRY
            };
        }
    }

    /// Is the range of ephemeral ports another than the programs were loaded with? One that cannot be read is taken for the old one.
    fn ephemeral_ports_have_moved(&self) -> bool {
        let known = self
            .kernel
            .as_ref()
            .map(|kernel| (kernel.facts.ephemeral_first, kernel.facts.ephemeral_last));
        match (sysctl::ephemeral_ports(), known) {
            (Ok(found), Some(known)) => found != known,
            _ => false,
        }
    }

    /// When to try again what could not be made.
    fn retry(&self, shared: &Shared, after: Duration) -> Option<Instant> {
        (!shared.progress.borrow().troubles.is_empty()).then(|| Instant::now() + after)
    }

    /// Takes a commit in.
    fn take(&mut self, change: Option<Result<Change, sluice_store::StoreError>>) -> Result<Concern, AgentError> {
        let (revision, events) = change.ok_or_else(|| AgentError::Failed("the store is closed".to_owned()))??;
        let mut concern = Concern::Nothing;
        for event in &events {
            concern = concern.max(self.desired.fold(event));
        }
        self.revision = revision;
        Ok(concern)
    }

    /// Takes in all commits that wait already.
    fn take_waiting(&mut self) -> Result<Concern, AgentError> {
        let mut concern = Concern::Nothing;
        while let Some(change) = self.changes.next().now_or_never() {
            concern = concern.max(self.take(change)?);
        }
        Ok(concern)
    }

    /// A round in which nothing has changed but endpoints on other hosts; false: it must be a whole one.
    async fn follow_remotes(&mut self, shared: &Shared) -> Result<bool, AgentError> {
        let mut kernel = self.kernel.take().ok_or(AgentError::Stopped)?;
        let desired = mem::take(&mut self.desired);
        let at_work = shared.at_work.clone();
        let (kernel, desired, written) = blocking(move || {
            let _at_work = lock(&at_work);
            let written = kernel.follow_remotes(&desired);
            (kernel, desired, written)
        })
        .await?;
        (self.kernel, self.desired) = (Some(kernel), desired);
        let Some(changes) = written? else {
            return Ok(false);
        };
        self.desired.remotes.settle();
        tracing::trace!(
            revision = self.revision,
            changes,
            "endpoints on other hosts are followed"
        );
        Ok(true)
    }

    fn endpoints(&self) -> u64 {
        self.kernel
            .as_ref()
            .map_or(0, |kernel| kernel.actual.veths.len() as u64)
    }

    /// Sees to young veths alone; answers when it is to be looked again.
    async fn grow(&mut self, shared: &Shared) -> Result<Option<Instant>, AgentError> {
        let mut kernel = self.kernel.take().ok_or(AgentError::Stopped)?;
        let at_work = shared.at_work.clone();
        let (kernel, left) = blocking(move || {
            let _at_work = lock(&at_work);
            let left = kernel.grow();
            (kernel, left)
        })
        .await?;
        self.kernel = Some(kernel);
        Ok((left > 0).then(|| Instant::now() + GROWTH))
    }

    /// One round on a thread that may block, and word of it to all who wait. Answers how many veths wait for more to be done for them.
    async fn round(&mut self, shared: &Shared, scope: Scope) -> Result<usize, AgentError> {
        let mut kernel = self.kernel.take().ok_or(AgentError::Stopped)?;
        let desired = mem::take(&mut self.desired);
        lock(&shared.roster).update(&desired);
        let started = Instant::now();
        let (at_work, promises) = (shared.at_work.clone(), shared.promises.clone());
        let (kernel, desired, report) = blocking(move || {
            let _at_work = lock(&at_work);
            let report = kernel.round(&desired, scope, &promises);
            (kernel, desired, report)
        })
        .instrument(debug_span!("round"))
        .await?;
        self.kernel = Some(kernel);
        self.desired = desired;
        let report = report?;
        self.desired.remotes.settle();
        shared.measures.round(started.elapsed(), report.changes);
        if report.changes > 0 {
            tracing::debug!(revision = self.revision, changes = report.changes, took = ?started.elapsed(), "host and store agree");
        }
        for (subject, trouble) in &report.troubles {
            if shared.progress.borrow().troubles.get(subject) != Some(trouble) {
                tracing::warn!(subject, "{trouble}");
            }
        }
        if report.endpoints_gone {
            shared.endpoints_gone.notify_one();
        }
        let (revision, troubles, endpoints) = (self.revision, report.troubles, self.endpoints());
        shared.progress.send_replace(Progress {
            revision,
            troubles,
            endpoints,
            stuck: None,
        });
        Ok(report.unpromoted)
    }
}
