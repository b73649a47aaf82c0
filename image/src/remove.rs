//! Takes names and images away, by Docker's rules and in its words.

use std::collections::BTreeSet;

use crate::{
    Images, State,
    digest::{self, Digest},
    error::ImageError,
    reference::{self, Named, Reference},
};

/// What happened to a name or an image on removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken off.
    Untagged(String),
    /// An image (or layer, by digest) is gone.
    Deleted(String),
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

impl Images {
    /// Removes a name, or an image by id. `users` are the ids of images used by containers (with the container's short id and whether it runs).
    /// Docker's rules and words: a name that is not the last one is only untagged; an id with several names needs `force`; an image used by a
    /// running container stays.
    pub fn remove(&self, name: &str, force: bool, users: &[ImageUse]) -> Result<Vec<Removed>, ImageError> {
        let mut state = self.state();
        let id = state.find(name)?;
        let all_users = users;
        let users: Vec<&ImageUse> = users.iter().filter(|user| user.image == id.as_str()).collect();
        let mut removed = Vec::new();
        if is_id_prefix(&id, name) {
            if state.has_single_name(&id) {
                // it goes with the image, and does not count as a conflict
                state.check(&id, &users, force, false)?;
                state.untag_all(&id, &mut removed)?;
            }
            state.check(&id, &users, force, true)?;
        } else {
            if !force
                && state.has_single_name(&id)
                && let Some(user) = users.first()
            {
                return Err(ImageError::Conflict(format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                     referenced image {}",
                    short(&user.container),
                    short(id.hex())
                )));
            }
            match reference::parse(name)? {
                Named::Digested(repository, digest) if state.origins.image(&repository, &digest).is_some() => {
                    state.origins.untag(&repository, &digest)?;
                    let repository = reference::familiar_repository(&repository);
                    removed.push(Removed::Untagged(format!("{repository}@{digest}")));
                }
                _ => {
                    let reference = named(&state, &id, name)?;
                    state.untag(&id, reference, &mut removed)?;
                }
            }
            // other names, or a container that still stands on it: the image stays, and that is no error
            if state.has_name(&id) || state.check(&id, &users, force, true).is_err() {
                return Ok(removed);
            }
        }
        let mut parent = state.lineage.parent(&id);
        state.delete(&self.root, &id, &mut removed)?;
        // steps on the way to it, which nobody else stands on
        while let Some(step) = parent.take() {
            let is_used = all_users.iter().any(|user| user.image == step.as_str());
            if is_used
                || state.has_name(&step)
                || state.lineage.has_children(&step)
                || !state.images.contains_key(&step)
            {
                break;
            }
            parent = state.lineage.parent(&step);
            state.delete(&self.root, &step, &mut removed)?;
        }
        Ok(removed)
    }
}

impl State {
    /// Has it a tag, or a digest that a registry knows it by?
    fn has_name(&self, id: &Digest) -> bool {
        self.repositories.of(id).next().is_some() || !self.origins.digests(id).is_empty()
    }

    /// Docker's rule: one tag or digest, or one tag and digests of its repository.
    fn has_single_name(&self, id: &Digest) -> bool {
        let tags: Vec<&Reference> = self.repositories.of(id).collect();
        let digests = self.origins.digests(id);
        match (tags.as_slice(), digests.as_slice()) {
            ([], [] | [_]) | ([_], []) => true,
            ([], [(first, _), others @ ..]) => others.iter().all(|(repository, _)| repository == first),
            ([tag], digests) => digests.iter().all(|(repository, _)| *repository == tag.repository),
            _ => false,
        }
    }

    /// May the image go? `names_count`: are further names a reason to stay?
    fn check(&self, id: &Digest, users: &[&ImageUse], force: bool, names_count: bool) -> Result<(), ImageError> {
        let conflict = |how: &str, why: &str| {
            Err(ImageError::Conflict(format!(
                "conflict: unable to delete {} ({how}) - {why}",
                short(id.hex())
            )))
        };
        if self.lineage.has_children(id) {
            return conflict("cannot be forced", "image has dependent child images");
        }
        if let Some(user) = users.iter().find(|user| user.running) {
            let why = format!("image is being used by running container {}", short(&user.container));
            return conflict("cannot be forced", &why);
        }
        if force {
            return Ok(());
        }
        if names_count && self.has_name(id) {
            return conflict("must be forced", "image is referenced in multiple repositories");
        }
        if let Some(user) = users.first() {
            let why = format!("image is being used by stopped container {}", short(&user.container));
            return conflict("must be forced", &why);
        }
        Ok(())
    }

    /// Takes a name away; with the last tag of a repository also what that repository's registry calls the image.
    fn untag(&mut self, id: &Digest, reference: Reference, removed: &mut Vec<Removed>) -> Result<(), ImageError> {
        let familiar = reference.familiar();
        let repository = reference.repository.clone();
        self.repositories.change([(reference, None)])?;
        removed.push(Removed::Untagged(familiar));
        if self.repositories.of(id).all(|name| name.repository != repository) {
            self.forget_digests(id, Some(&repository), removed)?;
        }
        Ok(())
    }

    fn forget_digests(
        &mut self,
        id: &Digest,
        only: Option<&str>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), ImageError> {
        for (repository, digest) in self.origins.digests(id) {
            if only.is_none_or(|only| only == repository) {
                self.origins.untag(&repository, &Digest::parse(&digest)?)?;
                let repository = reference::familiar_repository(&repository);
                removed.push(Removed::Untagged(format!("{repository}@{digest}")));
            }
        }
        Ok(())
    }

    fn untag_all(&mut self, id: &Digest, removed: &mut Vec<Removed>) -> Result<(), ImageError> {
        let names: Vec<Reference> = self.repositories.of(id).cloned().collect();
        self.repositories
            .change(names.iter().map(|name| (name.clone(), None)))?;
        removed.extend(names.iter().map(|name| Removed::Untagged(name.familiar())));
        self.forget_digests(id, None, removed)
    }

    /// Names, then the configuration, then layers: killed in between, the next start sweeps the rest.
    fn delete(&mut self, root: &std::path::Path, id: &Digest, removed: &mut Vec<Removed>) -> Result<(), ImageError> {
        self.untag_all(id, removed)?;
        self.content.remove(id)?;
        let image = self.images.remove(id);
        removed.push(Removed::Deleted(id.to_string()));
        let gone: BTreeSet<Digest> = self.sweep(root)?.into_iter().collect();
        let Self {
            origins,
            lineage,
            layers,
            images,
            ..
        } = self;
        let has_layer = |layer: &str| Digest::parse(layer).is_ok_and(|layer| layers.get(&layer).is_some());
        let has_image = |image: &str| Digest::parse(image).is_ok_and(|image| images.contains_key(&image));
        origins.forget(has_layer, has_image)?;
        lineage.forget(has_image)?;
        let layers = image.map(|image| image.diff_ids).unwrap_or_default();
        let chain = digest::chain_ids(&layers);
        for (layer, chain_id) in layers.iter().zip(&chain).rev() {
            if gone.contains(layer) {
                removed.push(Removed::Deleted(chain_id.to_string()));
            }
        }
        Ok(())
    }
}

/// Docker takes a name that begins the image's id for that id.
fn is_id_prefix(id: &Digest, name: &str) -> bool {
    id.as_str().starts_with(name) || id.hex().starts_with(name)
}

fn named(state: &State, id: &Digest, name: &str) -> Result<Reference, ImageError> {
    match reference::parse(name)? {
        Named::Tagged(reference) => Ok(reference),
        Named::Digested(repository, _) => {
            let mut names = state.repositories.of(id).filter(|name| name.repository == repository);
            names.next().cloned().ok_or_else(|| ImageError::NotFound(name.into()))
        }
        Named::Id(_) => Err(ImageError::NotFound(name.into())),
    }
}

/// The first twelve digits, as Docker shows ids.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
