//! The control groups of a host: one in cgroup2 for all that runs in it, and those that the daemon makes in every hierarchy.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// Where cgroup2 is mounted: alone, or beside the version 1 hierarchies.
pub fn unified() -> PathBuf {
    let alone = Path::new("/sys/fs/cgroup");
    let is_alone = alone.join("cgroup.controllers").exists();
    if is_alone { alone.into() } else { alone.join("unified") }
}

/// The mount points of all hierarchies.
pub fn hierarchies() -> Vec<PathBuf> {
    if unified() == Path::new("/sys/fs/cgroup") {
        return vec![unified()];
    }
    let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect()
}

/// Makes the cgroup for the programs of a host and opens the file by which they join it.
pub fn make(name: &str) -> File {
    let path = unified().join(name);
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("make cgroup {}: {error}", path.display()));
    let door = path.join("cgroup.procs");
    OpenOptions::new()
        .write(true)
        .open(&door)
        .unwrap_or_else(|error| panic!("open {}: {error}", door.display()))
}

/// All cgroups of this host, of every hierarchy: those at the top that are called `name` or start with `name-`.
pub fn all(name: &str) -> Vec<PathBuf> {
    let prefix = format!("{name}-");
    let tops = hierarchies()
        .into_iter()
        .flat_map(|hierarchy| fs::read_dir(hierarchy).into_iter().flatten().flatten());
    tops.filter(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|top| top == name || top.starts_with(&prefix))
    })
    .map(|entry| entry.path())
    .filter(|path| path.is_dir())
    .collect()
}

/// Lets what a test has paused run, so that it can end: a process that a freezer of v1 holds does not even die.
fn thaw(group: &Path) {
    // Only groups of a freezer have this file, and a group can only be thawed when those above it are.
    let _ = fs::write(group.join("freezer.state"), "THAWED");
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            thaw(&entry.path());
        }
    }
}

/// Ends everything that runs in the host and removes its cgroups.
pub fn remove(name: &str) {
    let all = all(name);
    all.iter().for_each(|group| thaw(group));
    for group in all.iter().filter(|group| group.starts_with(unified())) {
        let _ = fs::write(group.join("cgroup.kill"), "1");
    }
    for _ in 0..500 {
        all.iter().for_each(|group| remove_tree(group));
        if !all.iter().any(|group| group.exists()) {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    eprintln!("lab: cgroups of {name} could not be removed");
}

/// The processes in a cgroup and below.
pub fn processes(group: &Path) -> Vec<u32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    all.extend(below(group).iter().flat_map(|child| processes(child)));
    all
}

fn remove_tree(group: &Path) {
    below(group).iter().for_each(|child| remove_tree(child));
    let _ = fs::remove_dir(group);
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
