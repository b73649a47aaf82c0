//! The bus: tells what happens to all who listen, and remembers a little of the past.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use crate::{Event, EventFilter};

/// How many events of the past are kept (Docker keeps 256).
const PAST: usize = 256;
/// How far a listener may fall behind before it loses events.
const BEHIND: usize = 1024;

/// All who listen, and the past.
pub(crate) struct Events {
    past: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            live: broadcast::channel(BEHIND).0,
        }
    }
}

impl Events {
    /// Tells that something happened now.
    pub fn tell(&self, kind: &'static str, action: impl Into<String>, id: &str, attributes: Vec<(String, String)>) {
        let event = Event {
            kind,
            action: action.into(),
            id: id.to_owned(),
            attributes,
            at: Timestamp::now(),
        };
        // under the lock, so that a new listener sees each event exactly once
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == PAST {
            past.pop_front();
        }
        past.push_back(event.clone());
        // an error only says that nobody listens
        let _ = self.live.send(event);
    }

    /// Events of the past as far as `since` asks for them, then those that come, until `until`.
    pub fn listen(&self, filter: EventFilter) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(64);
        let (past, live) = {
            let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            (past.iter().cloned().collect::<Vec<_>>(), self.live.subscribe())
        };
        tokio::spawn(pass_on(filter, past, live, sender));
        receiver
    }
}

async fn pass_on(filter: EventFilter, past: Vec<Event>, mut live: broadcast::Receiver<Event>, to: mpsc::Sender<Event>) {
    let too_late = |event: &Event| filter.until.is_some_and(|until| event.at > until);
    // Docker shows the past when either end of the span is given
    let wants_past = filter.since.is_some() || filter.until.is_some();
    for event in past {
        let early = filter.since.is_some_and(|since| event.at < since);
        if wants_past && !early && !too_late(&event) && filter.wants(&event) && to.send(event).await.is_err() {
            return;
        }
    }
    let end = async {
        match filter.until {
            Some(until) => {
                let left = until.as_millisecond() - Timestamp::now().as_millisecond();
                tokio::time::sleep(std::time::Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            () = to.closed() => return,
            event = live.recv() => match event {
                Ok(event) if too_late(&event) => return,
                Ok(event) => {
                    if filter.wants(&event) && to.send(event).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::warn!("a listener was too slow and lost {lost} events");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_hears_what_comes_and_of_the_past_only_what_it_asks_for() {
        let events = Events::default();
        events.tell("container", "create", "a", vec![]);
        let mut new = events.listen(EventFilter::default());
        let mut old = events.listen(EventFilter {
            since: Some(Timestamp::UNIX_EPOCH),
            ..Default::default()
        });
        events.tell("container", "start", "a", vec![]);
        assert_eq!(new.recv().await.unwrap().action, "start");
        assert_eq!(old.recv().await.unwrap().action, "create");
        assert_eq!(old.recv().await.unwrap().action, "start");
    }

    #[tokio::test]
    async fn the_stream_ends_at_until() {
        let events = Events::default();
        events.tell("container", "create", "a", vec![]);
        let mut past = events.listen(EventFilter {
            until: Some(Timestamp::now()),
            ..Default::default()
        });
        assert_eq!(past.recv().await.unwrap().action, "create");
        assert!(past.recv().await.is_none());
    }

    #[test]
    fn the_past_is_bounded() {
        let events = Events::default();
        for _ in 0..2 * PAST {
            events.tell("container", "create", "a", vec![]);
        }
        assert_eq!(events.past.lock().unwrap().len(), PAST);
    }
}
