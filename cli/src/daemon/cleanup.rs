//! `sluiced --cleanup`: nothing of this instance is left on the machine.

use std::{fs, io, path::Path};

use sluice_image::Images;
use sluice_runtime::Runtime;

use crate::{Trouble, instance, settings::Settings};

/// How much goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    /// Containers and everything in the kernel; images stay.
    Containers,
    /// Everything.
    Everything,
}

impl Extent {
    /// Was `--all` said?
    pub(crate) fn of(all: bool) -> Self {
        if all { Self::Everything } else { Self::Containers }
    }
}

/// Removes what can be removed, and then says what could not.
pub(crate) async fn cleanup(settings: &Settings, extent: Extent) -> Result<(), Trouble> {
    let _instance = instance::take(&settings.instance)?;
    let mut troubles = Vec::new();
    let mut note = |what: &str, outcome: Result<(), String>| {
        if let Err(why) = outcome {
            troubles.push(format!("{what}: {why}"));
        }
    };
    note("containers", containers(settings, extent).await);
    note(
        "the network",
        sluice_agent::cleanup(&settings.agent)
            .await
            .map_err(|why| why.to_string()),
    );
    note("the exec root", remove(&settings.engine.exec_root));
    if extent == Extent::Everything {
        note("the data root", remove(&settings.engine.data_root));
    }
    if troubles.is_empty() {
        Ok(())
    } else {
        Err(Trouble(format!(
            "not everything could be removed: {}",
            troubles.join("; ")
        )))
    }
}

async fn containers(settings: &Settings, extent: Extent) -> Result<(), String> {
    if !settings.engine.data_root.exists() && !settings.engine.exec_root.exists() {
        return Ok(());
    }
    let images = Images::open(&settings.engine.data_root).map_err(|why| why.to_string())?;
    let runtime = Runtime::open(settings.runtime.clone()).map_err(|why| why.to_string())?;
    let everything = extent == Extent::Everything;
    sluice_engine::cleanup(&settings.engine, &runtime, &images, everything)
        .await
        .map_err(|why| why.to_string())
}

/// Removes a directory and all in it; one that holds a mount is left alone and named, so that nothing behind the mount is lost.
fn remove(directory: &Path) -> Result<(), String> {
    let below = format!("{}/", directory.display());
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|why| why.to_string())?;
    if let Some(mount) = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|target| target.starts_with(&below))
    {
        return Err(format!("{mount} is still mounted"));
    }
    match fs::remove_dir_all(directory) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(format!("{}: {why}", directory.display())),
        _ => Ok(()),
    }
}
