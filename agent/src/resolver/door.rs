//! Doors: sockets in sandboxes whose packets do not pass the datapath. What stands on a device of the host (macvlan, ipvlan) asks at its own loopback, where
//! the socket hooks turn it to a port that no resolver of the container's own wants; who asks is known by the socket.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sluice_datapath_common::resolver::{ASKED4, RESOLVER_PORT};
use sluice_store::Revision;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use super::serve::{self, Desk};
use crate::{
    kernel::{datagrams::Pair, netns},
    progress::Progress,
    reconcile::blocking,
};

/// A sandbox that cannot be entered is tried again, at first soon, then less and less often.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// A door that there is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The sandbox's file.
    pub path: PathBuf,
    /// An address of the sandbox: whoever asks here is taken for who asks from there.
    pub address: IpAddr,
}

/// How far the resolver has come.
#[derive(Clone, Default, Debug)]
pub struct Known {
    /// Names are told as of this revision of the store.
    pub revision: Revision,
    /// Doors that are not open yet, by sandbox: the revision that asks for them.
    pub opening: BTreeMap<String, Revision>,
}

impl Known {
    /// Is what this revision asks for done?
    pub fn covers(&self, revision: Revision) -> bool {
        self.revision >= revision && !self.opening.values().any(|asked| *asked == revision)
    }
}

/// The doors that are open, or about to be.
#[derive(Debug)]
pub struct Doors {
    told: Arc<watch::Sender<Known>>,
    progress: watch::Receiver<Progress>,
    doors: HashMap<String, Door>,
}

/// A task that opens a door and answers at it.
#[derive(Debug)]
struct Door {
    made_of: Wanted,
    task: JoinHandle<()>,
}

// === impl Doors ===

impl Doors {
    /// None yet. A sandbox is there when the agent's work has come to the revision that asks for its door.
    pub fn new(told: Arc<watch::Sender<Known>>, progress: watch::Receiver<Progress>) -> Self {
        Self {
            told,
            progress,
            doors: HashMap::new(),
        }
    }

    /// Closes doors that are wanted no more, and opens those that are new as of this revision.
    pub fn settle(&mut self, desk: &Arc<Desk>, wanted: BTreeMap<String, Wanted>, revision: Revision) {
        self.doors
            .retain(|sandbox, door| wanted.get(sandbox) == Some(&door.made_of));
        self.told.send_if_modified(|known| {
            let before = known.opening.len();
            known.opening.retain(|sandbox, _| self.doors.contains_key(sandbox));
            known.opening.len() != before
        });
        for (sandbox, made_of) in wanted {
            if self.doors.contains_key(&sandbox) {
                continue;
            }
            self.told.send_modify(|known| {
                known.opening.insert(sandbox.clone(), revision);
            });
            let (told, name) = (self.told.clone(), sandbox.clone());
            let opened = move || {
                told.send_modify(|known| {
                    known.opening.remove(&name);
                });
            };
            let task = keep(desk.clone(), made_of.clone(), self.progress.clone(), revision, opened);
            let task = tokio::task::spawn_local(task);
            self.doors.insert(sandbox, Door { made_of, task });
        }
    }

    /// Names are told as of this revision.
    pub fn tell(&self, revision: Revision) {
        self.told.send_modify(|known| known.revision = revision);
    }

    /// Closes all: what was missed may have put another sandbox in the place of one.
    pub fn close(&mut self) {
        self.doors.clear();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens a door once its sandbox is there, and answers for ever.
async fn keep(
    desk: Arc<Desk>,
    door: Wanted,
    mut progress: watch::Receiver<Progress>,
    revision: Revision,
    opened: impl FnOnce(),
) {
    if progress
        .wait_for(|progress| progress.revision >= revision)
        .await
        .is_err()
    {
        return;
    }
    let mut pause = FIRST_PAUSE;
    let (datagrams, streams) = loop {
        match open(&door.path).await {
            Ok(sockets) => break sockets,
            Err(error) => {
                if pause == FIRST_PAUSE {
                    tracing::warn!(%error, "cannot answer questions for names in the sandbox {}", door.path.display());
                }
                sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    };
    opened();
    let asker = Some(door.address);
    tokio::join!(
        serve::datagrams(desk.clone(), datagrams, asker),
        serve::streams(desk, streams, asker)
    );
}

async fn open(path: &Path) -> io::Result<(UdpSocket, TcpListener)> {
    let path = path.to_owned();
    let opening = move || netns::within(&netns::open(&path)?, || Pair::at(Ipv4Addr::from(ASKED4), RESOLVER_PORT));
    let pair = blocking(opening).await.map_err(io::Error::other)??;
    Ok((
        UdpSocket::from_std(pair.datagrams)?,
        TcpListener::from_std(pair.streams)?,
    ))
}
