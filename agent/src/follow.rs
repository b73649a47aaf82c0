//! Drops as they happen: one reader of the kernel's ring, and everybody who follows it.
//!
//! The programs write events only while somebody follows, and not more than so many per reason and second (`datapath-common/src/event.rs`). What is
//! lost on the way is told too: once a second how many drops the programs did not tell of and why, and to a follower that is too slow how much it
//! has missed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use crate::{AgentError, reconcile::Shared, view::Told};

pub use account::untold_of_all;
pub use reader::run;

mod account;
mod reader;
mod tell;

/// How many lines wait for a follower that is slow.
const WAITING: usize = 2_048;

/// Where followers meet the reader.
pub struct Meeting {
    lines: broadcast::Sender<Told>,
    followers: watch::Sender<u32>,
    /// The programs write for somebody.
    listening: watch::Sender<bool>,
    /// The agent ends.
    ended: watch::Sender<bool>,
    /// Lines that slow followers have missed, ever.
    missed: AtomicU64,
}

/// Somebody who follows the drops, until it is dropped.
pub struct Follower {
    lines: broadcast::Receiver<Told>,
    ended: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

impl Default for Meeting {
    fn default() -> Self {
        Self {
            lines: broadcast::Sender::new(WAITING),
            followers: watch::Sender::new(0),
            listening: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            missed: AtomicU64::new(0),
        }
    }
}

impl Meeting {
    /// How many follow.
    pub fn followers(&self) -> u32 {
        *self.followers.borrow()
    }

    /// How many lines slow followers have missed, ever.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Follower {
    /// Follows from now on: what dies after this returns is told.
    pub async fn new(shared: Arc<Shared>) -> Result<Self, AgentError> {
        let mut follower = Self {
            lines: shared.meeting.lines.subscribe(),
            ended: shared.meeting.ended.subscribe(),
            shared,
        };
        let meeting = &follower.shared.meeting;
        meeting.followers.send_modify(|followers| *followers += 1);
        let mut listening = meeting.listening.subscribe();
        let listens = tokio::select! {
            biased;
            _ = follower.ended.wait_for(|ended| *ended) => false,
            _ = listening.wait_for(|listening| *listening) => true,
        };
        if listens {
            Ok(follower)
        } else {
            Err(AgentError::Stopped)
        }
    }

    /// What is told next; none: the agent has ended.
    pub async fn next(&mut self) -> Option<Told> {
        let line = tokio::select! {
            biased;
            line = self.lines.recv() => line,
            _ = self.ended.wait_for(|ended| *ended) => Err(broadcast::error::RecvError::Closed),
        };
        match line {
            Ok(told) => Some(told),
            Err(broadcast::error::RecvError::Lagged(lines)) => {
                self.shared.meeting.missed.fetch_add(lines, Ordering::Relaxed);
                Some(Told::Missed {
                    time: Timestamp::now(),
                    lines,
                })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.meeting.followers.send_modify(|followers| *followers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::{reader::End, *};
    use crate::view::Untold;

    #[tokio::test]
    async fn a_follower_that_is_slow_is_told_how_much_it_has_missed_and_the_end_reaches_all() {
        let shared = Arc::new(Shared::new());
        shared.meeting.listening.send_replace(true);
        let mut slow = Follower::new(shared.clone()).await.unwrap();
        assert_eq!(shared.meeting.followers(), 1);
        let told = |number: usize| {
            Told::Untold(Untold {
                time: Timestamp::now(),
                reason: String::new(),
                number: 1,
                too_many: 0,
                lost: number as u64,
            })
        };
        for number in 0..WAITING + 5 {
            shared.meeting.lines.send(told(number)).unwrap();
        }
        assert!(matches!(slow.next().await, Some(Told::Missed { lines: 5, .. })));
        let first = slow.next().await;
        assert!(
            matches!(&first, Some(Told::Untold(untold)) if untold.lost == 5),
            "{first:?}"
        );
        assert_eq!(shared.meeting.missed(), 5);
        drop(End(&shared.meeting));
        for _ in 6..WAITING + 5 {
            assert!(slow.next().await.is_some(), "what waits is still told");
        }
        assert_eq!(slow.next().await, None);
        drop(slow);
        assert_eq!(shared.meeting.followers(), 0);
        assert!(
            Follower::new(shared.clone()).await.is_err(),
            "there is nobody who would tell"
        );
        assert_eq!(shared.meeting.followers(), 0);
    }
}
