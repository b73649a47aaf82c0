//! Test programs: cargo builds them all at once, then they run one by one, as root.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::tally::Tally;
use crate::step::{self, Doing, Failure, Outcome, say};
use crate::{repository, setup};

/// A hung test ends after so many seconds, together with its program.
const LIMIT: &str = "3000";

/// A test program.
pub struct Binary {
    /// Of the integration test, or of the crate whose unit tests it holds.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// The directory of its package, where cargo would run it.
    pub package: PathBuf,
}

/// Builds all test programs.
pub fn build() -> Outcome<Vec<Binary>> {
    say("building the tests");
    let mut cargo = repository::cargo();
    cargo
        .args([
            "test",
            "--quiet",
            "--workspace",
            "--exclude",
            "sluice-datapath-ebpf",
            "--features",
            "sluice-tests/root",
        ])
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let messages = cargo
        .stdin(Stdio::null())
        .output()
        .doing(|| "start cargo test".into())?;
    if !messages.status.success() {
        return Err(Failure::new("the tests could not be built"));
    }
    let lines = String::from_utf8_lossy(&messages.stdout).into_owned();
    let mut binaries: Vec<Binary> = lines
        .lines()
        .filter_map(|line| test_program(&serde_json::from_str(line).ok()?))
        .collect();
    // Those of the crates first; what sees the whole comes last.
    binaries.sort_by_key(|binary| (binary.package.ends_with("tests"), binary.name.clone()));
    Ok(told_apart(binaries))
}

/// Programs of one name in several packages are called by their packages too.
fn told_apart(mut binaries: Vec<Binary>) -> Vec<Binary> {
    let names: Vec<String> = binaries.iter().map(|binary| binary.name.clone()).collect();
    for binary in &mut binaries {
        if names.iter().filter(|name| **name == binary.name).count() > 1 {
            let package = binary
                .package
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            binary.name = format!("{package}/{}", binary.name);
        }
    }
    binaries
}

/// The test program in a message of cargo, if it is about one.
fn test_program(message: &Value) -> Option<Binary> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let path = message["executable"].as_str().filter(|_| is_test)?;
    let name = message["target"]["name"].as_str()?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Binary {
        name: name.into(),
        path: path.into(),
        package: manifest.parent()?.into(),
    })
}

impl Binary {
    /// Runs its tests, shows their outcomes and counts them. Those that fail are run once more, each by itself, unless `once`.
    pub fn run(&self, filter: Option<&str>, skipped: &Path, once: bool, tally: &mut Tally) -> Outcome {
        say(format_args!("tests of {}", self.name));
        follow(&self.name, self.command(skipped).args(filter), tally)?;
        if once {
            return Ok(());
        }
        for test in tally.failures_of(&self.name) {
            say(format_args!("once more, by itself: {test} of {}", self.name));
            let status = self.command(skipped).args(["--exact", &test]).status();
            if status.doing(|| format!("start the tests of {}", self.name))?.success() {
                tally.passed_again(&self.name, &test);
            }
        }
        Ok(())
    }

    /// What starts it.
    fn command(&self, skipped: &Path) -> Command {
        let words = ["timeout", LIMIT]
            .map(Path::new)
            .into_iter()
            .chain([self.path.as_path()]);
        let mut command = setup::as_root(words);
        command
            .stdin(Stdio::null())
            .current_dir(&self.package)
            .env("SLUICE_SKIPPED", skipped)
            // The shim as it is delivered: its size is measured too.
            .env("SLUICE_SHIM", repository::target().join("shim/sluice-shim"));
        command
    }
}

/// Runs the examples in the documentation, which only cargo can.
pub fn run_documentation() -> Outcome {
    say("examples in the documentation");
    let mut cargo = repository::cargo();
    cargo.args(["test", "--quiet", "--doc", "--workspace"]);
    cargo.args([
        "--exclude",
        "sluice-datapath-ebpf",
        "--exclude",
        "sluice-tests",
        "--exclude",
        "xtask",
    ]);
    step::output(&mut cargo).map(drop)
}

/// Shows and counts what a test program prints.
fn follow(name: &str, command: &mut Command, tally: &mut Tally) -> Outcome {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| format!("start the tests of {name}"))?;
    let mut has_sum = false;
    let mut reader = BufReader::new(child.stdout.take().ok_or_else(|| Failure::new("no output"))?);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .doing(|| format!("read from {name}"))?
        > 0
    {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        has_sum |= tally.read(name, &text);
        if !text.is_empty() && !text.starts_with("running ") {
            println!("  {text}");
        }
        line.clear();
    }
    let status = child.wait().doing(|| format!("wait for {name}"))?;
    if !has_sum {
        tally.fail(&format!("the tests of {name} did not come to their end ({status})"));
    }
    Ok(())
}
