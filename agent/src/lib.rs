//! Makes the kernel of this host agree with the store.
//!
//! One loop ([`reconcile`]): watch, compare what is [`desired`] with what is there ([`actual`]), [`apply`] the difference ([`plan`]). A start is
//! the same path as any other round: pinned maps, programs and links are taken over, never detached while they work. No other code writes a
//! table. Only [`kernel`] makes system calls; only `program` knows aya.

mod actual;
mod apply;
mod cleanup;
mod desired;
mod error;
mod expire;
mod explain;
pub mod firewall;
#[cfg(test)]
mod fixture;
mod follow;
mod fullness;
mod kernel;
mod link;
mod map;
mod measure;
pub mod names;
mod observe;
mod plan;
mod program;
mod progress;
mod promise;
mod reconcile;
mod resolver;
mod roster;
pub mod view;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use sluice_datapath_common::settings::Settings;
use sluice_model::host::Seal;
use sluice_store::{Revision, SharedStore};
use tokio::{sync::watch, task::JoinHandle};

pub use error::AgentError;
use error::Tried;
pub use explain::{Question, Refusal, Speaker, Target};
pub use follow::{FILTERS, Filter, Follower, Monitor, Wishes};
use kernel::netlink::Netlink;
pub use kernel::sock_diag::{HeldPorts, held_ports};
pub use link::child::Kind as DeviceKind;
use link::{child, listing, resolver_leg::ResolverLeg, seal, uplink};
use map::pins::Maps;
pub use measure::Measures;
use names::Names;
pub use observe::Order;
use program::attach::Attacher;
pub use promise::Promise;
use reconcile::{Session, Setup, Shared, blocking, lock};
use resolver::Resolver;

/// A private key that the device which encrypts had.
pub struct OldSeal {
    port: u16,
    key: seal::Key,
}

/// Facts about this instance.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance's name; `default` is the one whose devices are `sluice0`/`sluice0-dp`.
    pub instance: String,
    /// Where bpffs is or will be mounted, `/sys/fs/bpf`.
    pub bpffs: PathBuf,
    /// Directory of namespace files, `<exec-root>/netns`.
    pub netns_dir: PathBuf,
    /// May containers reach the world (`--ip-forward`)?
    pub ip_forward: bool,
    /// How many connections there may be.
    pub limits: Limits,
}

/// A device of the host that is not ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostDevice {
    /// Its name.
    pub name: String,
    /// Its addresses that are good for more than its link, the primary ones first.
    pub addresses: Vec<ipnet::IpNet>,
    /// It is loopback.
    pub is_loopback: bool,
    /// It is a Linux bridge.
    pub is_bridge: bool,
}

/// How many connections there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// On this host, in each address family. Memory for as many is taken when the tables are made: 400 bytes each for IPv4, 530 for IPv6.
    pub connections: u32,
    /// Of one endpoint, so that none can take them all.
    pub connections_per_endpoint: u32,
}

impl Limits {
    /// Entries of a table of flows: two per connection.
    fn entries(self) -> u32 {
        self.connections.saturating_mul(2)
    }

    /// What the datapath keeps of them.
    fn settings(self) -> Settings {
        /// A port scan or a flood of one endpoint takes no more of the room of the others than this.
        const HALF_OPEN_SHARE: u32 = 64;
        Settings {
            flows_per_endpoint: self.connections_per_endpoint,
            half_open_per_endpoint: (self.connections / HALF_OPEN_SHARE).max(1),
            questions_per_tick: resolver::QUESTIONS_PER_TICK,
            ..Settings::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            connections_per_endpoint: 49_152,
        }
    }
}

/// Where endpoints ask for names, by IPv4 and by IPv6.
pub fn resolver_addresses() -> [IpAddr; 2] {
    use sluice_datapath_common::resolver::{ASKED4, ASKED6};
    [
        std::net::Ipv4Addr::from(ASKED4).into(),
        std::net::Ipv6Addr::from(ASKED6).into(),
    ]
}

/// The loop and its tables.
pub struct Agent {
    names: Names,
    limits: Limits,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    resolver: Resolver,
}

impl Agent {
    /// Mounts bpffs where there is none, opens or makes tables and devices, loads and attaches (or atomically replaces) programs, reconciles
    /// with the store once, then goes on in the background.
    pub async fn start(config: Config, store: SharedStore) -> Result<Self, AgentError> {
        Self::start_by(config, false, store).await
    }

    /// As [`Agent::start`], but attaches to clsact even where the kernel has tcx links: what is done below Linux 6.6.
    pub async fn start_on_clsact(config: Config, store: SharedStore) -> Result<Self, AgentError> {
        Self::start_by(config, true, store).await
    }

    async fn start_by(config: Config, clsact: bool, store: SharedStore) -> Result<Self, AgentError> {
        let directory = config.netns_dir.clone();
        let leg = blocking(move || ResolverLeg::open(&directory))
            .await?
            .tried(|| "making the resolver's namespace".to_owned())?;
        let leg = Arc::new(leg);
        let setup = Setup {
            config,
            clsact,
            resolver: leg.clone(),
        };
        let names = Names::new(&setup.config.instance, &setup.config.bpffs)?;
        let limits = setup.config.limits;
        let shared = Arc::new(Shared::new());
        let session = Session::begin(&setup, &store, &shared).await?;
        let (progress, measures) = (shared.progress.subscribe(), shared.measures.clone());
        let resolver = Resolver::start(leg, store.clone(), progress, measures).await?;
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(reconcile::run(setup, store, shared.clone(), session, stopped));
        Ok(Self {
            names,
            limits,
            shared,
            stop,
            running,
            resolver,
        })
    }

    /// Returns when everything up to this revision of the store is real on this host, names too; the error is that of the endpoints and sandboxes
    /// named in `subjects` (ids), if one of them could not be made.
    pub async fn settled(&self, revision: Revision, subjects: &[&str]) -> Result<(), AgentError> {
        progress::settled(&mut self.shared.progress.subscribe(), revision, subjects).await?;
        self.named(revision).await;
        Ok(())
    }

    /// Returns when who asks for a name is told what is so at this revision of the store.
    pub async fn named(&self, revision: Revision) {
        self.resolver.named(revision).await;
    }

    /// The sandbox that will have this file shall be this network namespace, which somebody made because it belongs to a user namespace. It stands until
    /// the sandbox is made or the offer is taken back.
    pub fn offer_namespace(&self, sandbox: &Path, namespace: std::os::fd::OwnedFd) {
        self.shared.offers.make(sandbox, namespace);
    }

    /// Takes an offer back; fine when there is none, or it was taken up.
    pub fn withdraw_namespace(&self, sandbox: &Path) {
        drop(self.shared.offers.take(sandbox));
    }

    /// Makes the sandbox that a record will ask for in a moment: a process can be set up in it while its devices are made. Nobody takes it away for
    /// want of a record until the answer is dropped. None: it cannot be made ahead, as one of an earlier life is still there.
    pub async fn sandbox_ahead(&self, path: &Path) -> Result<Option<Promise>, AgentError> {
        let (promises, path) = (self.shared.promises.clone(), path.to_owned());
        blocking(move || promises.make(&path)).await?
    }

    /// The MTU that a new network of this host should have: that of the default route's device, 1500 without one.
    pub async fn default_mtu(&self) -> u32 {
        let mtu = in_netlink("asking for the default route", |netlink| {
            let routes = uplink::routes(netlink)?;
            let outward = uplink::default_routes(&routes).map(|route| route.ifindex).collect();
            Ok(uplink::default_mtu(&routes, &listing::those(netlink, &outward)?))
        });
        mtu.await.unwrap_or(1500)
    }

    /// Sees to the device that encrypts what goes to other hosts, and answers by what they reach this one through it; none: this host's kernel has no
    /// WireGuard.
    pub async fn seal(&self, port: u16) -> Result<Option<Seal>, AgentError> {
        self.with_seal(port, false).await
    }

    /// The same with a new key. What comes besides puts the key before back ([`Self::put_seal_back`]).
    pub async fn renew_seal(&self, port: u16) -> Result<(Option<Seal>, OldSeal), AgentError> {
        let names = self.names.clone();
        let old = blocking(move || seal::private_key(&names))
            .await?
            .tried(|| format!("asking for the key of {}", self.names.seal))?;
        Ok((self.with_seal(port, true).await?, OldSeal { port, key: old }))
    }

    /// Gives the device that encrypts a key that it had before.
    pub async fn put_seal_back(&self, old: OldSeal) -> Result<(), AgentError> {
        let names = self.names.clone();
        blocking(move || seal::put_back(&names, old.port, &old.key))
            .await?
            .tried(|| format!("giving {} the key it had", self.names.seal))
    }

    /// Takes the device that encrypts away, if there is one.
    pub async fn unseal(&self) -> Result<(), AgentError> {
        let names = self.names.clone();
        in_netlink("removing the device that encrypts", move |netlink| {
            seal::remove(netlink, &names)
        })
        .await
    }

    async fn with_seal(&self, port: u16, renew: bool) -> Result<Option<Seal>, AgentError> {
        let names = self.names.clone();
        blocking(move || {
            let mut netlink = Netlink::open().tried(|| "opening a netlink socket".to_owned())?;
            seal::ensure(&mut netlink, &names, port, renew)
        })
        .await?
    }

    /// The host's devices that are not ours, with their addresses: what a network may be asked to stand on.
    pub async fn host_devices(&self) -> Result<Vec<HostDevice>, AgentError> {
        let names = self.names.clone();
        in_netlink("listing devices", move |netlink| {
            let addresses = listing::addresses(netlink)?;
            let foreign = listing::devices(netlink)?
                .into_iter()
                .filter(|device| !names.is_ours(&device.alias));
            Ok(foreign
                .map(|device| HostDevice {
                    addresses: addresses
                        .iter()
                        .filter(|address| address.ifindex == device.ifindex && address.universal)
                        .map(|address| address.address)
                        .collect(),
                    is_loopback: device.loopback,
                    is_bridge: device.bridge,
                    name: device.name,
                })
                .collect())
        })
        .await
    }

    /// The routers of the default routes that lead out by a device.
    pub async fn routers_by(&self, device: &str) -> Result<Vec<IpAddr>, AgentError> {
        let device = device.to_owned();
        in_netlink("asking for the default route", move |netlink| {
            let devices = listing::devices(netlink)?;
            let by_it = |index: u32| {
                devices
                    .iter()
                    .any(|found| found.ifindex == index && found.name == device)
            };
            let routes = uplink::routes(netlink)?.into_iter();
            Ok(routes
                .filter(|route| route.destination.prefix_len() == 0 && by_it(route.ifindex))
                .filter_map(|route| route.gateway)
                .collect())
        })
        .await
    }

    /// Can this kernel make devices of a kind?
    pub async fn can_make(&self, kind: DeviceKind) -> Result<bool, AgentError> {
        in_netlink("asking the kernel what devices it knows", move |netlink| {
            child::is_known(netlink, kind)
        })
        .await
    }

    /// Prefixes that the host has addresses in or routes to, so that a free one can be chosen (the default route not among them, nor what our
    /// own networks take).
    pub async fn occupied_prefixes(&self) -> Result<Vec<ipnet::IpNet>, AgentError> {
        let names = self.names.clone();
        in_netlink("asking for addresses and routes", move |netlink| {
            let (addresses, routes) = (listing::addresses(netlink)?, uplink::routes(netlink)?);
            let by_address = addresses.iter().map(|address| (address.ifindex, address.address));
            let by_route = routes.iter().map(|route| (route.ifindex, route.destination));
            let concerned = by_address
                .chain(by_route)
                .filter(|(_, prefix)| uplink::takes_place(prefix))
                .map(|(ifindex, _)| ifindex)
                .collect();
            let devices = listing::those(netlink, &concerned)?;
            Ok(uplink::occupied(&devices, &addresses, &routes, &names))
        })
        .await
    }

    /// All addresses of the host, for what binds to them.
    pub async fn host_addresses(&self) -> Result<Vec<IpAddr>, AgentError> {
        in_netlink("asking for addresses", |netlink| {
            Ok(listing::addresses(netlink)?
                .into_iter()
                .map(|address| address.address.addr())
                .collect())
        })
        .await
    }

    /// The host's own firewalls, as their rules are now.
    pub async fn firewalls(&self) -> Result<firewall::Firewalls, AgentError> {
        blocking(firewall::Firewalls::read).await
    }

    /// What is wanted of the flow tables, with names; no more than so many, if that is said.
    pub async fn flows(
        &self,
        filter: Filter,
        order: Order,
        limit: Option<usize>,
    ) -> Result<Vec<view::Flow>, AgentError> {
        let ((maps, _), shared) = (self.open()?, self.shared.clone());
        blocking(move || observe::flows(&maps, &lock(&shared.roster), &filter, order, limit))
            .await?
            .tried(|| "reading the flows".to_owned())
    }

    /// Drops since the tables were made, by reason, direction and endpoint.
    pub async fn drops(&self) -> Result<Vec<view::Drop>, AgentError> {
        let ((maps, _), shared) = (self.open()?, self.shared.clone());
        blocking(move || observe::drops(&maps, &lock(&shared.roster)))
            .await?
            .tried(|| "reading the drops".to_owned())
    }

    /// Packets that were judged by rules of documents, by their numbers: as each said, and as it would have said under audit.
    pub async fn verdicts(&self) -> Result<BTreeMap<u64, view::Verdicts>, AgentError> {
        let (maps, _) = self.open()?;
        blocking(move || observe::verdicts(&maps))
            .await?
            .tried(|| "reading the verdicts".to_owned())
    }

    /// The drops from now on, as they happen.
    pub async fn follow_drops(&self) -> Result<Follower, AgentError> {
        Follower::new(self.shared.clone()).await
    }

    /// What happens from now on, as far as it is wanted.
    pub async fn monitor(&self, filter: Filter, wishes: Wishes) -> Result<Monitor, AgentError> {
        Monitor::new(self.shared.clone(), filter, wishes).await
    }

    /// What would become of the first packet of a conversation. Nothing of it is left or counted anywhere.
    pub async fn explain(&self, question: Question) -> Result<view::Explanation, Refusal> {
        let ((maps, _), shared) = (self.open()?, self.shared.clone());
        let (tables, limits) = (self.names.maps(), self.limits);
        blocking(move || {
            // A copy: nobody is to wait for the verifier.
            let roster = lock(&shared.roster).clone();
            let ground = explain::Ground {
                maps: &maps,
                tables,
                config: *lock(&shared.facts),
                limits,
                roster: &roster,
            };
            explain::explain(&question, &ground)
        })
        .await?
    }

    /// Who follows the drops, and what they were not told.
    pub async fn telling(&self) -> Result<view::Telling, AgentError> {
        let (maps, _) = self.open()?;
        let untold = blocking(move || follow::untold_of_all(&maps))
            .await?
            .tried(|| "reading what was told of drops".to_owned())?;
        Ok(view::Telling {
            followers: self.shared.meeting.followers(),
            untold,
            missed: self.shared.meeting.missed(),
        })
    }

    /// How the datapath is.
    pub async fn status(&self) -> Result<view::Status, AgentError> {
        self.status_with(true).await
    }

    /// The same for those who ask often: of the tables only those that can fill up.
    pub async fn figures(&self) -> Result<view::Status, AgentError> {
        self.status_with(false).await
    }

    async fn status_with(&self, arrays: bool) -> Result<view::Status, AgentError> {
        let (maps, attacher) = self.open()?;
        let shared = self.shared.clone();
        let (epoch, tables, shares) = blocking(move || {
            let epoch = maps.EPOCH.get(&0)?.unwrap_or(0);
            let shares = observe::shares(&maps, &lock(&shared.roster))?;
            Ok((epoch, observe::tables(&maps, arrays)?, shares))
        })
        .await?
        .tried(|| "reading the datapath's tables".to_owned())?;
        let devices: BTreeMap<u32, String> = in_netlink("listing devices", |netlink| {
            Ok(listing::devices(netlink)?
                .into_iter()
                .map(|device| (device.ifindex, device.name))
                .collect())
        })
        .await?;
        let names = self.names.clone();
        let programs = blocking(move || attacher.view(&devices, &names)).await??;
        let progress = self.shared.progress.borrow().clone();
        let full: Vec<String> = tables
            .iter()
            .filter(|table| matches!(table.name.as_str(), "FLOWS4" | "FLOWS6"))
            .filter_map(|table| fullness::sentence(&table.name, table.entries, table.capacity, &shares))
            .collect();
        Ok(view::Status {
            instance: self.names.instance.clone(),
            revision: progress.revision,
            endpoints: progress.endpoints,
            epoch,
            troubles: progress
                .stuck
                .into_iter()
                .chain(progress.troubles.into_values())
                .chain(full)
                .collect(),
            tables,
            shares,
            programs,
            telling: self.telling().await?,
        })
    }

    /// Enters what the agent measures of its own work where figures are read from.
    pub fn register_measures(&self, registry: &mut prometheus_client::registry::Registry) {
        self.shared.measures.register(registry);
    }

    /// Ends the loop. Containers' traffic goes on.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.running.await;
        self.resolver.stop().await;
        // The loop does not wait for a round that it has begun; who tidies up after us must.
        let at_work = self.shared.at_work.clone();
        let _ = blocking(move || drop(lock(&at_work))).await;
    }

    fn open(&self) -> Result<(Arc<Maps>, Arc<Attacher>), AgentError> {
        lock(&self.shared.open).clone().ok_or(AgentError::Stopped)
    }
}

/// Removes everything of an instance from the kernel: programs, pins, devices, namespaces. For `--cleanup`, with no agent running.
pub async fn cleanup(config: &Config) -> Result<(), AgentError> {
    let config = config.clone();
    blocking(move || cleanup::cleanup(&config)).await?
}

/// Asks the kernel something by a socket of its own.
async fn in_netlink<T: Send + 'static>(
    what: &'static str,
    ask: impl FnOnce(&mut Netlink) -> std::io::Result<T> + Send + 'static,
) -> Result<T, AgentError> {
    blocking(move || ask(&mut Netlink::open()?))
        .await?
        .tried(|| what.to_owned())
}
