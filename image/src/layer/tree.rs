//! The directory an archive is unpacked into, as the archive may see it: a root nothing leads out of.
//!
//! The tree is a stranger's work in progress: it may hold a symbolic link anywhere, also where a directory was a moment ago. So nothing here walks a
//! path of it by name. A parent is opened with `openat2(RESOLVE_IN_ROOT)`, which resolves links as if the layer were `/`, and the last step is
//! always an `*at` call on that descriptor that does not follow.

use std::{
    ffi::CString,
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat2},
    sys::{
        stat::{
            FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, futimens, mkdirat, mknodat, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchownat, linkat, symlinkat},
};

use super::discard;
use crate::{archive::Entry, error::ImageError};

/// Permissions of a directory that an entry needs but the archive does not list.
const IMPLIED: Mode = Mode::from_bits_truncate(0o755);

/// A tree an archive is unpacked into.
pub(super) struct Tree {
    root: OwnedFd,
    /// Where directories go that an entry replaces: renaming is one step, whatever is in them. Without it they are removed where they are.
    replaced: Option<OwnedFd>,
    replacements: u64,
    /// May what is mounted below the root be written too?
    crosses_mounts: bool,
    /// Whose the directories are that no entry lists; none: root's.
    owner: Option<(u32, u32)>,
    /// The parent of the last entry; archives are written directory by directory.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

/// A name in a directory of the tree.
pub(super) struct Place<'a> {
    pub parent: BorrowedFd<'a>,
    pub name: &'a [u8],
}

impl Tree {
    /// Both directories exist, are empty and on one file system.
    pub fn open(root: &Path, replaced: &Path) -> Result<Self, ImageError> {
        let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = |path: &Path| {
            let fd = nix::fcntl::open(path, OFlag::O_RDONLY | directory, Mode::empty());
            fd.map_err(|why| ImageError::failed("cannot open", path, why.desc()))
        };
        Ok(Self {
            root: open(root)?,
            replaced: Some(open(replaced)?),
            replacements: 0,
            crosses_mounts: false,
            owner: None,
            last_parent: None,
        })
    }

    /// The root of a container, with all that is mounted in it, and who its root is on the host.
    pub fn of_container(root: BorrowedFd<'_>, owner: Option<(u32, u32)>) -> Result<Self, ImageError> {
        let root = root.try_clone_to_owned();
        Ok(Self {
            root: root.map_err(|why| ImageError::Failed(format!("cannot keep a directory open: {why}")))?,
            replaced: None,
            replacements: 0,
            crosses_mounts: true,
            owner,
            last_parent: None,
        })
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path` (clean, relative), made with its parents where it is missing.
    pub fn directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, ImageError> {
        if let Some((known, fd)) = &self.last_parent
            && known == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.resolve(path) {
            Err(Errno::ENOENT) => self.make_directories(path)?,
            other => other.map_err(|why| ImageError::placing("enter", path, why))?,
        };
        let fd = Rc::new(fd);
        self.last_parent = Some((path.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// Opens a directory, following links inside the root.
    pub fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        resolve.set(ResolveFlag::RESOLVE_NO_XDEV, !self.crosses_mounts);
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(resolve);
        // EAGAIN: something on this machine was renamed meanwhile, and the kernel cannot rule out that it was `..`
        for _ in 0..100 {
            match openat2(&self.root, path, how) {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Whatever is at `place` goes away. Forgets the last parent, which may have been inside. With `keep` it stays among the replaced, under the number
    /// that is told.
    pub fn clear(&mut self, parent: BorrowedFd<'_>, name: &[u8], keep: bool) -> Result<u64, ImageError> {
        self.last_parent = None;
        let Some(replaced) = &self.replaced else {
            discard::remove_at(parent, name).map_err(|why| ImageError::placing("replace", name, why))?;
            return Ok(0);
        };
        self.replacements += 1;
        let away = self.replacements.to_string();
        renameat2(parent, name, replaced, away.as_str(), RenameFlags::RENAME_NOREPLACE)
            .map_err(|why| ImageError::placing("replace", name, why))?;
        if keep {
            return Ok(self.replacements);
        }
        // what is not a directory need not wait for the end: its blocks may be wanted
        match nix::unistd::unlinkat(replaced, away.as_str(), nix::unistd::UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::EISDIR | Errno::EPERM) => Ok(self.replacements),
            Err(why) => Err(ImageError::placing("replace", name, why)),
        }
    }

    fn make_directories(&self, path: &[u8]) -> Result<OwnedFd, ImageError> {
        let mut end = 0;
        let mut current = self
            .resolve(b"")
            .map_err(|why| ImageError::placing("enter", path, why))?;
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..]
                .iter()
                .position(|byte| *byte == b'/')
                .map_or(path.len(), |length| start + length);
            current = match self.resolve(&path[..end]) {
                Err(Errno::ENOENT) => {
                    // over a dangling link this is EEXIST: an archive that writes through one is refused
                    mkdirat(&current, &path[start..end], IMPLIED)
                        .and_then(|()| open_directory(current.as_fd(), &path[start..end]))
                        .and_then(|made| match self.owner {
                            Some((uid, gid)) => {
                                nix::unistd::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                                    .map(|()| made)
                            }
                            None => Ok(made),
                        })
                }
                other => other,
            }
            .map_err(|why| ImageError::placing("make directory", &path[..end], why))?;
        }
        Ok(current)
    }
}

impl Place<'_> {
    /// What is there, not following; `None` when nothing is.
    pub fn look(&self) -> Result<Option<FileStat>, ImageError> {
        match fstatat(self.parent, self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(why) => Err(self.error("look at", why)),
        }
    }

    pub fn make_directory(&self) -> Result<(), ImageError> {
        mkdirat(self.parent, self.name, IMPLIED).map_err(|why| self.error("make directory", why))
    }

    /// A new, empty file.
    pub fn make_file(&self) -> Result<File, ImageError> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(self.parent, self.name, flags, Mode::from_bits_truncate(0o600));
        fd.map(File::from).map_err(|why| self.error("make file", why))
    }

    pub fn make_symlink(&self, target: &[u8]) -> Result<(), ImageError> {
        symlinkat(target, self.parent, self.name).map_err(|why| self.error("make symbolic link", why))
    }

    pub fn make_link(&self, target: &Place<'_>) -> Result<(), ImageError> {
        linkat(target.parent, target.name, self.parent, self.name, AtFlags::empty())
            .map_err(|why| self.error("make hard link", why))
    }

    /// A device or fifo. It is only made, never opened: only a container with a device rule for it can.
    pub fn make_node(&self, kind: SFlag, major: u32, minor: u32) -> Result<(), ImageError> {
        if major > 0xfff || minor > 0xf_ffff {
            return Err(self.error("make device", Errno::EINVAL));
        }
        let device = nix::sys::stat::makedev(u64::from(major), u64::from(minor));
        mknodat(self.parent, self.name, kind, Mode::from_bits_truncate(0o600), device)
            .map_err(|why| self.error("make device", why))
    }

    /// Opens the directory here.
    pub fn open_directory(&self) -> Result<OwnedFd, ImageError> {
        open_directory(self.parent, self.name).map_err(|why| self.error("open directory", why))
    }

    /// Owner and time of what was just made here, and its mode unless it is a link.
    pub fn set_metadata(&self, entry: &Entry, is_link: bool) -> Result<(), ImageError> {
        let (owner, group) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(
            self.parent,
            self.name,
            Some(owner),
            Some(group),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .map_err(|why| self.error("set owner of", why))?;
        if !is_link {
            let mode = Mode::from_bits_truncate(entry.mode);
            fchmodat(
                self.parent,
                self.name,
                mode,
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
            .map_err(|why| self.error("set mode of", why))?;
        }
        let time = time(entry.modified);
        utimensat(self.parent, self.name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|why| self.error("set time of", why))
    }

    pub fn error(&self, what: &str, why: Errno) -> ImageError {
        ImageError::placing(what, self.name, why)
    }
}

/// Owner, mode, extended attributes and time, in the order that lets each stand: a change of owner takes set-user bits and capabilities away.
pub(crate) fn set_metadata(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), ImageError> {
    let error = |what: &str, why: Errno| ImageError::placing(what, &entry.name, why);
    nix::unistd::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        .map_err(|why| error("set owner of", why))?;
    nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(entry.mode)).map_err(|why| error("set mode of", why))?;
    for (name, value) in &entry.xattrs {
        if is_kept(name) {
            match set_xattr(fd, name, value) {
                // a file system without this kind of attribute; Docker goes on too
                Ok(()) | Err(Errno::ENOTSUP) => {}
                Err(why) => return Err(error("set extended attribute of", why)),
            }
        }
    }
    set_time(fd, entry.modified).map_err(|why| error("set time of", why))
}

pub(super) fn set_time(fd: BorrowedFd<'_>, modified: (i64, u32)) -> Result<(), Errno> {
    let time = time(modified);
    futimens(fd, &time, &time)
}

/// Capabilities, access lists and what programs keep for themselves. Not `trusted.overlay.*`, with which an archive could redirect a directory to any
/// other of the host, and not the labels of security modules, which are the host's to give.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay."))
}

/// Marks a directory as hiding all that lower layers have there.
pub(super) fn make_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let readable = open_directory(directory, b".")?;
    set_xattr(readable.as_fd(), b"trusted.overlay.opaque", b"y")
}

/// A whiteout is a character device 0/0.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

pub(super) fn is_directory(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFDIR
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Mode, owner and group of an open directory.
pub(super) fn attributes(directory: BorrowedFd<'_>) -> Result<(u32, u32, u32), Errno> {
    fstat(directory).map(|stat| (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn time((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanoseconds))
}

fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `name` is a C string and `value` a slice of the length given; both outlive the call, which keeps neither.
    let result = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}
