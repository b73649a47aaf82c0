//! Sandboxes that are made before their record is there: so a process can be set up in one while its devices are made.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard},
};

use crate::{
    AgentError, Tried,
    link::sandbox::{self, Offers},
    reconcile::lock,
};

/// The sandboxes that a record is to ask for.
#[derive(Default, Debug)]
pub struct Promises {
    paths: Mutex<BTreeSet<PathBuf>>,
    /// Held by many while each makes its own, by a round alone while it makes what records ask for: one file never gets two namespaces.
    making: RwLock<()>,
}

/// The word that a record will ask for a sandbox: until it is dropped, nobody takes the sandbox away for want of one.
#[derive(Debug)]
pub struct Promise {
    all: Arc<Promises>,
    path: PathBuf,
}

impl Promises {
    /// Makes a sandbox now. None: it cannot be made ahead, as there is one already, by a round that was quicker or of an earlier life.
    pub fn make(self: Arc<Self>, path: &Path) -> Result<Option<Promise>, AgentError> {
        lock(&self.paths).insert(path.to_owned());
        let promise = Promise {
            all: self,
            path: path.to_owned(),
        };
        let making = promise.all.making.read().unwrap_or_else(PoisonError::into_inner);
        if path.symlink_metadata().is_ok() {
            return Ok(None);
        }
        sandbox::make(path, &Offers::default()).tried(|| format!("making the sandbox {}", path.display()))?;
        drop(making);
        Ok(Some(promise))
    }

    /// While this is held nobody makes a sandbox ahead.
    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.making.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is it to be left alone although no record asks for it?
    pub fn covers(&self, path: &Path) -> bool {
        lock(&self.paths).contains(path)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        lock(&self.all.paths).remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_never_gets_two_namespaces() {
        // SAFETY: takes no pointers.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: only root makes network namespaces");
            return;
        }
        let directory = std::env::temp_dir().join(format!("sluice-promise-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let promises = Arc::new(Promises::default());
        for number in 0..20 {
            let path = directory.join(number.to_string());
            let ahead = std::thread::scope(|scope| {
                let ahead = scope.spawn(|| promises.clone().make(&path).unwrap());
                scope.spawn(|| {
                    let _alone = promises.alone();
                    sandbox::make(&path, &Offers::default()).unwrap();
                });
                ahead.join().unwrap()
            });
            assert_eq!(promises.covers(&path), ahead.is_some());
            drop(ahead);
            assert!(!promises.covers(&path));
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let name = format!(" {} ", path.display());
            let count = mounts.lines().filter(|line| line.contains(&name)).count();
            sandbox::remove(&path).unwrap();
            assert_eq!(count, 1);
        }
        std::fs::remove_dir(&directory).unwrap();
    }
}
