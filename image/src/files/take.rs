//! What a builder takes files from: patterns of names, digests of trees, single files.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::fcntl::OFlag;

use super::{Laying, Packing, find, look, pack};
use crate::{digest::Digest, digest::DigestWriter, dockerfile::name_fits, error::ImageError, layer};

/// Opens a file below `root`, following links as if `root` were `/`; `None` when there is none.
pub fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<File>, ImageError> {
    let failed = |why: &dyn std::fmt::Display| {
        ImageError::Failed(format!("cannot open {}: {why}", String::from_utf8_lossy(path)))
    };
    match find::open(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
        Ok(fd) => {
            let file = File::from(fd);
            let about = file.metadata().map_err(|why| failed(&why))?;
            Ok(about.is_file().then_some(file))
        }
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => Ok(None),
        Err(why) => Err(failed(&why.desc())),
    }
}

/// A text below `root`, of at most so many bytes.
pub fn read_text(root: BorrowedFd<'_>, path: &[u8], longest: u64) -> Result<Option<String>, ImageError> {
    let Some(file) = open_file(root, path)? else {
        return Ok(None);
    };
    let name = String::from_utf8_lossy(path);
    let mut bytes = Vec::new();
    let read = file.take(longest + 1).read_to_end(&mut bytes);
    read.map_err(|why| ImageError::Failed(format!("cannot read {name}: {why}")))?;
    if bytes.len() as u64 > longest {
        return Err(ImageError::Invalid(format!("{name} is longer than {longest} bytes")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The paths below `root` that fit a pattern, in order. One without a wildcard fits itself, whether there or not.
pub fn matching(root: BorrowedFd<'_>, pattern: &str) -> Result<Vec<String>, ImageError> {
    if !pattern.contains(['*', '?', '[', '\\']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !matches!(*part, "" | ".")) {
        let mut next = Vec::new();
        for base in &found {
            for name in names(root, base) {
                if name_fits(part, &name) {
                    next.push(if base.is_empty() {
                        name
                    } else {
                        format!("{base}/{name}")
                    });
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// Names in a directory, in order; none where there is no directory.
fn names(root: BorrowedFd<'_>, path: &str) -> Vec<String> {
    let Ok(directory) = find::find(root, path.as_bytes()) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Tells a tree or file by names, owners, modes and content; times do not count.
pub fn fingerprint(root: BorrowedFd<'_>, path: &[u8]) -> Result<String, ImageError> {
    let mut out = DigestWriter::new(io::sink());
    let packing = Packing {
        name: b"x",
        timeless: true,
        ..Packing::default()
    };
    pack(root, path, packing, &mut out)?;
    Ok(out.finish().hex().to_owned())
}

/// The digest of some text, in hexadecimal.
pub fn fingerprint_of(text: &str) -> String {
    Digest::of(text.as_bytes()).hex().to_owned()
}

/// Does the file begin as an archive does that `ADD` unpacks?
pub fn is_archive(root: BorrowedFd<'_>, path: &[u8]) -> Result<bool, ImageError> {
    let Some(file) = open_file(root, path)? else {
        return Ok(false);
    };
    let mut start = Vec::new();
    let read = match crate::compression::decompress(file) {
        Ok(stream) => stream.take(512).read_to_end(&mut start),
        Err(_) => return Ok(false),
    };
    Ok(read.is_ok() && start.len() == 512 && start.get(257..262) == Some(b"ustar"))
}

/// Takes a file away, if it is there.
pub fn remove_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), ImageError> {
    let wanted = find::Wanted::of(path);
    let failed = |why: nix::errno::Errno| {
        ImageError::Failed(format!(
            "cannot remove {}: {}",
            String::from_utf8_lossy(path),
            why.desc()
        ))
    };
    let parent = find::open(root, &wanted.parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(failed)?;
    match nix::unistd::unlinkat(&parent, wanted.last.as_slice(), nix::unistd::UnlinkatFlags::NoRemoveDir) {
        Err(nix::errno::Errno::ENOENT) | Ok(()) => Ok(()),
        Err(why) => Err(failed(why)),
    }
}

/// Makes a directory with its parents where there is none.
pub fn make_directory(root: BorrowedFd<'_>, path: &[u8], laying: &Laying) -> Result<(), ImageError> {
    if find::find(root, path).is_ok() {
        return Ok(());
    }
    layer::make_directory(root, path, laying)
}

/// Copies what stands at `path` below `from` into the directory `at` below `to`, by the name `name`; of a directory, what is in it.
pub fn take(
    from: BorrowedFd<'_>,
    path: &[u8],
    to: BorrowedFd<'_>,
    at: &[u8],
    name: &[u8],
    laying: Laying,
) -> Result<(), ImageError> {
    // a link in the place of a source means what it leads to
    let found = look(from, path)?;
    let target = found.as_ref().and_then(|found| found.target.clone());
    let path = target.unwrap_or_else(|| path.to_vec());
    let is_directory = find::find(from, &path).is_ok();
    let (path, name) = match is_directory {
        true => ([path.as_slice(), b"/"].concat(), &b""[..]),
        false => (path, name),
    };
    let (reader, writer) = io::pipe().map_err(|why| ImageError::Failed(format!("cannot make a pipe: {why}")))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| {
            let mut writer = io::BufWriter::with_capacity(64 * 1024, writer);
            let packing = Packing {
                name,
                ..Packing::default()
            };
            pack(from.as_fd(), &path, packing, &mut writer)?;
            io::Write::flush(&mut writer).map_err(|why| ImageError::Failed(format!("cannot copy on: {why}")))
        });
        let laid = super::lay_down(to, at, &mut { reader }, laying.clone());
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(ImageError::Failed("the copying ended early".into())));
        // the reader that fails makes the writer fail: its word is the reason
        laid.and(packed)
    })?;
    match is_directory {
        true => make_directory(to, at, &laying),
        false => Ok(()),
    }
}
