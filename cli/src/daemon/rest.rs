//! A daemon that has nothing to do takes little memory: what a start or a busy time needed is given back.

use std::{sync::Arc, time::Duration};

use sluice_engine::{Engine, EventFilter};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, timeout, timeout_at},
};

use crate::allocator;

/// When nothing has happened for so long, it is at rest. Whoever asks again sooner meets all that is needed still there.
const QUIET: Duration = Duration::from_secs(2);
/// When nothing has happened for so long after that, it is asleep: it may do without its code. Whoever types commands is answered by one that is awake.
const ASLEEP: Duration = Duration::from_secs(20);
/// Where something always happens (a health check each second), what is free is given back so often.
const BUSY: Duration = Duration::from_secs(60);

/// Waits for rest, and gives back, until the engine ends. Whatever takes memory tells an event: that is what is waited for.
pub(crate) async fn give_back_at_rest(engine: Arc<Engine>) {
    let events = engine.events(EventFilter::default()).await;
    drop(engine);
    let Ok(mut events) = events else { return };
    loop {
        rest(&mut events).await;
        allocator::give_back();
        let heard = match timeout(ASLEEP, events.recv()).await {
            Ok(heard) => heard,
            Err(_) => {
                sluice_runtime::forget_pages();
                events.recv().await
            }
        };
        if heard.is_none() {
            return;
        }
    }
}

/// Returns when nothing has happened for a while, or much for long.
async fn rest(events: &mut Receiver<sluice_engine::Event>) {
    let busy = Instant::now() + BUSY;
    let quiet = async { while let Ok(Some(_)) = timeout(QUIET, events.recv()).await {} };
    // Either is as good.
    let _ = timeout_at(busy, quiet).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> sluice_engine::Event {
        sluice_engine::Event {
            kind: "container",
            action: "exec_die".to_owned(),
            id: String::new(),
            attributes: Vec::new(),
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rest_comes_after_the_last_event_or_after_a_minute_of_them() {
        let (sender, mut events) = tokio::sync::mpsc::channel(1);
        let begun = Instant::now();
        rest(&mut events).await;
        assert!((QUIET..QUIET * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let busy = tokio::spawn(async move {
            while sender.send(event()).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = Instant::now();
        rest(&mut events).await;
        assert!((BUSY..BUSY * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        drop(events);
        busy.await.unwrap();
    }
}
