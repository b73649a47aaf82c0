//! The daemon, a shim, or both are killed at any moment of any story: no container is lost or doubled, and nothing is left.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lab::{Daemon, Docker, Lab, Snapshot, eventually, start};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often something is killed, unless `SLUICE_STROKES` says.
const STROKES: u32 = 12;
/// What is done meanwhile, by as many clients: `{}` is the client's number.
const STORY: [&str; 9] = [
    "create --name c{} -p 80{}:80 -v v{}:/v busybox sleep 1000",
    "start c{}",
    "run --rm busybox true",
    "exec c{} true",
    "restart -t 0 c{}",
    "stop -t 0 c{}",
    "start c{}",
    "rm -f c{}",
    "run -d --name r{} --restart always busybox sleep 1000",
];
const CLIENTS: u32 = 3;

/// Numbers that look random, the same for the same seed (xorshift).
pub struct Chance(u64);

impl Chance {
    /// From `SLUICE_TEST_SEED`, or another one each time, which is told.
    pub fn new() -> Self {
        Self::of(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1)
    }

    /// From `SLUICE_TEST_SEED`, or this one.
    pub fn of(seed: u64) -> Self {
        let given = std::env::var("SLUICE_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(seed);
        println!("again with SLUICE_TEST_SEED={seed}");
        Self(seed)
    }

    /// One that is less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One client that lives through the story again and again, whatever becomes of the daemon.
fn live(docker: &Docker, number: u32, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        for line in STORY {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let ran = docker.run(&line.replace("{}", &number.to_string()));
            if !ran.is_ok() && ran.stderr.contains("Cannot connect") {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        docker.run(&format!("rm -f r{number}"));
    }
}

/// Each container once, in a state that is true.
fn check(daemon: &Daemon, round: u32) {
    let docker = daemon.docker();
    let listed = docker.ok("ps -a --no-trunc --format {{.ID}}={{.Names}}");
    let mut names = BTreeMap::new();
    for line in listed.lines() {
        let (id, name) = line.split_once('=').unwrap();
        assert!(names.insert(name, id).is_none(), "round {round}: {name} is there twice");
    }
    for (name, id) in names {
        // clients are at work: it may go, or change, while it is looked at
        eventually(&format!("round {round}: {name} is what it is said to be"), 30, || {
            let ran = docker.words(&["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", id]);
            if !ran.is_ok() {
                assert!(ran.stderr.contains("No such"), "round {round}: {ran}");
                return true;
            }
            let (status, pid) = ran.stdout.trim().split_once(' ').unwrap();
            let is_alive = std::path::Path::new(&format!("/proc/{pid}/ns")).exists();
            match status {
                "running" | "paused" => pid != "0" && is_alive,
                "created" | "exited" | "removing" => pid == "0",
                "restarting" => false,
                other => panic!("round {round}: {name} is {other}"),
            }
        });
    }
}

fn shims(lab: &Lab) -> Vec<u32> {
    let all = lab.host.processes().into_iter();
    all.filter(|(_, line)| line.starts_with("sluice-shim"))
        .map(|(pid, _)| pid)
        .collect()
}

#[test]
fn whatever_is_killed_whenever_no_container_is_lost_or_doubled_and_nothing_is_left() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return lab::skipped("Docker's containers end with their daemon");
    }
    let strokes = std::env::var("SLUICE_STROKES")
        .ok()
        .and_then(|number| number.parse().ok());
    let docker = daemon.docker();
    docker.ok("run --rm busybox true"); // what is made once for all may stay
    let before = Snapshot::take(&lab.host);
    let mut chance = Chance::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // whatever ends this: the clients end too
        let _over = Over(&is_over);
        for number in 0..CLIENTS {
            let (docker, is_over) = (docker.clone(), &is_over);
            scope.spawn(move || live(&docker, number, is_over));
        }
        for round in 0..strokes.unwrap_or(STROKES) {
            std::thread::sleep(Duration::from_micros(chance.below(400_000)));
            let kind = chance.below(4);
            if kind != 0 {
                let there = shims(&lab);
                if !there.is_empty() {
                    let one = there[chance.below(there.len() as u64) as usize];
                    let _ = kill(Pid::from_raw(one.cast_signed()), Signal::SIGKILL);
                }
            }
            if kind != 1 {
                daemon.kill();
                daemon.boot();
                // who connects early may still meet the listening socket of the one before, in the hands of a child it had just made
                eventually("the daemon answers", 30, || docker.run("version").is_ok());
            }
            check(&daemon, round);
        }
    });
    let all = docker.ok("ps -aq");
    for id in all.lines() {
        docker.ok(&format!("rm -f {id}"));
    }
    docker.ok("volume prune -af");
    // the daemon is another process now
    let left = before.left(&lab.host);
    let left: Vec<&str> = left.lines().filter(|line| !line.contains("/sluiced ")).collect();
    assert!(left.is_empty(), "{left:#?}");
    let kept = lab.host.run(&format!(
        "ls {0}/containers {0}/volumes; ls {1}/containers {1}/netns",
        daemon.data_root().display(),
        daemon.exec_root().display()
    ));
    // the resolver's namespace is the daemon's own
    let is_own = |line: &&str| line.is_empty() || line.ends_with(':') || *line == "resolver";
    let kept: Vec<&str> = kept.lines().filter(|line| !is_own(line)).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

/// Says that it is over when it goes, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
