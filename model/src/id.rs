//! Ids of containers, networks, endpoints and sandboxes: 64 hex digits, as Docker's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 32 random bytes as 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// From 32 random bytes of the caller (this crate does no I/O).
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes a string over when it is 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        (text.len() == 64 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The bytes that the digits stand for.
    pub fn to_bytes(&self) -> [u8; 32] {
        let digit = |place: usize| (self.0.as_bytes()[place] as char).to_digit(16).unwrap_or(0) as u8;
        std::array::from_fn(|place| digit(2 * place) << 4 | digit(2 * place + 1))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as people are shown.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_lower_case_hex_digits_and_nothing_else() {
        let id = Id::from_bytes([0xab; 32]);
        assert_eq!((id.as_str(), id.short()), ("ab".repeat(32).as_str(), "abababababab"));
        assert_eq!(Id::parse(id.as_str()), Some(id.clone()));
        let bytes = std::array::from_fn(|place| place as u8 * 7);
        assert_eq!(Id::from_bytes(bytes).to_bytes(), bytes);
        for text in ["", "ab", &"AB".repeat(32), &"xy".repeat(32), &"ab".repeat(33)] {
            assert_eq!(Id::parse(text), None, "{text:?}");
        }
    }
}
