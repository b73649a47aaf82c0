//! Removes a tree of any depth, with two open directories and no recursion.
//!
//! Containers and archives can make trees deeper than a stack or the limit of open files. So a directory that is not empty is first moved up to
//! the top of the tree, and the tree is swept until nothing is left: it never gets deeper than two.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use nix::{
    NixPath,
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag, RenameFlags, renameat2},
    sys::stat::{Mode, SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::error::ImageError;

/// Removes the directory `path` with all that is in it, following no link. Nothing there is fine.
pub fn remove_tree(path: &Path) -> Result<(), ImageError> {
    match sweep(nix::fcntl::AT_FDCWD, path) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(why) => Err(ImageError::failed("cannot remove", path, io::Error::from(why))),
    }
}

/// Removes what is called `name` in `parent`, following no link. Nothing there is fine.
pub(super) fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => match sweep(parent, name) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        },
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn sweep(parent: BorrowedFd<'_>, path: &(impl NixPath + ?Sized)) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut moved = 0u64;
    loop {
        let mut top = Dir::openat(parent, path, flags, Mode::empty())?;
        let again = top.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        let mut found = false;
        for entry in top.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            if !is_directory(&again, &entry)? {
                unlinkat(&again, name, UnlinkatFlags::NoRemoveDir)?;
                continue;
            }
            let mut inner = match Dir::openat(&again, name, flags, Mode::empty()) {
                Err(Errno::ENOENT) => continue, // listed twice, while directories are moved in
                inner => inner?,
            };
            let inner_again = inner.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
            for entry in inner.iter() {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                if !is_directory(&inner_again, &entry)? {
                    unlinkat(&inner_again, name, UnlinkatFlags::NoRemoveDir)?;
                    continue;
                }
                match unlinkat(&inner_again, name, UnlinkatFlags::RemoveDir) {
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) => lift(&inner_again, name, &again, &mut moved)?,
                    other => other?,
                }
            }
            match unlinkat(&again, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {} // reading missed something; the next sweep has it
                other => other?,
            }
        }
        if !found {
            return unlinkat(parent, path, UnlinkatFlags::RemoveDir);
        }
    }
}

/// Moves a directory to the top, under a name that is free.
fn lift(from: impl AsFd, name: &std::ffi::CStr, top: impl AsFd, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let new = format!(".removed-{moved}");
        match renameat2(&from, name, &top, new.as_str(), RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            other => return other,
        }
    }
}

fn is_directory(parent: impl AsFd, entry: &nix::dir::Entry) -> Result<bool, Errno> {
    match entry.file_type() {
        Some(kind) => Ok(kind == Type::Directory),
        None => {
            let stat = fstatat(&parent, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_tree_deeper_than_the_limit_of_open_files_goes_away() {
        let scratch = Scratch::new("deep");
        let tree = scratch.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut deepest: std::os::fd::OwnedFd = std::fs::File::open(&tree).unwrap().into();
        for _ in 0..5000 {
            nix::sys::stat::mkdirat(&deepest, "d", Mode::from_bits_truncate(0o755)).unwrap();
            deepest = nix::fcntl::openat(&deepest, "d", OFlag::O_RDONLY, Mode::empty()).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn links_are_removed_not_followed() {
        let scratch = Scratch::new("links");
        let (tree, outside) = (scratch.path().join("tree"), scratch.path().join("outside"));
        std::fs::create_dir_all(tree.join("a/b/c")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        symlink(&outside, tree.join("a/b/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
        remove_tree(&tree).unwrap(); // nothing there is fine
    }
}
