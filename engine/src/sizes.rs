//! How much room trees take. A tree nobody writes to is walked once; who begins to write to one says so.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{EngineError, blocking::blocking};

/// Sizes of trees that have not changed since they were walked, bytes.
#[derive(Default)]
pub(crate) struct Sizes {
    known: Mutex<HashMap<PathBuf, u64>>,
}

impl Sizes {
    /// Bytes of the files below; walks.
    pub async fn of(&self, tree: PathBuf) -> Result<u64, EngineError> {
        blocking(move || Ok(bytes_in(&tree))).await
    }

    /// The same of a tree that nobody writes to until it is forgotten; walks the first time only.
    pub async fn of_quiet(&self, tree: PathBuf) -> Result<u64, EngineError> {
        if let Some(size) = self.known().get(&tree) {
            return Ok(*size);
        }
        let size = self.of(tree.clone()).await?;
        self.known().insert(tree, size);
        Ok(size)
    }

    /// It may have changed.
    pub fn forget(&self, tree: &Path) {
        self.known().remove(tree);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of all files below, one with several names once; what vanishes meanwhile or can't be read counts nothing.
fn bytes_in(tree: &Path) -> u64 {
    let (mut sum, mut left) = (0_u64, vec![tree.to_owned()]);
    let mut seen = std::collections::HashSet::new();
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) if metadata.nlink() > 1 && !seen.insert((metadata.dev(), metadata.ino())) => {}
                Ok(metadata) => sum = sum.saturating_add(metadata.len()),
                Err(_) => {}
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quiet_tree_is_walked_once_and_again_when_it_was_forgotten() {
        let tree = std::env::temp_dir().join(format!("sluice-engine-sizes-{}", std::process::id()));
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        std::fs::write(tree.join("sub/a"), "12345").unwrap();
        std::fs::hard_link(tree.join("sub/a"), tree.join("b")).unwrap();
        let sizes = Sizes::default();
        let first = sizes.of_quiet(tree.clone()).await.unwrap();
        std::fs::write(tree.join("c"), "67").unwrap();
        let second = sizes.of_quiet(tree.clone()).await.unwrap();
        sizes.forget(&tree);
        let third = sizes.of_quiet(tree.clone()).await.unwrap();
        std::fs::remove_dir_all(&tree).unwrap();
        assert_eq!([first, second, third], [5, 5, 7]);
    }
}
