//! Finds a path of a container as the container would.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};

use crate::error::ImageError;

/// Links in one path, as the kernel has it.
const MOST_LINKS: usize = 40;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its last name; `/` of the root, `.` where the path ends so.
    pub name: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Kind and permissions, as the kernel has them (`st_mode`).
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Of a symbolic link: where it leads in the end, absolute.
    pub target: Option<Vec<u8>>,
}

impl Found {
    /// Is it a directory?
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Opens the directory at `path` below `root`, following links as if `root` were `/`.
pub fn find(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    Ok(open(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)
}

/// Looks at `path` below `root`. The last name is not followed, unless a slash or `/.` stands behind it. `None` when nothing is there.
pub fn look(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Found>, ImageError> {
    let wanted = Wanted::of(path);
    let failed = |why: Errno| {
        ImageError::Failed(format!(
            "cannot look at {}: {}",
            String::from_utf8_lossy(path),
            why.desc()
        ))
    };
    let parent = match open(root, &wanted.parent, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(Errno::ENOENT | Errno::ELOOP) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let stat = match wanted.last.as_slice() {
        b"" => fstat(&parent),
        name => fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW),
    };
    let stat = match stat {
        Err(Errno::ENOENT) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let target = match is(&stat, SFlag::S_IFLNK) {
        true => Some(follow(root, path).map_err(failed)?),
        false => None,
    };
    Ok(Some(Found {
        name: wanted.shown,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        target,
    }))
}

/// Where `path` leads in the end, as a path; parts that are not there lead nowhere else. It is told to clients, never walked.
pub(super) fn follow(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut left: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
    let (mut done, mut links): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    while let Some(part) = left.pop() {
        if part == b".." {
            done.pop();
            continue;
        }
        let parent = open(root, &done.join(&b'/'), OFlag::O_PATH | OFlag::O_DIRECTORY);
        match parent.and_then(|parent| readlinkat(parent, part.as_slice())) {
            Ok(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP);
                }
                let target = target.as_encoded_bytes();
                if target.starts_with(b"/") {
                    done.clear();
                }
                left.extend(parts(target).rev().map(<[u8]>::to_vec));
            }
            Err(_) => done.push(part),
        }
    }
    Ok([b"/", done.join(&b'/').as_slice()].concat())
}

/// A path taken apart.
pub(super) struct Wanted {
    /// What is followed.
    pub parent: Vec<u8>,
    /// What is not; empty: the directory `parent` itself is meant.
    pub last: Vec<u8>,
    /// The name clients are told, and what is packed is called.
    pub shown: Vec<u8>,
}

impl Wanted {
    pub fn of(path: &[u8]) -> Self {
        let mut clean: Vec<&[u8]> = Vec::new();
        for part in parts(path) {
            match part {
                b".." => _ = clean.pop(),
                part => clean.push(part),
            }
        }
        let ends_with_dot = path.ends_with(b"/.") && path != b"/.";
        let of_directory = path.ends_with(b"/") || path.ends_with(b"/.") || path.ends_with(b"/..");
        match clean.split_last() {
            None => Self {
                parent: Vec::new(),
                last: Vec::new(),
                shown: if ends_with_dot { b".".to_vec() } else { b"/".to_vec() },
            },
            Some((last, _)) if of_directory => Self {
                parent: clean.join(&b'/'),
                last: Vec::new(),
                shown: if ends_with_dot { b".".to_vec() } else { last.to_vec() },
            },
            Some((last, parent)) => Self {
                parent: parent.join(&b'/'),
                last: last.to_vec(),
                shown: last.to_vec(),
            },
        }
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
}

/// `openat2` with `root` as `/`, and no jump through `/proc/*/fd` and the like.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // EAGAIN: something on this machine was renamed meanwhile, and the kernel cannot rule out that it was `..`
    for _ in 0..1000 {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

pub(super) fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

/// Owner, mode, attributes and times of a directory, given to another.
pub fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), ImageError> {
    let failed = |why: Errno| ImageError::Failed(format!("cannot copy the attributes of a directory: {}", why.desc()));
    let readable = |fd: BorrowedFd<'_>| open(fd, b"", OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed);
    let (from, to) = (readable(from)?, readable(to)?);
    let stat = fstat(&from).map_err(failed)?;
    let entry = crate::archive::Entry {
        kind: crate::archive::Kind::Directory,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        xattrs: super::pack::xattrs(from.as_fd()).map_err(failed)?,
        ..Default::default()
    };
    crate::layer::set_metadata(to.as_fd(), &entry)
}

/// Can nothing be written here?
pub fn is_read_only(directory: BorrowedFd<'_>) -> bool {
    nix::sys::statvfs::fstatvfs(directory)
        .is_ok_and(|about| about.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

/// Are both in one mount?
pub fn is_same_mount(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let mount = |fd: BorrowedFd<'_>| {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("mnt_id:").map(|id| id.trim().to_owned()))
    };
    mount(one) == mount(other)
}

/// Opens anew, for reading, what an `O_PATH` descriptor stands for: after looking, so that no device is ever opened.
pub(super) fn reopen(fd: &OwnedFd, flags: OFlag) -> Result<OwnedFd, Errno> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    nix::fcntl::open(link.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::symlink};

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_path_is_taken_apart_as_docker_does() {
        for (path, parent, last, shown) in [
            ("/etc/passwd", "etc", "passwd", "passwd"),
            ("etc/passwd", "etc", "passwd", "passwd"),
            ("/link/", "link", "", "link"),
            ("/link/.", "link", "", "."),
            ("/", "", "", "/"),
            ("/data/sub/..", "data", "", "data"),
            ("/../../x", "", "x", "x"),
        ] {
            let wanted = Wanted::of(path.as_bytes());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(
                (text(&wanted.parent), text(&wanted.last), text(&wanted.shown)),
                (parent.to_owned(), last.to_owned(), shown.to_owned()),
                "{path}"
            );
        }
    }

    #[test]
    fn links_lead_nowhere_but_inside() {
        let scratch = Scratch::new("find");
        let root = scratch.path().join("root");
        std::fs::create_dir_all(root.join("data")).unwrap();
        std::fs::write(root.join("data/a"), "one").unwrap();
        for (link, target) in [
            ("abs", "/data"),
            ("up", "../../../../data/a"),
            ("out", "/etc/passwd"),
            ("me", "me"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let fd = File::open(&root).unwrap();
        let target = |path: &str| String::from_utf8(follow(fd.as_fd(), path.as_bytes()).unwrap()).unwrap();
        assert_eq!(target("/abs/a"), "/data/a");
        assert_eq!(target("/up"), "/data/a");
        assert_eq!(target("/out"), "/etc/passwd");
        assert_eq!(follow(fd.as_fd(), b"/me"), Err(Errno::ELOOP));
        let look = |path: &str| look(fd.as_fd(), path.as_bytes()).unwrap();
        assert_eq!(look("/up").unwrap().target.unwrap(), b"/data/a");
        assert!(look("/abs/").unwrap().is_directory());
        assert_eq!(look("/abs/a").unwrap().size, 3);
        assert_eq!(look("/out/"), None, "/etc/passwd of the host is not there");
        assert_eq!(look("/nope"), None);
    }
}
