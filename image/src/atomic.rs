//! Files that are replaced whole or not at all, and are on disk when that is reported, where it matters.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::error::ImageError;

/// Writes `directory/name`, replacing what was there; it is on disk then.
pub(crate) fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    put(directory, name, bytes, true)?;
    sync_directory(directory)
}

/// The same without waiting for the disk: a failure of the machine (not of the daemon) may leave the file empty, or none.
pub(crate) fn write_soon(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    put(directory, name, bytes, false)
}

fn put(directory: &Path, name: &str, bytes: &[u8], sync: bool) -> Result<(), ImageError> {
    let (new, path) = (directory.join(format!(".{name}.new")), directory.join(name));
    let written = (|| {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&new, &path)
    })();
    written.map_err(|why| ImageError::failed("cannot write", &path, why))
}

/// Makes names in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), ImageError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|why| ImageError::failed("cannot sync", directory, why))
}

/// Makes everything durable on the file system that `directory` is on: one call for a hundred thousand files.
pub(crate) fn sync_file_system(directory: &Path) -> Result<(), ImageError> {
    let file = File::open(directory).map_err(|why| ImageError::failed("cannot open", directory, why))?;
    nix::unistd::syncfs(&file).map_err(|why| ImageError::failed("cannot sync", directory, why.desc()))
}
