//! Stories of images: each hands the work, which blocks, to a thread made for that, and tells what happened.

use std::io;

use bytes::Bytes;
use sluice_image::{Image, ImageUse, Images, Removed};
use tokio::sync::mpsc;

use crate::{Engine, EngineError, blocking::blocking, chunks::ChannelReader};

impl Engine {
    /// Images, newest first.
    pub async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        self.of_images(|images| Ok(images.list()?)).await
    }

    /// An image.
    pub async fn inspect_image(&self, name: &str) -> Result<Image, EngineError> {
        self.find_image(name).await
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
                images.tag(&name, &reference)?;
                Ok((images.find(&reference)?.id, reference))
            })
            .await?;
        self.tell_image("tag", &id, Some(&reference));
        Ok(())
    }

    /// Removes a name or an image.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>, EngineError> {
        let users: Vec<ImageUse> = self
            .containers
            .all()
            .iter()
            .map(|held| {
                held.look(|container| ImageUse {
                    image: container.image_id.clone(),
                    container: container.id.to_string(),
                    running: container.state.is_alive(),
                })
            })
            .collect();
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

    async fn of_images<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Images) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let images = self.images.clone();
        blocking(move || work(&images)).await
    }

    fn tell_image(&self, action: &str, id: &str, name: Option<&String>) {
        let name = name.map_or(id, String::as_str).to_owned();
        self.events.tell("image", action, id, vec![("name".to_owned(), name)]);
    }
}
