//! What an archive may cost. A stranger's archive of a few kilobytes can ask for any amount of anything.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use crate::error::ImageError;

/// The limits; an archive over one of them is refused whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the uncompressed archive: time, since zeros become holes.
    pub stream: u64,
    /// Entries: inodes.
    pub entries: u64,
    /// Bytes written (holes do not count) for each byte of the archive as it came, once `free` are written: a deflate bomb reaches 1000.
    pub expansion: u64,
    /// Bytes that may be written without looking at the expansion.
    pub free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream: 64 << 30,
            entries: 2_000_000,
            expansion: 200,
            free: 1 << 30,
        }
    }
}

impl Limits {
    /// Is the archive still allowed to go on after so many entries?
    pub fn check_entries(&self, entries: u64) -> Result<(), ImageError> {
        match entries > self.entries {
            true => Err(ImageError::BadArchive(format!(
                "archive has more than the limit of {} entries",
                self.entries
            ))),
            false => Ok(()),
        }
    }
}

/// Bytes written against bytes that came.
pub(crate) struct Budget {
    came: Rc<Cell<u64>>,
    written: u64,
    limits: Limits,
}

impl Budget {
    /// Read the archive through what this returns, and account for what is written in the budget.
    pub fn of<R: Read>(archive: R, limits: Limits) -> (Counted<R>, Self) {
        let came = Rc::new(Cell::new(0));
        (
            Counted {
                inner: archive,
                count: Rc::clone(&came),
            },
            Self {
                came,
                written: 0,
                limits,
            },
        )
    }

    /// `bytes` more were written.
    pub fn spend(&mut self, bytes: u64) -> Result<(), ImageError> {
        self.written += bytes;
        let Limits { expansion, free, .. } = self.limits;
        if self.written > free && self.written / expansion > self.came.get() {
            return Err(ImageError::BadArchive(format!(
                "archive expands to more than {expansion} times its size"
            )));
        }
        Ok(())
    }
}

/// Counts the bytes read through it.
pub(crate) struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}
