//! `cargo xtask lint`: the shape of the code, with every warning an error.

use clap::Args;

use crate::repository;
use crate::setup::{self, Group};
use crate::step::{self, Outcome};

/// Check formatting, and let clippy find nothing.
#[derive(Args)]
pub struct Lint {}

impl Lint {
    /// Formatting first: it costs a second.
    pub fn run(&self) -> Outcome {
        setup::provide(&[Group::Build])?;
        format()?;
        clippy()
    }
}

/// `cargo fmt`, which changes nothing.
pub fn format() -> Outcome {
    step::run(repository::cargo().args(["fmt", "--all", "--check"]))
}

/// `cargo clippy` over everything that is compiled for this machine, with warnings denied.
pub fn clippy() -> Outcome {
    step::run(
        repository::cargo()
            .args([
                "clippy",
                "--quiet",
                "--workspace",
                "--exclude",
                "sluice-datapath-ebpf",
                "--all-targets",
            ])
            .args(["--features", "sluice-tests/root"])
            .args(["--", "--deny", "warnings"]),
    )
}
