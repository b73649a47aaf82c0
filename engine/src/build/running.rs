//! Builds under way: how they are stopped, and what a daemon that died in one left behind.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::{Engine, EngineError, error};

/// In the directory of a build: an empty file for each container of it, by id.
const CONTAINERS: &str = "containers";

/// Builds that have a name to be stopped by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

/// One of them; it is out of the list when this goes.
pub(crate) struct Entry {
    running: Running,
    id: Option<String>,
    stop: Arc<Notify>,
}

impl Running {
    pub fn enter(&self, id: Option<&str>) -> Entry {
        let stop = Arc::new(Notify::new());
        if let Some(id) = id {
            self.with(|builds| builds.insert(id.to_owned(), stop.clone()));
        }
        Entry {
            running: self.clone(),
            id: id.map(str::to_owned),
            stop,
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Arc<Notify>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entry {
    /// Waits until somebody stops the build.
    pub async fn cancelled(&mut self) {
        self.stop.notified().await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.running.with(|builds| {
                // a later build may have taken the name over
                if builds.get(id).is_some_and(|stop| Arc::ptr_eq(stop, &self.stop)) {
                    builds.remove(id);
                }
            });
        }
    }
}

impl Engine {
    /// Stops a build. One that is not there (any more) is stopped already, as with Docker.
    pub fn cancel_build(&self, id: &str) {
        if let Some(stop) = self.builds.with(|builds| builds.get(id).cloned()) {
            stop.notify_one();
        }
    }
}

/// Writes down that a container is one of a build, which goes with it.
pub(super) fn note(build: &Path, container: &str) -> Result<(), EngineError> {
    let directory = build.join(CONTAINERS);
    fs::create_dir_all(&directory).map_err(|why| error::io("make", &directory, &why))?;
    let path = directory.join(container);
    fs::write(&path, "").map_err(|why| error::io("write", &path, &why))
}

/// It is nobody's but the user's from here on.
pub(super) fn forget(build: &Path, container: &str) {
    let _ = fs::remove_file(build.join(CONTAINERS).join(container)); // it need not be noted yet
}

/// Removes what builds left behind whose daemon died: directories, and containers that would run for nobody.
pub(crate) async fn clear(engine: &Engine) {
    let building = engine.config.building();
    let directories = fs::read_dir(&building).into_iter().flatten().flatten();
    let containers = directories.flat_map(|build| {
        fs::read_dir(build.path().join(CONTAINERS))
            .into_iter()
            .flatten()
            .flatten()
    });
    let containers: Vec<String> = containers
        .filter_map(|container| container.file_name().into_string().ok())
        .collect();
    for container in containers {
        if let Err(why) = engine.remove_container(&container, true, true).await
            && why.kind != crate::Kind::NotFound
        {
            tracing::warn!(%why, container, "a container of a build that a daemon died in stays");
        }
    }
    if let Err(why) = crate::blocking::blocking(move || Ok(sluice_image::remove_tree(&building)?)).await {
        tracing::warn!(%why, "what builds left behind stays until the next start");
    }
}
