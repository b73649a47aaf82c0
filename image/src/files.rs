//! Files of a running or stopped container: looked at, packed and laid down under a root that no link leads out of.
//!
//! The tree belongs to a stranger who may be changing it at this moment. So a path is only ever walked by the kernel, with
//! `openat2(RESOLVE_IN_ROOT)`, and what was reached is spoken of by descriptor.

mod find;
mod pack;
mod take;

use std::{
    io::{self, Read, Write},
    os::fd::BorrowedFd,
};

pub use find::{Found, copy_attributes, find, is_read_only, is_same_mount, look};
pub(crate) use pack::is_opaque;
pub use pack::{Packing, Style, pack};
pub use take::{
    fingerprint, fingerprint_of, is_archive, make_directory, matching, open_file, read_text, remove_file, take,
};

use crate::{budget::Limits, error::ImageError, layer, owners::Owners};

/// How files are laid down.
#[derive(Clone, Debug, Default)]
pub struct Laying {
    /// A directory is not replaced by something else, nor the other way round.
    pub keep_kinds: bool,
    /// Everything belongs to this user and group of the container, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// These permissions, whatever the archive says.
    pub mode: Option<u32>,
    /// Whose the files are on the host; none: whose they are in the container.
    pub owners: Option<Owners>,
}

/// Lays the archive `tar` (plain, gzip or zstd) down in the directory `at` below `root`, which exists.
pub fn lay_down(root: BorrowedFd<'_>, at: &[u8], tar: &mut dyn Read, laying: Laying) -> Result<(), ImageError> {
    // the content is the caller's own, and may be as large as he likes; only what explodes is stopped
    let limits = Limits {
        stream: u64::MAX,
        entries: u64::MAX,
        ..Limits::default()
    };
    layer::lay_down(tar, root, at, laying, limits)
}

/// Copies what is in the directory `from` into `to`, with owners, modes, times, attributes and links: through an archive, so that there is one way only.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), ImageError> {
    let (reader, writer) = io::pipe().map_err(|why| ImageError::Failed(format!("cannot make a pipe: {why}")))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let mut writer = io::BufWriter::with_capacity(64 * 1024, writer);
            let packing = Packing {
                name: b"",
                style: Style::Plain,
                one_file_system: true,
                scaffold: &[],
                owners: None,
                timeless: false,
            };
            pack(from, b"", packing, &mut writer)?;
            writer
                .flush()
                .map_err(|why| ImageError::Failed(format!("cannot copy on: {why}")))
        });
        let laid = lay_down(to, b"", &mut { reader }, Laying::default());
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(ImageError::Failed("the copying ended early".into())));
        // the reader that fails makes the writer fail: its word is the reason
        laid.and(packed)
    })?;
    find::copy_attributes(from, to)
}
