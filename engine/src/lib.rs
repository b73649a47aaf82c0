//! Tells each story in order, and how to go back.
//!
//! Only this crate knows the order of things: image, endpoint, spec, process, record; and what is undone, in reverse, when a step fails. [`Engine`] is
//! a thin thing over small stores; its stories stand in [`container`], [`network`] and [`image`], a verb a file.

mod blocking;
mod boot;
mod build;
mod chunks;
mod cleanup;
pub(crate) mod cluster;
mod config;
pub(crate) mod container;
pub mod error;
pub mod event;
mod events;
mod explain;
mod filter;
pub(crate) mod image;
mod info;
mod names;
pub(crate) mod network;
mod notice;
mod policy;
mod registry;
mod sizes;
mod standing;
mod undo;
mod usage;
pub(crate) mod volume;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use sluice_agent::Agent;
use sluice_image::Images;
use sluice_runtime::Runtime;
use sluice_store::{Revision, SharedStore, Transaction};
use tokio::task::JoinSet;

pub use build::{BuildImage, BuildNews};
pub use chunks::Chunks;
pub use cleanup::cleanup;
pub use cluster::{Advertise, ClusterOptions, status::ClusterStatus};
pub use config::{Config, DefaultBridge};
pub use container::{
    archive::PutOptions,
    commit::CommitContainer,
    create::{CreateContainer, Created},
    exec::{CreateExec, ExecView},
    inspect::ContainerView,
    list::ListFilter,
    logs::{LogOptions, Output},
    prune::{PruneFilter, PrunedContainers},
    stats::{Carried, Direction, Often, Traffic, Usage, UsageView},
    update::UpdateContainer,
    wait::WaitCondition,
};
pub use error::{EngineError, Kind};
pub use event::{Event, EventFilter};
pub use filter::fits;
pub use info::Info;
pub use network::{
    create::{CreateNetwork, SubnetWish},
    inspect::NetworkView,
    pools::AddressPool,
    remove::PruneNetworks,
};
pub use policy::{Applied, Asked, End, Judged, Opinion, PolicyVerdict, PolicyView, RuleCount};
pub use registry::{PullImage, PushImage, Transfer};
pub use standing::Standing;
pub use usage::{DiskUsage, ImageUsage, UsageOf};
pub use volume::{create::CreateVolume, inspect::VolumeView, prune::Pruned};

/// The engine of one instance.
pub struct Engine {
    me: Weak<Self>,
    config: Config,
    /// This daemon's id.
    identity: String,
    store: SharedStore,
    /// The hosts that share networks with this one.
    cluster: Option<Arc<cluster::Cluster>>,
    agent: Arc<Agent>,
    images: Arc<Images>,
    runtime: Arc<Runtime>,
    containers: container::register::Register,
    execs: container::exec::Execs,
    builds: build::Running,
    networks: network::register::Networks,
    volumes: volume::register::Volumes,
    sizes: sizes::Sizes,
    events: events::Events,
    notices: Arc<notice::Notices>,
    /// Held while containers are pruned.
    pruning: tokio::sync::Mutex<()>,
    /// The last commit that took places in networks away.
    released: AtomicU64,
    /// Whose turn it is to have the files of a container that is gone removed.
    sweeping: Arc<tokio::sync::Mutex<()>>,
    /// Removals of such files.
    sweeps: Mutex<JoinSet<()>>,
    /// What goes on in the background: a watcher per running container, restarts to come.
    tasks: Mutex<JoinSet<()>>,
}

impl Engine {
    /// Opens the records, makes the default networks, finds running containers again, and goes on watching them.
    pub async fn start(
        config: Config,
        store: SharedStore,
        agent: Arc<Agent>,
        images: Arc<Images>,
        runtime: Arc<Runtime>,
    ) -> Result<Arc<Self>, EngineError> {
        if let Some(ids) = config.id_map.clone() {
            let images = images.clone();
            blocking::blocking(move || container::owners::check_layers(&images, &ids)).await?;
        }
        let containers = config.containers();
        tokio::fs::create_dir_all(&containers)
            .await
            .map_err(|why| error::io("make", &containers, &why))?;
        let identity = info::identity(&config.data_root).await?;
        let (networks, revision) = store.list(sluice_store::key::NETWORKS).await?;
        let engine = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            cluster: config
                .cluster
                .clone()
                .map(|options| Arc::new(cluster::Cluster::new(options))),
            config,
            identity,
            store,
            agent,
            images,
            runtime,
            containers: Default::default(),
            execs: Default::default(),
            builds: Default::default(),
            networks: network::register::Networks::new(revision),
            volumes: Default::default(),
            sizes: Default::default(),
            events: Default::default(),
            notices: Arc::default(),
            pruning: Default::default(),
            released: AtomicU64::new(0),
            sweeping: Arc::default(),
            sweeps: Mutex::default(),
            tasks: Mutex::default(),
        });
        engine.read_networks(networks);
        let (volumes, _) = engine.store.list(sluice_store::key::VOLUMES).await?;
        engine.read_volumes(volumes).await?;
        let places = engine.read_places().await?;
        engine.make_default_networks().await?;
        engine.join_cluster().await?;
        engine.adopt_containers(places).await?;
        build::clear(&engine).await;
        Ok(engine)
    }

    /// The agent, for the questions only it can answer (flows, drops, status).
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Events from now on, after those of the past that `since` asks for.
    pub async fn events(&self, filter: EventFilter) -> Result<tokio::sync::mpsc::Receiver<Event>, EngineError> {
        Ok(self.events.listen(filter))
    }

    /// Ends the watching; containers go on.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        let mut sweeps = std::mem::take(&mut *self.sweeps.lock().unwrap_or_else(PoisonError::into_inner));
        while sweeps.join_next().await.is_some() {}
    }

    /// Carries a story to its end even when nobody waits for it any more: a client that hangs up must not leave a container half started.
    async fn carry_out<T, F>(&self, story: impl FnOnce(Arc<Self>) -> F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EngineError>> + Send + 'static,
    {
        let engine = self
            .me
            .upgrade()
            .ok_or_else(|| EngineError::failed("the engine has ended"))?;
        match tokio::spawn(story(engine)).await {
            Ok(result) => result,
            Err(error) => Err(EngineError::failed(format!(
                "a task of the engine ended early: {error}"
            ))),
        }
    }

    /// Goes on in the background until it ends or the engine stops.
    fn in_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, EngineError> {
        Ok(self.store.commit(transaction).await?)
    }

    /// A commit that takes places in networks away, and with them names.
    async fn commit_release(&self, transaction: Transaction) -> Result<(), EngineError> {
        let revision = self.commit(transaction).await?;
        self.released.fetch_max(revision, Ordering::AcqRel);
        self.agent.named(revision).await;
        Ok(())
    }
}
