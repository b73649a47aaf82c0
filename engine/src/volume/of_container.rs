//! The volumes of a container: taken when it is made, mounted while it runs, given back when it goes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use sluice_model::{
    Container, ContainerConfig, HostConfig, Id, Volume,
    container::{Mount, MountKind},
};
use sluice_store::{Entry, key, record};

use crate::{
    Engine, EngineError, Kind,
    blocking::blocking,
    container::{directory, held::Held},
    undo::Undo,
    volume::{create::CreateVolume, local},
};

impl Engine {
    /// Makes of all wishes what is mounted: what other containers have, what the user says, what the image wants; the later of two at one place wins.
    /// Volumes that are not there are made, and all are the container's from now on.
    pub(crate) async fn take_mounts(
        self: &Arc<Self>,
        id: &Id,
        config: &ContainerConfig,
        host: &HostConfig,
        undo: &mut Undo,
    ) -> Result<Vec<Mount>, EngineError> {
        let made = Arc::new(Mutex::new(Vec::new()));
        undo.by("give the volumes back", {
            let (engine, id, made) = (self.clone(), id.clone(), made.clone());
            async move {
                engine.volumes.release(id.as_str());
                let names: Vec<String> = std::mem::take(&mut *made.lock().unwrap_or_else(PoisonError::into_inner));
                engine.drop_volumes(names).await
            }
        });
        let _story = self.volumes.story.lock().await;
        let mut mounts = BTreeMap::new();
        for wish in &host.volumes_from {
            let (name, mode) = wish.split_once(':').unwrap_or((wish, ""));
            let read_only = mode.split(',').any(|word| word == "ro");
            // invalid, not missing: clients take a 404 here for an image that has to be pulled
            let other = self
                .containers
                .find(name)
                .map_err(|error| EngineError::invalid(error.message))?;
            for mount in other.look(|container| container.mounts.clone()) {
                let mount = Mount {
                    read_only: mount.read_only || read_only,
                    no_copy: true,
                    ..mount
                };
                mounts.insert(place(&mount.target), mount);
            }
        }
        for wish in host.binds.iter().chain(&host.mounts) {
            mounts.insert(place(&wish.target), wish.clone());
        }
        for target in &config.volumes {
            mounts.entry(place(target)).or_insert_with(|| Mount {
                kind: MountKind::Volume,
                target: target.clone(),
                ..Mount::default()
            });
        }
        for mount in mounts.values_mut().filter(|mount| mount.kind == MountKind::Volume) {
            self.take_volume(id, mount, &made).await?;
        }
        let images = mounts.values_mut().filter(|mount| mount.kind == MountKind::Image);
        for (mount, layer) in images.zip(0..) {
            // one that comes from another container is known by its id
            let name = match mount.image_id.as_str() {
                "" => &mount.source,
                id => id,
            };
            // invalid, not missing: as above
            let found = self.find_image(name).await;
            let found = found.map_err(|error| EngineError::invalid(error.message))?;
            (mount.image_id, mount.layer) = (found.id, layer);
        }
        Ok(mounts.into_values().collect())
    }

    async fn take_volume(&self, id: &Id, mount: &mut Mount, made: &Mutex<Vec<String>>) -> Result<(), EngineError> {
        let nameless = mount.source.is_empty();
        let (volume, is_new) = self
            .make_volume(CreateVolume {
                name: std::mem::take(&mut mount.source),
                driver: mount.driver.clone(),
                labels: mount.labels.clone(),
                options: mount.driver_options.clone(),
            })
            .await?;
        mount.anonymous |= nameless;
        mount.source.clone_from(&volume.name);
        self.volumes.use_by(&volume.name, id.as_str());
        if is_new {
            made.lock().unwrap_or_else(PoisonError::into_inner).push(volume.name);
        }
        Ok(())
    }

    /// The container is gone: it has no volumes any more. With `remove`, those that were made for it alone go too.
    pub(crate) async fn leave_volumes(&self, container: &Container, remove: bool) {
        self.volumes.release(container.id.as_str());
        let own = container.mounts.iter().filter(|mount| remove && mount.anonymous);
        let names = own.map(|mount| mount.source.clone()).collect();
        if let Err(error) = self.drop_volumes(names).await {
            tracing::warn!("cannot remove a volume of container {}: {error}", container.id);
        }
    }

    /// Removes them; one that somebody else has, or that is gone, is no trouble.
    async fn drop_volumes(&self, names: Vec<String>) -> Result<(), EngineError> {
        if names.is_empty() {
            return Ok(());
        }
        let _story = self.volumes.story.lock().await;
        let mut trouble = Ok(());
        for name in names {
            match self.drop_volume(&name).await {
                Err(error) if !matches!(error.kind, Kind::Conflict | Kind::NotFound) => trouble = Err(error),
                _ => {}
            }
        }
        trouble
    }

    /// Mounts the volumes of a container that is about to run.
    pub(crate) async fn mount_volumes(&self, container: &Container) -> Result<(), EngineError> {
        for mount in of_volumes(container) {
            self.mount_volume(&mount.source, container.id.as_str()).await?;
            let more = [
                ("container", container.id.to_string()),
                ("destination", mount.target.clone()),
                ("propagation", mount.propagation.clone()),
                ("read/write", (!mount.read_only).to_string()),
            ];
            self.tell_volume("mount", &mount.source, &more);
        }
        Ok(())
    }

    /// Mounts one for somebody. It stays until nobody wants it any more.
    pub(crate) async fn mount_volume(&self, name: &str, whom: &str) -> Result<(), EngineError> {
        let volume = self.volumes.find(name)?;
        self.sizes.forget(&local::data(&self.config, name));
        let _story = match volume.is_mounted() {
            true => Some(self.volumes.story.lock().await),
            false => None,
        };
        self.volumes.mount_for(name, whom);
        if !volume.is_mounted() {
            return Ok(());
        }
        let config = self.config.clone();
        // looked at even when others have it: a reboot, or an administrator, may have taken it away
        let mounted = blocking(move || local::mount_options(&config, &volume)).await;
        if mounted.is_err() {
            self.volumes.unmount_for(name, whom);
        }
        mounted
    }

    /// The reverse of [`mount_volumes`](Self::mount_volumes). Fine when there is nothing to do.
    pub(crate) async fn unmount_volumes(&self, container: &Container) -> Result<(), EngineError> {
        let mut trouble = Ok(());
        for mount in of_volumes(container) {
            match self.unmount_volume(&mount.source, container.id.as_str()).await {
                Ok(false) => {}
                Ok(true) => {
                    let more = [("container", container.id.to_string())];
                    self.tell_volume("unmount", &mount.source, &more);
                }
                Err(error) => trouble = Err(error),
            }
        }
        trouble
    }

    /// Somebody wants it mounted no longer; true when he had.
    pub(crate) async fn unmount_volume(&self, name: &str, whom: &str) -> Result<bool, EngineError> {
        let is_mounted = self.volumes.get(name).is_some_and(|volume| volume.is_mounted());
        let _story = match is_mounted {
            true => Some(self.volumes.story.lock().await),
            false => None,
        };
        self.sizes.forget(&local::data(&self.config, name));
        let Some(is_last) = self.volumes.unmount_for(name, whom) else {
            return Ok(false);
        };
        if is_last && is_mounted {
            let target = local::data(&self.config, name);
            blocking(move || local::unmount(&target)).await?;
        }
        Ok(true)
    }

    /// What a container's mounts are on the host: a path, or nothing for memory.
    pub(crate) fn sources(&self, container: &Container) -> Vec<(Mount, PathBuf)> {
        let source = |mount: &Mount| match mount.kind {
            MountKind::Bind => PathBuf::from(&mount.source),
            MountKind::Volume => local::data(&self.config, &mount.source),
            MountKind::Tmpfs => PathBuf::new(),
            MountKind::Image => directory::of_image(&self.config.container(&container.id), mount).join("merged"),
        };
        let mounts = container.mounts.iter();
        mounts.map(|mount| (mount.clone(), source(mount))).collect()
    }

    /// Reads the volumes, and finishes or undoes what an earlier daemon left half done.
    pub(crate) async fn read_volumes(&self, entries: Vec<Entry>) -> Result<(), EngineError> {
        let mut unreadable = Vec::new();
        for entry in entries {
            match record::decode::<Volume>(&entry.key, &entry.value) {
                Ok(volume) => self.volumes.enter(volume),
                Err(error) => {
                    tracing::error!("{error}");
                    unreadable.push(entry.key);
                }
            }
        }
        let (config, known) = (self.config.clone(), self.volumes.all());
        let strays = blocking(move || {
            for volume in &known {
                local::make(&config, &volume.name)?;
                if let Err(error) = local::recover(&local::directory(&config, &volume.name)) {
                    tracing::warn!("cannot finish the filling of volume {}: {error}", volume.name);
                }
            }
            local::strays(&config, |name| {
                known.iter().any(|volume| volume.name == name) || unreadable.contains(&key::volume(name))
            })
        })
        .await?;
        for name in strays {
            tracing::warn!("{name} is a volume's directory without a record; it is a volume from now on");
            let request = CreateVolume {
                name,
                ..CreateVolume::default()
            };
            self.make_volume(request).await?;
        }
        Ok(())
    }

    /// Which containers have which volumes, after the records of both were read; what is mounted for nobody is unmounted.
    pub(crate) async fn adopt_volumes(&self) {
        for held in self.containers.all() {
            self.adopt_mounts(&held);
        }
        for volume in self.volumes.all() {
            if volume.is_mounted() && !self.volumes.is_mounted(&volume.name) {
                let target = local::data(&self.config, &volume.name);
                if let Err(error) = blocking(move || local::unmount(&target)).await {
                    tracing::warn!("cannot unmount volume {}, which nobody uses: {error}", volume.name);
                }
            }
        }
    }

    fn adopt_mounts(&self, held: &Held) {
        held.look(|container| {
            for mount in of_volumes(container) {
                self.volumes.use_by(&mount.source, held.id.as_str());
                if container.state.is_alive() {
                    self.volumes.mount_for(&mount.source, held.id.as_str());
                }
            }
        });
    }
}

fn of_volumes(container: &Container) -> impl Iterator<Item = &Mount> {
    container.mounts.iter().filter(|mount| mount.kind == MountKind::Volume)
}

/// A target without `.`, `..` and slashes too many: two ways to write one place are one place.
fn place(target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
