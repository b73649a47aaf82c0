//! Volumes, for those who look.

use std::path::PathBuf;

use sluice_model::Volume;

use crate::{Engine, EngineError, volume::local};

/// A volume and what is known of it.
#[derive(Clone, Debug)]
pub struct VolumeView {
    /// The record.
    pub volume: Volume,
    /// Its directory on the host.
    pub mountpoint: PathBuf,
    /// How many containers have it.
    pub users: usize,
    /// Bytes in it, where that was asked for; -1: not known.
    pub size: i64,
}

impl Engine {
    /// All volumes, by name.
    pub fn list_volumes(&self) -> Vec<VolumeView> {
        let all = self.volumes.all().into_iter();
        all.map(|volume| self.view_volume(volume)).collect()
    }

    /// The volume of this name.
    pub fn inspect_volume(&self, name: &str) -> Result<VolumeView, EngineError> {
        Ok(self.view_volume(self.volumes.find(name)?))
    }

    /// A volume as it is now.
    pub fn view_volume(&self, volume: Volume) -> VolumeView {
        VolumeView {
            mountpoint: local::data(&self.config, &volume.name),
            users: self.volumes.users(&volume.name).len(),
            size: -1,
            volume,
        }
    }
}
