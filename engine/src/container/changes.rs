//! What a container changed in its file system.

use sluice_image::Change;

use crate::{Engine, EngineError, blocking::blocking};

/// Places that are made in every container's root for what is mounted there.
pub(crate) const SCAFFOLD: [&str; 9] = [
    "dev",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "proc",
    "sys",
];

impl Engine {
    /// By path.
    pub async fn container_changes(&self, name: &str) -> Result<Vec<Change>, EngineError> {
        let held = self.containers.find(name)?;
        let (images, directory) = (self.images.clone(), self.config.container(&held.id));
        blocking(move || Ok(images.changes(&directory, &SCAFFOLD)?)).await
    }
}
