//! Which names images have: one small file, replaced whole.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{atomic, digest::Digest, error::ImageError, reference::Reference};

const FILE: &str = "repositories.json";

/// Names and the images they mean.
#[derive(Debug)]
pub(crate) struct Repositories {
    directory: PathBuf,
    names: BTreeMap<Reference, Digest>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    /// Repository, tag, image id.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Repositories {
    pub fn open(directory: &Path) -> Result<Self, ImageError> {
        let path = directory.join(FILE);
        let wrong = |why: &dyn std::fmt::Display| ImageError::failed("cannot read", &path, why);
        let mut names = BTreeMap::new();
        let written: Written = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|why| wrong(&why))?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => Written {
                version: 1,
                repositories: BTreeMap::new(),
            },
            Err(why) => return Err(wrong(&why)),
        };
        if written.version != 1 {
            return Err(wrong(&format!(
                "version {} is newer than this program",
                written.version
            )));
        }
        for (repository, tags) in written.repositories {
            for (tag, id) in tags {
                let id = Digest::parse(&id).map_err(|why| wrong(&why))?;
                names.insert(
                    Reference {
                        repository: repository.clone(),
                        tag,
                    },
                    id,
                );
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            names,
        })
    }

    pub fn get(&self, reference: &Reference) -> Option<&Digest> {
        self.names.get(reference)
    }

    /// All names, in order, and the images they mean.
    pub fn all(&self) -> impl Iterator<Item = (&Reference, &Digest)> {
        self.names.iter()
    }

    /// The names of an image, in order.
    pub fn of<'a>(&'a self, id: &'a Digest) -> impl Iterator<Item = &'a Reference> {
        self.names
            .iter()
            .filter(move |(_, image)| *image == id)
            .map(|(reference, _)| reference)
    }

    /// Performs `changes` at once: a name gets an image, or goes away. Nothing changes when the file cannot be written.
    pub fn change(&mut self, changes: impl IntoIterator<Item = (Reference, Option<Digest>)>) -> Result<(), ImageError> {
        let mut names = self.names.clone();
        for (reference, id) in changes {
            match id {
                Some(id) => names.insert(reference, id),
                None => names.remove(&reference),
            };
        }
        if names == self.names {
            return Ok(());
        }
        let mut written = Written {
            version: 1,
            repositories: BTreeMap::new(),
        };
        for (Reference { repository, tag }, id) in &names {
            written
                .repositories
                .entry(repository.clone())
                .or_default()
                .insert(tag.clone(), id.to_string());
        }
        let path = self.directory.join(FILE);
        let text = serde_json::to_vec_pretty(&written).map_err(|why| ImageError::failed("cannot write", &path, why))?;
        atomic::write(&self.directory, FILE, &text)?;
        self.names = names;
        Ok(())
    }
}
