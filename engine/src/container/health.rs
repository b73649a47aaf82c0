//! Looks after the health of running containers: runs their probes, keeps what they found, and tells when it changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use sluice_model::{
    Id,
    container::Phase,
    health::{Health, Healthcheck, MOST_OUTPUT, Probe, Status},
};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{exec::CreateExec, held::Held},
    error,
};

/// What runs a line of the shell when the image does not say.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// How long a killed probe may take to vanish before we go on without it.
const AFTER_KILL: Duration = Duration::from_secs(10);

impl Held {
    /// What is known of its health; none: nobody asked to know.
    pub fn health(&self) -> MutexGuard<'_, Option<Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Looks after a container that runs, until it ends; one that is new starts with nothing known.
    pub(crate) fn look_after(&self, held: &Arc<Held>, is_new: bool) {
        let check = held.look(|container| container.config.healthcheck.clone());
        let Some(check) = check.filter(Healthcheck::is_wanted) else {
            *held.health() = None;
            return;
        };
        let known = if is_new {
            None
        } else {
            read(&self.health_file(&held.id))
        };
        *held.health() = Some(known.unwrap_or_default());
        let (engine, held) = (self.me.clone(), held.clone());
        let mut life = held.life();
        let starts = life.borrow().starts;
        self.in_background(async move {
            let ended = async {
                let _ = life.wait_for(|life| life.starts != starts || !life.running).await;
            };
            let probing = async {
                loop {
                    tokio::time::sleep(pause(&held, &check)).await;
                    let Some(engine) = engine.upgrade() else { return };
                    if held.look(|container| container.state.phase) == Phase::Running {
                        let probe = engine.probe(&held, &check).await;
                        engine.judge(&held, &check, probe).await;
                    }
                }
            };
            tokio::select! {
                () = ended => {
                    // Docker's: what is not watched any more is not well
                    if let Some(health) = held.health().as_mut() {
                        health.status = Status::Unhealthy;
                    }
                }
                () = probing => {}
            }
        });
    }

    /// What an earlier daemon knew of a container that does not run: it is not watched, so it is not well.
    pub(crate) fn recall_health(&self, held: &Held) {
        let checked = held.look(|container| {
            container
                .config
                .healthcheck
                .as_ref()
                .is_some_and(Healthcheck::is_wanted)
        });
        if checked && let Some(known) = read(&self.health_file(&held.id)) {
            *held.health() = Some(Health {
                status: Status::Unhealthy,
                ..known
            });
        }
    }

    async fn judge(&self, held: &Arc<Held>, check: &Healthcheck, probe: Probe) {
        let (started, phase) = held.look(|container| (container.state.started_at, container.state.phase));
        // a probe that was frozen with its container, or ended with it, has found nothing
        if phase != Phase::Running {
            return;
        }
        let (before, now) = {
            let mut health = held.health();
            let health = health.get_or_insert_default();
            let before = health.status;
            health.learn(probe, check, started);
            (before, health.clone())
        };
        if now.status != before {
            self.tell(held, &format!("health_status: {}", now.status.as_str()), &[]);
        }
        let path = self.health_file(&held.id);
        if let Err(error) = blocking(move || write(&path, &now)).await {
            tracing::warn!(
                "the health of container {} will be forgotten with the daemon: {error}",
                held.id
            );
        }
    }

    async fn probe(self: &Arc<Self>, held: &Arc<Held>, check: &Healthcheck) -> Probe {
        let start = Timestamp::now();
        let (exit_code, output) = match self.run_probe(held, check).await {
            Ok(found) => found,
            Err(error) => (-1, error.message),
        };
        Probe {
            start,
            end: Timestamp::now(),
            exit_code,
            output,
        }
    }

    async fn run_probe(self: &Arc<Self>, held: &Arc<Held>, check: &Healthcheck) -> Result<(i32, String), EngineError> {
        let request = CreateExec {
            cmd: command(&check.test, &held.look(|container| container.config.shell.clone())),
            attach_stdout: true,
            attach_stderr: true,
            ..Default::default()
        };
        let id = self.create_exec(held.id.as_str(), request).await?;
        let found = self.hear_probe(held, &id, check.timeout()).await;
        self.execs.forget_one(&id);
        found
    }

    async fn hear_probe(
        self: &Arc<Self>,
        held: &Arc<Held>,
        id: &str,
        limit: SignedDuration,
    ) -> Result<(i32, String), EngineError> {
        let mut output = self.start_exec(id).await?.output;
        let mut text = Vec::new();
        let mut cut = false;
        let hearing = async {
            while let Some((_, piece)) = output.recv().await {
                let room = MOST_OUTPUT - text.len();
                text.extend_from_slice(&piece[..piece.len().min(room)]);
                cut |= piece.len() > room;
            }
        };
        let limit_here = Duration::try_from(limit).unwrap_or_default();
        if tokio::time::timeout(limit_here, hearing).await.is_err() {
            if let Err(error) = self.runtime.signal_exec(held.id.as_str(), id, libc::SIGKILL).await {
                tracing::debug!("a probe of container {} can't be killed: {error}", held.id);
            }
            // dying probes are not to pile up
            let dying = async { while output.recv().await.is_some() {} };
            let _ = tokio::time::timeout(AFTER_KILL, dying).await;
            return Ok((-1, format!("Health check exceeded timeout ({})", in_go(limit))));
        }
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if cut {
            text.push_str("...");
        }
        Ok((self.inspect_exec(id).await?.exit_code.unwrap_or(-1), text))
    }

    fn health_file(&self, id: &Id) -> PathBuf {
        self.config.container(id).join("health.json")
    }
}

fn pause(held: &Held, check: &Healthcheck) -> Duration {
    let status = held.health().as_ref().map(|health| health.status).unwrap_or_default();
    let started = held.look(|container| container.state.started_at);
    let since = started.map_or(SignedDuration::MAX, |started| Timestamp::now().duration_since(started));
    Duration::try_from(check.pause(status, since)).unwrap_or_default()
}

/// `CMD` and `CMD-SHELL` as words to execute.
fn command(test: &[String], shell: &[String]) -> Vec<String> {
    let (kind, words) = test
        .split_first()
        .map_or(("", &[][..]), |(kind, words)| (kind.as_str(), words));
    if kind != "CMD-SHELL" {
        return words.to_vec();
    }
    let shell = if shell.is_empty() {
        SHELL.map(str::to_owned).to_vec()
    } else {
        shell.to_vec()
    };
    shell.into_iter().chain(words.iter().cloned()).collect()
}

/// A duration as Go writes it: `1m30s`, `2.5s`, `500ms`.
fn in_go(duration: SignedDuration) -> String {
    let fraction = |whole: i128, unit: i128| {
        let text = format!(
            "{}.{:0width$}",
            whole / unit,
            whole % unit,
            width = unit.ilog10() as usize
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let nanoseconds = duration.as_nanos();
    let (minutes, rest) = (nanoseconds / 60_000_000_000, nanoseconds % 60_000_000_000);
    match nanoseconds {
        ..1_000_000_000 => format!("{}ms", fraction(nanoseconds, 1_000_000)),
        1_000_000_000..60_000_000_000 => format!("{}s", fraction(nanoseconds, 1_000_000_000)),
        _ if minutes < 60 => format!("{minutes}m{}s", fraction(rest, 1_000_000_000)),
        _ => format!("{}h{}m{}s", minutes / 60, minutes % 60, fraction(rest, 1_000_000_000)),
    }
}

/// What an earlier daemon has found; what can't be read is found out anew.
fn read(path: &Path) -> Option<Health> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, health: &Health) -> Result<(), EngineError> {
    let failed = |why: &std::io::Error| error::io("write", path, why);
    let text = serde_json::to_vec(health).map_err(|why| failed(&why.into()))?;
    // whole or not at all: a daemon that dies here leaves the last one
    let fresh = path.with_extension("json.new");
    std::fs::write(&fresh, text).map_err(|why| failed(&why))?;
    std::fs::rename(&fresh, path).map_err(|why| failed(&why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_line_is_run_by_the_images_shell() {
        assert_eq!(command(&words(&["CMD", "curl", "x"]), &[]), ["curl", "x"]);
        assert_eq!(
            command(&words(&["CMD-SHELL", "a | b"]), &[]),
            ["/bin/sh", "-c", "a | b"]
        );
        let bash = words(&["/bin/bash", "-ec"]);
        assert_eq!(command(&words(&["CMD-SHELL", "a"]), &bash), ["/bin/bash", "-ec", "a"]);
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (1_000_000, "1ms"),
            (1_500_000, "1.5ms"),
            (30_000_000_000, "30s"),
            (2_500_000_000, "2.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(in_go(SignedDuration::from_nanos(nanoseconds)), text);
        }
    }
}
