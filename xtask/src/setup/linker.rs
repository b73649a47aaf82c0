//! `bpf-linker`, at the one version that this repository is built with.

use std::process::Command;

use crate::repository;
use crate::step::{self, Outcome, say};
use crate::toolchain::LLVM;

const VERSION: &str = "0.13.0";

/// What is needed to build it in Debian 12.
pub const PACKAGES: &[&str] = &[
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libxml2-dev",
    "libffi-dev",
    "libzstd-dev",
    "g++",
];

/// Is this very version in `$PATH`?
pub fn is_there() -> bool {
    step::output(Command::new("bpf-linker").arg("--version"))
        .is_ok_and(|line| line.split_whitespace().last() == Some(VERSION))
}

/// Builds and installs it where cargo puts programs. Its default is an LLVM that Debian 12 does not have.
pub fn install() -> Outcome {
    say(format_args!(
        "missing: bpf-linker {VERSION}; building it with LLVM {LLVM} (about a minute)"
    ));
    step::run(
        repository::cargo()
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
            .env_remove("CARGO_TARGET_DIR")
            .args([
                "install",
                "bpf-linker",
                "--version",
                VERSION,
                "--locked",
                "--force",
                "--quiet",
            ])
            .args(["--no-default-features", "--features", &format!("llvm-{LLVM}")]),
    )
}
