//! Drops as they happen, and conversations as they open and close: one reader of the kernel's ring, and everybody who follows it.
//!
//! The programs write events only while somebody follows, and not more than so many per reason and second (`datapath-common/src/event.rs`). What is
//! lost on the way is told too: once a second how many drops the programs did not tell of and why, and to a follower that is too slow how much it
//! has missed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use sluice_datapath_common::event::{CLOSED, LISTEN_DROPS, LISTEN_FLOWS, LISTEN_FRAMES, OPENED};
use tokio::sync::{broadcast, watch};

use crate::{
    AgentError,
    reconcile::Shared,
    view::{DropTold, Happening, Lost, Seen, Told, Untold},
};

pub use account::untold_of_all;
pub use ended::{Ended, GONE, IDLE};
pub use filter::{Filter, NAMES as FILTERS};
pub use reader::{run, tell_ended};
pub use tell::{Clock, Recorded, see_flow, side};

mod account;
mod ended;
mod filter;
mod reader;
mod tell;

/// How many lines wait for a follower that is slow.
const WAITING: usize = 4_096;

/// Where followers meet the reader.
pub struct Meeting {
    lines: broadcast::Sender<Heard>,
    followers: watch::Sender<Followers>,
    /// What the programs write for somebody (`LISTEN_*`).
    listening: watch::Sender<u32>,
    /// The agent ends.
    ended: watch::Sender<bool>,
    /// Lines that slow followers have missed, ever.
    missed: AtomicU64,
}

/// How many follow what.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Followers {
    /// All of them.
    all: u32,
    /// Who wants to hear of conversations.
    flows: u32,
    /// Who wants to see how frames begin.
    frames: u32,
}

/// What somebody wants to hear of besides drops.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wishes {
    /// Conversations as they open and close.
    pub flows: bool,
    /// How the frames of drops begin.
    pub frames: bool,
}

/// What the reader has to say.
#[derive(Clone, Debug)]
enum Heard {
    Drop(Box<(DropTold, Seen)>),
    Flow(Box<Seen>),
    Untold(Untold),
}

/// Somebody who follows the drops, until it is dropped.
pub struct Follower {
    lines: broadcast::Receiver<Heard>,
    ended: watch::Receiver<bool>,
    wishes: Wishes,
    shared: Arc<Shared>,
}

/// Somebody who follows all that they want to see, until it is dropped.
pub struct Monitor {
    follower: Follower,
    filter: Filter,
}

impl Default for Meeting {
    fn default() -> Self {
        Self {
            lines: broadcast::Sender::new(WAITING),
            followers: watch::Sender::default(),
            listening: watch::Sender::new(0),
            ended: watch::Sender::new(false),
            missed: AtomicU64::new(0),
        }
    }
}

impl Meeting {
    /// How many follow.
    pub fn followers(&self) -> u32 {
        self.followers.borrow().all
    }

    /// Does anybody want to hear of conversations?
    pub fn follows_flows(&self) -> bool {
        self.followers.borrow().flows > 0
    }

    /// How many lines slow followers have missed, ever.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

// === impl Followers ===

impl Followers {
    /// What the programs are to write.
    fn listen(self) -> u32 {
        let wanted = |followers: u32, what: u32| if followers > 0 { what } else { 0 };
        wanted(self.all, LISTEN_DROPS) | wanted(self.flows, LISTEN_FLOWS) | wanted(self.frames, LISTEN_FRAMES)
    }

    fn add(&mut self, wishes: Wishes) {
        self.all += 1;
        self.flows += u32::from(wishes.flows);
        self.frames += u32::from(wishes.frames);
    }

    fn remove(&mut self, wishes: Wishes) {
        self.all -= 1;
        self.flows -= u32::from(wishes.flows);
        self.frames -= u32::from(wishes.frames);
    }
}

// === impl Follower ===

impl Follower {
    /// Follows the drops from now on: what dies after this returns is told.
    pub async fn new(shared: Arc<Shared>) -> Result<Self, AgentError> {
        Self::with(shared, Wishes::default()).await
    }

    async fn with(shared: Arc<Shared>, wishes: Wishes) -> Result<Self, AgentError> {
        let mut follower = Self {
            lines: shared.meeting.lines.subscribe(),
            ended: shared.meeting.ended.subscribe(),
            wishes,
            shared,
        };
        let mut wanted = Followers::default();
        wanted.add(wishes);
        let wanted = wanted.listen();
        let meeting = &follower.shared.meeting;
        meeting.followers.send_modify(|followers| followers.add(wishes));
        let mut listening = meeting.listening.subscribe();
        let listens = tokio::select! {
            biased;
            _ = follower.ended.wait_for(|ended| *ended) => false,
            _ = listening.wait_for(|listening| listening & wanted == wanted) => true,
        };
        if listens {
            Ok(follower)
        } else {
            Err(AgentError::Stopped)
        }
    }

    /// What is told next; none: the agent has ended.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            match self.hear().await? {
                Ok(Heard::Drop(drop)) => return Some(Told::Drop(Box::new(drop.0))),
                Ok(Heard::Untold(untold)) if untold.number != OPENED && untold.number != CLOSED => {
                    return Some(Told::Untold(untold));
                }
                Ok(_) => {}
                Err(lines) => {
                    return Some(Told::Missed {
                        time: Timestamp::now(),
                        lines,
                    });
                }
            }
        }
    }

    /// What comes next, or how many lines were missed.
    async fn hear(&mut self) -> Option<Result<Heard, u64>> {
        let line = tokio::select! {
            biased;
            line = self.lines.recv() => line,
            _ = self.ended.wait_for(|ended| *ended) => Err(broadcast::error::RecvError::Closed),
        };
        match line {
            Ok(heard) => Some(Ok(heard)),
            Err(broadcast::error::RecvError::Lagged(lines)) => {
                self.shared.meeting.missed.fetch_add(lines, Ordering::Relaxed);
                Some(Err(lines))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let wishes = self.wishes;
        self.shared
            .meeting
            .followers
            .send_modify(|followers| followers.remove(wishes));
    }
}

// === impl Monitor ===

impl Monitor {
    /// Follows from now on: what happens after this returns is seen.
    pub async fn new(shared: Arc<Shared>, filter: Filter, wishes: Wishes) -> Result<Self, AgentError> {
        let follower = Follower::with(shared, wishes).await?;
        Ok(Self { follower, filter })
    }

    /// What is seen next; none: the agent has ended.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            let seen = match self.follower.hear().await? {
                Ok(Heard::Drop(drop)) => {
                    let mut seen = drop.1;
                    if !self.follower.wishes.frames {
                        seen.frame = None;
                    }
                    seen
                }
                Ok(Heard::Flow(seen)) if self.follower.wishes.flows => *seen,
                Ok(Heard::Flow(_)) => continue,
                Ok(Heard::Untold(untold)) => lost(untold),
                Err(missed) => Seen {
                    lost: Some(Lost {
                        missed,
                        ..Lost::default()
                    }),
                    ..Seen::of(Timestamp::now(), Happening::Lost)
                },
            };
            if self.filter.wants(&seen) {
                return Some(seen);
            }
        }
    }
}

fn lost(untold: Untold) -> Seen {
    Seen {
        lost: Some(Lost {
            of: untold.reason,
            too_many: untold.too_many,
            unread: untold.lost,
            missed: 0,
        }),
        ..Seen::of(untold.time, Happening::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::{reader::End, *};

    #[tokio::test]
    async fn a_follower_that_is_slow_is_told_how_much_it_has_missed_and_the_end_reaches_all() {
        let shared = Arc::new(Shared::new());
        shared.meeting.listening.send_replace(LISTEN_DROPS);
        let mut slow = Follower::new(shared.clone()).await.unwrap();
        assert_eq!(shared.meeting.followers(), 1);
        let told = |number: usize| {
            Heard::Untold(Untold {
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

    #[tokio::test]
    async fn who_monitors_sees_what_they_want_and_the_programs_write_no_more_than_somebody_wants() {
        let shared = Arc::new(Shared::new());
        let meeting = &shared.meeting;
        meeting.listening.send_replace(u32::MAX);
        let seen = |event, name: &str| Seen {
            source: Some(crate::view::Side {
                name: name.into(),
                ..Default::default()
            }),
            frame: Some("AA==".into()),
            ..Seen::of(Timestamp::UNIX_EPOCH, event)
        };
        let of_web = Filter {
            containers: vec!["web".into()],
            ..Filter::default()
        };
        let flows = Wishes {
            flows: true,
            frames: false,
        };
        let frames = Wishes {
            flows: false,
            frames: true,
        };
        let mut one = Monitor::new(shared.clone(), of_web, flows).await.unwrap();
        assert_eq!(meeting.followers.borrow().listen(), LISTEN_DROPS | LISTEN_FLOWS);
        let mut other = Monitor::new(shared.clone(), Filter::default(), frames).await.unwrap();
        assert_eq!(
            meeting.followers.borrow().listen(),
            LISTEN_DROPS | LISTEN_FLOWS | LISTEN_FRAMES
        );
        for (event, name) in [
            (Happening::Open, "db"),
            (Happening::Open, "web"),
            (Happening::Close, "web"),
        ] {
            meeting.lines.send(Heard::Flow(Box::new(seen(event, name)))).unwrap();
        }
        let untold = Untold {
            time: Timestamp::UNIX_EPOCH,
            reason: "open".into(),
            number: OPENED,
            too_many: 7,
            lost: 2,
        };
        meeting.lines.send(Heard::Untold(untold)).unwrap();
        let events = [one.next().await.unwrap().event, one.next().await.unwrap().event];
        assert_eq!(events, [Happening::Open, Happening::Close]);
        let lost = one.next().await.unwrap().lost.unwrap();
        assert_eq!((lost.of.as_str(), lost.too_many, lost.unread), ("open", 7, 2));
        assert_eq!(
            other.next().await.unwrap().event,
            Happening::Lost,
            "no conversations were asked for"
        );
        drop(one);
        assert_eq!(meeting.followers.borrow().listen(), LISTEN_DROPS | LISTEN_FRAMES);
        drop(other);
        assert_eq!(meeting.followers.borrow().listen(), 0);
    }
}
