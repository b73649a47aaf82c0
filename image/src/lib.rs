//! Brings images here and lays them in layers.
//!
//! Everything blocks; callers on an async runtime use a blocking thread. The store survives a kill at any moment: content is written beside and
//! renamed into place.

use std::{io::Read, path::{Path, PathBuf}};

use oci_spec::image::ImageConfiguration;

/// All images of one data root (`<data-root>/image`).
pub struct Images {
    _root: PathBuf,
}

/// An image as it is stored here.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:<64 hex>`, the digest of the configuration.
    pub id: String,
    /// The configuration, as the image's author wrote it.
    pub config: ImageConfiguration,
    /// Repository and tag of every name it has, `name:tag` in the familiar form (`nginx:latest`).
    pub tags: Vec<String>,
    /// The sum of its layers' uncompressed sizes, bytes.
    pub size: u64,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<String>,
}

/// What happened to a name or an image on removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken off.
    Untagged(String),
    /// An image (or layer, by digest) is gone.
    Deleted(String),
}

/// A container's file system: the image's layers below a writable one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it is mounted (`<data-root>/…/merged`).
    pub merged: PathBuf,
    /// The writable layer.
    pub upper: PathBuf,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image of this name or id.
    #[error("No such image: {0}")]
    NotFound(String),
    /// The name is not a valid reference, a digest is malformed, a change instruction is unknown…
    #[error("{0}")]
    Invalid(String),
    /// The archive is damaged or hostile.
    #[error("{0}")]
    BadArchive(String),
    /// In use, or ambiguous.
    #[error("{0}")]
    Conflict(String),
    /// Reading or writing here failed: what, on what, why.
    #[error("{0}")]
    Failed(String),
}

impl Images {
    /// Opens (or makes) the store and removes what a crash left half-made.
    pub fn open(_data_root: &Path) -> Result<Self, ImageError> {
        todo!()
    }

    /// Makes an image of one layer from a tar stream (plain, gzip, zstd, xz refused with a sentence), as `docker import` does.
    /// `changes` are Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE, WORKDIR, USER, LABEL, VOLUME, STOPSIGNAL, HEALTHCHECK, ONBUILD).
    pub fn import(&self, _tar: &mut dyn Read, _reference: Option<&str>, _changes: &[String], _message: &str) -> Result<Image, ImageError> {
        todo!()
    }

    /// Reads an archive made by `docker save` (old and OCI layout, gzip or not). Returns a line per loaded image as Docker says it
    /// (`Loaded image: name:tag` / `Loaded image ID: sha256:…`).
    pub fn load(&self, _tar: &mut dyn Read) -> Result<Vec<String>, ImageError> {
        todo!()
    }

    /// All images, newest first.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        todo!()
    }

    /// By name (`nginx`, `nginx:tag`, `docker.io/library/nginx`), `name@digest`, id or unambiguous id prefix.
    pub fn find(&self, _name: &str) -> Result<Image, ImageError> {
        todo!()
    }

    /// Gives an image a further name.
    pub fn tag(&self, _name: &str, _reference: &str) -> Result<(), ImageError> {
        todo!()
    }

    /// Removes a name, or an image by id. `users` are the ids of images used by containers (with the container's short id and whether it runs).
    /// Docker's rules and words: a name that is not the last one is only untagged; an id with several names needs `force`; an image used by a
    /// running container stays.
    pub fn remove(&self, _name: &str, _force: bool, _users: &[ImageUse]) -> Result<Vec<Removed>, ImageError> {
        todo!()
    }

    /// Makes the writable layer of a container under `dir`. No mount yet.
    pub fn prepare(&self, _image: &str, _dir: &Path) -> Result<Snapshot, ImageError> {
        todo!()
    }

    /// Mounts it (overlayfs, up to 500 layers). Fine when mounted already.
    pub fn mount(&self, _image: &str, _dir: &Path) -> Result<Snapshot, ImageError> {
        todo!()
    }

    /// Unmounts it. Fine when not mounted.
    pub fn unmount(&self, _dir: &Path) -> Result<(), ImageError> {
        todo!()
    }
}

/// A container that uses an image.
#[derive(Clone, Debug)]
pub struct ImageUse {
    /// The image's id.
    pub image: String,
    /// The container's id.
    pub container: String,
    /// Is it running?
    pub running: bool,
}
