//! The loop that can always begin again: watch first so that nothing is missed, then agree fully, then follow changes; on any trouble begin again.
//!
//! A start is a round like any other. Work on the kernel is done on a thread that may block, one round at a time; what comes meanwhile waits and
//! is taken together by the next round, so that fifty containers that start at once cost a few rounds.

use std::{sync::Arc, time::Duration};

use sluice_store::SharedStore;
use tokio::{sync::watch, time::sleep};

use crate::{Config, Limits, expire, follow, fullness, link::resolver_leg::ResolverLeg, map::pins::Maps, observe};

pub use session::Session;
pub use shared::{Shared, blocking, lock};

mod events;
mod kernel;
mod session;
mod shared;

/// After trouble it is tried again, at first soon, then less and less often.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What a round looks at besides the store's changes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Scope {
    /// Devices, addresses, sandboxes and attached programs.
    devices: bool,
    /// Tables.
    tables: bool,
    /// Routes have changed: flows ask for theirs again.
    routes: bool,
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
    let (mut pace, mut warner) = (expire::CALM, fullness::Warner::default());
    let capacity = limits.entries();
    loop {
        tokio::select! {
            () = sleep(pace.interval) => {}
            () = shared.endpoints_gone.notified() => {}
        }
        let Some((maps, _)) = lock(&shared.open).clone() else {
            continue;
        };
        let walked = maps.clone();
        let mut ended = shared.meeting.follows_flows().then(follow::Ended::default);
        let walk = move || expire::sweep(&walked, expire::now(), pace, ended.as_mut()).map(|swept| (swept, ended));
        match blocking(walk).await {
            Ok(Ok((swept, ended))) => {
                if let Some(ended) = ended {
                    follow::tell_ended(shared, &maps, ended);
                }
                pace = expire::pace(&swept, capacity as usize);
                shared.measures.walk(swept.took, swept.masqueraded);
                if let Some(sentence) = full(&maps, shared, &swept, capacity) {
                    warner.warn(&sentence);
                }
                tracing::trace!(swept.found, swept.ended, "looked through the flows");
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot look through the flows"),
            Err(error) => tracing::warn!(%error, "cannot look through the flows"),
        }
    }
}

/// What is to be said of the fuller table when it has no room left.
fn full(maps: &Maps, shared: &Shared, swept: &expire::Swept, capacity: u32) -> Option<String> {
    let left = swept.found.saturating_sub(swept.ended) as u64;
    let has_room = fullness::sentence(swept.table, left, capacity.into(), &[]).is_none();
    if has_room {
        return None;
    }
    let shares = observe::shares(maps, &lock(&shared.roster)).unwrap_or_default();
    fullness::sentence(swept.table, left, capacity.into(), &shares)
}
