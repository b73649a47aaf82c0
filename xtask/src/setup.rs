//! `cargo xtask setup`: from a bare Debian 12 with cargo to a machine that builds, tests and measures Sluice.

pub mod corpus;
mod debian;
mod linker;
mod need;

use std::process::Command;

use clap::Args;

use crate::repository;
use crate::step::{self, Failure, Outcome, say};
use crate::toolchain::Toolchain;
use need::Need;

pub use debian::{again_as_root, as_root, is_root};
pub use need::Group;

/// Install what is missing to build and test; say what is done, do nothing when nothing is missing.
#[derive(Args)]
pub struct Setup {
    /// Also what `cargo xtask bench` measures with, and its peers.
    #[arg(long)]
    bench: bool,
    /// Also what `cargo xtask test --kernel` boots other kernels with.
    #[arg(long)]
    vm: bool,
}

impl Setup {
    /// Everything for building and testing, and more where it was asked for.
    pub fn run(&self) -> Outcome {
        let mut groups = vec![Group::Build, Group::Test];
        groups.extend(self.bench.then_some(Group::Bench));
        groups.extend(self.vm.then_some(Group::Vm));
        if !provide(&groups)? {
            let toolchain = Toolchain::find().map_or_else(String::new, |found| format!("; eBPF is built by {found}"));
            say(format_args!("nothing is missing{toolchain}"));
        }
        corpus::provide();
        Ok(())
    }
}

/// Installs what these groups need and the machine lacks. Quiet when that is nothing; tells whether there was anything to do.
pub fn provide(groups: &[Group]) -> Outcome<bool> {
    let missing: Vec<&Need> = need::of(groups).into_iter().filter(|need| !need.is_met()).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    let linker = groups.contains(&Group::Build) && !linker::is_there();
    let components = groups
        .contains(&Group::Build)
        .then(missing_components)
        .unwrap_or_default();
    if packages.is_empty() && !linker && components.is_empty() {
        return Ok(false);
    }
    if !packages.is_empty() {
        if !debian::is_debian() {
            return Err(Failure::new(describe(&missing)));
        }
        for need in &missing {
            say(format_args!("missing, {}: {}", need.purpose, need.packages.join(" ")));
        }
        debian::install(&packages)?;
    }
    if linker {
        linker::install()?;
    }
    for component in components {
        say(format_args!("missing, to keep the code in shape: {component}"));
        step::run(Command::new("rustup").args(["component", "add", component]))?;
    }
    match Toolchain::find() {
        None if groups.contains(&Group::Build) => Err(Failure::new(
            "no compiler for eBPF: neither $EBPF_RUSTC nor the active rustc nor rustup's nightly nor /usr/bin/rustc has the sources of the \
             library and LLVM 22 or older (rustup component add rust-src)",
        )),
        Some(toolchain) => {
            say(format_args!("eBPF is built by {toolchain}"));
            Ok(true)
        }
        None => Ok(true),
    }
}

/// The parts of the Rust toolchain that `lint` needs and that are not there.
fn missing_components() -> Vec<&'static str> {
    [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")]
        .into_iter()
        .filter(|(_, program)| {
            // rustup's proxies are always there; only asking for the version tells.
            step::output(Command::new(program).arg("--version").current_dir(repository::root())).is_err()
        })
        .map(|(component, _)| component)
        .collect()
}

/// For a system that we do not know the packages of.
fn describe(missing: &[&Need]) -> String {
    let mut text = String::from("this is not Debian, so nothing was installed; please provide:");
    for need in missing {
        text.push_str(&format!(
            "\n  {}, e.g. from the Debian packages {}",
            need.purpose,
            need.packages.join(" ")
        ));
    }
    text
}
