//! What a container sees of the file system, running or not, for those who copy in and out.

use std::{os::fd::OwnedFd, sync::Arc};

use sluice_model::container::{Mount, MountKind};
use tokio::sync::OwnedMutexGuard;

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{held::Held, mounts, owners},
};

/// The root of a container with all that is mounted in it. While it lives, a container that does not run does not start either: two overlays of one
/// layer at once are undefined.
pub(crate) struct View {
    /// The root; paths are to be resolved in it, never walked by name.
    pub root: OwnedFd,
    /// Volumes that were mounted for it.
    volumes: Vec<String>,
    engine: Arc<Engine>,
    held: Arc<Held>,
    story: Option<OwnedMutexGuard<()>>,
}

impl Engine {
    /// Opens it.
    pub(crate) async fn open_view(self: &Arc<Self>, held: &Arc<Held>) -> Result<View, EngineError> {
        if held.life().borrow().running
            && let Ok(root) = sluice_runtime::of_running(&self.runtime, held.id.as_str()).await
        {
            return Ok(self.view_of(held, root, None));
        }
        let story = held.story.clone().lock_owned().await;
        // it may have been started while we waited for the lock
        if held.look(|container| container.state.is_alive()) {
            let root = sluice_runtime::of_running(&self.runtime, held.id.as_str()).await?;
            return Ok(self.view_of(held, root, None));
        }
        if held.life().borrow().removed {
            return Err(EngineError::not_found(format!("No such container: {}", held.id)));
        }
        self.open_stopped(held, story).await
    }

    fn view_of(self: &Arc<Self>, held: &Arc<Held>, root: OwnedFd, story: Option<OwnedMutexGuard<()>>) -> View {
        View {
            root,
            volumes: Vec::new(),
            engine: self.clone(),
            held: held.clone(),
            story,
        }
    }

    /// The root alone, without what is mounted in the container, to be read.
    pub(crate) async fn open_root(self: &Arc<Self>, held: &Arc<Held>) -> Result<View, EngineError> {
        self.open_alone(held, true).await
    }

    /// The root alone, to be written.
    pub(crate) async fn open_layer(self: &Arc<Self>, held: &Arc<Held>) -> Result<View, EngineError> {
        self.open_alone(held, false).await
    }

    async fn open_alone(self: &Arc<Self>, held: &Arc<Held>, read_only: bool) -> Result<View, EngineError> {
        let story = held.story.clone().lock_owned().await;
        if held.life().borrow().removed {
            return Err(EngineError::not_found(format!("No such container: {}", held.id)));
        }
        let (images, container) = (self.images.clone(), held.record());
        let directory = self.config.container(&held.id);
        let alive = container.state.is_alive();
        let root = blocking(move || match alive {
            true => {
                let merged = directory.join("merged");
                let root = std::fs::File::open(&merged).map_err(|why| crate::error::io("open", &merged, &why))?;
                Ok(root.into())
            }
            false => {
                let mount_root = || Ok::<_, EngineError>(owners::mount_root(&images, &container, &directory)?.merged);
                sluice_runtime::of_stopped(mount_root, &[], read_only)
            }
        })
        .await?;
        Ok(self.view_of(held, root, (!alive).then_some(story)))
    }

    async fn open_stopped(self: &Arc<Self>, held: &Arc<Held>, story: OwnedMutexGuard<()>) -> Result<View, EngineError> {
        let container = held.record();
        let whom = whom(held);
        let mut volumes = Vec::new();
        let mut trouble = None;
        for mount in container.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            match self.mount_volume(&mount.source, &whom).await {
                Ok(()) => volumes.push(mount.source.clone()),
                Err(error) => trouble = Some(error),
            }
        }
        let (images, config) = (self.images.clone(), self.config.clone());
        let opened = blocking(move || {
            if let Some(trouble) = trouble {
                return Err(trouble);
            }
            // memory of a container that does not run is gone; what it would be mounted on is not
            let lasting: Vec<Mount> = container
                .mounts
                .iter()
                .filter(|mount| mount.kind != MountKind::Tmpfs)
                .map(|mount| Mount {
                    propagation: String::new(),
                    ..mount.clone()
                })
                .collect();
            let directory = config.container(&container.id);
            let binds = mounts::to_oci(&config.volumes(), &directory, &lasting, &Default::default())
                .map_err(|why| EngineError::failed(format!("cannot write the mounts of a container: {why}")))?;
            let mount_root = || {
                owners::mount_images(&images, &container, &directory)?;
                Ok::<_, EngineError>(owners::mount_root(&images, &container, &directory)?.merged)
            };
            sluice_runtime::of_stopped(mount_root, &binds, container.host_config.read_only_rootfs)
        })
        .await;
        let mut view = match opened {
            Ok(root) => self.view_of(held, root, Some(story)),
            Err(error) => {
                for volume in volumes {
                    self.unmount_volume(&volume, &whom).await?;
                }
                return Err(error);
            }
        };
        view.volumes = volumes;
        Ok(view)
    }
}

impl View {
    /// Gives everything back.
    pub async fn close(self) {
        let Self {
            root,
            volumes,
            engine,
            held,
            story,
        } = self;
        drop(root);
        for volume in volumes {
            if let Err(error) = engine.unmount_volume(&volume, &whom(&held)).await {
                tracing::warn!("cannot unmount volume {volume} after a copy: {error}");
            }
        }
        engine.sizes.forget(&engine.config.container(&held.id).join("upper"));
        drop(story);
    }
}

/// Under which name volumes are mounted for a view; the lock lets one view of a stopped container live at a time.
fn whom(held: &Held) -> String {
    format!("copying-{}", held.id)
}
