//! What registries call what we have: the blobs a layer came or went as, and the manifests images are known by (`repository@digest`).
//!
//! All of it can be lost without harm: a push then sends what is there already, and an image has no digest until it is pulled again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, error::ImageError, notes::Notes};

/// Blobs remembered of one layer: the newest.
const MOST_BLOBS: usize = 16;
/// Repositories remembered of one blob.
const MOST_REPOSITORIES: usize = 32;

/// A layer as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub digest: String,
    pub size: u64,
    pub media_type: String,
    /// Where it was seen, with the domain.
    pub repositories: BTreeSet<String>,
}

/// What is known of registries.
#[derive(Debug)]
pub(crate) struct Origins(Notes<Seen>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// By diff id, the newest last.
    layers: BTreeMap<String, Vec<Known>>,
    /// By repository and digest of the manifest: the image's id.
    manifests: BTreeMap<String, BTreeMap<String, String>>,
}

impl Origins {
    pub fn open(directory: &Path) -> Self {
        Self(Notes::open(directory, "origins.json"))
    }

    /// The blobs a layer is known as, the newest first.
    pub fn blobs(&self, diff_id: &Digest) -> impl Iterator<Item = &Known> {
        self.0.layers.get(diff_id.as_str()).into_iter().flatten().rev()
    }

    /// The image of `repository@digest`.
    pub fn image(&self, repository: &str, digest: &Digest) -> Option<Digest> {
        let id = self.0.manifests.get(repository)?.get(digest.as_str())?;
        Digest::parse(id).ok()
    }

    /// Repositories and digests of an image.
    pub fn digests(&self, id: &Digest) -> Vec<(String, String)> {
        let all = self.0.manifests.iter();
        let named = all.flat_map(|(repository, manifests)| {
            manifests.iter().map(move |(digest, image)| (repository, digest, image))
        });
        named
            .filter(|(.., image)| *image == id.as_str())
            .map(|(repository, digest, _)| (repository.clone(), digest.clone()))
            .collect()
    }

    /// Layers were seen in `repository`, and an image under a digest.
    pub fn learn(
        &mut self,
        repository: &str,
        layers: &[(Digest, Known)],
        manifest: Option<(&Digest, &Digest)>,
    ) -> Result<(), ImageError> {
        self.0.change(|seen| {
            for (diff_id, new) in layers {
                let known = seen.layers.entry(diff_id.to_string()).or_default();
                let mut repositories = BTreeSet::from([repository.to_owned()]);
                if let Some(at) = known.iter().position(|other| other.digest == new.digest) {
                    let old = known.remove(at);
                    repositories.extend(old.repositories.into_iter().take(MOST_REPOSITORIES - 1));
                }
                known.push(Known {
                    repositories,
                    ..new.clone()
                });
                if known.len() > MOST_BLOBS {
                    known.remove(0);
                }
            }
            if let Some((digest, id)) = manifest {
                let manifests = seen.manifests.entry(repository.to_owned()).or_default();
                manifests.insert(digest.to_string(), id.to_string());
            }
        })
    }

    /// Takes `repository@digest` away.
    pub fn untag(&mut self, repository: &str, digest: &Digest) -> Result<(), ImageError> {
        self.0.change(|seen| {
            if let Some(manifests) = seen.manifests.get_mut(repository) {
                manifests.remove(digest.as_str());
            }
            seen.manifests.retain(|_, manifests| !manifests.is_empty());
        })
    }

    /// Keeps what is still here.
    pub fn forget(
        &mut self,
        has_layer: impl Fn(&str) -> bool,
        has_image: impl Fn(&str) -> bool,
    ) -> Result<(), ImageError> {
        self.0.change(|seen| {
            seen.layers.retain(|diff_id, _| has_layer(diff_id));
            for manifests in seen.manifests.values_mut() {
                manifests.retain(|_, id| has_image(id));
            }
            seen.manifests.retain(|_, manifests| !manifests.is_empty());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn what_was_learned_is_known_after_a_restart_and_forgotten_with_its_layer() {
        let scratch = Scratch::new("origins");
        let (layer, manifest, id) = (Digest::of(b"layer"), Digest::of(b"manifest"), Digest::of(b"id"));
        let known = Known {
            digest: Digest::of(b"blob").to_string(),
            size: 4,
            media_type: "t".into(),
            repositories: BTreeSet::new(),
        };
        let mut origins = Origins::open(scratch.path());
        origins
            .learn("r/a", &[(layer.clone(), known.clone())], Some((&manifest, &id)))
            .unwrap();
        origins.learn("r/b", &[(layer.clone(), known.clone())], None).unwrap();

        let mut again = Origins::open(scratch.path());
        let blob = again.blobs(&layer).next().unwrap();
        assert_eq!(blob.repositories, BTreeSet::from(["r/a".to_owned(), "r/b".to_owned()]));
        assert_eq!(again.image("r/a", &manifest), Some(id.clone()));
        assert_eq!(again.digests(&id), [("r/a".to_owned(), manifest.to_string())]);
        again.forget(|_| false, |_| false).unwrap();
        assert!(again.blobs(&layer).next().is_none() && again.digests(&id).is_empty());
    }
}
