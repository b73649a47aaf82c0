//! Which volumes there are, who uses each, and for whom each is mounted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sluice_model::Volume;

use crate::EngineError;

/// All volumes of this host.
#[derive(Default)]
pub(crate) struct Volumes {
    known: Mutex<BTreeMap<String, Known>>,
    /// Held while a volume is made, removed, mounted or unmounted: one story at a time.
    pub story: tokio::sync::Mutex<()>,
}

/// A volume, and who has to do with it.
#[derive(Clone, Debug)]
struct Known {
    volume: Volume,
    /// Ids of containers that have it, running or not.
    users: BTreeSet<String>,
    /// Who it is mounted for: containers that run, and copies being made.
    mounted_for: BTreeSet<String>,
}

impl Volumes {
    /// Enters a volume. One of the same name stays.
    pub fn enter(&self, volume: Volume) {
        let name = volume.name.clone();
        self.known().entry(name).or_insert(Known {
            volume,
            users: BTreeSet::new(),
            mounted_for: BTreeSet::new(),
        });
    }

    /// Strikes it out.
    pub fn strike(&self, name: &str) {
        self.known().remove(name);
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Volume> {
        self.known().values().map(|known| known.volume.clone()).collect()
    }

    /// The one of this name; Docker's words when there is none.
    pub fn find(&self, name: &str) -> Result<Volume, EngineError> {
        self.get(name)
            .ok_or_else(|| EngineError::not_found(format!("get {name}: no such volume")))
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<Volume> {
        self.known().get(name).map(|known| known.volume.clone())
    }

    /// Ids of the containers that have it.
    pub fn users(&self, name: &str) -> Vec<String> {
        let known = self.known();
        known
            .get(name)
            .map(|known| known.users.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// A container has it from now on. False when there is no such volume.
    pub fn use_by(&self, name: &str, container: &str) -> bool {
        let mut known = self.known();
        let found = known.get_mut(name);
        found.map(|known| known.users.insert(container.to_owned())).is_some()
    }

    /// A container has none any more; tells which it had.
    pub fn release(&self, container: &str) -> Vec<String> {
        let mut known = self.known();
        let had = known.values_mut().filter(|known| known.users.contains(container));
        had.map(|known| {
            known.users.remove(container);
            known.volume.name.clone()
        })
        .collect()
    }

    /// It is mounted for someone.
    pub fn mount_for(&self, name: &str, whom: &str) {
        if let Some(known) = self.known().get_mut(name) {
            known.mounted_for.insert(whom.to_owned());
        }
    }

    /// It is mounted for someone no longer, and was he the last? `None` when it was not.
    pub fn unmount_for(&self, name: &str, whom: &str) -> Option<bool> {
        let mut known = self.known();
        let known = known.get_mut(name)?;
        known.mounted_for.remove(whom).then_some(known.mounted_for.is_empty())
    }

    /// Is it mounted for anybody?
    pub fn is_mounted(&self, name: &str) -> bool {
        let known = self.known();
        known.get(name).is_some_and(|known| !known.mounted_for.is_empty())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> Volumes {
        let volumes = Volumes::default();
        volumes.enter(Volume {
            name: "data".into(),
            created: jiff::Timestamp::UNIX_EPOCH,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        });
        volumes
    }

    #[test]
    fn the_last_unmounts() {
        let volumes = volumes();
        volumes.mount_for("data", "a");
        volumes.mount_for("data", "b");
        assert_eq!(volumes.unmount_for("data", "a"), Some(false));
        assert_eq!(volumes.unmount_for("data", "a"), None);
        assert_eq!(volumes.unmount_for("data", "b"), Some(true));
        assert!(!volumes.is_mounted("data"));
    }

    #[test]
    fn users_are_known_until_they_go() {
        let volumes = volumes();
        assert!(volumes.use_by("data", "web") && !volumes.use_by("other", "web"));
        assert_eq!(volumes.users("data"), ["web"]);
        assert_eq!(volumes.release("web"), ["data"]);
        assert!(volumes.users("data").is_empty());
        assert_eq!(volumes.find("nope").unwrap_err().message, "get nope: no such volume");
    }
}
