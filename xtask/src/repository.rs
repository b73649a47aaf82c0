//! Where things lie: the repository, cargo, and what cargo makes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
pub fn root() -> &'static Path {
    // xtask is run by cargo from the checkout that it was built in.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where the finished eBPF object lies, whatever the target directory of cargo: the agent's build script takes it from here.
pub fn object() -> PathBuf {
    root().join("target/ebpf/sluice-datapath.o")
}

/// The target directory of cargo, `$CARGO_TARGET_DIR` or `target`.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// The cargo that started us, in the root of the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Said by the outer cargo about xtask itself; the inner one would take them for settings and build everything anew.
    for (name, _) in env::vars_os() {
        let of_package = name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR");
        if of_package {
            command.env_remove(name);
        }
    }
    command
}

/// The program of this name in `$PATH`, or in the places of the system's own programs that a user's `$PATH` often lacks.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
