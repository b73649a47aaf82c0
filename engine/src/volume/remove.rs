//! Removes volumes that nobody has.

use sluice_store::{Transaction, Write, key};

use crate::{Engine, EngineError, Kind, blocking::blocking, volume::local};

impl Engine {
    /// Removes a volume; one that a container has stays. With `force`, one that is not there is no error.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.carry_out(|engine| async move {
            let _story = engine.volumes.story.lock().await;
            match engine.drop_volume(&name).await {
                Err(error) if force && error.kind == Kind::NotFound => Ok(()),
                other => other,
            }
        })
        .await
    }

    /// The story itself; the caller holds the lock of volumes.
    pub(super) async fn drop_volume(&self, name: &str) -> Result<(), EngineError> {
        self.volumes.find(name)?;
        let users = self.volumes.users(name);
        if !users.is_empty() {
            return Err(EngineError::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        // the record first: a daemon that dies in between finds a directory of nobody's and removes it
        self.commit(Transaction {
            writes: vec![Write::Delete(key::volume(name))],
            ..Default::default()
        })
        .await?;
        self.volumes.strike(name);
        self.sizes.forget(&local::data(&self.config, name));
        let directory = local::directory(&self.config, name);
        let removed = blocking(move || local::remove(&directory)).await;
        self.tell_volume("destroy", name, &[]);
        removed.map_err(|error| error.within(&format!("remove {name}")))
    }
}
