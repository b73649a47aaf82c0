//! Packs a tree as an archive: what `docker cp`, `export` and `commit` send.

use std::{
    collections::{HashMap, hash_map},
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, major, minor},
        statfs,
    },
    unistd::{Whence, lseek},
};

use super::find::{self, Wanted, is, reopen};
use crate::{
    archive::{Entry, Kind, Segment, Writer},
    error::ImageError,
    owners::{CAPABILITY, Owners},
};

/// The longest path, bytes; our own reader takes no longer one.
const LONGEST_NAME: usize = 4096;
/// Holes of a file that are worth telling, bytes.
const WORTHY_HOLES: u64 = 1 << 20;
/// The most pieces of a sparse file; one in more of them is written out.
const MOST_SEGMENTS: usize = 1 << 16;

/// How a tree is packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packing<'a> {
    /// What the topmost entry is called instead of its own name; empty: a directory has no entry of its own, and what is in it no prefix.
    pub name: &'a [u8],
    /// What it is read as.
    pub style: Style,
    /// Not what is mounted below.
    pub one_file_system: bool,
    /// Relative paths that are left out where nothing is in them.
    pub scaffold: &'a [&'a str],
    /// Whose the files are on the host; none: whose they are in the container.
    pub owners: Option<&'a Owners>,
    /// Everything was changed in 1970: to compare.
    pub timeless: bool,
}

/// What a tree is read as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// As a layer of overlayfs: its marks of what is gone become OCI's.
    Layer,
}

/// Packs what stands at `path` below `root`; its last name is not followed unless a slash stands behind it.
pub fn pack(root: BorrowedFd<'_>, path: &[u8], packing: Packing<'_>, out: &mut dyn Write) -> Result<(), ImageError> {
    let wanted = Wanted::of(path);
    let parent = find::open(root, &wanted.parent, OFlag::O_PATH | OFlag::O_DIRECTORY);
    let parent = parent.map_err(|why| failed("enter", &wanted.parent, why))?;
    let own: &[u8] = if wanted.last.is_empty() { b"." } else { &wanted.last };
    let top = open_path(parent.as_fd(), own).map_err(|why| failed("look at", path, why))?;
    let stat = fstat(&top).map_err(|why| failed("look at", path, why))?;
    let mut pack = Pack {
        writer: Writer::new(out),
        style: packing.style,
        device: packing.one_file_system.then_some(stat.st_dev),
        links: HashMap::new(),
        scaffold: packing.scaffold,
        owners: packing.owners,
        timeless: packing.timeless,
    };
    if is(&stat, SFlag::S_IFDIR) {
        if !packing.name.is_empty() {
            pack.directory(&top, &stat, packing.name)?;
        }
        let level = pack.descend(&top, packing.name)?;
        pack.walk(level)?;
    } else {
        pack.thing(parent.as_fd(), own, &top, &stat, packing.name)?;
    }
    let out = pack.writer.finish().map_err(|why| writing(&why))?;
    out.flush().map_err(|why| writing(&why))
}

struct Pack<'a> {
    writer: Writer<&'a mut dyn Write>,
    style: Style,
    /// The file system that is not left.
    device: Option<u64>,
    /// Files with several names, by device and number: the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// What is left out when it is empty.
    scaffold: &'a [&'a str],
    owners: Option<&'a Owners>,
    timeless: bool,
}

/// A directory on the way down, and what is still to be done in it.
struct Level {
    fd: OwnedFd,
    /// With a slash at its end, unless it is empty.
    prefix: Vec<u8>,
    /// The last comes first.
    names: Vec<CString>,
}

impl Pack<'_> {
    /// Everything below, names in order, without recursion: a container can make trees as deep as it likes.
    fn walk(&mut self, first: Option<Level>) -> Result<(), ImageError> {
        let mut levels: Vec<Level> = first.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let whole = [level.prefix.as_slice(), name.as_bytes()].concat();
            if whole.len() > LONGEST_NAME {
                return Err(failed("pack", &whole, Errno::ENAMETOOLONG));
            }
            let opened = open_path(level.fd.as_fd(), name.as_bytes()).and_then(|fd| Ok((fstat(&fd)?, fd)));
            let (stat, thing) = match opened {
                Err(Errno::ENOENT) => continue, // gone since the directory was read
                other => other.map_err(|why| failed("look at", &whole, why))?,
            };
            let is_scaffold = self.scaffold.iter().any(|place| place.as_bytes() == whole);
            if is_scaffold && self.is_empty(&thing, &stat, &whole)? {
                continue;
            }
            if !is(&stat, SFlag::S_IFDIR) {
                let parent = level.fd.try_clone();
                let parent =
                    parent.map_err(|why| ImageError::Failed(format!("cannot keep a directory open: {why}")))?;
                self.thing(parent.as_fd(), name.as_bytes(), &thing, &stat, &whole)?;
                continue;
            }
            self.directory(&thing, &stat, &whole)?;
            if self.device.is_none_or(|device| device == stat.st_dev) {
                levels.extend(self.descend(&thing, &whole)?);
            }
        }
        Ok(())
    }

    /// Reads the names in a directory; none of what only the kernel pretends to store.
    fn descend(&self, directory: &OwnedFd, name: &[u8]) -> Result<Option<Level>, ImageError> {
        let failed = |why: Errno| failed("read directory", name, why);
        let fd = reopen_directory(directory).map_err(failed)?;
        if statfs::fstatfs(&fd).is_ok_and(|about| is_pretended(about.filesystem_type().0)) {
            return Ok(None);
        }
        let mut reading = Dir::from_fd(reopen_directory(directory).map_err(failed)?).map_err(failed)?;
        let mut names = Vec::new();
        for entry in reading.iter() {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        let prefix = match name {
            b"" | b"/" => name.to_vec(),
            name => [name, b"/"].concat(),
        };
        Ok(Some(Level { fd, prefix, names }))
    }

    fn is_empty(&self, fd: &OwnedFd, stat: &FileStat, name: &[u8]) -> Result<bool, ImageError> {
        match is(stat, SFlag::S_IFDIR) {
            true => Ok(self.descend(fd, name)?.is_none_or(|level| level.names.is_empty())),
            false => Ok(is(stat, SFlag::S_IFREG) && stat.st_size == 0),
        }
    }

    fn directory(&mut self, fd: &OwnedFd, stat: &FileStat, name: &[u8]) -> Result<(), ImageError> {
        let readable = reopen_directory(fd).map_err(|why| failed("open", name, why))?;
        let name = match name {
            b"/" => name.to_vec(),
            name => [name, b"/"].concat(),
        };
        let entry = Entry {
            kind: Kind::Directory,
            xattrs: self.xattrs(readable.as_fd(), &name)?,
            ..self.entry(stat, &name)
        };
        self.begin(&entry)?;
        if self.style == Style::Layer && is_opaque(readable.as_fd()) {
            self.mark(&[name.as_slice(), b".wh..wh..opq"].concat(), stat)?;
        }
        Ok(())
    }

    /// Everything but a directory.
    fn thing(
        &mut self,
        parent: BorrowedFd<'_>,
        own: &[u8],
        fd: &OwnedFd,
        stat: &FileStat,
        name: &[u8],
    ) -> Result<(), ImageError> {
        if self.style == Style::Layer && is(stat, SFlag::S_IFCHR) && stat.st_rdev == 0 {
            let directory = &name[..name.len() - own.len()];
            return self.mark(&[directory, b".wh.", own].concat(), stat);
        }
        if stat.st_nlink > 1 {
            match self.links.entry((stat.st_dev, stat.st_ino)) {
                hash_map::Entry::Occupied(first) => {
                    let kind = Kind::HardLink(first.get().clone());
                    return self.begin(&Entry {
                        kind,
                        ..self.entry(stat, name)
                    });
                }
                hash_map::Entry::Vacant(place) => _ = place.insert(name.to_vec()),
            }
        }
        let (major, minor) = (major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32);
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => return self.file(fd, stat, name),
            SFlag::S_IFLNK => {
                let target = readlinkat(fd, c"").or_else(|_| readlinkat(parent, own));
                let target = target.map_err(|why| failed("read link", name, why))?;
                Kind::Symlink(target.into_encoded_bytes())
            }
            SFlag::S_IFCHR => Kind::Character(major, minor),
            SFlag::S_IFBLK => Kind::Block(major, minor),
            SFlag::S_IFIFO => Kind::Fifo,
            _ => return Ok(()), // a socket is its process's
        };
        self.begin(&Entry {
            kind,
            ..self.entry(stat, name)
        })
    }

    fn file(&mut self, fd: &OwnedFd, stat: &FileStat, name: &[u8]) -> Result<(), ImageError> {
        let file = reopen(fd, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(|why| failed("open", name, why))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let entry = Entry {
            size,
            xattrs: self.xattrs(file.as_fd(), name)?,
            ..self.entry(stat, name)
        };
        let held = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        let segments = match held.saturating_add(WORTHY_HOLES) < size {
            true => segments(&file, size).filter(|segments| segments.len() <= MOST_SEGMENTS),
            false => None,
        };
        self.writer
            .begin(&entry, segments.as_deref())
            .map_err(|why| writing(&why))?;
        let whole = [Segment {
            offset: 0,
            length: size,
        }];
        let file = File::from(file);
        for segment in segments.as_deref().unwrap_or(&whole) {
            self.copy(&file, *segment, name)?;
        }
        Ok(())
    }

    fn copy(&mut self, file: &File, segment: Segment, name: &[u8]) -> Result<(), ImageError> {
        let mut buffer = vec![0; usize::try_from(segment.length).unwrap_or(usize::MAX).min(128 * 1024)];
        let (mut offset, end) = (segment.offset, segment.offset.saturating_add(segment.length));
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let count = match file.read_at(&mut buffer[..length], offset) {
                // shorter than it was: zeros take its place, so that later pieces stay where they belong
                Ok(0) => {
                    buffer[..length].fill(0);
                    length
                }
                Ok(count) => count,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => {
                    let errno = why.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                    return Err(failed("read", name, errno));
                }
            };
            self.writer.data(&buffer[..count]).map_err(|why| writing(&why))?;
            offset += count as u64;
        }
        Ok(())
    }

    /// An empty file whose name says what is gone.
    fn mark(&mut self, name: &[u8], stat: &FileStat) -> Result<(), ImageError> {
        self.begin(&Entry {
            mode: 0o600,
            uid: 0,
            gid: 0,
            ..entry(stat, name)
        })
    }

    fn entry(&self, stat: &FileStat, name: &[u8]) -> Entry {
        let mut entry = entry(stat, name);
        if let Some(owners) = self.owners {
            (entry.uid, entry.gid) = owners.in_container(entry.uid, entry.gid);
        }
        if self.timeless {
            entry.modified = (0, 0);
        }
        entry
    }

    fn xattrs(&self, fd: BorrowedFd<'_>, name: &[u8]) -> Result<Attributes, ImageError> {
        let mut all = xattrs(fd).map_err(|why| failed("read attributes of", name, why))?;
        if let Some(owners) = self.owners {
            for (_, value) in all.iter_mut().filter(|(name, _)| name == CAPABILITY) {
                *value = owners.capability_in_container(value);
            }
        }
        Ok(all)
    }

    fn begin(&mut self, entry: &Entry) -> Result<(), ImageError> {
        self.writer.begin(entry, None).map_err(|why| writing(&why))
    }
}

/// Whole seconds, as Docker writes them: what is packed twice is the same.
fn entry(stat: &FileStat, name: &[u8]) -> Entry {
    Entry {
        name: name.to_vec(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: (stat.st_mtime, 0),
        ..Entry::default()
    }
}

/// Where a file has data; `None` when the file system does not say.
fn segments(file: &OwnedFd, size: u64) -> Option<Vec<Segment>> {
    let (mut segments, mut at) = (Vec::new(), 0);
    let size = i64::try_from(size).ok()?;
    while at < size {
        let start = match lseek(file, at, Whence::SeekData) {
            Ok(start) => start.min(size),
            Err(Errno::ENXIO) => break,
            Err(_) => return None,
        };
        let end = lseek(file, start, Whence::SeekHole).ok()?.min(size);
        if end <= start {
            break;
        }
        segments.push(Segment {
            offset: u64::try_from(start).ok()?,
            length: u64::try_from(end - start).ok()?,
        });
        at = end;
    }
    // GNU tar ends the map so; some readers take the end of the last piece for the size
    segments.push(Segment {
        offset: u64::try_from(size).ok()?,
        length: 0,
    });
    Some(segments)
}

/// Names and values.
pub(super) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What travels with a file: not the marks of overlayfs, not the labels of security modules.
pub(super) fn xattrs(fd: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    let mut names = vec![0_u8; 4096];
    let length = loop {
        // SAFETY: `names` is writable for its length, and nothing of it is kept.
        let result = unsafe { libc::flistxattr(fd.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
        match Errno::result(result) {
            Ok(length) => break usize::try_from(length).unwrap_or(0),
            Err(Errno::ERANGE) if names.len() < 1 << 20 => names.resize(names.len() * 4, 0),
            Err(Errno::ENOTSUP | Errno::ENOSYS) => return Ok(Vec::new()),
            Err(why) => return Err(why),
        }
    };
    let mut all = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if crate::layer::is_kept(name)
            && let Some(value) = xattr(fd, name)?
        {
            all.push((name.to_vec(), value));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// The value of one; `None` when it is gone.
fn xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let mut value = vec![0_u8; 256];
    loop {
        // SAFETY: `name` is a C string, `value` is writable for its length, and neither is kept.
        let result = unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        match Errno::result(result) {
            Ok(length) => {
                value.truncate(usize::try_from(length).unwrap_or(0));
                return Ok(Some(value));
            }
            Err(Errno::ERANGE) if value.len() < 1 << 17 => value.resize(value.len() * 8, 0),
            Err(Errno::ENODATA | Errno::ENOTSUP) => return Ok(None),
            Err(why) => return Err(why),
        }
    }
}

/// Does this directory of a layer hide all that lower ones have there?
pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    matches!(xattr(directory, b"trusted.overlay.opaque"), Ok(Some(value)) if value == b"y")
}

/// File systems whose files are questions to the kernel.
fn is_pretended(magic: i64) -> bool {
    const MAGICS: [i64; 10] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x1cd1,      // devpts
        0x1980_0202, // mqueue
        0xcafe_4a11, // bpf
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
    ];
    MAGICS.contains(&magic)
}

fn open_path(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn reopen_directory(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(
        fd,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn failed(what: &str, name: &[u8], why: Errno) -> ImageError {
    let name = String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
    ImageError::Failed(format!(
        "cannot {what} /{}: {}",
        name.trim_start_matches('/'),
        why.desc()
    ))
}

/// Who takes the archive went away.
fn writing(why: &io::Error) -> ImageError {
    ImageError::Failed(format!("cannot write the archive: {why}"))
}

#[cfg(test)]
mod tests;
