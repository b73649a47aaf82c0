//! Files that are replaced whole or not at all, and are on disk when that is reported.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::error::ImageError;

/// Writes `directory/name`, replacing what was there.
pub(crate) fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    let (new, path) = (directory.join(format!(".{name}.new")), directory.join(name));
    let written = (|| {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    written.map_err(|why| ImageError::failed("cannot write", &path, why))?;
    sync_directory(directory)
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
