//! Reads a tar stream entry by entry: ustar, pax and GNU, with long names, extended attributes and all four ways to say "sparse".
//!
//! Written for archives of strangers: whatever is kept in memory has a limit that is stated here, numbers are checked before they are used, and
//! nothing is seeked or buffered whole. The names come out as they were written; what they may reach is decided where they are laid down.

mod header;
mod pax;
mod sparse;
mod write;

use std::io::{self, Read};

use header::{BLOCK, Header};
use pax::Extensions;
pub(crate) use sparse::Segment;
pub(crate) use write::Writer;

use crate::error::ImageError;

/// The longest extended header or GNU long name, bytes; Go's reader, and so Docker, has the same limit.
const LONGEST_EXTENSION: u64 = 1 << 20;
/// Data of an entry that is handed on at a time, bytes.
const PIECE: usize = 64 * 1024;
/// The longest path, bytes, as the kernel has it.
const LONGEST_NAME: usize = 4096;

/// What one entry says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub name: Vec<u8>,
    pub kind: Kind,
    /// Bytes of the file when laid down, holes included.
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    File,
    Directory,
    /// Another name of the entry of this name.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    /// Major and minor number.
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// A tar stream.
pub(crate) struct Archive<R> {
    input: R,
    /// Stored bytes of the current entry that nobody has read yet.
    remaining: u64,
    /// Zeros after them, up to the next block.
    padding: u64,
    /// Where the stored bytes belong, when the current entry is sparse.
    segments: Option<Vec<Segment>>,
    size: u64,
    /// Through which data is copied; made once for all entries.
    buffer: Vec<u8>,
}

impl<R: Read> Archive<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            remaining: 0,
            padding: 0,
            segments: None,
            size: 0,
            buffer: Vec::new(),
        }
    }

    /// The next entry; what was not read of the one before is skipped. `None` at the end-of-archive mark or the end of the stream.
    pub fn next(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut extensions = Extensions::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else {
                return match extensions.is_empty() && long_name.is_none() && long_link.is_none() {
                    true => Ok(None),
                    false => Err(damaged("an extended header without its entry at the end")),
                };
            };
            match header.kind() {
                b'x' => extensions = Extensions::parse(&self.read_extension(&header)?)?,
                b'L' => long_name = Some(until_nul(self.read_extension(&header)?)),
                b'K' => long_link = Some(until_nul(self.read_extension(&header)?)),
                // global pax header (a comment of `git archive`), volume label, names of a dump: nothing to lay down
                b'g' | b'V' | b'D' | b'N' => self.begin_stored(header.size()?)?,
                _ => return self.entry(&header, extensions, long_name, long_link).map(Some),
            }
        }
    }

    /// Hands the data of the current entry to `take` piece by piece, each with its place in the file. Holes of a sparse entry are left out.
    pub fn copy(&mut self, mut take: impl FnMut(u64, &[u8]) -> Result<(), ImageError>) -> Result<(), ImageError> {
        self.buffer.resize(PIECE, 0);
        let segments = self.segments.take().unwrap_or_else(|| {
            vec![Segment {
                offset: 0,
                length: self.remaining,
            }]
        });
        for Segment { mut offset, mut length } in segments {
            while length > 0 {
                let want = length.min(PIECE as u64) as usize;
                self.input
                    .read_exact(&mut self.buffer[..want])
                    .map_err(|error| ImageError::reading(&error))?;
                self.remaining -= want as u64;
                take(offset, &self.buffer[..want])?;
                offset += want as u64;
                length -= want as u64;
            }
        }
        Ok(())
    }

    /// Where the data of the current entry belongs.
    pub fn pieces(&self) -> Vec<Segment> {
        self.segments.clone().unwrap_or_else(|| {
            vec![Segment {
                offset: 0,
                length: self.remaining,
            }]
        })
    }

    /// The data of the current entry, which must not be longer than `limit` bytes.
    #[cfg(test)]
    pub fn read_to_vec(&mut self, limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut data = vec![0; usize::try_from(self.size.min(limit)).unwrap_or(0)];
        self.copy(|offset, piece| {
            data[offset as usize..offset as usize + piece.len()].copy_from_slice(piece);
            Ok(())
        })?;
        Ok(data)
    }

    /// The stream below, to read it to its end.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn entry(
        &mut self,
        header: &Header,
        extensions: Extensions,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, ImageError> {
        let stored = match extensions.size {
            Some(size) => size,
            None => header.size()?,
        };
        let name = extensions.path.clone().or(long_name).unwrap_or_else(|| header.name());
        let link = extensions.link.clone().or(long_link).unwrap_or_else(|| header.link());
        for text in [&name, &link] {
            if text.contains(&0) {
                return Err(damaged("a name with a NUL"));
            }
            if text.len() > LONGEST_NAME {
                return Err(damaged("a name longer than 4096 bytes"));
            }
        }
        let kind = match header.kind() {
            // before ustar, a name that ends with a slash was a directory
            0 | b'0' | b'7' if name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Character(header.major()?, header.minor()?),
            b'4' => Kind::Block(header.major()?, header.minor()?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(damaged(&format!("an entry of unknown type {:?}", char::from(other)))),
        };
        // only files have data; a size elsewhere (some writers give hard links the size of their target) says nothing
        self.begin_stored(if kind == Kind::File { stored } else { 0 })?;
        self.size = self.remaining;
        if kind == Kind::File {
            self.find_holes(header, &extensions)?;
        }
        Ok(Entry {
            name: extensions.sparse.name.clone().unwrap_or(name),
            kind,
            size: self.size,
            mode: header.mode()?,
            uid: extensions.uid.map_or_else(|| header.uid(), Ok)?,
            gid: extensions.gid.map_or_else(|| header.gid(), Ok)?,
            modified: match extensions.modified {
                Some(time) => time,
                None => (header.modified()?, 0),
            },
            xattrs: extensions.xattrs,
        })
    }

    /// Reads the map of a sparse entry, wherever its format keeps it.
    fn find_holes(&mut self, header: &Header, extensions: &Extensions) -> Result<(), ImageError> {
        let (size, segments) = if header.kind() == b'S' {
            sparse::old_gnu(header, &mut self.input)?
        } else if let Some(size) = extensions.sparse.in_data {
            let mut input = (&mut self.input).take(self.remaining);
            let segments = sparse::in_data(&mut input)?;
            self.remaining = input.limit();
            (size, segments)
        } else if let Some((size, segments)) = extensions.sparse.map()? {
            (size, segments)
        } else {
            return Ok(());
        };
        sparse::check(&segments, size, self.remaining)?;
        self.size = size;
        self.segments = Some(segments);
        Ok(())
    }

    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>, ImageError> {
        let size = header.size()?;
        if size > LONGEST_EXTENSION {
            return Err(damaged("an extended header longer than 1 MiB"));
        }
        self.begin_stored(size)?;
        let mut data = vec![0; size as usize];
        self.input
            .read_exact(&mut data)
            .map_err(|error| ImageError::reading(&error))?;
        self.remaining = 0;
        Ok(data)
    }

    fn begin_stored(&mut self, size: u64) -> Result<(), ImageError> {
        self.remaining = size;
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .ok_or_else(|| damaged("an impossible size"))?;
        self.padding = padded - size;
        self.segments = None;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), ImageError> {
        let rest = self
            .remaining
            .checked_add(self.padding)
            .ok_or_else(|| damaged("an impossible size"))?;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink());
        let skipped = skipped.map_err(|error| ImageError::reading(&error))?;
        // Go's reader lets the padding of the last entry be missing, and archives without it exist
        if skipped < self.remaining {
            return Err(ImageError::reading(&io::ErrorKind::UnexpectedEof.into()));
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    /// `None` at two blocks of zeros, and where the stream ends between entries.
    fn read_header(&mut self) -> Result<Option<Header>, ImageError> {
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            return Header::parse(block).map(Some);
        }
        match self.read_block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => Err(damaged("a lone zero block between entries")),
            _ => Ok(None),
        }
    }

    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>, ImageError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ImageError::reading(&io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::reading(&error)),
            }
        }
        Ok(Some(block))
    }
}

/// The archive is not one, or not one we trust.
fn damaged(what: &str) -> ImageError {
    ImageError::BadArchive(format!("invalid tar archive: {what}"))
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
