//! The file that holds the daemon's process id.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use crate::Trouble;

/// Locked while the daemon lives, removed when it ends in peace.
pub(crate) struct Pidfile {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Pidfile {
    /// Writes it. One that a dead daemon left behind is taken over.
    pub(crate) fn write(path: &Path) -> Result<Self, Trouble> {
        let trouble =
            |why: &dyn std::fmt::Display| Trouble::new(format_args!("write the pidfile {}", path.display()), why);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|why| trouble(&why))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(|why| trouble(&why))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            let other = fs::read_to_string(path).unwrap_or_default();
            Trouble(format!(
                "another daemon (process {}) holds the pidfile {}",
                other.trim(),
                path.display()
            ))
        })?;
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|why| trouble(&why))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Nobody is hurt by one that stays: the next daemon takes it over.
        let _ = fs::remove_file(&self.path);
    }
}
