//! What a killed run left behind.
//!
//! Each host holds a lock on a file in its directory for as long as it lives. Where the lock is free, nobody lives.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Once;

use nix::fcntl::{Flock, FlockArg};

use crate::{cgroup, files};

/// Takes the lock of a new host's directory.
pub fn claim(directory: &Path) -> Flock<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let fd = file.as_raw_fd();
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .unwrap_or_else(|(_, error)| panic!("lock {} ({fd}): {error}", path.display()))
}

/// Removes what earlier runs left; once in a run.
pub fn remove() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let entries = fs::read_dir(files::root()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().join("lock").exists()) {
            let Ok(file) = File::open(entry.path().join("lock")) else {
                continue;
            };
            // A lock that we can have is nobody's. It is held until the directory is gone.
            let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            if let Some(name) = entry.file_name().to_str() {
                cgroup::remove(name);
            }
            let _ = fs::remove_dir_all(entry.path());
        }
    });
}
