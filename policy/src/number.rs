//! Numbers that stand for things by what these are.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A number made of what it stands for: 64 bits of its SHA-256. Nobody hands them out and nobody keeps account of them, they are the same after a
/// restart and on every host, and what has changed has another one. That two of a hundred thousand agree by chance happens once in three billion worlds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Number(pub u64);

impl Number {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The group that every peer belongs to.
    pub const EVERYBODY: Self = Self(1);
    /// Not a group: what is said of those whom no rule speaks of.
    pub const NOBODY: Self = Self(2);

    /// That of something of a kind, by its parts.
    pub fn of<T: AsRef<[u8]>>(kind: &str, parts: impl IntoIterator<Item = T>) -> Self {
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(kind.as_bytes());
        parts.into_iter().for_each(|part| add(part.as_ref()));
        let digest = digest.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // Those below have a meaning.
        Self(u64::from_le_bytes(first).max(16))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Number;

    #[test]
    fn a_number_is_that_of_its_kind_and_parts_however_they_are_cut() {
        let number = Number::of("rule", ["web", "1"]);
        assert_eq!(number, Number::of("rule", ["web", "1"]));
        for other in [
            Number::of("rule", ["web1", ""]),
            Number::of("rule", ["web1"]),
            Number::of("rules", ["web", "1"]),
        ] {
            assert_ne!(number, other);
        }
    }

    #[test]
    fn a_number_stays_the_same_from_one_version_of_the_program_to_the_next() {
        assert_eq!(Number::of("rule", ["web", "1"]).to_string(), "f3abbc7bcb368058");
    }
}
