//! Where a container's cgroup is, when its maker says (`cgroupsPath`), and what had to be made above it.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::RuntimeError;

/// The file in a container's directory that says where its cgroup is, unless that is where all are.
const FILE: &str = "cgroup";

/// A path below the root of each hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub PathBuf);

impl Place {
    /// What a spec says. Without a slash before it, it is below the root all the same, as Docker documents it.
    pub fn of_spec(path: &Path) -> Result<Self, RuntimeError> {
        let mut place = PathBuf::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => place.push(name),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(RuntimeError::Failed(format!(
                        "the cgroup path {} leads out of the hierarchies",
                        path.display()
                    )));
                }
            }
        }
        match place.as_os_str().is_empty() {
            true => Err(RuntimeError::Failed("the cgroup path names no cgroup".to_owned())),
            false => Ok(Self(place)),
        }
    }

    /// Where it is that has this directory, or where all are.
    pub fn of_container(directory: &Path, usual: PathBuf) -> Self {
        match fs::read_to_string(directory.join(FILE)) {
            Ok(place) => Self(place.into()),
            Err(_) => Self(usual),
        }
    }

    /// Writes it down, before anything is made there.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::write(directory.join(FILE), self.0.as_os_str().as_encoded_bytes())
    }
}

/// The cgroups that we made so that containers could be below them. They go when nothing is in them; those that were there are their maker's.
#[derive(Debug)]
pub(crate) struct Parents {
    /// A list of paths, the upper before the lower.
    file: PathBuf,
    lock: Mutex<()>,
}

impl Parents {
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            lock: Mutex::default(),
        }
    }

    /// Lets `make` make cgroups, of which `missing` are not there yet. Nobody removes any meanwhile.
    pub fn making<T>(
        &self,
        missing: impl FnOnce() -> Vec<PathBuf>,
        make: impl FnOnce() -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let _alone = self.alone();
        let mut all = self.read();
        all.extend(missing());
        self.keep(&all)
            .map_err(|error| RuntimeError::Failed(format!("write {}: {error}", self.file.display())))?;
        make()
    }

    /// Removes those that are empty.
    pub fn sweep(&self) {
        let _alone = self.alone();
        let mut all = self.read();
        if all.is_empty() {
            return;
        }
        all.reverse();
        all.retain(|path| matches!(fs::remove_dir(path), Err(error) if error.kind() != io::ErrorKind::NotFound));
        all.reverse();
        if let Err(error) = self.keep(&all) {
            tracing::warn!("cannot write {}: {error}", self.file.display());
        }
    }

    fn read(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(PathBuf::from).collect()
    }

    fn keep(&self, all: &[PathBuf]) -> io::Result<()> {
        if all.is_empty() {
            return match fs::remove_file(&self.file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let beside = self.file.with_extension("new");
        let text: String = all.iter().map(|path| format!("{}\n", path.display())).collect();
        fs::write(&beside, text)?;
        fs::rename(&beside, &self.file)
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_below_the_root_and_never_above() {
        let of = |path: &str| Place::of_spec(Path::new(path)).map(|place| place.0);
        assert_eq!(of("/a/b").unwrap(), Path::new("a/b"));
        assert_eq!(of("a//./b/").unwrap(), Path::new("a/b"));
        for wrong in ["/", "", "/a/../b", ".."] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
