//! Which compiler builds the eBPF programs.
//!
//! It needs the sources of `core` (which is compiled for `bpfel-unknown-none` on the spot) and an LLVM not newer than that of the linker. Any
//! compiler of this kind will do: the unstable flags it needs are unlocked for it.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::repository;
use crate::step;

/// The LLVM that `bpf-linker` is built with. It reads bitcode of this version and of older ones.
pub const LLVM: u32 = 22;

/// The program that takes the debug information out of an object and leaves BTF in.
pub fn strip() -> Option<PathBuf> {
    repository::program(&format!("llvm-strip-{LLVM}")).or_else(|| repository::program("llvm-strip"))
}

/// A compiler that can build the eBPF programs.
pub struct Toolchain {
    /// `rustc`
    pub rustc: PathBuf,
    /// `cargo`, of the same toolchain where there is one
    pub cargo: PathBuf,
    version: String,
    origin: Origin,
}

/// Where a compiler was found.
#[derive(Clone, Copy)]
enum Origin {
    Asked,
    Active,
    Nightly,
    System,
}

impl Toolchain {
    /// The first that will do of: `$EBPF_RUSTC`, the active toolchain, rustup's nightly, the distribution's.
    pub fn find() -> Option<Self> {
        if let Some(asked) = env::var_os("EBPF_RUSTC") {
            return Self::of(asked.into(), Origin::Asked);
        }
        Self::of("rustc".into(), Origin::Active)
            .or_else(|| Self::of(of_nightly("rustc")?, Origin::Nightly))
            .or_else(|| Self::of("/usr/bin/rustc".into(), Origin::System))
    }

    fn of(rustc: PathBuf, origin: Origin) -> Option<Self> {
        let ask =
            |question: &[&str]| step::output(Command::new(&rustc).args(question).current_dir(repository::root())).ok();
        let sysroot = ask(&["--print", "sysroot"])?;
        let about = ask(&["-vV"])?;
        let line = |start: &str| {
            about
                .lines()
                .find_map(|line| line.strip_prefix(start))
                .map(str::to_owned)
        };
        let llvm: u32 = line("LLVM version: ")?.split('.').next()?.parse().ok()?;
        let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
        if !sources.exists() || llvm > LLVM {
            return None;
        }
        let cargo = match origin {
            Origin::Nightly => of_nightly("cargo")?,
            _ => repository::cargo().get_program().into(),
        };
        Some(Self {
            rustc,
            cargo,
            version: line("release: ")?,
            origin,
        })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Asked => "$EBPF_RUSTC",
            Origin::Active => "the active toolchain, which has rust-src",
            Origin::Nightly => "rustup's nightly with rust-src",
            Origin::System => "the distribution's, with its sources",
        };
        write!(f, "rustc {} ({origin})", self.version)
    }
}

fn of_nightly(program: &str) -> Option<PathBuf> {
    step::output(Command::new("rustup").args(["which", "--toolchain", "nightly", program]))
        .ok()
        .map(PathBuf::from)
}
