//! `cargo xtask test`: everything that can be checked on this machine.

mod binary;
mod elsewhere;
mod tally;

use std::fs;
use std::process::ExitCode;

use clap::Args;

use crate::setup::{self, Group};
use crate::step::{Outcome, say};
use crate::{build, lint, repository};
use binary::Binary;
use tally::Tally;

/// Run all tests, also those that need root (with sudo, when you are not root), and lint.
#[derive(Args)]
pub struct Test {
    /// Only tests with this in their name, or all of the test program of this name (packet, network, docker …); no lint then.
    filter: Option<String>,
    /// Only what is also tested under other kernels, under this one, in a virtual machine: 6.1, 6.12 …, or the newest
    /// that apt knows: newest. (Without it, all tests here and these under 6.1.)
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// A test that fails is not run a second time. (Without it, it is, by itself, and is told at the end if it passes then.)
    #[arg(long)]
    once: bool,
}

/// Do tests that this filter chooses need images of Debian?
fn is_of_images(filter: &str) -> bool {
    filter == "docker" || filter.contains("corpus")
}

impl Test {
    /// Runs them; the last line says how many passed and failed.
    pub fn run(&self) -> ExitCode {
        let mut tally = Tally::default();
        if let Err(failure) = self.count(&mut tally) {
            eprintln!("xtask: {failure}");
            tally.fail("cargo xtask test did not come to its end");
        }
        lab::forget_images();
        tally.conclude()
    }

    fn count(&self, tally: &mut Tally) -> Outcome {
        let boots = self.kernel.is_some() || self.filter.is_none();
        setup::provide(if boots {
            &[Group::Build, Group::Test, Group::Vm]
        } else {
            &[Group::Build, Group::Test]
        })?;
        if self.kernel.is_none() && self.filter.as_deref().is_none_or(is_of_images) {
            setup::corpus::provide();
        }
        build::ebpf()?;
        if self.kernel.is_some() {
            let binaries = binary::build()?;
            build::binaries(false)?;
            return self.elsewhere(&binaries, tally);
        }
        if self.filter.is_none() {
            tally.check("formatting", lint::format());
            tally.check("clippy", lint::clippy());
        }
        let binaries = binary::build()?;
        build::binaries(false)?;
        if !setup::is_root() {
            say("the tests need root: they are run with sudo");
        }
        let skipped = repository::target().join("skipped-tests");
        let _ = fs::remove_file(&skipped);
        for binary in self.chosen(&binaries) {
            binary.run(self.filter_within(binary), &skipped, self.once, tally)?;
        }
        if self.filter.is_none() {
            tally.check("examples in the documentation", binary::run_documentation());
            self.elsewhere(&binaries, tally)?;
        }
        tally.note_skipped(&fs::read_to_string(&skipped).unwrap_or_default());
        let _ = fs::remove_file(&skipped);
        Ok(())
    }

    /// Under another kernel.
    fn elsewhere(&self, binaries: &[Binary], tally: &mut Tally) -> Outcome {
        let version = self.kernel.as_deref().unwrap_or(elsewhere::FLOOR);
        elsewhere::run(version, binaries, self.filter.as_deref(), self.once, tally)
    }

    /// The program that the filter names, or else all.
    fn chosen<'a>(&self, binaries: &'a [Binary]) -> Vec<&'a Binary> {
        let named: Vec<&Binary> = binaries
            .iter()
            .filter(|binary| Some(&binary.name) == self.filter.as_ref())
            .collect();
        if named.is_empty() {
            binaries.iter().collect()
        } else {
            named
        }
    }

    /// The filter for tests within the program: none when it is the program that was asked for.
    fn filter_within(&self, binary: &Binary) -> Option<&str> {
        self.filter.as_deref().filter(|filter| *filter != binary.name)
    }
}
