//! A ring buffer of BPF, read by one reader: the kernel appends records, we say up to where we have read.
//!
//! Of its memory (linux/bpf.h, `BPF_MAP_TYPE_RINGBUF`) the first page bears our position and may be written, the second bears the kernel's; the data
//! follows, twice in a row, so that no record is torn.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Bytes before each record: its length with two flags, and its place.
const HEADER: usize = 8;
/// Of the length: somebody still writes the record.
const BUSY: u32 = 1 << 31;
/// Of the length: the record was given up.
const DISCARDED: u32 = 1 << 30;

/// An open ring.
pub struct Ring {
    ours: Pages,
    kernels: Pages,
    size: usize,
    page: usize,
}

/// Pages of the ring in our memory.
struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the pages are shared memory that any thread may reach; positions are atomics, and records are read by `&mut self` alone.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// Maps a ring of `size` bytes.
    pub fn open(map: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        // SAFETY: it takes a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(|_| io::Error::last_os_error())?;
        let size = size as usize;
        Ok(Self {
            ours: Pages::map(map, 0, page, libc::PROT_READ | libc::PROT_WRITE)?,
            kernels: Pages::map(map, page, page + 2 * size, libc::PROT_READ)?,
            size,
            page,
        })
    }

    /// Bytes that were not read yet, headers included.
    pub fn unread(&self) -> u64 {
        let ours = self.position().load(Ordering::Acquire);
        self.written().load(Ordering::Acquire).wrapping_sub(ours)
    }

    /// Hands on all records that are complete. The kernel may reuse their room afterwards.
    pub fn read(&mut self, mut each: impl FnMut(&[u8])) {
        let mut ours = self.position().load(Ordering::Acquire);
        while ours != self.written().load(Ordering::Acquire) {
            let place = ours as usize & (self.size - 1);
            let record = self.kernels.at(self.page + place);
            // SAFETY: a record begins here with its length, aligned to eight bytes, within the pages.
            let length = unsafe { record.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
            if length & BUSY != 0 {
                return;
            }
            let bytes = (length & !DISCARDED) as usize;
            if bytes + HEADER > self.size {
                // No record is longer than the ring: what is there is not one, and nothing after it can be told.
                return self
                    .position()
                    .store(self.written().load(Ordering::Acquire), Ordering::Release);
            }
            if length & DISCARDED == 0 {
                // SAFETY: complete, so nobody writes it until we have said that it is read; the data is there twice, so it ends within the pages.
                each(unsafe { std::slice::from_raw_parts(record.add(HEADER).as_ptr(), bytes) });
            }
            ours += (bytes + HEADER).next_multiple_of(8) as u64;
            self.position().store(ours, Ordering::Release);
        }
    }

    fn position(&self) -> &AtomicU64 {
        // SAFETY: the page begins with it; it is aligned, and only ever touched atomically.
        unsafe { self.ours.at(0).cast::<AtomicU64>().as_ref() }
    }

    fn written(&self) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.kernels.at(0).cast::<AtomicU64>().as_ref() }
    }
}

impl Pages {
    fn map(map: BorrowedFd<'_>, offset: usize, length: usize, protection: libc::c_int) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a mapping at a place of the kernel's choice touches nothing else of our memory.
        let start = unsafe {
            libc::mmap(
                null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap(2) answered with nothing"))?;
        Ok(Self { start, length })
    }

    /// The byte at `offset`, which lies in the pages.
    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.length);
        // SAFETY: in bounds.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing of it is borrowed any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
