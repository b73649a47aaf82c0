//! Where the lab keeps its things on disk.

use std::fs;
use std::path::{Path, PathBuf};

/// Below here lies everything that the lab writes. Not in `/tmp`, which may be in memory, nor on an overlay, on which no other overlay can write.
pub fn root() -> PathBuf {
    PathBuf::from("/var/tmp/sluice-lab")
}

/// The program of this name in `$PATH` or among the system's own.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// A binary of ours: from `$SLUICE_BINARIES`, or from where cargo put it together with the running program.
///
/// # Panics
/// If it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let directories = std::env::var_os("SLUICE_BINARIES").map(PathBuf::from).into_iter();
    let beside = std::env::current_exe().ok();
    let beside = beside
        .iter()
        .flat_map(|exe| exe.ancestors().skip(1).take(2))
        .map(Path::to_owned);
    directories
        .chain(beside)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not built (cargo xtask build)"))
}

/// Makes a directory and those above it.
pub fn make(path: impl AsRef<Path>) {
    let path = path.as_ref();
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
}
