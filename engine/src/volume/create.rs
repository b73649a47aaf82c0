//! Makes a volume.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sluice_model::{
    Id, Volume,
    volume::{ANONYMOUS, LOCAL, is_valid_name},
};
use sluice_store::{Transaction, Write, key, record};

use crate::{Engine, EngineError, blocking::blocking, undo::Undo, volume::local};

/// A request to make a volume.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Its name; empty: made up.
    pub name: String,
    /// The driver; empty: `local`, the only one.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `type`, `device`, `o`.
    pub options: BTreeMap<String, String>,
}

impl Engine {
    /// Makes a volume; one of this name that is there already is what was wanted.
    pub async fn create_volume(&self, request: CreateVolume) -> Result<Volume, EngineError> {
        self.carry_out(|engine| async move {
            let _story = engine.volumes.story.lock().await;
            Ok(engine.make_volume(request).await?.0)
        })
        .await
    }

    /// The story itself, and whether there was none of the name before; the caller holds the lock of volumes.
    pub(super) async fn make_volume(&self, request: CreateVolume) -> Result<(Volume, bool), EngineError> {
        let CreateVolume {
            name,
            driver,
            mut labels,
            options,
        } = request;
        if !matches!(driver.as_str(), "" | LOCAL) {
            return Err(EngineError::not_found(format!(
                "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        if let Some(volume) = self.volumes.get(&name) {
            return Ok((volume, false));
        }
        let name = match name.as_str() {
            "" => {
                labels.insert(ANONYMOUS.to_owned(), String::new());
                Id::from_bytes(rand::random()).to_string()
            }
            _ => name,
        };
        let within = |error: EngineError| error.within(&format!("create {name}"));
        check_name(&name).map_err(within)?;
        local::check(&options).map_err(within)?;
        let volume = Volume {
            name: name.clone(),
            created: Timestamp::now(),
            labels,
            options,
        };
        let mut undo = Undo::default();
        undo.by("remove the directory of the volume", {
            let directory = local::directory(&self.config, &name);
            async move { blocking(move || local::remove(&directory)).await }
        });
        if let Err(error) = self.write_volume(&volume).await {
            undo.go_back().await;
            return Err(within(error));
        }
        self.volumes.enter(volume.clone());
        self.tell_volume("create", &name, &[]);
        Ok((volume, true))
    }

    async fn write_volume(&self, volume: &Volume) -> Result<(), EngineError> {
        let (config, name) = (self.config.clone(), volume.name.clone());
        blocking(move || local::make(&config, &name)).await?;
        let writes = vec![Write::Put(key::volume(&volume.name), record::encode(volume)?)];
        self.commit(Transaction {
            writes,
            ..Default::default()
        })
        .await?;
        Ok(())
    }

    /// Tells that something happened to a volume.
    pub(crate) fn tell_volume(&self, action: &str, name: &str, more: &[(&str, String)]) {
        let mut attributes = vec![("driver".to_owned(), LOCAL.to_owned())];
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.events.tell("volume", action, name, attributes);
    }
}

fn check_name(name: &str) -> Result<(), EngineError> {
    if name.len() == 1 {
        return Err(EngineError::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    match is_valid_name(name) {
        true => Ok(()),
        false => Err(EngineError::invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a \
             host directory, use absolute path"
        ))),
    }
}
