//! The loop that can always begin again: watch first so that nothing is missed, then agree fully, then follow changes; on any trouble begin again.
//!
//! A start is a round like any other. Work on the kernel is done on a thread that may block, one round at a time; what comes meanwhile waits and
//! is taken together by the next round, so that fifty containers that start at once cost a few rounds.

use std::{
    collections::BTreeSet,
    io, mem,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use rtnetlink::{MulticastGroup, packet_core::NetlinkPayload, packet_route::RouteNetlinkMessage};
use sluice_datapath_common::{config, programs::FROM_RESOLVER, settings::Settings};
use sluice_model::Network;
use sluice_store::{Revision, SharedStore, Watch, key, watch::Change};
use tokio::{
    sync::{Notify, watch},
    task::{self, JoinHandle},
    time::{Instant, sleep, sleep_until},
};

use tracing::{Instrument, debug_span};

use crate::{
    AgentError, Config, Limits, Tried,
    actual::{Actual, YOUTH},
    apply::{self, Attention, Hands, Report},
    desired::Desired,
    expire, follow,
    kernel::{mounts, netlink::Netlink, netns, sysctl},
    link::{host_leg, listing, resolver_leg::ResolverLeg, sandbox::Offers},
    map::{contents::Tables, pins::Maps},
    names::Names,
    program::{
        attach::Attacher,
        load::{self, Programs},
    },
    progress::Progress,
    promise::Promises,
    roster::Roster,
};

/// Events of the host's network come in swarms: this long after the first one is looked what came of them.
const SWARM: Duration = Duration::from_millis(100);
/// How often it is looked whether what was made is still there.
const CHECK: Duration = Duration::from_secs(10);
/// How often the host's range of ephemeral ports is read. Of everything else that is followed the kernel tells; a setting of /proc/sys it tells
/// nobody of (`proc_sys_poll` knows the host's name only), and reading one file costs microseconds.
const GLANCE: Duration = Duration::from_secs(1);
/// Every so many checks the tables are read again, too.
const CHECKS_PER_TABLE_CHECK: u32 = 6;
/// After trouble it is tried again, at first soon, then less and less often.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What the loop shares with those who ask.
pub struct Shared {
    /// How far the loop has come.
    pub progress: watch::Sender<Progress>,
    /// Who bears which number.
    pub roster: Mutex<Roster>,
    /// The open tables and programs.
    pub open: Mutex<Option<(Arc<Maps>, Arc<Attacher>)>>,
    /// Flows of endpoints that are gone are left.
    pub endpoints_gone: Notify,
    /// Those who follow the drops.
    pub meeting: follow::Meeting,
    /// Namespaces made for sandboxes to come.
    pub offers: Arc<Offers>,
    /// Held while a round is at work, also when nobody waits for its end any more.
    pub at_work: Arc<Mutex<()>>,
    /// Sandboxes that are made before a record asks for them.
    pub promises: Arc<Promises>,
}

/// What a round looks at besides the store's changes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Scope {
    /// Devices, addresses, sandboxes and attached programs.
    devices: bool,
    /// Tables.
    tables: bool,
    /// Routes have changed: flows ask for theirs again.
    routes: bool,
}

/// What a loop is begun with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Facts about the instance.
    pub config: Config,
    /// Do without tcx links even where the kernel has them.
    pub clsact: bool,
    /// Where questions for names are answered.
    pub resolver: Arc<ResolverLeg>,
}

/// What works on the kernel, kept from round to round.
struct Kernel {
    config: Config,
    names: Names,
    /// What the programs were loaded with.
    facts: config::Config,
    netlink: Netlink,
    maps: Arc<Maps>,
    programs: Programs,
    attacher: Arc<Attacher>,
    actual: Actual,
    offers: Arc<Offers>,
    resolver: Arc<ResolverLeg>,
    /// The datapath's end of its leg; 0: there is none yet.
    resolver_ifindex: u32,
    /// No round was complete yet: what an earlier configuration left is still there.
    first: bool,
}

/// A loop that has begun.
pub struct Session {
    /// None only while a round has it.
    kernel: Option<Kernel>,
    desired: Desired,
    revision: Revision,
    changes: Watch,
    events: Events,
}

// === the host's events ===

/// What happens to devices, addresses and routes of the namespace.
struct Events {
    messages: futures_util::stream::BoxStream<'static, RouteNetlinkMessage>,
    connection: JoinHandle<()>,
}

impl Events {
    fn open() -> Result<Self, AgentError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .tried(|| "listening to changes of the host's network".to_owned())?;
        let messages = messages.filter_map(async |(message, _)| match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        });
        Ok(Self {
            messages: messages.boxed(),
            connection: tokio::spawn(connection),
        })
    }

    /// What the next message asks to look at; none: nothing more will come.
    async fn next(&mut self, names: &Names, leg: u32) -> Option<Scope> {
        Some(concern(self.messages.next().await?, names, leg))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Our own devices come and go by our own hand: only of others' there is something to learn.
fn concern(message: RouteNetlinkMessage, names: &Names, leg: u32) -> Scope {
    use rtnetlink::packet_route::route::{RouteAttribute, RouteType};
    match message {
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
            let device = listing::device(message);
            let ours = names.is_ours(&device.alias) || names.is_our_name(&device.name);
            Scope {
                devices: !ours,
                routes: !ours,
                tables: false,
            }
        }
        RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => Scope {
            devices: message.header.index != leg,
            ..Scope::default()
        },
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            let by_our_leg = message
                .attributes
                .iter()
                .any(|attribute| matches!(attribute, RouteAttribute::Oif(oif) if *oif == leg));
            let routes = !by_our_leg && message.header.kind == RouteType::Unicast;
            Scope {
                routes,
                // the way out, whose MTU networks follow
                devices: routes && message.header.destination_prefix_length == 0,
                tables: false,
            }
        }
        _ => Scope::default(),
    }
}

impl Scope {
    fn and(self, other: Self) -> Self {
        Self {
            devices: self.devices || other.devices,
            tables: self.tables || other.tables,
            routes: self.routes || other.routes,
        }
    }
}

// === the kernel's side ===

impl Kernel {
    /// Mounts bpffs, makes or takes over the host's leg, tables and programs. Nothing is attached yet.
    fn open(setup: &Setup, offers: Arc<Offers>) -> Result<Self, AgentError> {
        let Setup {
            config,
            clsact,
            resolver,
        } = setup;
        let names = Names::new(&config.instance, &config.bpffs)?;
        mounts::ensure_bpffs(&config.bpffs).tried(|| format!("mounting bpffs at {}", config.bpffs.display()))?;
        let mut netlink = Netlink::open().tried(|| "opening a netlink socket".to_owned())?;
        let devices = listing::devices(&mut netlink).tried(|| "listing devices".to_owned())?;
        let leg = host_leg::ensure(&mut netlink, &devices, &names, config.ip_forward)?;
        let (ephemeral_first, ephemeral_last) =
            sysctl::ephemeral_ports().tried(|| "reading the host's ephemeral ports".to_owned())?;
        let facts = config::Config {
            netns_cookie: netns::cookie().tried(|| "asking for the cookie of the network namespace".to_owned())?,
            host_leg_ifindex: leg.datapath,
            host_ifindex: leg.host,
            host_mac: names.gateway_mac().0,
            ephemeral_first,
            ephemeral_last,
            ..config::Config::default()
        };
        let (maps, programs) = load::ensure(&names, &facts, config.limits)?;
        // The loader has taken and freed a few megabytes, once.
        // SAFETY: it takes a number and touches free memory only.
        unsafe { libc::malloc_trim(0) };
        let attacher = Arc::new(Attacher::new(&names, mounts::cgroup2(), *clsact)?);
        let config = config.clone();
        Ok(Self {
            config,
            names,
            facts,
            netlink,
            maps: Arc::new(maps),
            programs,
            attacher,
            actual: Actual::default(),
            offers,
            resolver: resolver.clone(),
            resolver_ifindex: 0,
            first: true,
        })
    }

    /// At first in all sandboxes: an earlier life may have been cut short while it took one away.
    fn read_children(&mut self, desired: &Desired) -> io::Result<()> {
        let with_children = |network: &&Network| network.parent.is_some() && !network.is_placed();
        if !desired.networks.values().any(|network| with_children(&network)) {
            self.actual.children.clear();
            return Ok(());
        }
        let all: Vec<PathBuf> = match self.first {
            true => self.actual.sandboxes.keys().cloned().collect(),
            false => {
                let mut some: BTreeSet<PathBuf> =
                    self.actual.children.iter().map(|child| child.sandbox.clone()).collect();
                for endpoint in desired.endpoints.values() {
                    let network = desired.networks.get(endpoint.network.as_str()).filter(with_children);
                    if let Some(sandbox) = network.and(desired.sandboxes.get(endpoint.sandbox.as_str())) {
                        some.insert(sandbox.path.clone());
                    }
                }
                some.into_iter().collect()
            }
        };
        self.actual.read_children(&self.names, all.iter())
    }

    /// One round.
    fn round(&mut self, desired: &Desired, scope: Scope, promises: &Promises) -> Result<Report, AgentError> {
        if scope.devices {
            let directory = &self.config.netns_dir;
            self.actual
                .read_devices(&mut self.netlink, &self.names, directory, scope.routes)
                .tried(|| "reading the host's devices".to_owned())?;
            // what no record asks for yet is left alone, as if it were not there
            let asked_for = |path: &PathBuf| desired.sandboxes.values().any(|sandbox| sandbox.path == *path);
            self.actual
                .sandboxes
                .retain(|path, _| asked_for(path) || !promises.covers(path));
            self.read_children(desired)
                .tried(|| "reading the devices of sandboxes".to_owned())?;
            let leg = self.actual.leg;
            if (leg.host, leg.datapath) != (self.facts.host_ifindex, self.facts.host_leg_ifindex) {
                return Err(AgentError::Failed(format!(
                    "the host's leg {} is gone",
                    self.names.host_leg
                )));
            }
        }
        let resolver_trouble = match scope.devices {
            true => self.see_to_resolver().err(),
            false => None,
        };
        if scope.tables {
            self.actual.tables = Tables::read(&self.maps).tried(|| "reading the datapath's tables".to_owned())?;
        }
        let attention = if self.first { Attention::Full } else { Attention::Usual };
        let attention = scope.devices.then_some(attention);
        let mut hands = Hands {
            netlink: &mut self.netlink,
            maps: &self.maps,
            programs: &self.programs,
            attacher: &self.attacher,
            names: &self.names,
            settings: Settings {
                resolver_ifindex: self.resolver_ifindex,
                ..self.config.limits.settings()
            },
            offers: &self.offers,
            promises,
        };
        let mut report = apply::apply(&mut hands, desired, &mut self.actual, attention, scope.routes)?;
        if let Some(trouble) = resolver_trouble {
            report.troubles.insert("resolver".to_owned(), trouble.to_string());
        }
        if self.first && report.troubles.is_empty() {
            load::remove_outdated(&self.names, &self.facts)?;
            self.first = false;
        }
        Ok(report)
    }

    /// The way to the resolver, and the program on it. Without it nothing else is wrong.
    fn see_to_resolver(&mut self) -> Result<(), AgentError> {
        let present = self.actual.resolver_leg.as_ref();
        self.resolver_ifindex = self
            .resolver
            .ensure(&mut self.netlink, present, &self.names, self.resolver_ifindex)?;
        self.attacher
            .to_device(&self.programs, FROM_RESOLVER, self.resolver_ifindex)
            .map(drop)
    }
}

// === the loop ===

impl Shared {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            roster: Mutex::default(),
            open: Mutex::new(None),
            endpoints_gone: Notify::new(),
            meeting: follow::Meeting::default(),
            offers: Arc::default(),
            at_work: Arc::default(),
            promises: Arc::default(),
        }
    }
}

/// Whoever panicked with the lock in hand left a whole value behind: these are replaced, never half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        *lock(&shared.open) = Some((kernel.maps.clone(), kernel.attacher.clone()));
        let (entries, revision) = store.list(key::ROOT).await?;
        let changes = store.watch(key::ROOT, revision).await?;
        let mut session = Self {
            kernel: Some(kernel),
            desired: Desired::of(&entries),
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
    async fn follow(&mut self, shared: &Shared) -> Result<(), AgentError> {
        let mut checks = 0;
        let mut next_check = Instant::now() + CHECK;
        let mut next_glance = Instant::now() + GLANCE;
        let (mut pending, mut swarm_ends) = (Scope::default(), None);
        let (mut retry_in, mut retry_at) = (FIRST_RETRY, self.retry(shared, FIRST_RETRY));
        let (names, leg) = match &self.kernel {
            Some(kernel) => (kernel.names.clone(), kernel.actual.leg.host),
            None => return Err(AgentError::Stopped),
        };
        loop {
            let wake = [Some(next_check), Some(next_glance), swarm_ends, retry_at]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(next_check);
            let scope = tokio::select! {
                biased;
                change = self.changes.next() => {
                    let concerned = self.take(change)?;
                    if !self.take_waiting()? && !concerned {
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
                        if [Some(next_check), swarm_ends, retry_at].into_iter().flatten().all(|due| due > now) {
                            continue;
                        }
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
            if self.round(shared, scope).await? > 0 {
                next_check = next_check.min(Instant::now() + YOUTH / 4);
            }
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

    /// Takes a commit in; true when it concerns the kernel.
    fn take(&mut self, change: Option<Result<Change, sluice_store::StoreError>>) -> Result<bool, AgentError> {
        let (revision, events) = change.ok_or_else(|| AgentError::Failed("the store is closed".to_owned()))??;
        let mut concerned = false;
        for event in &events {
            concerned |= self.desired.fold(event);
        }
        self.revision = revision;
        Ok(concerned)
    }

    /// Takes in all commits that wait already; true when one concerns the kernel.
    fn take_waiting(&mut self) -> Result<bool, AgentError> {
        let mut concerned = false;
        while let Some(change) = self.changes.next().now_or_never() {
            concerned |= self.take(change)?;
        }
        Ok(concerned)
    }

    fn endpoints(&self) -> u64 {
        self.kernel
            .as_ref()
            .map_or(0, |kernel| kernel.actual.veths.len() as u64)
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

/// Goes on with a session that has begun, until `stop` says so. What the datapath does goes on without us.
pub async fn run(
    setup: Setup,
    store: SharedStore,
    shared: Arc<Shared>,
    session: Session,
    mut stop: watch::Receiver<bool>,
) {
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    tokio::select! {
        () = stopped => {}
        () = follow_forever(&setup, &store, &shared, session) => {}
        () = expire_forever(&shared, setup.config.limits) => {}
        () = follow::run(&shared) => {}
    }
}

async fn follow_forever(setup: &Setup, store: &SharedStore, shared: &Shared, session: Session) {
    let (mut session, mut wait) = (Some(session), FIRST_RETRY);
    loop {
        let outcome = match session.take() {
            Some(mut session) => session.follow(shared).await,
            None => Session::begin(setup, store, shared).await.map(|begun| {
                wait = FIRST_RETRY;
                session = Some(begun);
            }),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "the agent begins again");
            shared
                .progress
                .send_modify(|progress| progress.stuck = Some(error.to_string()));
            sleep(wait).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
    }
}

async fn expire_forever(shared: &Shared, limits: Limits) {
    let mut pace = expire::CALM;
    loop {
        tokio::select! {
            () = sleep(pace.interval) => {}
            () = shared.endpoints_gone.notified() => {}
        }
        let Some((maps, _)) = lock(&shared.open).clone() else {
            continue;
        };
        match blocking(move || expire::sweep(&maps, expire::now(), pace)).await {
            Ok(Ok(swept)) => {
                pace = expire::pace(&swept, limits.entries() as usize);
                tracing::trace!(swept.found, swept.ended, "looked through the flows");
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot look through the flows"),
            Err(error) => tracing::warn!(%error, "cannot look through the flows"),
        }
    }
}

/// Does what may block elsewhere.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AgentError> {
    let step = tracing::Span::current();
    task::spawn_blocking(move || step.in_scope(work))
        .await
        .map_err(|error| AgentError::Failed(format!("work on the kernel was cut short: {error}")))
}
