//! Configurations, by digest.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use crate::{atomic, configuration::Configuration, digest::Digest, error::ImageError, layer::Layers};

/// The directory they are in.
pub(crate) struct Content {
    directory: PathBuf,
}

impl Content {
    pub fn open(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub fn write(&self, id: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        atomic::write(&self.directory, id.hex(), bytes)
    }

    pub fn read(&self, id: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.directory.join(id.hex());
        fs::read(&path).map_err(|why| ImageError::failed("cannot read", &path, why))
    }

    pub fn remove(&self, id: &Digest) -> Result<(), ImageError> {
        let path = self.directory.join(id.hex());
        match fs::remove_file(&path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(ImageError::failed("cannot remove", &path, why)),
            _ => atomic::sync_directory(&self.directory),
        }
    }

    /// Every image that is whole, and whether all could be read: where one could not, its layers must not be taken for unused.
    pub fn images(&self, layers: &Layers) -> Result<(BTreeMap<Digest, Configuration>, bool), ImageError> {
        let (mut images, mut all_readable) = (BTreeMap::new(), true);
        let failed = |why: io::Error| ImageError::failed("cannot read", &self.directory, why);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(id) = Digest::parse(&format!("sha256:{name}")) else {
                continue;
            }; // half-written, overwritten next time
            let read = fs::read(entry.path()).map_err(|why| why.to_string()).and_then(|bytes| {
                if Digest::of(&bytes) != id {
                    return Err("its content does not match its digest".into());
                }
                Configuration::parse(&bytes).map_err(|why| why.to_string())
            });
            match read {
                Ok(configuration) => match configuration.diff_ids.iter().find(|layer| layers.get(layer).is_none()) {
                    None => _ = images.insert(id, configuration),
                    Some(layer) => tracing::warn!(%id, %layer, "image lacks a layer and is left out"),
                },
                Err(why) => {
                    tracing::warn!(%id, why, "image cannot be read and is left out");
                    all_readable = false;
                }
            }
        }
        Ok((images, all_readable))
    }
}
