//! Where the bytes of a sparse entry belong: the old GNU map in header blocks, and GNU tar's pax version 1.0 with the map before the data.

use std::io::{self, Read};

use super::{
    damaged,
    header::{BLOCK, Header, number},
    pax::decimal,
};
use crate::error::ImageError;

/// The most pieces a sparse file may consist of. A map of them takes 4 MiB here.
pub(super) const MOST_SEGMENTS: usize = 1 << 18;

/// A piece of a file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// Pieces go forward, do not overlap, lie inside the file, and account for every stored byte.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), ImageError> {
    let (mut end, mut sum) = (0u64, 0u64);
    for Segment { offset, length } in segments {
        let next = offset
            .checked_add(*length)
            .filter(|next| *next <= size && *offset >= end);
        end = next.ok_or_else(|| damaged("a sparse file whose pieces overlap or lie outside of it"))?;
        sum += length; // no more than `end`
    }
    match sum == stored && size <= i64::MAX as u64 {
        true => Ok(()),
        false => Err(damaged("a sparse file whose pieces are not its data")),
    }
}

/// Offset, length, offset, length…
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Segment>, ImageError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(damaged("a sparse file with half a piece"));
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Segment {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Type `S`: four pieces in the header, then 21 in each of the blocks that follow. Gives the size of the file in bytes and the pieces.
pub(super) fn old_gnu(header: &Header, input: &mut impl Read) -> Result<(u64, Vec<Segment>), ImageError> {
    let size = unsigned(header.field(483, 12))?;
    let mut segments = Vec::new();
    gather(header.field(386, 4 * 24), &mut segments)?;
    let mut more = header.field(482, 1)[0] != 0;
    while more {
        let mut block = [0; BLOCK];
        input
            .read_exact(&mut block)
            .map_err(|error| ImageError::reading(&error))?;
        gather(&block[..21 * 24], &mut segments)?;
        more = block[504] != 0;
        if segments.len() > MOST_SEGMENTS {
            return Err(damaged("a sparse file of too many pieces"));
        }
    }
    Ok((size, segments))
}

/// Decimal lines: how many pieces, then offset and length of each; filled up to a whole block.
pub(super) fn in_data(input: &mut impl Read) -> Result<Vec<Segment>, ImageError> {
    let mut lines = Lines {
        input,
        block: [0; BLOCK],
        position: BLOCK,
    };
    let count = lines.next()?;
    if count > MOST_SEGMENTS as u64 {
        return Err(damaged("a sparse file of too many pieces"));
    }
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(Segment {
            offset: lines.next()?,
            length: lines.next()?,
        });
    }
    Ok(segments)
}

fn gather(fields: &[u8], segments: &mut Vec<Segment>) -> Result<(), ImageError> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break; // unused
        }
        segments.push(Segment {
            offset: unsigned(&pair[..12])?,
            length: unsigned(&pair[12..])?,
        });
    }
    Ok(())
}

fn unsigned(field: &[u8]) -> Result<u64, ImageError> {
    u64::try_from(number(field)?).map_err(|_| damaged("a negative size"))
}

/// Numbers on lines of their own, read block by block so that nothing of the data after them is taken.
struct Lines<'a, R> {
    input: &'a mut R,
    block: [u8; BLOCK],
    position: usize,
}

impl<R: Read> Lines<'_, R> {
    fn next(&mut self) -> Result<u64, ImageError> {
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return decimal(&text),
                _ if text.len() > 20 => return Err(damaged("a malformed map of a sparse file")),
                byte => text.push(byte),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, ImageError> {
        if self.position == BLOCK {
            self.input
                .read_exact(&mut self.block)
                .map_err(|error: io::Error| ImageError::reading(&error))?;
            self.position = 0;
        }
        self.position += 1;
        Ok(self.block[self.position - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(offset: u64, length: u64) -> Segment {
        Segment { offset, length }
    }

    #[test]
    fn pieces_must_go_forward_and_fit() {
        assert!(check(&[segment(0, 5), segment(10, 5)], 20, 10).is_ok());
        assert!(check(&[segment(10, 5), segment(0, 5)], 20, 10).is_err());
        assert!(check(&[segment(0, 5), segment(4, 5)], 20, 10).is_err());
        assert!(check(&[segment(18, 5)], 20, 5).is_err());
        assert!(check(&[segment(u64::MAX, 5)], 20, 5).is_err());
        assert!(check(&[segment(0, 5)], 20, 6).is_err());
        assert!(check(&[], 10 << 30, 0).is_ok());
    }

    #[test]
    fn the_map_before_the_data_takes_whole_blocks() {
        let mut data = b"2\n0\n3\n1024\n4\n".to_vec();
        data.resize(BLOCK, 0);
        data.extend(b"abcdefg");
        let mut input = data.as_slice();
        assert_eq!(in_data(&mut input).unwrap(), [segment(0, 3), segment(1024, 4)]);
        assert_eq!(input, b"abcdefg");
    }

    #[test]
    fn a_map_without_end_is_refused() {
        assert!(in_data(&mut [b'1'; BLOCK].as_slice()).is_err());
        assert!(in_data(&mut &b"99999999999\n"[..]).is_err());
    }
}
