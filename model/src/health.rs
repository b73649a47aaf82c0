//! A container's health: how it is found out, what was found, and what follows from it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Probes that are remembered.
pub const REMEMBERED: usize = 5;
/// Bytes of a probe's output that are remembered.
pub const MOST_OUTPUT: usize = 4096;

/// How a container's health is found out. Times are nanoseconds; 0 is Docker's default.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `[]`: the image's; `["NONE"]`: none; `["CMD", …]`: a command; `["CMD-SHELL", …]`: a line for the shell.
    pub test: Vec<String>,
    /// Between two probes; default 30 s.
    pub interval: i64,
    /// A probe that takes longer has failed; default 30 s.
    pub timeout: i64,
    /// After the start failures do not count for so long; default none.
    pub start_period: i64,
    /// Between two probes during the start period; default 5 s.
    pub start_interval: i64,
    /// So many failures in a row are ill health; default 3.
    pub retries: i64,
}

/// How a container is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not known yet.
    #[default]
    Starting,
    /// Its last probe was fine, or not enough have failed since.
    Healthy,
    /// Too many probes failed in a row.
    Unhealthy,
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0: well; -1: it could not be run, or not in time.
    pub exit_code: i32,
    /// What it said, at most [`MOST_OUTPUT`] bytes and `...`.
    pub output: String,
}

/// What is known of a container's health.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// How it is.
    pub status: Status,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last [`REMEMBERED`] probes, the latest last.
    pub log: Vec<Probe>,
}

impl Status {
    /// As users and clients know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Healthcheck {
    /// Is there something to be run?
    pub fn is_wanted(&self) -> bool {
        self.test.first().is_some_and(|kind| kind != "NONE")
    }

    /// How long a probe may take.
    pub fn timeout(&self) -> SignedDuration {
        or(self.timeout, SignedDuration::from_secs(30))
    }

    /// How long to wait until the next probe, so long after the start.
    pub fn pause(&self, status: Status, since_start: SignedDuration) -> SignedDuration {
        if status == Status::Starting && since_start < self.start_period() {
            or(self.start_interval, SignedDuration::from_secs(5))
        } else {
            or(self.interval, SignedDuration::from_secs(30))
        }
    }

    fn start_period(&self) -> SignedDuration {
        SignedDuration::from_nanos(self.start_period)
    }

    fn retries(&self) -> u32 {
        u32::try_from(self.retries)
            .ok()
            .filter(|retries| *retries > 0)
            .unwrap_or(3)
    }
}

fn or(nanoseconds: i64, default: SignedDuration) -> SignedDuration {
    if nanoseconds > 0 {
        SignedDuration::from_nanos(nanoseconds)
    } else {
        default
    }
}

impl Health {
    /// Takes a probe's result in, for a container that was started then. Until one was fine, failures in the start period do not count.
    pub fn learn(&mut self, probe: Probe, check: &Healthcheck, started: Option<Timestamp>) {
        if probe.exit_code == 0 {
            self.failing_streak = 0;
            self.status = Status::Healthy;
        } else {
            let since = started.map_or(SignedDuration::MAX, |started| probe.start.duration_since(started));
            if self.status != Status::Starting || since >= check.start_period() {
                self.failing_streak = self.failing_streak.saturating_add(1);
                if self.failing_streak >= check.retries() {
                    self.status = Status::Unhealthy;
                }
            }
        }
        self.log.push(probe);
        let forgotten = self.log.len().saturating_sub(REMEMBERED);
        self.log.drain(..forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(second: i64, exit_code: i32) -> Probe {
        let at = Timestamp::from_second(second).unwrap();
        Probe {
            start: at,
            end: at,
            exit_code,
            output: String::new(),
        }
    }

    fn after(check: &Healthcheck, probes: &[(i64, i32)]) -> Health {
        let mut health = Health::default();
        for (second, code) in probes {
            health.learn(probe(*second, *code), check, Some(Timestamp::UNIX_EPOCH));
        }
        health
    }

    #[test]
    fn three_failures_in_a_row_are_ill_health_and_one_success_ends_it() {
        let check = Healthcheck::default();
        assert_eq!(after(&check, &[(1, 1), (2, 1)]).status, Status::Starting);
        let ill = after(&check, &[(1, 0), (2, 1), (3, -1), (4, 2)]);
        assert_eq!((ill.status, ill.failing_streak), (Status::Unhealthy, 3));
        let well = after(&check, &[(1, 1), (2, 1), (3, 1), (4, 0)]);
        assert_eq!((well.status, well.failing_streak), (Status::Healthy, 0));
        assert_eq!(
            after(&check, &[(1, 1), (2, 1), (3, 0), (4, 1), (5, 1)]).status,
            Status::Healthy
        );
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_until_a_probe_was_fine() {
        let check = Healthcheck {
            start_period: 10_000_000_000,
            retries: 1,
            ..Default::default()
        };
        let starting = after(&check, &[(1, 1), (9, 1)]);
        assert_eq!((starting.status, starting.failing_streak), (Status::Starting, 0));
        assert_eq!(after(&check, &[(1, 1), (10, 1)]).status, Status::Unhealthy);
        assert_eq!(after(&check, &[(1, 0), (2, 1)]).status, Status::Unhealthy);
    }

    #[test]
    fn the_start_interval_holds_while_it_starts() {
        let check = Healthcheck {
            interval: 60_000_000_000,
            start_period: 10_000_000_000,
            ..Default::default()
        };
        let seconds = |status, since| check.pause(status, SignedDuration::from_secs(since)).as_secs();
        assert_eq!(seconds(Status::Starting, 3), 5);
        assert_eq!(seconds(Status::Starting, 10), 60);
        assert_eq!(seconds(Status::Healthy, 3), 60);
    }

    #[test]
    fn five_results_are_remembered() {
        let health = after(&Healthcheck::default(), &(1..=7).map(|at| (at, 0)).collect::<Vec<_>>());
        let starts: Vec<_> = health.log.iter().map(|probe| probe.start.as_second()).collect();
        assert_eq!(starts, [3, 4, 5, 6, 7]);
    }
}
