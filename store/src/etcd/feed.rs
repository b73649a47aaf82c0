//! A watch that outlives connections, members and leaders.

use std::time::Duration;

use etcd_client::{EventType, ResponseHeader, WatchOptions, WatchResponse, WatchStream};
use tokio::{sync::mpsc, time};

use super::{Etcd, LARGEST_ANSWER, entry, own_key, revision};
use crate::{Event, Revision, StoreError, Watch, watch::Change};

/// Commits that may wait for a watcher before it is sent off to list again.
const WAITING_CHANGES: usize = 256;
/// Between two attempts to watch again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Who listens, to what, and how far it has heard.
struct Feed {
    client: etcd_client::Client,
    prefix: String,
    /// Keys that begin with this, `prefix` included.
    watched: String,
    heard: Revision,
    /// The term of etcd's leader then: it counts on as long as etcd lives.
    term: u64,
    changes: mpsc::Sender<Result<Change, StoreError>>,
}

/// Why a stream of changes has ended.
enum End {
    /// The connection was lost, or the member has lost its leader: try again.
    Lost(String),
    /// What comes next is not known here: the watcher must list again.
    Forgotten,
    /// The watcher has gone, or was told all that there was to tell.
    Over,
}

/// Begins a watch. That its revision is forgotten is said by its first change.
pub(super) async fn watch(etcd: &Etcd, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
    // One place more than can wait: it is kept for the farewell to a watcher that fell behind.
    let (changes, receiver) = mpsc::channel(WAITING_CHANGES + 1);
    let mut feed = Feed {
        client: etcd.client.clone(),
        prefix: etcd.prefix.clone(),
        watched: etcd.full(prefix),
        heard: after,
        term: 0,
        changes,
    };
    let stream = etcd.ask(&format!("watch {prefix}"), feed.begin()).await?;
    tokio::spawn(feed.run(stream));
    Ok(Watch { changes: receiver })
}

// === impl Feed ===

impl Feed {
    async fn begin(&mut self) -> Result<WatchStream, etcd_client::Error> {
        let from = i64::try_from(self.heard).unwrap_or(i64::MAX).saturating_add(1);
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut client = self.client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
        client.watch(self.watched.clone(), Some(options)).await
    }

    /// Hands on what etcd tells until nobody listens.
    async fn run(mut self, first: WatchStream) {
        let mut stream = Some(first);
        let mut pause = PAUSES.0;
        loop {
            let end = match stream.take() {
                Some(stream) => self.follow(stream, &mut pause).await,
                None => match self.begin().await {
                    Ok(again) => {
                        stream = Some(again);
                        continue;
                    }
                    Err(error) => End::Lost(error.to_string()),
                },
            };
            match end {
                End::Over => return,
                End::Forgotten => {
                    // Nobody listens, or there is room: a place is kept for this.
                    let _ = self.changes.try_send(Err(StoreError::Compacted(self.heard)));
                    return;
                }
                End::Lost(why) => tracing::warn!(
                    "the watch of {} in etcd was lost at revision {}, going on from there in {} ms: {why}",
                    self.watched,
                    self.heard,
                    pause.as_millis()
                ),
            }
            tokio::select! {
                () = self.changes.closed() => return,
                () = time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
            }
        }
    }

    async fn follow(&mut self, mut stream: WatchStream, pause: &mut Duration) -> End {
        loop {
            let told = tokio::select! {
                () = self.changes.closed() => return End::Over,
                told = stream.message() => told,
            };
            let answer = match told {
                Ok(Some(answer)) => answer,
                Ok(None) => return End::Lost("etcd has closed it".to_owned()),
                Err(error) => return End::Lost(error.to_string()),
            };
            *pause = PAUSES.0;
            if answer.created() && self.knows_better_than(answer.header()) {
                // A member may be behind the others for a moment; all of them together are not.
                match self.client.kv_client().get(self.watched.clone(), None).await {
                    Ok(asked) if !self.knows_better_than(asked.header()) => {}
                    // Etcd was restored from an older copy of itself, and may have come further since: what we know has never happened there.
                    Ok(_) => return End::Forgotten,
                    Err(error) => return End::Lost(error.to_string()),
                }
            }
            if let Err(end) = self.take(&answer) {
                return end;
            }
        }
    }

    /// Have we heard of what this has not come to, or of a leader that it does not know?
    fn knows_better_than(&self, header: Option<&ResponseHeader>) -> bool {
        let (present, term) = header.map_or((0, 0), |header| (revision(header.revision()), header.raft_term()));
        present < self.heard || term < self.term
    }

    fn take(&mut self, answer: &WatchResponse) -> Result<(), End> {
        if answer.compact_revision() != 0 {
            return Err(End::Forgotten);
        }
        if answer.canceled() {
            return Err(End::Lost(answer.cancel_reason().to_owned()));
        }
        let term = answer.header().map_or(0, ResponseHeader::raft_term);
        self.term = self.term.max(term);
        for commit in answer.events().chunk_by(|one, next| modified(one) == modified(next)) {
            let at = commit.first().map_or(0, modified);
            let events: Result<Vec<_>, _> = commit.iter().map(|event| self.event(event)).collect();
            let change = events.map(|events| (at, events));
            let is_readable = change.is_ok();
            // This is the only sender, so the room that is seen here is still there below.
            if self.changes.capacity() <= 1 {
                return Err(End::Forgotten);
            }
            if self.changes.try_send(change).is_err() || !is_readable {
                return Err(End::Over);
            }
            self.heard = at;
        }
        Ok(())
    }

    fn event(&self, event: &etcd_client::Event) -> Result<Event, StoreError> {
        let nothing = || StoreError::Failed("etcd told of a change without a key".to_owned());
        let told = event.kv().ok_or_else(nothing)?;
        Ok(match event.event_type() {
            EventType::Put => Event::Put(entry(&self.prefix, told)?),
            EventType::Delete => Event::Deleted(own_key(&self.prefix, told)?, revision(told.mod_revision())),
        })
    }
}

fn modified(event: &etcd_client::Event) -> Revision {
    event.kv().map_or(0, |told| revision(told.mod_revision()))
}
