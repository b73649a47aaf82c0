//! The directory of a run, the cgroups that bear its name, and how both go away, also those of a run that was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use crate::step::{Doing, Outcome};

/// On a disk on most machines; the layers of an overlay can lie neither on another overlay nor, for a fair figure, in memory.
const ROOT: &str = "/var/tmp";
const NAME: &str = "sluice-bench-";

/// What a run leaves nothing of.
pub struct Workshop {
    path: PathBuf,
    name: String,
}

impl Workshop {
    /// A fresh directory. What runs that were killed left behind is removed first.
    pub fn open() -> Outcome<Self> {
        for name in leftovers() {
            remove(&name);
        }
        Self::named(format!("{NAME}{}", process::id()))
    }

    /// A second one, for engines that are to begin with nothing.
    pub fn annex(&self) -> Outcome<Self> {
        Self::named(format!("{}-annex", self.name))
    }

    fn named(name: String) -> Outcome<Self> {
        let path = Path::new(ROOT).join(&name);
        fs::create_dir_all(&path).doing(|| format!("make {}", path.display()))?;
        Ok(Self { path, name })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for a cgroup at the top of each hierarchy; it goes with the workshop.
    pub fn cgroup(&self, of: &str) -> String {
        format!("{}-{of}", self.name)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Names of runs whose process is gone.
fn leftovers() -> Vec<String> {
    names_in(Path::new(ROOT))
        .filter(|name| {
            let process = name.strip_prefix(NAME).and_then(|rest| rest.split('-').next());
            process.is_some_and(|process| process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists())
        })
        .collect()
}

/// Removes the directory and the cgroups of the run. The namespaces that used them go in the background, so this is tried for a while.
fn remove(name: &str) {
    let path = Path::new(ROOT).join(name);
    for _ in 0..50 {
        let _ = fs::remove_dir_all(&path);
        for cgroup in cgroups(name) {
            remove_cgroup(&cgroup);
        }
        if !path.exists() && cgroups(name).is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    eprintln!("xtask: could not remove {} or cgroups of its name", path.display());
}

/// The cgroups of the run, at the top of each hierarchy.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_cgroup = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
    mounts
        .lines()
        .filter(is_cgroup)
        .filter_map(|line| line.split(' ').nth(4))
        .flat_map(|mount| {
            let mount = Path::new(mount);
            names_in(mount)
                .filter(|entry| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
                .map(|entry| mount.join(entry))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A cgroup is removed by `rmdir`, from the leaves up.
fn remove_cgroup(path: &Path) {
    for below in names_in(path)
        .map(|name| path.join(name))
        .filter(|below| below.is_dir())
    {
        remove_cgroup(&below);
    }
    let _ = fs::remove_dir(path);
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}
