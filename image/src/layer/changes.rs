//! What a container changed: its writable layer against those below it.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
};

use super::tree::{is_directory, is_whiteout, kind};
use crate::{error::ImageError, files::is_opaque, owners::Owners};

/// How something changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It is another than it was, or something in it is.
    Modified,
    /// It was not there.
    Added,
    /// It is not there any more.
    Deleted,
}

/// A change in a container's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Absolute, in the container.
    pub path: Vec<u8>,
    /// How it changed.
    pub kind: ChangeKind,
}

/// All changes in the writable layer `upper`, whose files have these owners on the host, over the layers `lower`, topmost first. By path, so that a directory comes before what is in it. The
/// places in `scaffold` were made for mounts: empty ones are nobody's change.
pub(crate) fn changes(
    upper: &Path,
    lower: &[PathBuf],
    scaffold: &[&str],
    owners: Option<&Owners>,
) -> Result<Vec<Change>, ImageError> {
    let open = |path: &Path| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty());
        fd.map_err(|why| ImageError::failed("cannot open", path, why.desc()))
    };
    let comparison = Comparison {
        upper: open(upper)?,
        lower: lower.iter().map(|layer| open(layer)).collect::<Result<_, _>>()?,
        scaffold,
        owners,
    };
    let all: Vec<usize> = (0..comparison.lower.len()).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut left = vec![(Vec::new(), all)];
    while let Some((directory, layers)) = left.pop() {
        comparison.directory(&directory, &layers, &mut found, &mut left)?;
    }
    found.sort_by(|one, other| by_parts(&one.change.path).cmp(by_parts(&other.change.path)));
    // what counts only for what is in it is decided from the end: what is in a directory follows it
    let mut changes: Vec<Change> = Vec::new();
    for Found { change, is_weak } in found.into_iter().rev() {
        let holds_another = changes.last().is_some_and(|next: &Change| {
            let rest = next.path.strip_prefix(change.path.as_slice());
            rest.is_some_and(|rest| rest.starts_with(b"/"))
        });
        if !is_weak || holds_another {
            changes.push(change);
        }
    }
    changes.reverse();
    Ok(changes)
}

/// Something in the writable layer.
struct Found {
    change: Change,
    /// It is a change only if something in it is.
    is_weak: bool,
}

fn by_parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

struct Comparison<'a> {
    upper: OwnedFd,
    lower: Vec<OwnedFd>,
    scaffold: &'a [&'a str],
    owners: Option<&'a Owners>,
}

/// A directory of the writable layer, and the layers below in which it goes on.
type Branch = (Vec<u8>, Vec<usize>);

impl Comparison<'_> {
    fn directory(
        &self,
        directory: &[u8],
        layers: &[usize],
        found: &mut Vec<Found>,
        left: &mut Vec<Branch>,
    ) -> Result<(), ImageError> {
        let names = names(self.upper.as_fd(), directory).map_err(|why| failed(directory, why))?;
        for name in &names {
            let path = match directory {
                b"" => name.clone(),
                directory => [directory, b"/", name].concat(),
            };
            let Some(here) = look(self.upper.as_fd(), &path).map_err(|why| failed(&path, why))? else {
                continue;
            };
            let (below, going_on) = self.below(layers, &path).map_err(|why| failed(&path, why))?;
            let (kind, is_weak) = match (is_whiteout(&here), below) {
                (true, Some(_)) => (ChangeKind::Deleted, false),
                // it came and went
                (true, None) => continue,
                (false, None) => (ChangeKind::Added, self.is_scaffold(&path, &here)),
                (false, Some(below)) => (ChangeKind::Modified, is_same(&self.in_container(here), &below)),
            };
            let change = Change {
                path: [b"/", path.as_slice()].concat(),
                kind,
            };
            found.push(Found { change, is_weak });
            if !is_directory(&here) || is_whiteout(&here) {
                continue;
            }
            let hides = open(self.upper.as_fd(), &path).is_ok_and(|fd| is_opaque(fd.as_fd()));
            if hides {
                self.hidden(&path, &going_on, found)?;
            }
            left.push((path, if hides { Vec::new() } else { going_on }));
        }
        Ok(())
    }

    /// The owner as the layers below say it.
    fn in_container(&self, mut here: FileStat) -> FileStat {
        if let Some(owners) = self.owners {
            (here.st_uid, here.st_gid) = owners.in_container(here.st_uid, here.st_gid);
        }
        here
    }

    /// A place made for a mount, or a directory that such places needed.
    fn is_scaffold(&self, path: &[u8], here: &FileStat) -> bool {
        let of_scaffold = self.scaffold.iter().any(|place| {
            let rest = place.as_bytes().strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with(b"/") && is_directory(here)))
        });
        of_scaffold && (is_directory(here) || (kind(here) == SFlag::S_IFREG && here.st_size == 0))
    }

    /// What was in a directory that was made anew, and is not in it now.
    fn hidden(&self, directory: &[u8], layers: &[usize], found: &mut Vec<Found>) -> Result<(), ImageError> {
        let here = names(self.upper.as_fd(), directory).map_err(|why| failed(directory, why))?;
        let mut gone = std::collections::BTreeSet::new();
        for layer in layers {
            gone.extend(names(self.lower[*layer].as_fd(), directory).map_err(|why| failed(directory, why))?);
        }
        for name in gone.into_iter().filter(|name| !here.contains(name)) {
            let path = [directory, b"/", &name].concat();
            if self.below(layers, &path).map_err(|why| failed(&path, why))?.0.is_some() {
                let change = Change {
                    path: [b"/", path.as_slice()].concat(),
                    kind: ChangeKind::Deleted,
                };
                found.push(Found { change, is_weak: false });
            }
        }
        Ok(())
    }

    /// What the layers below show at `path`, and in which of them a directory there goes on.
    fn below(&self, layers: &[usize], path: &[u8]) -> Result<(Option<FileStat>, Vec<usize>), Errno> {
        let (mut shown, mut going_on) = (None, Vec::new());
        for index in layers {
            let layer = self.lower[*index].as_fd();
            let Some(there) = look(layer, path)? else { continue };
            if is_whiteout(&there) {
                break;
            }
            if !is_directory(&there) {
                shown.get_or_insert(there);
                break;
            }
            going_on.push(*index);
            shown.get_or_insert(there);
            if open(layer, path).is_ok_and(|fd| is_opaque(fd.as_fd())) {
                break;
            }
        }
        Ok((shown, going_on))
    }
}

/// Nothing that Docker would tell of: a directory is what it was when its owner and mode are, whatever came into it.
fn is_same(here: &FileStat, below: &FileStat) -> bool {
    let of_all = |stat: &FileStat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    let of_files = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    of_all(here) == of_all(below) && (is_directory(here) || of_files(here) == of_files(below))
}

/// What is at `path`, not following. A container changes its layer while we look: what is gone is not there.
fn look(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<FileStat>, Errno> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let stat = open(root, parent).and_then(|parent| fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW));
    match stat {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(why) => Err(why),
    }
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, path, how)
}

fn names(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let directory = match open(root, path) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn failed(path: &[u8], why: Errno) -> ImageError {
    let path = String::from_utf8_lossy(&path[..path.len().min(256)]);
    ImageError::Failed(format!("cannot compare /{path} with the layers below: {}", why.desc()))
}
