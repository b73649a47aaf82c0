//! Cgroups: how they are mounted here, and the container's place in each hierarchy.
//!
//! The unified (v2) tree is always there and always used: its `cgroup.freeze` and `cgroup.kill` work without any controller, and socket
//! programs hang on it. Controllers may be in it, or in v1 hierarchies beside it, or some here and some there.

mod device_program;
mod features;
mod place;
mod stats;
mod v1;
mod v2;

use std::{
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use oci_spec::runtime::LinuxResources;

use crate::{RuntimeError, plan::Cgroup1};

pub use features::Features;
pub(crate) use place::{Parents, Place};
pub use stats::{BlockStats, CpuStats, MemoryStats, PidsStats, Stats};

/// Below the parent, where shims live.
const SHIMS: &str = "shims";
/// How long processes may take to be frozen, or to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy1 {
    /// The last part of its mount point: `cpu,cpuacct`, `systemd`.
    name: String,
    /// `cpu`, `cpuacct`; `name=systemd`.
    controllers: Vec<String>,
    mounted_at: PathBuf,
    /// The mount shows the hierarchy from its root (as far as our cgroup namespace can see).
    is_whole: bool,
}

/// All that is mounted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    unified: PathBuf,
    v1: Vec<Hierarchy1>,
}

fn failed(what: &str, path: &Path, error: io::Error) -> RuntimeError {
    RuntimeError::Failed(format!("{what} {}: {error}", path.display()))
}

impl Hierarchies {
    pub fn find() -> Result<Self, RuntimeError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(path).map_err(|error| failed("read", path, error))?;
        Self::parse(&mounts).ok_or_else(|| {
            RuntimeError::Failed("no cgroup2 file system is mounted; mount one at /sys/fs/cgroup/unified".to_owned())
        })
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        // A mount of a whole hierarchy is better than one of a part; of equals, the last mounted lies on top.
        let mut unified: Option<(bool, PathBuf)> = None;
        let mut v1: Vec<Hierarchy1> = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else {
                continue;
            };
            let mut mount = mount.split(' ').skip(3);
            let (Some(root), Some(mounted_at)) = (mount.next(), mount.next()) else {
                continue;
            };
            let mut filesystem = filesystem.split(' ');
            let (kind, options) = (filesystem.next(), filesystem.nth(1).unwrap_or_default());
            let is_whole = root == "/";
            let mounted_at = unescape(mounted_at);
            match kind {
                Some("cgroup2") if unified.as_ref().is_none_or(|(whole, _)| is_whole >= *whole) => {
                    unified = Some((is_whole, mounted_at));
                }
                Some("cgroup") => {
                    let is_controller = |word: &&str| {
                        !matches!(
                            *word,
                            "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "cpuset_v2_mode"
                        ) && !word.starts_with("release_agent=")
                            && *word != "favordynmods"
                    };
                    let controllers: Vec<String> =
                        options.split(',').filter(is_controller).map(str::to_owned).collect();
                    let name = mounted_at
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned();
                    let found = Hierarchy1 {
                        name,
                        controllers,
                        mounted_at,
                        is_whole,
                    };
                    match v1.iter_mut().find(|known| known.controllers == found.controllers) {
                        Some(known) if is_whole >= known.is_whole => *known = found,
                        Some(_) => {}
                        None => v1.push(found),
                    }
                }
                _ => {}
            }
        }
        let (_, unified) = unified?;
        Some(Self { unified, v1 })
    }

    fn v1_with(&self, controller: &str) -> Option<&Hierarchy1> {
        self.v1
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|known| known == controller))
    }

    /// Makes the container's cgroup in every hierarchy.
    pub fn create(&self, place: &Path) -> Result<Cgroups, RuntimeError> {
        let cgroups = self.cgroups(place);
        v2::create(&self.unified, place).map_err(|error| failed("make the cgroup", &cgroups.unified, error))?;
        for (hierarchy, cgroup) in self.v1.iter().zip(&cgroups.v1) {
            v1::create(
                &hierarchy.mounted_at,
                place,
                hierarchy.controllers.iter().any(|known| known == "cpuset"),
            )
            .map_err(|error| failed("make the cgroup", &cgroup.path, error))?;
        }
        Ok(cgroups)
    }

    /// The container's cgroups, made or not.
    pub fn cgroups(&self, place: &Path) -> Cgroups {
        let v1 = self.v1.iter().map(|hierarchy| Cgroup1 {
            hierarchy: hierarchy.name.clone(),
            path: hierarchy.mounted_at.join(place),
        });
        Cgroups {
            unified: self.unified.join(place),
            v1: v1.collect(),
        }
    }

    /// The cgroup shims live in, of the unified tree: in v1 hierarchies they stay where the daemon is, as nobody kills by those.
    pub fn shims(&self, parent: &str) -> Result<PathBuf, RuntimeError> {
        let path = self.unified.join(parent.trim_matches('/')).join(SHIMS);
        fs::create_dir_all(&path).map_err(|error| failed("make the cgroup", &path, error))?;
        Ok(path)
    }

    /// Sets limits, each where its controller is.
    pub fn limit(&self, place: &Path, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let unified = self.unified.join(place);
        v2::limit(&unified, resources, &|controller| self.v1_with(controller).is_none())?;
        v1::limit(resources, &|controller| {
            Some(self.v1_with(controller)?.mounted_at.join(place))
        })
    }

    /// Which limits can be set here.
    pub fn features(&self, parent: &str) -> Features {
        features::find(self, parent)
    }

    /// What the container has used.
    pub fn stats(&self, place: &Path) -> Stats {
        stats::gather(self, &self.cgroups(place), place)
    }

    /// Where the kernel counts the processes of a container that it killed for want of memory.
    pub fn oom_counter(&self, place: &Path) -> PathBuf {
        match self.v1_with("memory") {
            Some(hierarchy) => hierarchy.mounted_at.join(place).join("memory.oom_control"),
            None => self.unified.join(place).join("memory.events"),
        }
    }

    /// The cgroups above a container's that are not there yet, in all hierarchies, the upper before the lower.
    pub fn missing_above(&self, place: &Path) -> Vec<PathBuf> {
        let mut above: Vec<&Path> = place
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        above.reverse();
        let roots = self
            .v1
            .iter()
            .map(|hierarchy| &hierarchy.mounted_at)
            .chain([&self.unified]);
        roots
            .flat_map(|root| above.iter().map(|path| root.join(path)))
            .filter(|path| !path.exists())
            .collect()
    }

    /// Removes the parent in all hierarchies, if nothing is in it any more.
    pub fn remove_parent(&self, parent: &str) {
        let place = Path::new(parent.trim_matches('/'));
        let _ = fs::remove_dir(self.unified.join(place).join(SHIMS));
        let _ = fs::remove_dir(self.unified.join(place));
        for hierarchy in &self.v1 {
            let _ = fs::remove_dir(hierarchy.mounted_at.join(place));
        }
    }
}

/// Octal escapes, as mountinfo writes spaces.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

/// A container's cgroups.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    pub unified: PathBuf,
    pub v1: Vec<Cgroup1>,
}

impl Cgroups {
    /// All processes of the container.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        collect_pids(&self.unified, &mut pids);
        pids
    }

    /// Freezes or thaws, and waits until it is so.
    pub fn freeze(&self, frozen: bool) -> Result<(), RuntimeError> {
        let path = self.unified.join("cgroup.freeze");
        fs::write(&path, if frozen { "1" } else { "0" }).map_err(|error| failed("write", &path, error))?;
        let since = Instant::now();
        while self.is_frozen() != frozen {
            if since.elapsed() > PATIENCE {
                if frozen {
                    let _ = fs::write(&path, "0");
                }
                return Err(RuntimeError::Failed(format!(
                    "{} did not become so in time",
                    path.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn is_frozen(&self) -> bool {
        let events = fs::read_to_string(self.unified.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "frozen 1")
    }

    /// Kills all processes of the container.
    pub fn kill(&self) {
        let _ = fs::write(self.unified.join("cgroup.kill"), "1");
    }

    /// Removes the container's cgroups and those made within.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        for path in self.v1.iter().map(|cgroup| &cgroup.path).chain([&self.unified]) {
            let since = Instant::now();
            while let Err(error) = remove_tree(path) {
                // A killed process leaves its cgroup only when it is quite gone.
                let is_busy = error.raw_os_error() == Some(libc::EBUSY);
                if !is_busy || since.elapsed() > PATIENCE {
                    return Err(failed("remove the cgroup", path, error));
                }
                self.kill();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

fn collect_pids(path: &Path, pids: &mut Vec<u32>) {
    // A threaded cgroup refuses the list; its processes are in the list of the cgroup above.
    let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|pid| pid.parse::<u32>().ok()));
    for child in children(path) {
        collect_pids(&child, pids);
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Children first: a cgroup with others in it can't be removed.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        other => return other,
    }
    for child in children(path) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a setting; the error says which.
fn set(directory: &Path, name: &str, value: &str) -> Result<(), RuntimeError> {
    let path = directory.join(name);
    fs::write(&path, value)
        .map_err(|error| RuntimeError::Failed(format!("set the limit {} to {value}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_is_read_right() {
        let found = Hierarchies::parse(
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:5 - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        )
        .unwrap();
        assert_eq!(found.unified, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(found.v1_with("cpuacct").unwrap().name, "cpu,cpuacct");
        assert_eq!(found.v1_with("name=systemd").unwrap().name, "systemd");
    }

    #[test]
    fn a_whole_tree_is_preferred_to_a_part_and_the_upper_to_the_lower() {
        let found = Hierarchies::parse(
            "1 0 0:38 / /lower rw - cgroup2 cgroup2 rw\n\
             2 0 0:38 / /up\\040per rw - cgroup2 cgroup2 rw\n\
             3 0 0:38 /../part /part rw - cgroup2 cgroup2 rw\n",
        )
        .unwrap();
        assert_eq!(found.unified, Path::new("/up per"));
    }

    #[test]
    fn without_a_unified_tree_there_is_nothing_to_work_with() {
        assert_eq!(
            Hierarchies::parse("1 0 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"),
            None
        );
    }
}
