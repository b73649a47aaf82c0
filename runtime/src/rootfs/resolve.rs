//! Paths of the container, resolved as if its root were `/`.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use crate::syscall;

/// Resolve below the root, symbolic links as well; never jump through `/proc/*/fd` and the like.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// What a mount needs under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A directory.
    Directory,
    /// Anything else, to be covered by a file.
    File,
}

/// Opens what `path` means inside `root`.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    syscall::openat2(root, path, flags, 0, IN_ROOT)
}

/// Opens `path` inside `root` if no component is a symbolic link, nor the last.
pub(crate) fn open_plain(root: BorrowedFd<'_>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    syscall::openat2(root, path, flags, 0, IN_ROOT | libc::RESOLVE_NO_SYMLINKS)
}

/// Links that lead to what is missing, one to another, before it is taken for a circle: as many as the kernel follows.
const MOST_LINKS: u32 = 40;

/// Opens `path` inside `root`; what is missing of it is made (directories with mode 0755, the last component as wanted), also where a
/// symbolic link leads to.
pub(crate) fn ensure(root: BorrowedFd<'_>, path: &Path, wanted: Wanted) -> io::Result<OwnedFd> {
    ensure_behind(root, path, wanted, MOST_LINKS)
}

fn ensure_behind(root: BorrowedFd<'_>, path: &Path, wanted: Wanted, links: u32) -> io::Result<OwnedFd> {
    match open_in(root, path, libc::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a path to be made holds '..'",
                ));
            }
        }
    }
    let (mut current, existing) = deepest(root, &names)?;
    for (index, name) in names.iter().enumerate().skip(existing) {
        let last = index + 1 == names.len();
        let c_name = CString::new(name.as_bytes())?;
        if let Some(target) = link(current.as_fd(), &c_name)? {
            // A link to nothing yet: from the root again, where the kernel keeps every step inside.
            let mut behind: PathBuf = Path::new("/")
                .join(names[..index].iter().collect::<PathBuf>())
                .join(target);
            behind.extend(&names[index + 1..]);
            return match links.checked_sub(1) {
                Some(links) => ensure_behind(root, &behind, wanted, links),
                None => Err(io::Error::from_raw_os_error(libc::ELOOP)),
            };
        }
        if last && wanted == Wanted::File {
            make_file(current.as_fd(), &c_name)?;
        } else {
            make_directory(current.as_fd(), &c_name)?;
        }
        // What stands there now need not be what was made: no symbolic link is followed.
        current = syscall::openat2(
            current.as_fd(),
            Path::new(name),
            libc::O_PATH | libc::O_NOFOLLOW,
            0,
            libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS,
        )?;
    }
    Ok(current)
}

/// The deepest directory of the path that exists, and how many components lead to it.
fn deepest(root: BorrowedFd<'_>, names: &[&std::ffi::OsStr]) -> io::Result<(OwnedFd, usize)> {
    for existing in (0..names.len()).rev() {
        let mut prefix = PathBuf::from("/");
        prefix.extend(&names[..existing]);
        match open_in(root, &prefix, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|directory| (directory, existing)),
        }
    }
    open_in(root, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY).map(|directory| (directory, 0))
}

/// Where a symbolic link leads; none: it is none, or not there.
fn link(dir: BorrowedFd<'_>, name: &CString) -> io::Result<Option<PathBuf>> {
    let mut target = [0u8; libc::PATH_MAX as usize];
    // SAFETY: name is NUL-terminated and outlives the call, the buffer is ours and of the length given.
    let length = unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    match syscall::result(length as i32) {
        Ok(length) => Ok(Some(PathBuf::from(std::ffi::OsStr::from_bytes(
            &target[..length as usize],
        )))),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

fn make_directory(dir: BorrowedFd<'_>, name: &CString) -> io::Result<()> {
    // SAFETY: name is NUL-terminated and outlives the call.
    match syscall::result(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), 0o755) }) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn make_file(dir: BorrowedFd<'_>, name: &CString) -> io::Result<()> {
    // SAFETY: name is NUL-terminated and outlives the call; mknod never follows a link in the last component.
    match syscall::result(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), libc::S_IFREG | 0o644, 0) }) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
