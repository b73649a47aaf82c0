//! Fills a new volume with what the image has at its place: once, whole, with owners and modes.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use sluice_model::{
    Container,
    container::{Mount, MountKind},
};

use crate::{
    Config, Engine, EngineError,
    blocking::blocking,
    container::owners,
    error,
    volume::local::{self, is_empty, is_same_file_system, move_in},
};

impl Engine {
    /// Fills the empty volumes of a container that is being made.
    pub(crate) async fn fill_volumes(&self, container: &Container) -> Result<(), EngineError> {
        for mount in container.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            if mount.no_copy || !mount.subpath.is_empty() {
                continue;
            }
            // mounted for the time of the copy, as for a container that runs
            let whom = format!("filling-{}", container.id);
            self.mount_volume(&mount.source, &whom).await?;
            let filled = self.fill(container, mount).await;
            let unmounted = self.unmount_volume(&mount.source, &whom).await;
            filled?;
            unmounted?;
        }
        Ok(())
    }

    async fn fill(&self, container: &Container, mount: &Mount) -> Result<(), EngineError> {
        let _story = self.volumes.story.lock().await;
        let (config, images) = (self.config.clone(), self.images.clone());
        let (container, mount) = (container.clone(), mount.clone());
        blocking(move || {
            if !is_to_be_filled(&config, &mount.source)? {
                return Ok(());
            }
            let directory = config.container(&container.id);
            let root: OwnedFd = sluice_runtime::of_stopped(
                || Ok::<_, EngineError>(owners::mount_root(&images, &container, &directory)?.merged),
                &[],
                false,
            )?;
            match sluice_image::files::find(root.as_fd(), mount.target.as_bytes()) {
                Ok(source) => copy(&config, &mount.source, source.as_fd()),
                // the image has nothing there, or no directory
                Err(_) => Ok(()),
            }
        })
        .await
        .map_err(|error: EngineError| error.within("cannot fill a volume from the image"))
    }
}

fn copy(config: &Config, name: &str, source: BorrowedFd<'_>) -> Result<(), EngineError> {
    let (directory, data) = (local::directory(config, name), local::data(config, name));
    let open = |path: &Path| fs::File::open(path).map_err(|why| error::io("open", path, &why));
    if !is_same_file_system(&directory, &data) {
        // nothing can be renamed into what is mounted there; a mark says that it is not done
        let mark = directory.join("_copying");
        fs::write(&mark, "").map_err(|why| error::io("write", &mark, &why))?;
        sluice_image::files::copy(source, open(&data)?.as_fd())?;
        return fs::remove_file(&mark).map_err(|why| error::io("remove", &mark, &why));
    }
    let (filling, filled) = (directory.join("_filling"), directory.join("_filled"));
    sluice_image::remove_tree(&filling)?;
    fs::create_dir(&filling).map_err(|why| error::io("make", &filling, &why))?;
    sluice_image::files::copy(source, open(&filling)?.as_fd())?;
    fs::rename(&filling, &filled).map_err(|why| error::io("keep", &filled, &why))?;
    move_in(&filled, &data)
}

/// Empty, or left in the middle of a copy.
fn is_to_be_filled(config: &Config, name: &str) -> Result<bool, EngineError> {
    let directory = local::directory(config, name);
    local::recover(&directory)?;
    Ok(directory.join("_copying").exists() || is_empty(&local::data(config, name))?)
}
