//! Answers endpoints' questions for names, at 127.0.0.11 of each of them, by one pair of sockets per family for all.
//!
//! The socket hooks turn a question to an address of the endpoint's network, the datapath hands it to the resolver's leg (see `link::resolver_leg`). Who
//! asks is known by the address the question comes from, which nobody can forge. Names come from the store as they change, by a watch of the resolver's
//! own: they are right before the tables are. It has a thread of its own, so that nothing else the daemon does keeps an answer waiting.

mod answer;
mod directory;
mod door;
mod forward;
mod serve;
mod servers;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, thread, time::Duration};

use nix::sys::socket::AddressFamily;
use sluice_datapath_common::resolver::RESOLVER_PORT;
use sluice_store::{Revision, SharedStore, StoreError, Watch, key};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    AgentError, Tried, kernel::datagrams::Pair, link::resolver_leg::ResolverLeg, measure::Measures, progress::Progress,
    reconcile::blocking,
};
use directory::Directory;
use door::{Doors, Known};
use serve::Desk;
use servers::HostServers;

/// Packets of one endpoint to the resolver in a tick of the datapath (16.8 ms): 25,000 a second, and a tenth of that at once after a pause. A flood
/// ends where it begins, and leaves the others room.
pub const QUESTIONS_PER_TICK: u32 = 420;
/// Whom the host asks.
const HOST_SERVERS: &str = "/etc/resolv.conf";
/// After trouble with the store.
const PAUSE: Duration = Duration::from_millis(500);
/// Nobody who waits for names is kept longer than this by a resolver in trouble.
const PATIENCE: Duration = Duration::from_secs(2);

/// The resolver at work.
pub struct Resolver {
    stop: watch::Sender<bool>,
    known: watch::Receiver<Known>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Resolver {
    /// Opens the sockets in the leg's namespace and answers from now on. `progress`: how far the agent has come.
    pub async fn start(
        leg: Arc<ResolverLeg>,
        store: SharedStore,
        progress: watch::Receiver<Progress>,
        measures: Arc<Measures>,
    ) -> Result<Self, AgentError> {
        let what = || "opening the resolver's sockets".to_owned();
        let pairs = blocking(move || leg.within(open)).await?.tried(what)?;
        let (directory, changes, revision) = begin(&store).await?;
        let (told, known) = watch::channel(Known {
            revision,
            ..Known::default()
        });
        let doors = Doors::new(Arc::new(told), progress);
        let desk = Arc::new(Desk::new(directory, HostServers::of(HOST_SERVERS), measures));
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .tried(what)?;
        let worker = thread::Builder::new()
            .name("sluice-names".into())
            .spawn(move || {
                let work = work(desk, pairs, store, (changes, revision), doors, stopped);
                if let Err(error) = tokio::task::LocalSet::new().block_on(&runtime, work) {
                    tracing::error!(%error, "questions for names are not answered");
                }
            })
            .tried(what)?;
        Ok(Self {
            stop,
            known,
            worker: Some(worker),
        })
    }

    /// Returns when names are told as they are at this revision of the store, or nobody will tell them.
    pub async fn named(&self, revision: Revision) {
        let mut known = self.known.clone();
        if timeout(PATIENCE, known.wait_for(|known| known.covers(revision)))
            .await
            .is_err()
        {
            tracing::warn!(revision, "names are late");
        }
    }

    /// Answers no more.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(worker) = self.worker.take() {
            let _ = blocking(move || worker.join()).await;
        }
    }
}

/// IPv6 may be off in this kernel.
fn open() -> io::Result<Vec<Pair>> {
    let mut pairs = vec![Pair::open(AddressFamily::Inet, RESOLVER_PORT)?];
    match Pair::open(AddressFamily::Inet6, RESOLVER_PORT) {
        Ok(pair) => pairs.push(pair),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
        Err(error) => return Err(error),
    }
    Ok(pairs)
}

async fn begin(store: &SharedStore) -> Result<(Directory, Watch, Revision), StoreError> {
    let (mut pages, revision) = store.pages(key::ROOT).await?;
    let changes = store.watch(key::ROOT, revision).await?;
    let mut directory = Directory::default();
    while let Some(page) = pages.next().await {
        page?.iter().for_each(|entry| directory.put(&entry.key, &entry.value));
    }
    Ok((directory, changes, revision))
}

async fn work(
    desk: Arc<Desk>,
    pairs: Vec<Pair>,
    store: SharedStore,
    (changes, revision): (Watch, Revision),
    mut doors: Doors,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    for pair in pairs {
        tokio::task::spawn_local(serve::datagrams(
            desk.clone(),
            UdpSocket::from_std(pair.datagrams)?,
            None,
        ));
        tokio::task::spawn_local(serve::streams(desk.clone(), TcpListener::from_std(pair.streams)?, None));
    }
    doors.settle(&desk, desk.doors(), revision);
    tokio::select! {
        () = follow(&desk, &store, changes, &mut doors) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    Ok(())
}

/// Follows the store for ever, and tells how far it is; who falls behind begins again.
async fn follow(desk: &Arc<Desk>, store: &SharedStore, mut changes: Watch, doors: &mut Doors) {
    loop {
        while let Some(Ok((revision, events))) = changes.next().await {
            desk.change(|directory| events.iter().for_each(|event| directory.fold(event)));
            doors.settle(desk, desk.doors(), revision);
            doors.tell(revision);
        }
        changes = loop {
            match begin(store).await {
                Ok((fresh, changes, revision)) => {
                    desk.change(|directory| *directory = fresh);
                    doors.close();
                    doors.settle(desk, desk.doors(), revision);
                    doors.tell(revision);
                    break changes;
                }
                Err(error) => {
                    tracing::warn!(%error, "names are not followed for a moment");
                    sleep(PAUSE).await;
                }
            }
        };
    }
}
