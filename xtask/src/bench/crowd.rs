//! `cargo xtask bench crowd`: hundreds of idle containers on one host, and what a thousand short ones leave behind.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client;
use super::engine::Engine;
use super::image;
use super::interrupt;
use super::machine::{self, Machine};
use super::memory;
use super::sample::median;
use super::table::Table;
use crate::step::{self, Failure, Outcome, say};

/// Idle containers.
const CROWD: u32 = 300;
/// Of these, after which the memory is looked at for the first time.
const FEW: u32 = 20;
/// Containers that run to their end, one after the other.
const PASSERS: u32 = 1_000;
/// How many are started or removed at a time.
const AT_ONCE: u32 = 10;
/// How long what goes in the background may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was found: sentences and figures, and what was to be reached.
pub struct Crowd {
    rows: Vec<(String, String, String)>,
    machine: Machine,
    load: f64,
}

impl Crowd {
    /// Measures on an engine that has no container yet. Anything that is not as it must be is a failure, not a figure.
    pub fn measure(engine: &mut Engine) -> Outcome<Self> {
        let mut crowd = Self {
            rows: Vec::new(),
            machine: Machine::look(),
            load: machine::load(),
        };
        rest();
        crowd.megabytes("memory without containers", memory::idle(engine), Some(20.0));
        crowd.passers(engine)?;
        let begun = Instant::now();
        start(engine, 0..FEW)?;
        rest();
        crowd.megabytes(
            &format!("memory with {FEW} containers, everything"),
            memory::idle(engine),
            Some(28.0),
        );
        start(engine, FEW..CROWD)?;
        let seconds = (begun.elapsed() - REST).as_secs_f64();
        crowd.add(
            &format!("to create and start {CROWD}, {AT_ONCE} at a time"),
            format!("{seconds:.1} s"),
            "",
        );
        rest();
        crowd.megabytes(
            &format!("memory with {CROWD} containers, everything"),
            memory::idle(engine),
            None,
        );
        crowd.listing(engine)?;
        say("the daemon is killed, and started again");
        let begun = Instant::now();
        engine.restart()?;
        running(engine)?;
        crowd.add(
            "from SIGKILL of the daemon until a new one lists all as running",
            format!("{:.0} ms", begun.elapsed().as_secs_f64() * 1000.0),
            "",
        );
        rest();
        crowd.megabytes("memory of everything after that", memory::idle(engine), None);
        let begun = Instant::now();
        let remove = |number: u32| {
            let path = format!("/containers/crowd-{number}?force=1");
            client::ask(&engine.socket(), "DELETE", &path, "")?.text().map(drop)
        };
        in_parallel(0..CROWD, &remove)?;
        crowd.add(
            &format!("to remove them by force, {AT_ONCE} at a time"),
            format!("{:.1} s", begun.elapsed().as_secs_f64()),
            "",
        );
        nothing_is_left(engine)?;
        rest();
        crowd.megabytes("memory when all are gone", memory::idle(engine), None);
        Ok(crowd)
    }

    fn passers(&mut self, engine: &Engine) -> Outcome {
        let body = json!({"Image": image::NAME, "Cmd": ["true"], "HostConfig": {"AutoRemove": true}}).to_string();
        let run = |_: u32| -> Outcome {
            let socket = engine.socket();
            let id = client::id_in(&client::ask(&socket, "POST", "/containers/create", &body)?.text()?)?;
            let waiting = client::ask(&socket, "POST", &format!("/containers/{id}/wait?condition=removed"), "")?;
            client::ask(&socket, "POST", &format!("/containers/{id}/start"), "")?.text()?;
            waiting.text().map(drop)
        };
        (0..100).try_for_each(run)?;
        rest();
        let before = memory::idle(engine);
        self.megabytes("memory after 100 containers that ran to their end", before, None);
        let begun = Instant::now();
        for number in 0..PASSERS {
            interrupt::check()?;
            run(number)?;
        }
        let each = begun.elapsed().as_secs_f64() * 1000.0 / f64::from(PASSERS);
        self.add(
            &format!("each of {PASSERS} more, one after the other"),
            format!("{each:.1} ms"),
            "",
        );
        rest();
        self.megabytes(&format!("memory after {PASSERS} more"), memory::idle(engine), None);
        nothing_is_left(engine)
    }

    fn listing(&mut self, engine: &Engine) -> Outcome {
        running(engine)?;
        let times = |ask: &dyn Fn() -> Outcome<String>| -> Outcome<f64> {
            let mut times = Vec::new();
            for _ in 0..15 {
                interrupt::check()?;
                let begun = Instant::now();
                ask()?;
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(median(times).unwrap_or_default())
        };
        let inside = times(&|| client::ask(&engine.socket(), "GET", "/containers/json", "")?.text())?;
        let by_cli = times(&|| step::output(&mut engine.docker(&["ps"])))?;
        let mark = if inside < 100.0 { "✓" } else { "✗" };
        self.add(
            &format!("to list {CROWD} (`GET /containers/json`)"),
            format!("{inside:.1} ms"),
            &format!("< 100 ms {mark}"),
        );
        let mark = if by_cli < 100.0 { "✓" } else { "✗" };
        self.add(
            "`docker ps`, the CLI included",
            format!("{by_cli:.0} ms"),
            &format!("< 100 ms {mark}"),
        );
        Ok(())
    }

    fn megabytes(&mut self, what: &str, value: f64, limit: Option<f64>) {
        let target = limit.map_or_else(String::new, |limit| {
            format!("< {limit:.0} MiB {}", if value < limit { "✓" } else { "✗" })
        });
        self.add(what, format!("{value:.1} MiB"), &target);
    }

    fn add(&mut self, what: &str, value: String, target: &str) {
        say(format_args!("{what}: {value}"));
        self.rows.push((what.to_owned(), value, target.to_owned()));
    }

    /// For people at a terminal.
    pub fn text(&self) -> String {
        self.table().text()
    }

    /// `docs/crowd.md`.
    pub fn markdown(&self) -> String {
        let text = format!(
            "# Many containers\n\nWritten by `cargo xtask bench crowd --write`; do not edit.\n\n{}\n\nLoad average {:.1} before. Containers are idle (`sleep`), each \
             in the default network; requests go to the daemon's socket without a CLI where none is named. Memory is the proportional set size of the daemon and \
             all shims together. That all are listed as running, and that no process, device, namespace, cgroup or mount is left when they are gone, is \
             checked on the way.\n\n{}",
            self.machine.described(),
            self.load,
            self.table().markdown(),
        );
        format!("{}\n", text.trim_end())
    }

    fn table(&self) -> Table {
        let mut table = Table::new("Sluice", ["", "found", "is to reach"].map(String::from));
        for (what, value, target) in &self.rows {
            table.row([what.clone(), value.clone(), target.clone()]);
        }
        table
    }
}

/// What an engine does in the background comes to its end, shims make themselves small, and a daemon to which nothing happens falls asleep.
const REST: Duration = Duration::from_secs(25);

fn rest() {
    thread::sleep(REST);
}

fn start(engine: &Engine, numbers: std::ops::Range<u32>) -> Outcome {
    let body = json!({"Image": image::NAME, "Cmd": ["sleep", "1000000"]}).to_string();
    in_parallel(numbers, &|number| {
        let socket = engine.socket();
        client::ask(
            &socket,
            "POST",
            &format!("/containers/create?name=crowd-{number}"),
            &body,
        )?
        .text()?;
        client::ask(&socket, "POST", &format!("/containers/crowd-{number}/start"), "")?.text()?;
        Ok(())
    })
}

fn in_parallel(numbers: std::ops::Range<u32>, work: &(dyn Fn(u32) -> Outcome + Sync)) -> Outcome {
    let next = AtomicU32::new(numbers.start);
    let failure = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let done = interrupt::check().and_then(|()| match number < numbers.end {
                        true => work(number).map(|()| true),
                        false => Ok(false),
                    });
                    match done {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => {
                            next.store(numbers.end, Ordering::Relaxed);
                            if let Ok(mut failure) = failure.lock() {
                                failure.get_or_insert(error);
                            }
                            return;
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner() {
        Ok(Some(failure)) => Err(failure),
        _ => Ok(()),
    }
}

/// All are there and run, as a list tells.
fn running(engine: &Engine) -> Outcome {
    let list = client::ask(&engine.socket(), "GET", "/containers/json", "")?.text()?;
    let (named, up) = (
        list.matches("\"/crowd-").count(),
        list.matches("\"State\":\"running\"").count(),
    );
    match named == CROWD as usize && up == CROWD as usize {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "of {CROWD} containers {named} are listed, {up} as running"
        ))),
    }
}

/// No trace of any container is in the engine's host. Some things go in the background.
fn nothing_is_left(engine: &Engine) -> Outcome {
    let look = "ip -o link | grep -c ' slc' ; ls /run/sluice/netns | grep -vcx resolver; ls /run/sluice/containers | wc -l; grep -c /merged /proc/mounts; \
                ls -d /sys/fs/cgroup/unified/*-sluice/*/ /sys/fs/cgroup/*-sluice/*/ 2>/dev/null | grep -vc shims";
    let begun = Instant::now();
    loop {
        interrupt::check()?;
        let left = engine.host.shell(&format!("{{ {look}; }} || true"))?;
        if left.split_whitespace().all(|count| count == "0") {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(Failure::new(format!(
                "devices, namespaces, shims, mounts and cgroups that are left: {}",
                left.replace('\n', ", ")
            )));
        }
        thread::sleep(Duration::from_millis(200));
    }
}
