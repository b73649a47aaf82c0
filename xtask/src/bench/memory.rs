//! The memory of an engine: the proportional set size of all its processes, those in containers left out.

use std::fs;
use std::thread;
use std::time::Duration;

use super::engine::Engine;
use super::interrupt;
use crate::step::{self, Outcome};

/// Containers to divide by.
const CONTAINERS: u32 = 5;

/// What an engine takes, MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// The engine before its first container.
    pub idle: f64,
    /// What processes of its own each container adds: shims, proxies.
    pub per_container: f64,
}

/// The engine before its first container, MiB; let it come to rest before.
pub fn idle(engine: &Engine) -> f64 {
    total(&processes(engine))
}

/// Runs a few containers with one published port each and removes them.
pub fn measure(engine: &Engine, idle: f64) -> Outcome<Memory> {
    let before: Vec<u32> = processes(engine).iter().map(|(process, _)| *process).collect();
    let names: Vec<String> = (0..CONTAINERS).map(|number| format!("still-{number}")).collect();
    for (port, name) in (20_000_u32..).zip(&names) {
        interrupt::check()?;
        engine.run(name, &["-p", &format!("{port}:80")], &["sleep", "1000000"])?;
    }
    thread::sleep(Duration::from_secs(1));
    let mut added = processes(engine);
    added.retain(|(process, _)| !before.contains(process));
    let per_container = total(&added) / f64::from(CONTAINERS);
    let mut remove = engine.docker(&["rm", "-f"]);
    remove.args(&names);
    step::output(&mut remove)?;
    Ok(Memory { idle, per_container })
}

/// The processes of the engine and their PSS in KiB. Threads that have not become their own program yet are gone by the next look.
fn processes(engine: &Engine) -> Vec<(u32, u32)> {
    engine
        .host
        .processes_started()
        .into_iter()
        .filter_map(|process| Some((process, pss(process)?)))
        .collect()
}

fn pss(process: u32) -> Option<u32> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn total(processes: &[(u32, u32)]) -> f64 {
    f64::from(processes.iter().map(|(_, pss)| pss).sum::<u32>()) / 1024.0
}
