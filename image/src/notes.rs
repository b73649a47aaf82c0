//! A file of what is good to know and can be lost without harm. It is replaced whole, without waiting for the disk; one that cannot be read is begun anew.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{atomic, error::ImageError};

/// How the files are written today.
const VERSION: u32 = 1;

/// The file, and what stands in it.
#[derive(Debug)]
pub(crate) struct Notes<T> {
    directory: PathBuf,
    name: &'static str,
    known: T,
}

#[derive(Serialize, Deserialize)]
struct Written<T> {
    version: u32,
    #[serde(flatten)]
    known: T,
}

impl<T: Clone + Default + PartialEq + Serialize + DeserializeOwned> Notes<T> {
    pub fn open(directory: &Path, name: &'static str) -> Self {
        let path = directory.join(name);
        let read = fs::read(&path)
            .ok()
            .map(|text| serde_json::from_slice::<Written<T>>(&text));
        let known = match read {
            Some(Ok(Written {
                version: VERSION,
                known,
            })) => known,
            Some(_) => {
                tracing::warn!(path = %path.display(), "cannot be read and is begun anew");
                T::default()
            }
            None => T::default(),
        };
        Self {
            directory: directory.to_owned(),
            name,
            known,
        }
    }

    /// Changes what is known, here and in the file; when that cannot be written, neither.
    pub fn change(&mut self, change: impl FnOnce(&mut T)) -> Result<(), ImageError> {
        let mut known = self.known.clone();
        change(&mut known);
        if known == self.known {
            return Ok(());
        }
        let written = Written {
            version: VERSION,
            known,
        };
        let text = serde_json::to_vec(&written)
            .map_err(|why| ImageError::failed("cannot write", &self.directory.join(self.name), why))?;
        atomic::write_soon(&self.directory, self.name, &text)?;
        self.known = written.known;
        Ok(())
    }
}

impl<T> Deref for Notes<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::Scratch;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Ages {
        ages: BTreeMap<String, u32>,
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart_and_a_damaged_file_is_begun_anew() {
        let scratch = Scratch::new("notes");
        let open = || Notes::<Ages>::open(scratch.path(), "ages.json");
        open().change(|known| _ = known.ages.insert("ada".into(), 36)).unwrap();
        assert_eq!(open().ages["ada"], 36);
        let path = scratch.path().join("ages.json");
        for damaged in ["{\"version\":", "{\"version\":2,\"ages\":{\"ada\":36}}", "[]", ""] {
            fs::write(&path, damaged).unwrap();
            assert!(open().ages.is_empty(), "{damaged}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_not_known_either() {
        let scratch = Scratch::new("notes-nowhere");
        let mut notes = Notes::<Ages>::open(&scratch.path().join("missing"), "ages.json");
        assert!(notes.change(|known| _ = known.ages.insert("ada".into(), 36)).is_err());
        assert!(notes.ages.is_empty());
    }
}
