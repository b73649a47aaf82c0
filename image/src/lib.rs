//! Brings images here and lays them in layers.
//!
//! Everything blocks; callers on an async runtime use a blocking thread. The store survives a kill at any moment: content is written beside and
//! renamed into place.
//!
//! What lies where, under `<data-root>/image`:
//!
//! | | |
//! |---|---|
//! | `content/<hex>` | configurations, by digest: the digest is the image's id |
//! | `layers/<hex>/` | unpacked layers, by the digest of their uncompressed archive (`diff_id`) |
//! | `repositories.json` | names |
//! | `lineage.json` | which image was made of which, and by what step |
//! | `origins.json` | what registries call layers and images |
//! | `snapshots/<hex>` | which layers a container stands on, also when its image is gone |
//! | `staging/` | what is being made; emptied on start |
//! | `empty/` | the lower layer of images that have none |

mod archive;
mod atomic;
mod budget;
mod building;
mod changes;
mod commit;
mod compression;
mod configuration;
mod content;
mod context;
mod digest;
pub mod dockerfile;
mod download;
mod error;
pub mod files;
mod holes;
#[cfg(any(test, feature = "hostile"))]
pub mod hostile;
mod import;
#[cfg(test)]
mod kills;
mod layer;
mod lineage;
mod load;
mod manifest;
mod notes;
mod origins;
mod overlay;
mod owners;
mod parallel;
mod pull;
mod push;
mod reference;
mod registry;
mod remove;
mod repositories;
mod save;
mod snapshot;
mod staging;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    borrow::Borrow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{self, Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use commit::Commit;
pub use configuration::{Empty, Extras, Healthcheck, RunConfig};
pub use error::ImageError;
pub use layer::{Change, ChangeKind, remove_tree};
use oci_spec::image::ImageConfiguration;
pub use owners::{OwnerRange, Owners};
pub use pull::{Distribution, Pull};
pub use push::Push;
pub use registry::{Credentials, Listener, News, RegistryOptions};
pub use remove::{ImageUse, Removed};
pub use snapshot::{Snapshot, Writes};

use budget::Limits;
use configuration::Configuration;
use content::Content;
use digest::Digest;
use layer::Layers;
use lineage::Lineage;
use origins::Origins;
use reference::{Named, Reference};
use repositories::Repositories;
use staging::Staging;
use turns::Turns;

/// All images of one data root (`<data-root>/image`).
pub struct Images {
    root: PathBuf,
    limits: Limits,
    registries: RegistryOptions,
    turns: Turns,
    state: Mutex<State>,
}

/// An image as it is stored here.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:<64 hex>`, the digest of the configuration.
    pub id: String,
    /// The configuration, as the image's author wrote it.
    pub config: ImageConfiguration,
    /// What Docker adds to it.
    pub extras: Extras,
    /// Repository and tag of every name it has, `name:tag` in the familiar form (`nginx:latest`).
    pub tags: Vec<String>,
    /// What registries know it by, `name@sha256:…`.
    pub digests: Vec<String>,
    /// The image it was made of here, by a build or of a container.
    pub parent: Option<String>,
    /// Only a step on the way to others: it has no name, and others were made of it.
    pub is_intermediate: bool,
    /// The sum of its layers' uncompressed sizes, bytes.
    pub size: u64,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<String>,
    /// Their uncompressed sizes, bytes.
    pub layer_sizes: Vec<u64>,
    /// Where their trees are.
    pub directories: Vec<PathBuf>,
}

/// What is known, in memory and on disk alike.
struct State {
    content: Content,
    layers: Layers,
    repositories: Repositories,
    origins: Origins,
    lineage: Lineage,
    images: BTreeMap<Digest, Configuration>,
    /// Layers somebody is about to use: how many times.
    pins: HashMap<Digest, usize>,
}

/// An image that is whole in staging and about to be published.
struct NewImage {
    bytes: Vec<u8>,
    configuration: Configuration,
    names: Vec<Reference>,
}

impl Images {
    /// Opens (or makes) the store and removes what a crash left half-made.
    pub fn open(data_root: &Path) -> Result<Self, ImageError> {
        Self::open_with_limits(data_root, Limits::default())
    }

    fn open_with_limits(data_root: &Path, limits: Limits) -> Result<Self, ImageError> {
        // the paths of layers go into mounts and records: they must not depend on where we stand
        let data_root =
            path::absolute(data_root).map_err(|why| ImageError::failed("cannot resolve", data_root, why))?;
        let root = data_root.join("image");
        for name in ["", "content", "layers", "snapshots", "empty"] {
            make_private(&root.join(name))?;
        }
        // the root of a container whose image has no layer: not for root alone
        let empty = root.join("empty");
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o755))
            .map_err(|why| ImageError::failed("cannot set mode of", &empty, why))?;
        let staging = root.join("staging");
        remove_tree(&staging)?;
        make_private(&staging)?;
        let content = Content::open(root.join("content"));
        let layers = Layers::open(root.join("layers"))?;
        let (images, all_readable) = content.images(&layers)?;
        let repositories = Repositories::open(&root)?;
        let state = State {
            content,
            layers,
            repositories,
            origins: Origins::open(&root),
            lineage: Lineage::open(&root),
            images,
            pins: HashMap::new(),
        };
        let images = Self {
            root,
            limits,
            registries: RegistryOptions::default(),
            turns: Turns::default(),
            state: Mutex::new(state),
        };
        if all_readable {
            images.sweep()?;
        }
        Ok(images)
    }

    /// The same store; registries are reached as `options` say.
    pub fn with_registries(mut self, options: RegistryOptions) -> Self {
        self.registries = options;
        self
    }

    /// All images, newest first.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let state = self.state();
        let mut images: Vec<Image> = state.images.keys().filter_map(|id| state.image(id)).collect();
        images.sort_by_cached_key(|image| {
            let created = image.config.created().as_deref().unwrap_or_default();
            Reverse(
                created
                    .parse::<jiff::Timestamp>()
                    .unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            )
        });
        Ok(images)
    }

    /// Bytes of all layers of images, each once; and of each image, by id, those that it shares with others.
    pub fn usage(&self) -> (u64, BTreeMap<String, u64>) {
        let state = self.state();
        let mut users: BTreeMap<&Digest, usize> = BTreeMap::new();
        for image in state.images.values() {
            for layer in image.diff_ids.iter().collect::<BTreeSet<_>>() {
                *users.entry(layer).or_default() += 1;
            }
        }
        let size = |layer: &Digest| state.layers.get(layer).map_or(0, |layer| layer.size);
        let shared = |image: &Configuration| {
            let shared = image
                .diff_ids
                .iter()
                .filter(|layer| users.get(layer).is_some_and(|users| *users > 1));
            shared.map(size).fold(0, u64::saturating_add)
        };
        let of_images = state.images.iter().map(|(id, image)| (id.to_string(), shared(image)));
        (
            users.keys().copied().map(size).fold(0, u64::saturating_add),
            of_images.collect(),
        )
    }

    /// By name (`nginx`, `nginx:tag`, `docker.io/library/nginx`), `name@digest`, id or unambiguous id prefix.
    pub fn find(&self, name: &str) -> Result<Image, ImageError> {
        let state = self.state();
        let id = state.find(name)?;
        state.image(&id).ok_or_else(|| ImageError::NotFound(name.into()))
    }

    /// Gives an image a further name, and tells it in the familiar form.
    pub fn tag(&self, name: &str, reference: &str) -> Result<String, ImageError> {
        let reference = reference::parse_tag(reference)?;
        let familiar = reference.familiar();
        let mut state = self.state();
        let id = state.find(name)?;
        state.repositories.change([(reference, Some(id))])?;
        Ok(familiar)
    }

    /// Removes layers that no image and no container stands on. Happens by itself on start and when an image is removed.
    pub fn sweep(&self) -> Result<(), ImageError> {
        self.state().sweep(&self.root).map(drop)
    }

    /// Makes what is staged part of the store: layers, then configurations, then names, so that whatever is there at any moment is complete.
    /// Tells for each name that an older image had, which.
    fn publish<S: Borrow<Staging>>(
        &self,
        staged: &[S],
        images: &[NewImage],
    ) -> Result<Vec<(Reference, Digest)>, ImageError> {
        let staged = || staged.iter().map(Borrow::<Staging>::borrow);
        if let Some(with_layers) = staged().find(|staging| !staging.layers().is_empty()) {
            // all of them are on the store's file system
            atomic::sync_file_system(with_layers.directory())?;
        }
        let mut state = self.state();
        for (diff_id, layer, staged) in staged().flat_map(Staging::layers) {
            state.layers.publish(diff_id, layer.clone(), staged)?;
        }
        let (mut names, mut taken) = (Vec::new(), Vec::new());
        for NewImage {
            bytes,
            configuration,
            names: new,
        } in images
        {
            let id = Digest::of(bytes);
            state.content.write(&id, bytes)?;
            state.images.insert(id.clone(), configuration.clone());
            for name in new {
                if let Some(old) = state.repositories.get(name).filter(|old| **old != id) {
                    taken.push((name.clone(), old.clone()));
                }
                names.push((name.clone(), Some(id.clone())));
            }
        }
        state.repositories.change(names)?;
        Ok(taken)
    }

    /// A panic of another thread left nothing half-done in memory that is not half-done on disk, where every step is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stage(&self) -> Result<Staging, ImageError> {
        Staging::new(&self.root.join("staging"))
    }
}

impl State {
    fn image(&self, id: &Digest) -> Option<Image> {
        let configuration = self.images.get(id)?;
        let size = |layer: &Digest| self.layers.get(layer).map_or(0, |layer| layer.size);
        let sizes: Vec<u64> = configuration.diff_ids.iter().map(size).collect();
        Some(Image {
            id: id.to_string(),
            config: configuration.oci.clone(),
            extras: configuration.extras.clone(),
            tags: self.repositories.of(id).map(Reference::familiar).collect(),
            digests: self.digests_of(id),
            parent: self.lineage.parent(id).map(|parent| parent.to_string()),
            is_intermediate: self.repositories.of(id).next().is_none() && self.lineage.has_children(id),
            size: sizes.iter().copied().fold(0, u64::saturating_add),
            layer_sizes: sizes,
            layers: configuration.diff_ids.iter().map(Digest::to_string).collect(),
            directories: configuration
                .diff_ids
                .iter()
                .map(|layer| self.layers.path(layer))
                .collect(),
        })
    }

    /// `name@digest` of an image.
    fn digests_of(&self, id: &Digest) -> Vec<String> {
        let known = self.origins.digests(id).into_iter();
        known
            .map(|(repository, digest)| format!("{}@{digest}", reference::familiar_repository(&repository)))
            .collect()
    }

    /// Docker's order: a whole id, a name, the beginning of an id. What begins several ids is none of them.
    fn find(&self, name: &str) -> Result<Digest, ImageError> {
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        let parsed = match reference::parse(name) {
            // `sha256:12ab` is a name by the grammar, but nobody means that
            Err(error) if !name.starts_with("sha256:") => return Err(error),
            other => other.ok(),
        };
        let missing = match &parsed {
            Some(Named::Tagged(reference)) if !name.starts_with("sha256:") => reference.familiar(),
            _ => name.to_owned(),
        };
        let exact = match parsed {
            Some(Named::Id(id)) => Some(id),
            Some(Named::Digested(repository, id)) => {
                let is_one = self.repositories.of(&id).any(|name| name.repository == repository);
                self.origins.image(&repository, &id).or(is_one.then_some(id))
            }
            Some(Named::Tagged(reference)) => self.repositories.get(&reference).cloned(),
            None => None,
        };
        if let Some(id) = exact.filter(|id| self.images.contains_key(id)) {
            return Ok(id);
        }
        let mut matching = self
            .images
            .keys()
            .filter(|id| !prefix.is_empty() && id.hex().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Ok(id.clone()),
            _ => Err(ImageError::NotFound(missing)),
        }
    }

    /// Removes unused layers, and tells which.
    fn sweep(&mut self, root: &Path) -> Result<Vec<Digest>, ImageError> {
        let mut used = snapshot::layers_in_use(&root.join("snapshots"))?;
        used.extend(self.images.values().flat_map(|image| image.diff_ids.iter().cloned()));
        let pins = &self.pins;
        self.layers
            .sweep(|layer| used.contains(layer) || pins.contains_key(layer))
    }
}

/// Keeps layers from being swept while it lives.
struct Pin<'a> {
    images: &'a Images,
    layers: Vec<Digest>,
}

impl<'a> Pin<'a> {
    fn new(images: &'a Images) -> Self {
        Self {
            images,
            layers: Vec::new(),
        }
    }

    /// False when the layer is not here.
    fn hold(&mut self, layer: &Digest) -> bool {
        let mut state = self.images.state();
        let here = state.layers.get(layer).is_some();
        if here {
            *state.pins.entry(layer.clone()).or_default() += 1;
            self.layers.push(layer.clone());
        }
        here
    }

    /// Also when it is not here yet. Is it?
    fn keep(&mut self, layer: &Digest) -> bool {
        let mut state = self.images.state();
        if !self.layers.contains(layer) {
            *state.pins.entry(layer.clone()).or_default() += 1;
            self.layers.push(layer.clone());
        }
        state.layers.get(layer).is_some()
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut state = self.images.state();
        for layer in &self.layers {
            if let Some(count) = state.pins.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(layer);
                }
            }
        }
    }
}

/// Layers hold set-user programs and devices as the archive wanted them: nobody but root may come by.
fn make_private(directory: &Path) -> Result<(), ImageError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|why| ImageError::failed("cannot make", directory, why))
}
