//! What a builder asks of the store: steps that change only the configuration, and what earlier builds have made.

use serde_json::{Value, json};

use crate::{
    Commit, Digest, Image, ImageUse, Images, NewImage, Pin, Removed,
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
        self.publish(&[self.stage()?], &[image])?;
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

    /// What a step made of an image in one of `sources`, by the rules of `--cache-from`: a step this store knows counts when a source was made of its
    /// image; else the histories tell, and the image is made anew of the source's layer. Sources that are not here are passed over.
    pub fn made_in(
        &self,
        sources: &[String],
        parent: &str,
        step: &str,
        config: &RunConfig,
        author: &str,
    ) -> Result<Option<Image>, ImageError> {
        {
            let state = self.state();
            let known = state.lineage.step(&Digest::parse(parent)?, step);
            let counts = |id: &Digest| {
                let mut sources = sources.iter().filter_map(|source| state.find(source).ok());
                sources.any(|source| state.lineage.descends(&source, id))
            };
            if let Some(image) = known.filter(counts).and_then(|id| state.image(&id)) {
                return Ok(Some(image));
            }
        }
        let base = self.document_of(parent);
        for source in sources {
            let document = self.document_of(source);
            let Some((history, layer)) = goes_on(&base, &document, step) else {
                continue;
            };
            let mut pin = Pin::new(self);
            if let Some(layer) = layer.map(Digest::parse).transpose()?
                && !pin.hold(&layer)
            {
                continue;
            }
            let mut made = base.clone();
            let config = serde_json::to_value(config);
            made["config"] =
                config.map_err(|why| ImageError::Failed(format!("cannot write image configuration: {why}")))?;
            made["created"] = history["created"].clone();
            made["container"] = json!("");
            if !author.is_empty() {
                made["author"] = json!(author);
            }
            if let Some(entries) = made["history"].as_array_mut() {
                entries.push(history.clone());
            }
            if let (Some(layer), Some(layers)) = (layer, made["rootfs"]["diff_ids"].as_array_mut()) {
                layers.push(json!(layer));
            }
            return self.publish_document(made.to_string().into_bytes()).map(Some);
        }
        Ok(None)
    }

    /// Removes images of steps that are `wanted` gone and that nothing stands on: no name, no other image, no container. With `all`, the next build
    /// makes every step again. Tells what is gone.
    pub fn prune_steps(
        &self,
        all: bool,
        users: &[ImageUse],
        wanted: impl Fn(&Image) -> bool,
    ) -> Result<Vec<Removed>, ImageError> {
        let steps: Vec<Image> = {
            let state = self.state();
            let made = state.lineage.made().into_iter();
            made.filter_map(|id| state.image(&Digest::parse(id).ok()?)).collect()
        };
        let mut removed = Vec::new();
        for step in steps {
            let is_used = users.iter().any(|user| user.image == step.id);
            let has_name = !step.tags.is_empty() || !step.digests.is_empty();
            if is_used || has_name || step.is_intermediate || !wanted(&step) {
                continue;
            }
            match self.remove(&step.id, true, users) {
                Ok(gone) => removed.extend(gone),
                // went with another, or somebody took it meanwhile
                Err(why) => tracing::debug!(%why, image = step.id, "the image of a step stays"),
            }
        }
        if all {
            self.state().lineage.forget_steps()?;
        }
        Ok(removed)
    }
}

/// The step of the history, and the layer it made, by which `source` goes on where `base` ends; none when it went another way.
fn goes_on<'a>(base: &Value, source: &'a Value, step: &str) -> Option<(&'a Value, Option<&'a str>)> {
    let list = |document: &'a Value, path: &str| document.pointer(path).and_then(Value::as_array);
    let (before, steps) = (base.pointer("/history")?.as_array()?, list(source, "/history")?);
    let below = base.pointer("/rootfs/diff_ids")?.as_array()?;
    let layers = list(source, "/rootfs/diff_ids")?;
    let next = steps.get(before.len())?;
    let is_it = steps.starts_with(before) && layers.starts_with(below) && next["created_by"] == step;
    let is_empty = next["empty_layer"].as_bool().unwrap_or(false);
    match (is_it, is_empty) {
        (false, _) => None,
        (true, true) => Some((next, None)),
        (true, false) => Some((next, Some(layers.get(below.len())?.as_str()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_goes_on_only_where_it_went_the_same_way() {
        let image = |steps: &[(&str, bool)], layers: &[&str]| {
            let history: Vec<Value> = steps
                .iter()
                .map(|(by, is_empty)| json!({"created": "t", "created_by": by, "empty_layer": is_empty}))
                .collect();
            json!({"history": history, "rootfs": {"diff_ids": layers}})
        };
        let base = image(&[("a", false)], &["1"]);
        let source = image(&[("a", false), ("b", true), ("c", false)], &["1", "2"]);
        assert_eq!(goes_on(&base, &source, "b").map(|(_, layer)| layer), Some(None));
        assert!(goes_on(&base, &source, "c").is_none());
        let further = image(&[("a", false), ("b", true)], &["1"]);
        assert_eq!(goes_on(&further, &source, "c").map(|(_, layer)| layer), Some(Some("2")));
        assert!(goes_on(&further, &base, "c").is_none(), "it ends before");
        assert!(goes_on(&image(&[("x", false)], &["1"]), &source, "b").is_none());
        assert!(goes_on(&image(&[("a", false)], &["9"]), &source, "b").is_none());
        assert!(goes_on(&Value::Null, &source, "a").is_none());
    }
}
