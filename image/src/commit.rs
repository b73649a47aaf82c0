//! An image of a container: one more layer on those it stands on, and a configuration.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    Digest, Image, Images, NewImage, Pin, Staging, changes,
    configuration::{Configuration, RunConfig},
    error::ImageError,
    files::{self, Packing, Style},
    reference,
};

/// What an image is made of.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The container's directory, with its writable layer.
    pub directory: &'a Path,
    /// The id of the image it was made of.
    pub image: &'a str,
    /// Places made for mounts; empty ones do not become part of the image.
    pub scaffold: &'a [&'a str],
    /// The container's id.
    pub container: &'a str,
    /// What it ran, as a line of the history.
    pub command: &'a str,
    /// The configuration, before the changes.
    pub config: RunConfig,
    /// Dockerfile instructions.
    pub changes: &'a [String],
    /// Its name, if it gets one.
    pub reference: Option<&'a str>,
    /// Who made it.
    pub author: &'a str,
    /// A word on it.
    pub comment: &'a str,
}

impl Images {
    /// Makes an image of a container's writable layer.
    pub fn commit(&self, commit: Commit<'_>) -> Result<Image, ImageError> {
        // everything that can be wrong with the request, before a file is read
        let names = match commit.reference.filter(|reference| !reference.is_empty()) {
            Some(reference) => vec![reference::parse_tag(reference)?],
            None => Vec::new(),
        };
        let config = changes::apply(commit.config.clone(), commit.changes)?;
        let layers = self.layers_of(commit.directory)?;
        let mut pin = Pin::new(self);
        for layer in &layers {
            pin.hold(layer);
        }
        let mut staging = self.stage()?;
        let layer = self.stage_writable(&mut staging, commit.directory, commit.scaffold)?;
        let document = self.document(&commit, &config, &layers, layer.as_ref())?;
        let bytes = serde_json::to_vec(&document);
        let bytes = bytes.map_err(|why| ImageError::Failed(format!("cannot write image configuration: {why}")))?;
        let configuration = Configuration::parse(&bytes)?;
        let id = Digest::of(&bytes);
        self.publish(
            &[staging],
            &[NewImage {
                bytes,
                configuration,
                names,
            }],
        )?;
        let mut state = self.state();
        // one whose image is gone begins a line of its own
        if let Ok(parent) = state.find(commit.image) {
            state.lineage.descend(&parent, &id)?;
        }
        drop(state);
        self.find(id.as_str())
    }

    /// Packs the writable layer and unpacks it as a layer of the store: so it has a digest, and what was written is what can be read. `None` when it is
    /// empty.
    fn stage_writable(
        &self,
        staging: &mut Staging,
        directory: &Path,
        scaffold: &[&str],
    ) -> Result<Option<Digest>, ImageError> {
        let path = directory.join("upper");
        let owners = self.owners_of(directory)?;
        let upper = File::open(&path).map_err(|why| ImageError::failed("cannot open", &path, why))?;
        if self.changes(directory, scaffold)?.is_empty() {
            return Ok(None);
        }
        let (reader, writer) = io::pipe().map_err(|why| ImageError::Failed(format!("cannot make a pipe: {why}")))?;
        // what a container wrote was room on this disk already: zeros that fill it are no bomb
        let limits = crate::Limits {
            stream: u64::MAX,
            expansion: u64::MAX,
            ..self.limits
        };
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || {
                let mut writer = BufWriter::with_capacity(64 * 1024, writer);
                let packing = Packing {
                    name: b"",
                    style: Style::Layer,
                    one_file_system: true,
                    scaffold,
                    owners: owners.as_ref(),
                    timeless: false,
                };
                files::pack(upper.as_fd(), b"", packing, &mut writer)?;
                writer
                    .flush()
                    .map_err(|why| ImageError::Failed(format!("cannot pack the layer: {why}")))
            });
            let staged = staging.unpack(reader, None, limits);
            let packed = packing
                .join()
                .unwrap_or_else(|_| Err(ImageError::Failed("the packing of a layer ended early".into())));
            match (packed, staged) {
                // a reader that gives up breaks the pipe: then its own word is the reason
                (Err(_), Err(why)) | (Ok(()), Err(why)) => Err(why),
                (Err(why), Ok(_)) => Err(why),
                (Ok(()), Ok(layer)) => Ok(Some(layer)),
            }
        })
    }

    /// The configuration of the image it was made of, with what is new; a container whose image is gone starts from nothing.
    pub(crate) fn document(
        &self,
        commit: &Commit<'_>,
        config: &RunConfig,
        layers: &[Digest],
        new: Option<&Digest>,
    ) -> Result<Value, ImageError> {
        let created = jiff::Timestamp::now().to_string();
        let base = self.document_of(commit.image);
        let known = |name: &str| base.get(name).filter(|value| !value.is_null()).cloned();
        let mut history = known("history")
            .and_then(|history| history.as_array().cloned())
            .unwrap_or_default();
        let mut step = json!({ "created": created, "created_by": commit.command });
        for (name, text) in [("author", commit.author), ("comment", commit.comment)] {
            if !text.is_empty() {
                step[name] = json!(text);
            }
        }
        if new.is_none() {
            step["empty_layer"] = json!(true);
        }
        history.push(step);
        let diff_ids: Vec<String> = layers.iter().chain(new).map(Digest::to_string).collect();
        let config = serde_json::to_value(config);
        let mut document = json!({
            "architecture": known("architecture").unwrap_or_else(|| json!(crate::manifest::architecture())),
            "os": known("os").unwrap_or_else(|| json!("linux")),
            "config": config.map_err(|why| ImageError::Failed(format!("cannot write image configuration: {why}")))?,
            "container": commit.container,
            "created": created,
            "history": history,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        for name in ["variant", "os.version"] {
            if let Some(value) = known(name) {
                document[name] = value;
            }
        }
        for (name, text) in [("author", commit.author), ("comment", commit.comment)] {
            if !text.is_empty() {
                document[name] = json!(text);
            }
        }
        Ok(document)
    }

    /// The configuration of an image as it was written; null when the image is gone.
    pub(crate) fn document_of(&self, image: &str) -> Value {
        let state = self.state();
        let bytes = state.find(image).ok().and_then(|id| state.content.read(&id).ok());
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or(Value::Null)
    }
}
