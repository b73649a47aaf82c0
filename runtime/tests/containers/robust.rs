//! What is left when daemon, shim, or both are killed at any moment: nothing that is lost, doubled or unreadable.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sluice_runtime::{Config, Create, Runtime, Status};

use crate::lab::{Lab, unified};

/// How often something is killed.
const ROUNDS: u32 = 240;
/// The victim's orders, in its environment: directory of the lab, cgroup parent, number of the round.
const ORDERS: &str = "SLUICE_TEST_VICTIM";

/// Numbers that look random, the same for the same seed (xorshift).
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("SLUICE_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1);
        eprintln!("again with SLUICE_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn open(parent: &str) -> Runtime {
    Runtime::open(Config {
        state_root: Path::new("/run").join(parent).join("containers"),
        shim: PathBuf::from(crate::lab::shim()),
        cgroup_parent: parent.to_owned(),
    })
    .unwrap()
}

/// Not a test of its own: this is the daemon that is killed. It makes, starts, stops and removes one container after another.
#[tokio::test]
#[ignore = "the victim of another test"]
async fn victim() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let mut orders = orders.split(' ');
    let (bundle, parent, round) = (orders.next().unwrap(), orders.next().unwrap(), orders.next().unwrap());
    let runtime = open(parent);
    for number in 0..100 {
        let id = format!("r{round}n{number}");
        let create = Create {
            id: id.clone(),
            bundle: bundle.into(),
            stdin: false,
            stdin_once: false,
            log: None,
        };
        runtime.create(&create).await.unwrap();
        runtime.start(&id).await.unwrap();
        if number % 2 == 0 {
            runtime.signal(&id, libc::SIGKILL).await.unwrap();
            runtime.wait(&id).await.unwrap();
        }
        if number % 3 != 0 {
            runtime.delete(&id).await.unwrap();
        }
    }
}

/// The processes (shims, those that make a container, and those that wait in it) that belong to containers of the lab.
fn processes(parent: &str) -> Vec<i32> {
    let directory = format!("/run/{parent}/containers/");
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with("sluice-shim\0") && line.contains(&directory) {
            all.push(pid);
        }
    }
    all
}

fn kill(pid: i32) {
    // SAFETY: takes no pointers; the processes are those of this test's own directory.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_whenever_nothing_is_lost_or_left() {
    let Some(lab) = Lab::new() else { return };
    let mut chance = Chance::new();
    let bundle = lab.bundle("template", &["sleep", "1000"]);
    bundle.create();
    let mut found = [0u32; 4];
    for round in 0..ROUNDS {
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "robust::victim", "--ignored", "--nocapture"])
            .env(ORDERS, format!("{} {} {round}", bundle.directory.display(), lab.parent))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_micros(chance.below(120_000))).await;
        let kind = chance.below(3);
        if kind != 0 {
            // One of those there are, or all of them.
            let there = processes(&lab.parent);
            if kind == 1 && !there.is_empty() {
                kill(there[chance.below(there.len() as u64) as usize]);
            } else {
                there.into_iter().for_each(kill);
            }
            tokio::time::sleep(Duration::from_micros(chance.below(5_000))).await;
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        // A new daemon looks at what there is, perhaps again after another stroke, and removes it.
        let runtime = open(&lab.parent);
        for id in runtime.list().unwrap() {
            let state = runtime.state(&id).await.unwrap();
            match state.status {
                Status::Created => found[0] += 1,
                Status::Running => {
                    found[1] += 1;
                    // Its process may be what was killed: then its end is about to be told.
                    let place = format!("/proc/{}", state.pid.unwrap());
                    if !Path::new(&place).exists() {
                        runtime.wait(&id).await.unwrap();
                    }
                }
                Status::Paused => panic!("round {round}: nobody has paused {id}"),
                Status::Stopped => {
                    found[2] += 1;
                    assert!(state.exit.is_some(), "round {round}: {id} has ended without an exit");
                }
            }
            if chance.below(4) == 0 {
                processes(&lab.parent).into_iter().for_each(kill);
                let after = runtime.state(&id).await.unwrap();
                assert_eq!(after.status, Status::Stopped, "round {round}: {id}");
                found[3] += 1;
            }
            runtime.delete(&id).await.unwrap();
        }
        assert!(runtime.list().unwrap().is_empty());
        gone(&lab, round).await;
    }
    eprintln!("found created, running, ended, killed again: {found:?}");
    assert!(found[1] > 0 && found[2] > 0, "{found:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&lab.parent), "{mounts}");
}

/// A shim that was made but not yet known goes by itself, as its directory is gone.
async fn gone(lab: &Lab, round: u32) {
    let left = || {
        let mut left: Vec<String> = processes(&lab.parent)
            .iter()
            .map(|pid| format!("process {pid}"))
            .collect();
        let mut places = vec![unified().join(&lab.parent)];
        let v1 = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        places.extend(v1.map(|hierarchy| hierarchy.path().join(&lab.parent)));
        for place in places {
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                if entry.path().is_dir() && entry.file_name() != "shims" {
                    left.push(entry.path().display().to_string());
                }
            }
        }
        left
    };
    for _ in 0..1000 {
        if left().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("round {round}: there is left {:?}", left());
}
