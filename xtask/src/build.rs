//! `cargo xtask build`: the eBPF programs, then the binaries that carry them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::repository;
use crate::setup::{self, Group};
use crate::step::{self, Doing, Failure, Outcome, say};
use crate::toolchain::{self, Toolchain};

/// Build the eBPF programs and the binaries `sluiced`, `sluice` and `sluice-shim`.
#[derive(Args)]
pub struct Build {
    /// Optimised, as it is meant to be used.
    #[arg(long)]
    release: bool,
}

impl Build {
    /// eBPF first: the agent embeds the object.
    pub fn run(&self) -> Outcome {
        setup::provide(&[Group::Build])?;
        ebpf()?;
        let binaries = binaries(self.release)?;
        say(format_args!(
            "sluiced, sluice and sluice-shim are in {}",
            binaries.display()
        ));
        Ok(())
    }
}

/// Builds the eBPF programs into `target/ebpf/sluice-datapath.o`, stripped, with BTF. The object is touched only when it changes, so that
/// nothing that embeds it is built again for nothing.
pub fn ebpf() -> Outcome {
    let toolchain = Toolchain::find().ok_or_else(|| Failure::new("no compiler for eBPF (see cargo xtask setup)"))?;
    say(format_args!("eBPF, built by {toolchain}"));
    let build = repository::root().join("target/ebpf-build");
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .current_dir(repository::root())
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\x1f-Clink-arg=--btf")
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            "sluice-datapath-ebpf",
            "--bin",
            "sluice-datapath",
        ])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(&build);
    // Those of the outer cargo: wrappers of clippy and coverage tools, flags for another target, another toolchain.
    for name in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "RUSTUP_TOOLCHAIN",
    ] {
        cargo.env_remove(name);
    }
    step::run(&mut cargo)?;

    let object = repository::object();
    let fresh = object.with_extension("o.new");
    fs::create_dir_all(repository::root().join("target/ebpf"))
        .doing(|| format!("make the directory of {}", object.display()))?;
    let strip = toolchain::strip().ok_or_else(|| Failure::new("llvm-strip is missing (see cargo xtask setup)"))?;
    step::run(
        Command::new(strip)
            .arg("-g")
            .arg(build.join("bpfel-unknown-none/release/sluice-datapath"))
            .arg("-o")
            .arg(&fresh),
    )?;
    replace_if_changed(&fresh, &object)
}

/// Builds the binaries and returns the directory they are in. The shim is always built by its own profile, as its size is its point.
pub fn binaries(release: bool) -> Outcome<PathBuf> {
    let mut cargo = repository::cargo();
    cargo
        .args(["build", "-p", "sluice-cli", "--bins"])
        .args(release.then_some("--release"));
    step::run(&mut cargo)?;
    let directory = repository::target().join(if release { "release" } else { "debug" });
    shim(&directory)?;
    Ok(directory)
}

/// Builds the shim and puts it into `directory`, beside the daemon, which looks for it there.
pub fn shim(directory: &Path) -> Outcome {
    // Static: it is the init of containers too, which have no loader of ours; and it starts sooner.
    let archive = static_library("libseccomp.a")?;
    let mut cargo = repository::cargo();
    cargo.env("LIBSECCOMP_LINK_TYPE", "static");
    cargo.env("LIBSECCOMP_LIB_PATH", archive.parent().unwrap_or(&archive));
    step::run(cargo.args([
        "rustc",
        "--profile",
        "shim",
        "-p",
        "sluice-runtime",
        "--bin",
        "sluice-shim",
        "--",
        "-Ctarget-feature=+crt-static",
        "-Crelocation-model=static",
    ]))?;
    let fresh = directory.join("sluice-shim.new");
    fs::copy(repository::target().join("shim/sluice-shim"), &fresh)
        .doing(|| format!("copy sluice-shim to {}", directory.display()))?;
    replace_if_changed(&fresh, &directory.join("sluice-shim"))
}

/// Where the C compiler finds a library to be linked statically.
fn static_library(name: &str) -> Outcome<PathBuf> {
    let asked = Command::new("cc").arg(format!("-print-file-name={name}")).output();
    let output = asked.doing(|| format!("ask the C compiler for {name}"))?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Failure::new(format!("{name} is missing (see cargo xtask setup)")))
    }
}

/// Puts `fresh` in the place of `old`, at once; a file in use stays what it is for those who use it.
fn replace_if_changed(fresh: &Path, old: &Path) -> Outcome {
    let is_same = match (fs::read(fresh), fs::read(old)) {
        (Ok(fresh), Ok(old)) => fresh == old,
        _ => false,
    };
    let done = if is_same {
        fs::remove_file(fresh)
    } else {
        fs::rename(fresh, old)
    };
    done.doing(|| format!("put {} into its place", old.display()))
}
