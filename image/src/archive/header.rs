//! The 512-byte block before every entry.

use super::{damaged, until_nul};
use crate::error::ImageError;

pub(super) const BLOCK: usize = 512;

/// A block whose checksum is right.
pub(super) struct Header([u8; BLOCK]);

impl Header {
    pub fn parse(block: [u8; BLOCK]) -> Result<Self, ImageError> {
        let header = Self(block);
        let said = number(header.field(148, 8))?;
        let outside = block[..148].iter().chain(&block[156..]);
        let unsigned: i64 = outside.clone().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
        // some old writers summed signed characters
        let signed: i64 = outside.map(|byte| i64::from(*byte as i8)).sum::<i64>() + 8 * 32;
        match said == unsigned || said == signed {
            true => Ok(header),
            false => Err(damaged("a header with a wrong checksum")),
        }
    }

    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    pub fn name(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100).to_vec());
        let prefix = match self.field(257, 6) == b"ustar\0" {
            true => until_nul(self.field(345, 155).to_vec()),
            false => Vec::new(), // GNU and v7 keep other things there
        };
        match prefix.is_empty() {
            true => name,
            false => [prefix.as_slice(), b"/", &name].concat(),
        }
    }

    pub fn link(&self) -> Vec<u8> {
        until_nul(self.field(157, 100).to_vec())
    }

    pub fn size(&self) -> Result<u64, ImageError> {
        let size = number(self.field(124, 12))?;
        u64::try_from(size).map_err(|_| damaged("a negative size"))
    }

    /// The permission bits, with set-user, set-group and sticky.
    pub fn mode(&self) -> Result<u32, ImageError> {
        Ok((number(self.field(100, 8))? & 0o7777) as u32)
    }

    pub fn uid(&self) -> Result<u32, ImageError> {
        owner(number(self.field(108, 8))?)
    }

    pub fn gid(&self) -> Result<u32, ImageError> {
        owner(number(self.field(116, 8))?)
    }

    pub fn modified(&self) -> Result<i64, ImageError> {
        number(self.field(136, 12))
    }

    pub fn major(&self) -> Result<u32, ImageError> {
        u32::try_from(number(self.field(329, 8))?).map_err(|_| damaged("an impossible device number"))
    }

    pub fn minor(&self) -> Result<u32, ImageError> {
        u32::try_from(number(self.field(337, 8))?).map_err(|_| damaged("an impossible device number"))
    }

    pub fn field(&self, offset: usize, length: usize) -> &[u8] {
        &self.0[offset..offset + length]
    }
}

/// The kernel takes `-1` for "leave as it is"; nobody owns that.
pub(super) fn owner(number: i64) -> Result<u32, ImageError> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(damaged("an impossible owner")),
    }
}

/// Octal text, or GNU's big-endian two's complement when the first bit is set. An empty field is zero.
pub(super) fn number(field: &[u8]) -> Result<i64, ImageError> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => binary(field),
        _ => octal(field),
    }
}

fn binary(field: &[u8]) -> Result<i64, ImageError> {
    // bit 7 of the first byte is the mark, bit 6 the sign
    let first = if field[0] & 0x40 != 0 {
        field[0]
    } else {
        field[0] & 0x7f
    };
    let mut value: i128 = if field[0] & 0x40 != 0 { -1 } else { 0 };
    value = value << 8 | i128::from(first);
    for byte in &field[1..] {
        value = value << 8 | i128::from(*byte);
    }
    i64::try_from(value).map_err(|_| damaged("an impossible number"))
}

fn octal(field: &[u8]) -> Result<i64, ImageError> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .skip_while(|byte| blank(byte))
        .take_while(|byte| !blank(byte))
        .collect();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(damaged("a number that is not octal"));
        }
        value = value << 3 | i64::from(digit - b'0'); // twelve digits are 36 bits
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"777777777777").unwrap(), 0o777777777777);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0").unwrap(), 1 << 33);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(b"12x\0").is_err());
        assert!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn a_block_of_noise_is_not_a_header() {
        assert!(Header::parse([b'7'; BLOCK]).is_err());
    }
}
