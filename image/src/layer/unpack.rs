//! Lays the entries of an archive down: as a layer, where OCI's whiteouts become overlayfs's, or among the files of a container. The rest is what
//! `tar -x` would do inside a chroot.

use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{fcntl::OFlag, sys::stat::SFlag};

use super::{
    recipe::{self, Recorded, Recording},
    tree::{self, Place, Tree},
};
use crate::{
    archive::{Archive, Entry, Kind},
    budget::{Budget, Limits},
    compression,
    digest::{Digest, DigestReader},
    error::ImageError,
    files::Laying,
    holes,
    owners::{CAPABILITY, Owners},
};

/// Memory for the times of directories, set when all is unpacked. Directories beyond it keep the time of their unpacking.
const DIRECTORY_NAMES: usize = 32 << 20;
/// What an unpacked archive was.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Of the uncompressed archive.
    pub diff_id: Digest,
    /// Sum of its files, bytes.
    pub size: u64,
    /// Mode, owner and group of the root, when the archive has an entry for it.
    pub root: Option<(u32, u32, u32)>,
    /// Bytes of the archive.
    pub archive: u64,
}

/// Unpacks `archive` (gzip, zstd or plain) into the directory of a layer, which has nothing in it: the tree goes to `fs`, what entries replace to
/// `replaced`, and how to make the archive again into a file beside them.
pub(crate) fn unpack(archive: impl Read, layer: &Path, limits: Limits) -> Result<Unpacked, ImageError> {
    let (root, replaced) = (layer.join("fs"), layer.join(recipe::REPLACED));
    for directory in [&root, &replaced] {
        std::fs::create_dir_all(directory).map_err(|why| ImageError::failed("cannot make", directory, why))?;
    }
    let recording = Recording::begin(layer)?;
    let (archive, budget) = Budget::of(archive, limits);
    let stream = compression::decompress(archive)?;
    let stream = DigestReader::new(stream, limits.stream).map_err(|error| ImageError::reading(&error))?;
    let mut unpacking = Unpacking {
        archive: Archive::new(Recorded {
            inner: stream,
            recording: Some(recording.clone()),
        }),
        recording: Some(recording),
        tree: Tree::open(&root, &replaced)?,
        budget,
        directories: Vec::new(),
        directory_names: 0,
        size: 0,
        has_root: false,
        files: None,
    };
    unpacking.place_all(limits)?;
    let root = match unpacking.has_root {
        true => tree::attributes(unpacking.tree.root()).ok(),
        false => None,
    };
    let size = unpacking.size;
    let recording = unpacking.recording.take();
    let mut stream = unpacking.archive.into_inner();
    // what stands behind the last entry belongs to the archive too
    std::io::copy(&mut stream, &mut std::io::sink()).map_err(|error| ImageError::reading(&error))?;
    let (diff_id, length) = stream.inner.finish().map_err(|error| ImageError::reading(&error))?;
    drop(stream.recording);
    if let Some(recording) = recording {
        Recording::finish(recording)?;
    }
    // gone unless something is in it
    let _ = std::fs::remove_dir(&replaced);
    Ok(Unpacked {
        diff_id,
        size,
        root,
        archive: length,
    })
}

/// Unpacks `archive` into the directory `at` of a container, whose root is `root`.
pub(crate) fn lay_down(
    archive: impl Read,
    root: BorrowedFd<'_>,
    at: &[u8],
    laying: Laying,
    limits: Limits,
) -> Result<(), ImageError> {
    let (archive, budget) = Budget::of(archive, limits);
    let mut unpacking = Unpacking {
        archive: Archive::new(Recorded {
            inner: compression::decompress(archive)?,
            recording: None,
        }),
        recording: None,
        tree: Tree::of_container(root, implied_owner(&laying)?)?,
        budget,
        directories: Vec::new(),
        directory_names: 0,
        size: 0,
        has_root: false,
        files: Some((clean(at)?, laying)),
    };
    unpacking.place_all(limits)?;
    // a bad checksum behind the last entry is damage too, and the sender wants to be heard to the end
    let rest = std::io::copy(&mut unpacking.archive.into_inner(), &mut std::io::sink());
    rest.map_err(|why| ImageError::reading(&why)).map(drop)
}

/// Makes the directory `path` of a container with its parents.
pub(crate) fn make_directory(root: BorrowedFd<'_>, path: &[u8], laying: &Laying) -> Result<(), ImageError> {
    let mut tree = Tree::of_container(root, implied_owner(laying)?)?;
    tree.directory(&clean(path)?).map(drop)
}

/// Whose a directory is on the host that no entry lists.
fn implied_owner(laying: &Laying) -> Result<Option<(u32, u32)>, ImageError> {
    match (laying.owner, &laying.owners) {
        (Some((uid, gid)), Some(owners)) => owners.on_host(uid, gid).map(Some),
        (Some(owner), None) => Ok(Some(owner)),
        (None, owners) => owners.as_ref().map(Owners::root).transpose(),
    }
}

/// Gives an entry the owner it shall have on the host.
fn adopt(entry: &mut Entry, laying: &Laying) -> Result<(), ImageError> {
    if let Some(owner) = laying.owner {
        (entry.uid, entry.gid) = owner;
    }
    if let Some(mode) = laying.mode.filter(|_| !matches!(entry.kind, Kind::Symlink(_))) {
        entry.mode = mode;
    }
    let Some(owners) = &laying.owners else { return Ok(()) };
    (entry.uid, entry.gid) = owners.on_host(entry.uid, entry.gid)?;
    for (_, value) in entry.xattrs.iter_mut().filter(|(name, _)| name == CAPABILITY) {
        *value = owners.capability_on_host(value)?;
    }
    Ok(())
}

struct Unpacking<R> {
    /// Not a layer but files of a container: where they go, and how.
    files: Option<(Vec<u8>, Laying)>,
    archive: Archive<Recorded<R>>,
    recording: Option<recipe::Shared>,
    tree: Tree,
    budget: Budget,
    directories: Vec<(Vec<u8>, (i64, u32))>,
    directory_names: usize,
    size: u64,
    has_root: bool,
}

impl<R: Read> Unpacking<R> {
    fn place_all(&mut self, limits: Limits) -> Result<(), ImageError> {
        let mut entries = 0;
        while let Some(mut entry) = self.archive.next()? {
            entries += 1;
            limits.check_entries(entries)?;
            if let Some((_, laying)) = &self.files {
                adopt(&mut entry, laying)?;
            }
            self.place(&entry)?;
        }
        self.set_directory_times();
        Ok(())
    }

    fn place(&mut self, entry: &Entry) -> Result<(), ImageError> {
        let path = clean(&entry.name)?;
        match (path.is_empty(), &self.files) {
            // the directory they go to is what it is
            (true, Some(_)) => return Ok(()),
            (true, None) => return self.place_root(entry),
            _ => {}
        }
        let path = self.below(path);
        let (parent, name) = split(&path);
        let parent = self.tree.directory(parent)?;
        if let Some(hidden) = name.strip_prefix(b".wh.")
            && self.files.is_none()
        {
            return self.place_whiteout(&parent, name, hidden);
        }
        let place = Place {
            parent: parent.as_fd(),
            name,
        };
        let hides_lower = self.make_room(&parent, name, &path, entry)?;
        match &entry.kind {
            Kind::Directory => self.place_directory(&place, &path, entry, hides_lower)?,
            Kind::File => self.place_file(&place, &path, entry)?,
            Kind::HardLink(target) => self.place_link(&place, target)?,
            Kind::Symlink(target) => {
                place.make_symlink(target)?;
                place.set_metadata(entry, true)?;
            }
            Kind::Character(major, minor) => self.place_node(&place, entry, SFlag::S_IFCHR, *major, *minor)?,
            Kind::Block(major, minor) => self.place_node(&place, entry, SFlag::S_IFBLK, *major, *minor)?,
            Kind::Fifo => self.place_node(&place, entry, SFlag::S_IFIFO, 0, 0)?,
        }
        Ok(())
    }

    /// A path of the archive as one of the tree.
    fn below(&self, path: Vec<u8>) -> Vec<u8> {
        match &self.files {
            Some((at, _)) if !at.is_empty() => [at.as_slice(), b"/", path.as_slice()].concat(),
            _ => path,
        }
    }

    /// The entry `./`.
    fn place_root(&mut self, entry: &Entry) -> Result<(), ImageError> {
        if entry.kind != Kind::Directory {
            return Err(ImageError::BadArchive(
                "archive wants something else than a directory as its root".into(),
            ));
        }
        self.has_root = true;
        tree::set_metadata(self.tree.root(), entry)?;
        self.remember_time(b"", entry);
        Ok(())
    }

    /// Takes away what the entry replaces, as Docker does: everything but a directory by a directory. True when that was a whiteout, so that the
    /// entry has to go on hiding what is below.
    fn make_room(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<bool, ImageError> {
        let place = Place {
            parent: parent.as_fd(),
            name,
        };
        let Some(there) = place.look()? else { return Ok(false) };
        if tree::is_directory(&there) && entry.kind == Kind::Directory {
            return Ok(false);
        }
        if let Some((at, Laying { keep_kinds: true, .. })) = &self.files {
            let (name, at) = (String::from_utf8_lossy(name), String::from_utf8_lossy(at));
            let path = if at.is_empty() {
                format!("/{name}")
            } else {
                format!("/{at}/{name}")
            };
            if tree::is_directory(&there) {
                return Err(ImageError::Failed(format!(
                    "cannot overwrite directory {path:?} with non-directory {:?}",
                    format!("/{at}")
                )));
            }
            if entry.kind == Kind::Directory {
                return Err(ImageError::Failed(format!(
                    "cannot overwrite non-directory {path:?} with directory {:?}",
                    format!("/{at}")
                )));
            }
        }
        if let Kind::HardLink(target) = &entry.kind
            && self.is_same(&there, target)?
        {
            return Ok(false);
        }
        let number = self.tree.clear(parent.as_fd(), name, self.recording.is_some())?;
        if let Some(recording) = &self.recording {
            recording.borrow_mut().moved(path, number);
        }
        Ok(self.files.is_none() && tree::is_whiteout(&there))
    }

    fn place_directory(
        &mut self,
        place: &Place<'_>,
        path: &[u8],
        entry: &Entry,
        hides_lower: bool,
    ) -> Result<(), ImageError> {
        if place.look()?.is_none() {
            place.make_directory()?;
        }
        let directory = place.open_directory()?;
        tree::set_metadata(directory.as_fd(), entry)?;
        if hides_lower {
            tree::make_opaque(directory.as_fd()).map_err(|why| place.error("make opaque", why))?;
        }
        self.remember_time(path, entry);
        Ok(())
    }

    fn place_file(&mut self, place: &Place<'_>, path: &[u8], entry: &Entry) -> Result<(), ImageError> {
        let file = place.make_file()?;
        let failed = |why: std::io::Error| {
            let errno = why
                .raw_os_error()
                .map_or(nix::errno::Errno::EIO, nix::errno::Errno::from_raw);
            place.error("write", errno)
        };
        let (budget, mut written) = (&mut self.budget, 0);
        if let Some(recording) = &self.recording {
            recording.borrow_mut().content(path, &self.archive.pieces());
        }
        self.archive.copy(|offset, data| {
            let bytes = holes::write(&file, offset, data).map_err(failed)?;
            written += bytes;
            budget.spend(bytes)
        })?;
        if let Some(recording) = &self.recording {
            recording.borrow_mut().content_ends();
        }
        // its end may be a hole
        if written != entry.size {
            file.set_len(entry.size).map_err(failed)?;
        }
        self.size = self.size.saturating_add(entry.size);
        tree::set_metadata(file.as_fd(), entry)
    }

    fn place_link(&mut self, place: &Place<'_>, target: &[u8]) -> Result<(), ImageError> {
        if place.look()?.is_some() {
            return Ok(()); // the very same file, see `make_room`
        }
        let target = self.below(clean(target)?);
        let (parent, name) = split(&target);
        if name.is_empty() {
            return Err(place.error("make hard link", nix::errno::Errno::EPERM));
        }
        let parent = self
            .tree
            .resolve(parent)
            .map_err(|why| place.error("make hard link", why))?;
        place.make_link(&Place {
            parent: parent.as_fd(),
            name,
        })
    }

    fn place_node(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        kind: SFlag,
        major: u32,
        minor: u32,
    ) -> Result<(), ImageError> {
        place.make_node(kind, major, minor)?;
        place.set_metadata(entry, false)
    }

    /// A whiteout hides what lower layers have, never what this one has.
    fn place_whiteout(&mut self, parent: &OwnedFd, name: &[u8], hidden: &[u8]) -> Result<(), ImageError> {
        let place = Place {
            parent: parent.as_fd(),
            name: hidden,
        };
        if hidden == b".wh..opq" {
            return tree::make_opaque(parent.as_fd()).map_err(|why| place.error("make opaque", why));
        }
        if hidden.starts_with(b".wh.") {
            return Ok(()); // bookkeeping of aufs, `.wh..wh.plnk` and others
        }
        if matches!(hidden, b"" | b"." | b"..") {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(ImageError::BadArchive(format!(
                "archive has a whiteout of an impossible name: {name:?}"
            )));
        }
        match place.look()? {
            Some(there) if tree::is_directory(&there) => {
                let directory = place.open_directory()?;
                tree::make_opaque(directory.as_fd()).map_err(|why| place.error("make opaque", why))
            }
            Some(_) => Ok(()),
            None => place.make_node(SFlag::S_IFCHR, 0, 0),
        }
    }

    /// Is `there` the file that the hard link wants to point to?
    fn is_same(&self, there: &nix::sys::stat::FileStat, target: &[u8]) -> Result<bool, ImageError> {
        let target = self.below(clean(target)?);
        let (parent, name) = split(&target);
        let Ok(parent) = self.tree.resolve(parent) else {
            return Ok(false);
        };
        let target = Place {
            parent: parent.as_fd(),
            name,
        };
        Ok(target
            .look()?
            .is_some_and(|target| (target.st_dev, target.st_ino) == (there.st_dev, there.st_ino)))
    }

    fn remember_time(&mut self, path: &[u8], entry: &Entry) {
        self.directory_names += path.len() + size_of::<(Vec<u8>, (i64, u32))>();
        if self.directory_names <= DIRECTORY_NAMES {
            self.directories.push((path.to_vec(), entry.modified));
        }
    }

    /// Last, since every entry in a directory moves its time.
    fn set_directory_times(&mut self) {
        for (path, modified) in std::mem::take(&mut self.directories) {
            // a directory that a later entry replaced has no time to set
            if let Ok(directory) = self.tree.resolve(&path)
                && let Ok(readable) = nix::fcntl::openat(
                    &directory,
                    ".",
                    OFlag::O_RDONLY | OFlag::O_CLOEXEC,
                    nix::sys::stat::Mode::empty(),
                )
            {
                let _ = tree::set_time(readable.as_fd(), modified);
            }
        }
    }
}

/// The path without `.`, `..` and slashes too many, relative to the root; absolute names are the root's as well. What leaves the root is refused in
/// words like Docker's.
fn clean(name: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    let name = String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
                    return Err(ImageError::BadArchive(format!(
                        "invalid path in archive: {name:?} is outside of its root"
                    )));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Parent and last name of a clean path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests;
