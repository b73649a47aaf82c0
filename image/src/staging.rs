//! Where something grows until it is whole. Whatever happens, nothing stays here: it is published by renaming, or goes away.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    budget::Limits,
    digest::Digest,
    error::ImageError,
    layer::{self, Layer},
};

/// A directory of one import or load.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: PathBuf,
    layers: Vec<(Digest, Layer, PathBuf)>,
    made: u64,
}

impl Staging {
    /// A new one under `parent`.
    pub fn new(parent: &Path) -> Result<Self, ImageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = parent.join(name);
        fs::create_dir(&directory).map_err(|why| ImageError::failed("cannot make", &directory, why))?;
        Ok(Self {
            directory,
            layers: Vec::new(),
            made: 0,
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was unpacked here and is waiting.
    pub fn layers(&self) -> &[(Digest, Layer, PathBuf)] {
        &self.layers
    }

    /// Unpacks an archive as a layer; `expected` is what its digest has to be.
    pub fn unpack(
        &mut self,
        archive: impl std::io::Read,
        expected: Option<&Digest>,
        limits: Limits,
    ) -> Result<Digest, ImageError> {
        let staged = self.place()?;
        let (diff_id, layer) = unpack_at(archive, expected, &staged, limits)?;
        self.take(diff_id.clone(), layer, staged);
        Ok(diff_id)
    }

    /// An empty directory for a layer that is unpacked elsewhere.
    pub fn place(&mut self) -> Result<PathBuf, ImageError> {
        self.made += 1;
        let staged = self.directory.join(format!("layer-{}", self.made));
        fs::create_dir(&staged).map_err(|why| ImageError::failed("cannot make", &staged, why))?;
        Ok(staged)
    }

    /// A layer that was unpacked in a place of ours.
    pub fn take(&mut self, diff_id: Digest, layer: Layer, staged: PathBuf) {
        self.layers.push((diff_id, layer, staged));
    }
}

/// Unpacks an archive as a layer in an empty directory; `expected` is what its digest has to be.
pub(crate) fn unpack_at(
    archive: impl std::io::Read,
    expected: Option<&Digest>,
    staged: &Path,
    limits: Limits,
) -> Result<(Digest, Layer), ImageError> {
    let unpacked = layer::unpack(archive, staged, limits)?;
    if let Some(expected) = expected.filter(|expected| **expected != unpacked.diff_id) {
        return Err(ImageError::BadArchive(format!(
            "layer verification failed for digest {expected}: the layer is {}",
            unpacked.diff_id
        )));
    }
    let layer = Layer {
        size: unpacked.size,
        root: unpacked.root,
        archive: Some(unpacked.archive),
    };
    layer::describe(staged, &layer)?;
    Ok((unpacked.diff_id, layer))
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = layer::remove_tree(&self.directory) {
            tracing::warn!(%error, "staging directory stays until the next start");
        }
    }
}
