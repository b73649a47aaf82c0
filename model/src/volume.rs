//! Volumes: directories that outlive containers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The only driver.
pub const LOCAL: &str = "local";
/// The label of a volume that was made without a name, as Docker has it.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// Its name, unique on this host.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `type`, `device` and `o` of what is mounted on it while it is used; none: it is a directory of ours.
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// Was it made without a name?
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }

    /// Is something to be mounted on it while it is used?
    pub fn is_mounted(&self) -> bool {
        self.options.contains_key("device")
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes: the name is a directory.
pub fn is_valid_name(name: &str) -> bool {
    let further = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (2..=255).contains(&name.len()) && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().skip(1).all(further)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_directory_and_never_a_path() {
        for name in ["ab", "a.b-c_d", "0x"] {
            assert!(is_valid_name(name), "{name}");
        }
        for name in ["", "a", ".", "..", "-a", ".a", "a/b", "a b", "../x", &"a".repeat(256)] {
            assert!(!is_valid_name(name), "{name}");
        }
    }
}
