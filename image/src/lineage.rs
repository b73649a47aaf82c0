//! Which image was made of which, and by what step: the cache of builds, and why some images are not shown.
//!
//! All of it can be lost without harm: a build then makes its steps again.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{atomic, digest::Digest, error::ImageError};

const FILE: &str = "lineage.json";

/// The file, and what stands in it.
#[derive(Debug)]
pub(crate) struct Lineage {
    directory: PathBuf,
    written: Written,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    version: u32,
    /// Of an image, that it was made of.
    parents: BTreeMap<String, String>,
    /// By digest of parent and step, what came of it.
    steps: BTreeMap<String, String>,
}

impl Lineage {
    pub fn open(directory: &Path) -> Self {
        let path = directory.join(FILE);
        let read = fs::read(&path)
            .ok()
            .map(|text| serde_json::from_slice::<Written>(&text));
        let written = match read {
            Some(Ok(written)) if written.version == 1 => written,
            Some(_) => {
                tracing::warn!(path = %path.display(), "cannot be read and is begun anew");
                Written::default()
            }
            None => Written::default(),
        };
        Self {
            directory: directory.to_owned(),
            written: Written { version: 1, ..written },
        }
    }

    pub fn parent(&self, id: &Digest) -> Option<Digest> {
        Digest::parse(self.written.parents.get(id.as_str())?).ok()
    }

    pub fn has_children(&self, id: &Digest) -> bool {
        self.written.parents.values().any(|parent| parent == id.as_str())
    }

    /// What a step made of an image.
    pub fn step(&self, parent: &Digest, step: &str) -> Option<Digest> {
        Digest::parse(self.written.steps.get(&key(parent, step))?).ok()
    }

    /// A step made an image of another.
    pub fn learn(&mut self, parent: &Digest, step: &str, child: &Digest) -> Result<(), ImageError> {
        let mut written = self.written.clone();
        if parent != child {
            written.parents.insert(child.to_string(), parent.to_string());
        }
        written.steps.insert(key(parent, step), child.to_string());
        self.replace(written)
    }

    /// An image was made of another, by no step that could be asked for again.
    pub fn descend(&mut self, parent: &Digest, child: &Digest) -> Result<(), ImageError> {
        let mut written = self.written.clone();
        if parent != child {
            written.parents.insert(child.to_string(), parent.to_string());
        }
        self.replace(written)
    }

    /// Keeps what is still here.
    pub fn forget(&mut self, has_image: impl Fn(&str) -> bool) -> Result<(), ImageError> {
        let mut written = self.written.clone();
        written
            .parents
            .retain(|child, parent| has_image(child) && has_image(parent));
        written.steps.retain(|_, child| has_image(child));
        self.replace(written)
    }

    fn replace(&mut self, written: Written) -> Result<(), ImageError> {
        if written == self.written {
            return Ok(());
        }
        let text = serde_json::to_vec(&written)
            .map_err(|why| ImageError::failed("cannot write", &self.directory.join(FILE), why))?;
        atomic::write_soon(&self.directory, FILE, &text)?;
        self.written = written;
        Ok(())
    }
}

fn key(parent: &Digest, step: &str) -> String {
    Digest::of(format!("{parent}\n{step}").as_bytes()).hex().to_owned()
}
