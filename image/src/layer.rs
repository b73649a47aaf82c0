//! Layers, unpacked once each and kept by the digest of their uncompressed archive.
//!
//! `layers/<hex>/fs` is the tree, as overlayfs wants it; `layers/<hex>/layer.json` what is known of it; `layers/<hex>/archive.zst` how its archive is
//! made again. A layer is unpacked in a staging directory and
//! renamed here when it is whole and on disk, so what is here is complete.

mod changes;
mod discard;
mod recipe;
mod tree;
mod unpack;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) use changes::changes;
pub use changes::{Change, ChangeKind};
pub use discard::remove_tree;
pub(crate) use recipe::write_archive;
use serde::{Deserialize, Serialize};
pub(crate) use tree::{is_kept, set_metadata};
pub(crate) use unpack::{lay_down, make_directory, unpack};

use crate::{atomic, digest::Digest, error::ImageError};

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Sum of its files, bytes.
    pub size: u64,
    /// Mode, owner and group of `/`, when the layer says.
    pub root: Option<(u32, u32, u32)>,
    /// Bytes of its uncompressed archive, when there is a record of how to make it again.
    #[serde(default)]
    pub archive: Option<u64>,
}

/// All layers.
#[derive(Debug)]
pub(crate) struct Layers {
    directory: PathBuf,
    known: BTreeMap<Digest, Layer>,
}

impl Layers {
    /// Reads what is there. A directory without its description is no layer and is removed.
    pub fn open(directory: PathBuf) -> Result<Self, ImageError> {
        let mut known = BTreeMap::new();
        let failed = |why: io::Error| ImageError::failed("cannot read", &directory, why);
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let digest = Digest::parse(&format!("sha256:{name}"));
            let layer = fs::read(path.join("layer.json"))
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok());
            match (digest, layer) {
                (Ok(digest), Some(layer)) => _ = known.insert(digest, layer),
                _ => {
                    tracing::warn!(path = %path.display(), "removing what is not a layer");
                    remove_tree(&path)?;
                }
            }
        }
        Ok(Self { directory, known })
    }

    pub fn get(&self, diff_id: &Digest) -> Option<&Layer> {
        self.known.get(diff_id)
    }

    /// Where its tree is.
    pub fn path(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join(diff_id.hex()).join("fs")
    }

    /// Where it is.
    pub fn directory_of(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join(diff_id.hex())
    }

    /// Takes over a layer that was unpacked in `staged/fs` and is on disk.
    pub fn publish(&mut self, diff_id: &Digest, layer: Layer, staged: &Path) -> Result<(), ImageError> {
        if self.known.contains_key(diff_id) {
            return Ok(()); // somebody else brought it meanwhile; the staging directory goes away with ours
        }
        let target = self.directory.join(diff_id.hex());
        fs::rename(staged, &target).map_err(|why| ImageError::failed("cannot keep layer as", &target, why))?;
        atomic::sync_directory(&self.directory)?;
        self.known.insert(diff_id.clone(), layer);
        Ok(())
    }

    /// Removes the layers that `is_used` denies, and tells which.
    pub fn sweep(&mut self, is_used: impl Fn(&Digest) -> bool) -> Result<Vec<Digest>, ImageError> {
        let unused: Vec<Digest> = self.known.keys().filter(|digest| !is_used(digest)).cloned().collect();
        for digest in &unused {
            let path = self.directory.join(digest.hex());
            // without its description it is no layer any more, also when we are killed now
            fs::remove_file(path.join("layer.json"))
                .map_err(|why| ImageError::failed("cannot remove layer", &path, why))?;
            self.known.remove(digest);
            remove_tree(&path)?;
        }
        Ok(unused)
    }
}

/// Writes the description beside a staged tree.
pub(crate) fn describe(staged: &Path, layer: &Layer) -> Result<(), ImageError> {
    let path = staged.join("layer.json");
    let text = serde_json::to_vec(layer).map_err(|why| ImageError::failed("cannot write", &path, why))?;
    fs::write(&path, text).map_err(|why| ImageError::failed("cannot write", &path, why))
}
