//! The keys a client leaves a terminal with, its process going on.

use crate::error::{Answer, ApiError};

/// Docker's: ctrl-p ctrl-q.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// A sequence of bytes that is no input but the wish to leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Keys(Vec<u8>);

/// Reads input and looks for the keys in it.
pub(crate) struct Watch {
    keys: Keys,
    /// So many of them were the last bytes that were typed.
    matched: usize,
}

// === impl Keys ===

impl Keys {
    /// `ctrl-a`, `a`, or several, separated by commas; nothing: Docker's own.
    pub(crate) fn parse(text: &str) -> Answer<Self> {
        if text.is_empty() {
            return Ok(Self(DEFAULT.to_vec()));
        }
        let invalid = |key: &str| {
            ApiError::invalid(format!(
                "Invalid detach keys ({text}) provided: unknown character: '{key}'"
            ))
        };
        let byte = |key: &str| match key.as_bytes() {
            [byte] => Ok(*byte),
            [b'c', b't', b'r', b'l', b'-', byte] => match byte {
                b'a'..=b'z' => Ok(byte - b'a' + 1),
                b'@' => Ok(0),
                b'[' | b'\\' | b']' | b'^' | b'_' => Ok(byte - b'@'),
                _ => Err(invalid(key)),
            },
            b"DEL" => Ok(0x7f),
            _ => Err(invalid(key)),
        };
        text.split(',').map(byte).collect::<Answer<_>>().map(Self)
    }

    /// Begins to look for them.
    pub(crate) fn watch(self) -> Watch {
        Watch { keys: self, matched: 0 }
    }
}

// === impl Watch ===

impl Watch {
    /// Appends to `input` what is input for sure. True: the keys were typed, and what came after them is lost.
    pub(crate) fn take(&mut self, typed: &[u8], input: &mut Vec<u8>) -> bool {
        let keys = &self.keys.0;
        for byte in typed {
            if *byte == keys[self.matched] {
                self.matched += 1;
                if self.matched == keys.len() {
                    return true;
                }
                continue;
            }
            // what looked like the beginning of the keys was input after all
            input.extend_from_slice(&keys[..self.matched]);
            self.matched = 0;
            if *byte == keys[0] {
                self.matched = 1;
            } else {
                input.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let mut watch = Keys::parse(keys).unwrap().watch();
        let mut input = Vec::new();
        let left = pieces.iter().any(|piece| watch.take(piece, &mut input));
        (left, input)
    }

    #[test]
    fn the_keys_are_found_wherever_reads_cut_them_and_are_no_input() {
        assert_eq!(typed("", &[b"ls\n\x10\x11more"]), (true, b"ls\n".to_vec()));
        assert_eq!(typed("", &[b"ls\n\x10", b"\x11"]), (true, b"ls\n".to_vec()));
        assert_eq!(typed("ctrl-a,d", &[b"ad\x01", b"d"]), (true, b"ad".to_vec()));
    }

    #[test]
    fn half_of_the_keys_are_input() {
        assert_eq!(typed("", &[b"\x10", b"x"]), (false, b"\x10x".to_vec()));
        assert_eq!(typed("", &[b"\x10\x10\x11"]), (true, b"\x10".to_vec()));
    }

    #[test]
    fn what_are_no_keys_is_refused() {
        let error = Keys::parse("ctrl-p,shift-x").unwrap_err();
        assert_eq!(
            error.message,
            "Invalid detach keys (ctrl-p,shift-x) provided: unknown character: 'shift-x'"
        );
        assert!(Keys::parse("ctrl-p,,x").is_err());
    }
}
