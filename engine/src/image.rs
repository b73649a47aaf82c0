//! Stories of images: each hands the work, which blocks, to a thread made for that, and tells what happened.

use std::io;

use bytes::Bytes;
use sluice_image::{Image, ImageUse, Images, Removed};
use sluice_model::Container;
use tokio::sync::mpsc;

use crate::{
    Engine, EngineError,
    blocking::blocking,
    chunks::{ChannelReader, ChannelWriter, Chunks},
};

impl Engine {
    /// Images, newest first.
    pub async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        self.of_images(|images| Ok(images.list()?)).await
    }

    /// An image.
    pub async fn inspect_image(&self, name: &str) -> Result<Image, EngineError> {
        self.find_image(name).await
    }

    /// An image, the one it was made of here, and so on.
    pub async fn line_of_image(&self, name: &str) -> Result<Vec<Image>, EngineError> {
        let name = name.to_owned();
        self.of_images(move |images| {
            let mut line = vec![images.find(&name)?];
            while let Some(parent) = line.last().and_then(|image| image.parent.clone()) {
                match images.find(&parent) {
                    Ok(image) if line.iter().all(|known| known.id != image.id) => line.push(image),
                    _ => break,
                }
            }
            Ok(line)
        })
        .await
    }

    /// By name or id.
    pub(crate) async fn find_image(&self, name: &str) -> Result<Image, EngineError> {
        let name = name.to_owned();
        self.of_images(move |images| Ok(images.find(&name)?)).await
    }

    /// Makes an image of a tar stream.
    pub async fn import_image(
        &self,
        tar: mpsc::Receiver<io::Result<Bytes>>,
        reference: Option<String>,
        changes: Vec<String>,
        message: String,
    ) -> Result<Image, EngineError> {
        self.carry_out(|engine| async move {
            let image = engine
                .of_images(move |images| {
                    Ok(images.import(&mut ChannelReader::new(tar), reference.as_deref(), &changes, &message)?)
                })
                .await?;
            engine.tell_image("import", &image.id, image.tags.first());
            Ok(image)
        })
        .await
    }

    /// Makes an image of a tar in the web.
    pub async fn import_from_web(
        &self,
        url: &str,
        reference: Option<String>,
        changes: Vec<String>,
        message: String,
    ) -> Result<Image, EngineError> {
        let url = url.to_owned();
        self.carry_out(|engine| async move {
            let message = match message.is_empty() {
                true => format!("Imported from {url}"),
                false => message,
            };
            let image = engine
                .of_images(move |images| Ok(images.import_from_web(&url, reference.as_deref(), &changes, &message)?))
                .await?;
            engine.tell_image("import", &image.id, image.tags.first());
            Ok(image)
        })
        .await
    }

    /// Reads an archive of images; the lines Docker prints.
    pub async fn load_images(&self, tar: mpsc::Receiver<io::Result<Bytes>>) -> Result<Vec<String>, EngineError> {
        self.carry_out(|engine| async move {
            let lines = engine
                .of_images(move |images| Ok(images.load(&mut ChannelReader::new(tar))?))
                .await?;
            for line in &lines {
                if let Some(name) = line
                    .strip_prefix("Loaded image: ")
                    .or(line.strip_prefix("Loaded image ID: "))
                    && let Ok(image) = engine.find_image(name.trim()).await
                {
                    engine.tell_image("load", &image.id, image.tags.first());
                }
            }
            Ok(lines)
        })
        .await
    }

    /// Gives an image a further name.
    pub async fn tag_image(&self, name: &str, reference: &str) -> Result<(), EngineError> {
        let (name, reference) = (name.to_owned(), reference.to_owned());
        let (id, reference) = self
            .of_images(move |images| {
                let familiar = images.tag(&name, &reference)?;
                Ok((images.find(&reference)?.id, familiar))
            })
            .await?;
        self.tell_image("tag", &id, Some(&reference));
        Ok(())
    }

    /// Removes a name or an image.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>, EngineError> {
        let users = self.users_of_images();
        let name = name.to_owned();
        let (id, removed) = self
            .of_images(move |images| {
                let id = images.find(&name)?.id;
                Ok((id, images.remove(&name, force, &users)?))
            })
            .await?;
        for step in &removed {
            match step {
                Removed::Untagged(name) => self.tell_image("untag", &id, Some(name)),
                Removed::Deleted(gone) if *gone == id => self.tell_image("delete", &id, None),
                Removed::Deleted(_) => {}
            }
        }
        Ok(removed)
    }

    /// Which container stands on which image.
    pub(crate) fn users_of_images(&self) -> Vec<ImageUse> {
        let all = self.containers.all();
        let users = all.iter().flat_map(|held| {
            held.look(|container| {
                let one = |image: &str| ImageUse {
                    image: image.to_owned(),
                    container: container.id.to_string(),
                    running: container.state.is_alive(),
                };
                images_of(container).map(one).collect::<Vec<_>>()
            })
        });
        users.collect()
    }

    /// Images as one archive, for `load`.
    pub async fn save_images(&self, names: Vec<String>) -> Result<Chunks, EngineError> {
        for name in &names {
            let image = self.find_image(name).await?;
            self.tell_image("save", &image.id, image.tags.first());
        }
        let (mut writer, chunks) = ChannelWriter::new();
        let images = self.images.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(why) = images.save(&names, &mut writer) {
                // who takes the archive learns it by its sudden end
                tracing::debug!("an archive of images was not sent whole: {}", writer.fail(&why));
            }
        });
        Ok(chunks)
    }

    /// Removes images that no container uses and that are `wanted` gone.
    pub async fn prune_images(
        &self,
        wanted: impl Fn(&Image) -> bool + Send + 'static,
    ) -> Result<(Vec<Removed>, u64), EngineError> {
        self.carry_out(|engine| async move {
            let before = engine.images.usage().0;
            let mut all = Vec::new();
            for image in engine.list_images().await? {
                let is_used = engine
                    .containers
                    .all()
                    .iter()
                    .any(|held| held.look(|container| images_of(container).any(|used| used == image.id)));
                if is_used || !wanted(&image) {
                    continue;
                }
                match engine.remove_image(&image.id, true).await {
                    Ok(removed) => all.extend(removed),
                    // somebody took or removed it meanwhile
                    Err(error) => tracing::debug!("cannot prune image {}: {error}", image.id),
                }
            }
            let freed = before.saturating_sub(engine.images.usage().0);
            engine
                .events
                .tell("image", "prune", "", vec![("reclaimed".to_owned(), freed.to_string())]);
            Ok((all, freed))
        })
        .await
    }

    pub(crate) async fn of_images<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Images) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let images = self.images.clone();
        blocking(move || work(&images)).await
    }

    pub(crate) fn tell_image(&self, action: &str, id: &str, name: Option<&String>) {
        let name = name.map_or(id, String::as_str).to_owned();
        self.events.tell("image", action, id, vec![("name".to_owned(), name)]);
    }
}

/// The ids of the images a container is made of: its own, and those that are mounted in it.
fn images_of(container: &Container) -> impl Iterator<Item = &str> {
    let mounted = container.mounts.iter().map(|mount| mount.image_id.as_str());
    std::iter::once(container.image_id.as_str()).chain(mounted.filter(|image| !image.is_empty()))
}
