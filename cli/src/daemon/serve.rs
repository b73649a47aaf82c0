//! The daemon's life: rooms in their order, sockets, the end.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use sluice_agent::Agent;
use sluice_engine::Engine;
use sluice_image::Images;
use sluice_runtime::Runtime;
use sluice_store::embedded::Embedded;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

use crate::{
    Trouble, flow_log, instance, pidfile::Pidfile, rest, settings::Settings, sockets::Sockets, supervisor, value::Host,
};

/// Runs until it is told to end.
pub(crate) async fn serve(settings: Settings) -> Result<(), Trouble> {
    let mut signals = Signals::listen()?;
    let _instance = instance::take(&settings.instance)?;
    make_directory(&settings.engine.data_root, 0o710)?;
    make_directory(&settings.engine.exec_root, 0o711)?;
    let _pidfile = Pidfile::write(&settings.pidfile)?;
    if settings.says_iptables {
        tracing::info!("--iptables changes nothing: this daemon has no iptables rules to manage");
    }
    // A signal during the start ends it: what is half started is taken up by the next start.
    let engine = tokio::select! {
        engine = start(&settings) => engine?,
        () = signals.end() => return Ok(()),
    };
    let mut sockets = Sockets::default();
    let mut serving = JoinSet::new();
    let measures = Arc::new(sluice_api::Measures::default());
    for host in &settings.hosts {
        let socket = sockets.open(host).await?;
        serving.spawn(sluice_api::serve(
            socket,
            sluice_api::router(engine.clone(), measures.clone()),
        ));
        tracing::info!(?host, "listening");
    }
    let resting = tokio::spawn(rest::give_back_at_rest(engine.clone()));
    if let Some(address) = settings.metrics_addr {
        let socket = sockets.open(&Host::Tcp(address)).await?;
        let router = sluice_api::metrics_router(engine.clone(), measures.clone());
        serving.spawn(sluice_api::serve(socket, router));
        tracing::info!(%address, "figures for Prometheus at /metrics");
    }
    if let Some(log) = settings.flow_log {
        flow_log::keep(log, engine.clone()).await?;
    }
    supervisor::tell(supervisor::READY);
    tracing::info!(
        instance = settings.instance,
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    tokio::select! {
        () = signals.end() => {}
        ended = serving.join_next() => tracing::error!(?ended, "a socket is served no more"),
    }
    supervisor::tell(supervisor::STOPPING);
    tracing::info!("ending; containers go on");
    drop(sockets);
    resting.abort();
    serving.shutdown().await;
    engine.stop().await;
    Ok(())
}

/// The rooms, from the ground up.
async fn start(settings: &Settings) -> Result<Arc<Engine>, Trouble> {
    let data_root = &settings.engine.data_root;
    let store = Embedded::open(&data_root.join("store.redb")).map_err(|why| Trouble(why.to_string()))?;
    let store = Arc::new(store);
    let images = Images::open(data_root).map_err(|why| Trouble::new("open the images", why))?;
    let images = images.with_registries(settings.registries.clone());
    let runtime = Runtime::open(settings.runtime.clone()).map_err(|why| Trouble::new("open the runtime", why))?;
    let agent = Agent::start(settings.agent.clone(), store.clone())
        .await
        .map_err(|why| Trouble::new("start the network", why))?;
    Engine::start(
        settings.engine.clone(),
        store,
        Arc::new(agent),
        Arc::new(images),
        Arc::new(runtime),
    )
    .await
    .map_err(|why| Trouble::new("start the engine", why))
}

/// Makes a directory that others may pass through but not look into.
fn make_directory(path: &Path, mode: u32) -> Result<(), Trouble> {
    let trouble = |why| Trouble::new(format_args!("make {}", path.display()), why);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(trouble)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => Err(trouble(why)),
        _ if !path.is_dir() => Err(trouble(std::io::ErrorKind::NotADirectory.into())),
        _ => Ok(()),
    }
}

/// TERM and INT end the daemon; HUP does nothing but a line in the log.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Trouble> {
        let listen = |kind| signal(kind).map_err(|why| Trouble::new("listen for signals", why));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Returns when the daemon shall end.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => tracing::info!("nothing to read again: options are read at the start"),
            }
        }
    }
}
