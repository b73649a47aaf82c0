//! The keys a terminal is left with, the container going on.

use crate::failure::Failure;

/// Docker's: ctrl-p ctrl-q.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// Looks for the keys in what is typed.
pub struct Keys {
    keys: Vec<u8>,
    /// So many of them were the last bytes that were typed.
    matched: usize,
}

impl Keys {
    /// `ctrl-a,d` and the like; nothing: Docker's own.
    pub fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let byte = |key: &str| match key.as_bytes() {
            [byte] => Ok(*byte),
            [b'c', b't', b'r', b'l', b'-', byte @ b'a'..=b'z'] => Ok(byte - b'a' + 1),
            [b'c', b't', b'r', b'l', b'-', byte @ b'@'..=b'_'] => Ok(byte - b'@'),
            _ => Err(Failure::Usage(format!(
                "invalid detach keys: unknown character: '{key}'"
            ))),
        };
        let keys = match text.filter(|text| !text.is_empty()) {
            None => DEFAULT.to_vec(),
            Some(text) => text.split(',').map(byte).collect::<Result<_, _>>()?,
        };
        Ok(Self { keys, matched: 0 })
    }

    /// Appends to `input` what is input for sure. True: the keys were typed.
    pub fn take(&mut self, typed: &[u8], input: &mut Vec<u8>) -> bool {
        for byte in typed {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            // what looked like their beginning was input after all
            input.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(*byte == self.keys[0]);
            if self.matched == 0 {
                input.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_wherever_reads_cut_them_and_half_of_them_is_input() {
        let typed = |keys: Option<&str>, pieces: &[&[u8]]| {
            let (mut keys, mut input) = (Keys::parse(keys).unwrap(), Vec::new());
            let left = pieces.iter().any(|piece| keys.take(piece, &mut input));
            (left, input)
        };
        assert_eq!(typed(None, &[b"ls\n\x10", b"\x11"]), (true, b"ls\n".to_vec()));
        assert_eq!(typed(None, &[b"\x10", b"x"]), (false, b"\x10x".to_vec()));
        assert_eq!(typed(Some("ctrl-a,d"), &[b"ad\x01d"]), (true, b"ad".to_vec()));
        assert!(Keys::parse(Some("shift-x")).is_err());
    }
}
