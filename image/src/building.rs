//! What a builder asks of the store: steps that change only the configuration, and what earlier builds have made.

use serde_json::json;

use crate::{
    Commit, Digest, Image, Images, NewImage,
    configuration::{Configuration, RunConfig},
    error::ImageError,
};

impl Images {
    /// The image that has nothing in it, which `FROM scratch` begins with.
    pub fn scratch(&self) -> Result<Image, ImageError> {
        let document = json!({
            "architecture": crate::manifest::architecture(),
            "os": "linux",
            "config": {},
            "created": "1970-01-01T00:00:00Z",
            "history": [],
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        self.publish_document(document.to_string().into_bytes())
    }

    /// An image on the same layers with another configuration: a step that writes no file. The directory of `commit` does not count.
    pub fn derive(&self, commit: Commit<'_>) -> Result<Image, ImageError> {
        let layers = {
            let state = self.state();
            let id = state.find(commit.image)?;
            state
                .images
                .get(&id)
                .map(|image| image.diff_ids.clone())
                .unwrap_or_default()
        };
        let config = commit.config.clone();
        let document = self.document(&commit, &config, &layers, None)?;
        self.publish_document(document.to_string().into_bytes())
    }

    fn publish_document(&self, bytes: Vec<u8>) -> Result<Image, ImageError> {
        let configuration = Configuration::parse(&bytes)?;
        let id = Digest::of(&bytes);
        let image = NewImage {
            bytes,
            configuration,
            names: Vec::new(),
        };
        self.publish(&self.stage()?, &[image])?;
        self.find(id.as_str())
    }

    /// The configuration of an image as a Dockerfile goes on with it.
    pub fn run_config(&self, image: &str) -> Result<RunConfig, ImageError> {
        let bytes = {
            let state = self.state();
            let id = state.find(image)?;
            state.content.read(&id)?
        };
        RunConfig::of_document(&bytes)
    }

    /// What a step of an earlier build made of an image.
    pub fn made_of(&self, parent: &str, step: &str) -> Option<Image> {
        let state = self.state();
        let parent = Digest::parse(parent).ok()?;
        let id = state.lineage.step(&parent, step)?;
        state.image(&id)
    }

    /// Remembers what a step made of an image.
    pub fn remember(&self, parent: &str, step: &str, child: &str) -> Result<(), ImageError> {
        let (parent, child) = (Digest::parse(parent)?, Digest::parse(child)?);
        self.state().lineage.learn(&parent, step, &child)
    }
}
