//! Which image was made of which, and by what step: the cache of builds, and why some images are not shown.
//!
//! All of it can be lost without harm: a build then makes its steps again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, error::ImageError, notes::Notes};

/// What is known of builds.
#[derive(Debug)]
pub(crate) struct Lineage(Notes<Known>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Of an image, that it was made of.
    parents: BTreeMap<String, String>,
    /// By digest of parent and step, what came of it.
    steps: BTreeMap<String, String>,
}

impl Lineage {
    pub fn open(directory: &Path) -> Self {
        Self(Notes::open(directory, "lineage.json"))
    }

    pub fn parent(&self, id: &Digest) -> Option<Digest> {
        Digest::parse(self.0.parents.get(id.as_str())?).ok()
    }

    pub fn has_children(&self, id: &Digest) -> bool {
        self.0.parents.values().any(|parent| parent == id.as_str())
    }

    /// What a step made of an image.
    pub fn step(&self, parent: &Digest, step: &str) -> Option<Digest> {
        Digest::parse(self.0.steps.get(&key(parent, step))?).ok()
    }

    /// A step made an image of another.
    pub fn learn(&mut self, parent: &Digest, step: &str, child: &Digest) -> Result<(), ImageError> {
        self.0.change(|known| {
            if parent != child {
                known.parents.insert(child.to_string(), parent.to_string());
            }
            known.steps.insert(key(parent, step), child.to_string());
        })
    }

    /// An image was made of another, by no step that could be asked for again.
    pub fn descend(&mut self, parent: &Digest, child: &Digest) -> Result<(), ImageError> {
        self.0.change(|known| {
            if parent != child {
                known.parents.insert(child.to_string(), parent.to_string());
            }
        })
    }

    /// Keeps what is still here.
    pub fn forget(&mut self, has_image: impl Fn(&str) -> bool) -> Result<(), ImageError> {
        self.0.change(|known| {
            known
                .parents
                .retain(|child, parent| has_image(child) && has_image(parent));
            known.steps.retain(|_, child| has_image(child));
        })
    }

    /// The next build makes every step again. Which image was made of which stays known.
    pub fn forget_steps(&mut self) -> Result<(), ImageError> {
        self.0.change(|known| known.steps.clear())
    }

    /// Images that came of a step.
    pub fn made(&self) -> BTreeSet<&str> {
        self.0.steps.values().map(String::as_str).collect()
    }

    /// Does `id` stand on `ancestor`, or is it that?
    pub fn descends(&self, id: &Digest, ancestor: &Digest) -> bool {
        let mut at = Some(id.as_str());
        // no chain is longer than all that are known
        for _ in 0..=self.0.parents.len() {
            match at {
                Some(found) if found == ancestor.as_str() => return true,
                Some(found) => at = self.0.parents.get(found).map(String::as_str),
                None => return false,
            }
        }
        false
    }
}

fn key(parent: &Digest, step: &str) -> String {
    Digest::of(format!("{parent}\n{step}").as_bytes()).hex().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_step_is_known_until_its_image_is_gone_or_steps_are_forgotten() {
        let scratch = Scratch::new("lineage");
        let (base, child, grandchild) = (Digest::of(b"base"), Digest::of(b"child"), Digest::of(b"grandchild"));
        let mut lineage = Lineage::open(scratch.path());
        lineage.learn(&base, "RUN a", &child).unwrap();
        lineage.learn(&child, "RUN b", &grandchild).unwrap();
        let again = Lineage::open(scratch.path());
        assert_eq!(again.step(&base, "RUN a"), Some(child.clone()));
        assert_eq!(again.step(&base, "RUN b"), None);
        assert!(again.has_children(&base) && !again.has_children(&grandchild));
        assert!(again.descends(&grandchild, &base) && again.descends(&base, &base) && !again.descends(&base, &child));
        assert_eq!(again.made().len(), 2);
        lineage.forget(|id| id != grandchild.as_str()).unwrap();
        assert!(!lineage.has_children(&child) && lineage.step(&child, "RUN b").is_none());
        lineage.forget_steps().unwrap();
        assert_eq!(
            (lineage.step(&base, "RUN a"), lineage.parent(&child)),
            (None, Some(base))
        );
    }
}
