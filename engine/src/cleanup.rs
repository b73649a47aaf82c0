//! Removes what an instance has on this host, for `sluiced --cleanup`. No daemon of the instance runs meanwhile.

use std::path::Path;

use sluice_image::Images;
use sluice_runtime::Runtime;

use crate::{Config, EngineError, container::directory, error, volume::local};

/// Removes all containers' processes, mounts and records of an instance, for `sluiced --cleanup`; images stay unless `everything`.
pub async fn cleanup(config: &Config, runtime: &Runtime, images: &Images, everything: bool) -> Result<(), EngineError> {
    let mut first_trouble = None;
    for id in runtime.list()? {
        if let Err(why) = runtime.delete(&id).await {
            tracing::warn!("cannot remove the process of container {id}: {why}");
            first_trouble.get_or_insert(EngineError::from(why));
        }
    }
    runtime.clean_up();
    let containers = config.containers();
    for entry in std::fs::read_dir(&containers).into_iter().flatten().flatten() {
        if let Err(why) = directory::remove(images, &entry.path()) {
            tracing::warn!("cannot remove {}: {why}", entry.path().display());
            first_trouble.get_or_insert(why);
        }
    }
    remove(&containers)?;
    remove_file(&config.data_root.join("store.redb"))?;
    remove_volumes(config, everything)?;
    if everything {
        remove(&config.data_root.join("image"))?;
        remove_file(&config.data_root.join("engine-id"))?;
        remove_file(&config.data_root.join("boot-id"))?;
    }
    first_trouble.map_or(Ok(()), Err)
}

/// Nothing stays mounted; what is in them stays, unless `everything` goes.
fn remove_volumes(config: &Config, everything: bool) -> Result<(), EngineError> {
    for entry in std::fs::read_dir(config.volumes()).into_iter().flatten().flatten() {
        local::unmount(&entry.path().join("_data"))?;
    }
    if everything { remove(&config.volumes()) } else { Ok(()) }
}

fn remove(path: &Path) -> Result<(), EngineError> {
    Ok(sluice_image::remove_tree(path)?)
}

fn remove_file(path: &Path) -> Result<(), EngineError> {
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(error::io("remove", path, &why)),
        _ => Ok(()),
    }
}
