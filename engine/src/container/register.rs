//! Where containers are found: by id, by the beginning of an id, by name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use sluice_model::Id;

use crate::{EngineError, container::held::Held};

/// All containers of this host.
#[derive(Default)]
pub(crate) struct Register {
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<Id, Arc<Held>>,
    /// Names are taken before the container is there, so that two requests can't both get one.
    names: HashMap<String, Id>,
}

impl Register {
    /// Takes a name for an id.
    pub fn reserve(&self, name: &str, id: &Id) -> Result<(), EngineError> {
        let mut index = self.write();
        match index.names.get(name) {
            Some(bearer) => Err(EngineError::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{bearer}\". You have to remove (or rename) that \
                 container to be able to reuse that name."
            ))),
            None => {
                index.names.insert(name.to_owned(), id.clone());
                Ok(())
            }
        }
    }

    /// Gives a name back.
    pub fn release(&self, name: &str) {
        self.write().names.remove(name);
    }

    /// Enters a container, with its name.
    pub fn enter(&self, held: Arc<Held>) {
        let name = held.look(|record| record.name.clone());
        let mut index = self.write();
        index.names.insert(name, held.id.clone());
        index.by_id.insert(held.id.clone(), held);
    }

    /// Strikes a container out, with its name.
    pub fn strike(&self, id: &Id) {
        let mut index = self.write();
        index.by_id.remove(id);
        index.names.retain(|_, bearer| bearer != id);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Held>> {
        self.read().by_id.values().cloned().collect()
    }

    /// The container of exactly this id.
    pub fn by_id(&self, id: &Id) -> Option<Arc<Held>> {
        self.read().by_id.get(id).cloned()
    }

    /// By id, name (with or without a slash), or the beginning of an id that no other begins with; in this order, as in Docker.
    pub fn find(&self, name: &str) -> Result<Arc<Held>, EngineError> {
        let unknown = || EngineError::not_found(format!("No such container: {name}"));
        let index = self.read();
        if let Some(held) = Id::parse(name).and_then(|id| index.by_id.get(&id)) {
            return Ok(held.clone());
        }
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Some(id) = index.names.get(bare) {
            return index.by_id.get(id).cloned().ok_or_else(unknown);
        }
        // what another calls it by a link
        if let Some((parent, alias)) = bare.split_once('/') {
            let parent = index.names.get(parent).and_then(|id| index.by_id.get(id));
            let target = parent.and_then(|parent| {
                parent.look(|container| {
                    let link = container.host_config.links.iter().find(|link| link.alias == alias)?;
                    Id::parse(&link.target)
                })
            });
            return target.and_then(|id| index.by_id.get(&id)).cloned().ok_or_else(unknown);
        }
        if name.is_empty() {
            return Err(EngineError::invalid("No container name or ID supplied"));
        }
        let mut beginning = index.by_id.values().filter(|held| held.id.as_str().starts_with(name));
        match (beginning.next(), beginning.next()) {
            (Some(held), None) => Ok(held.clone()),
            (Some(_), Some(_)) => Err(EngineError::invalid(format!(
                "multiple IDs found with provided prefix: {name}"
            ))),
            _ => Err(unknown()),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, container::held::tests::record};

    fn register() -> Register {
        let register = Register::default();
        for (name, byte) in [("web", 0x11), ("db", 0x12), ("11", 0x99)] {
            register.enter(Arc::new(Held::new(record(name, byte))));
        }
        register
    }

    #[test]
    fn a_container_is_found_by_id_name_and_unambiguous_prefix() {
        let register = register();
        let name = |text: &str| register.find(text).unwrap().look(|record| record.name.clone());
        assert_eq!(name(&"11".repeat(32)), "web");
        assert_eq!(name("web"), "web");
        assert_eq!(name("/web"), "web");
        assert_eq!(name("1212"), "db");
        assert_eq!(name("11"), "11", "a name goes before a prefix");
    }

    #[test]
    fn unknown_and_ambiguous_names_are_told_apart() {
        let register = register();
        let error = register.find("nobody").err().unwrap();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::NotFound, "No such container: nobody")
        );
        let error = register.find("1").err().unwrap();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::Invalid, "multiple IDs found with provided prefix: 1")
        );
    }

    #[test]
    fn a_name_is_taken_once_in_dockers_words() {
        let register = register();
        let error = register.reserve("web", &Id::from_bytes([1; 32])).unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(
            error
                .message
                .starts_with("Conflict. The container name \"/web\" is already in use by container \"1111")
        );
        register.strike(&Id::from_bytes([0x11; 32]));
        assert!(register.reserve("web", &Id::from_bytes([1; 32])).is_ok());
    }
}
