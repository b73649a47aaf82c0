//! One step of a command: a program is run, and when it fails the failure says which one and how.

use std::fmt;
use std::io;
use std::process::{Command, Stdio};

/// What went wrong, in a sentence.
#[derive(Debug)]
pub struct Failure(String);

/// The outcome of a step or of a whole command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Says what was being done when an error of the system came.
pub trait Doing<T> {
    /// The failure will read `<what>: <error>`.
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}

/// Tells the user what happens now.
pub fn say(sentence: impl fmt::Display) {
    println!("· {sentence}");
}

/// Runs the program with the output shown; anything but exit code 0 is a failure.
pub fn run(command: &mut Command) -> Outcome {
    let line = shown(command);
    let status = command.status().map_err(|error| not_started(&line, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure(format!("`{line}` failed ({status})")))
    }
}

/// Runs the program and returns what it printed; its complaints are part of the failure.
pub fn output(command: &mut Command) -> Outcome<String> {
    let line = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(&line, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Failure(format!(
        "`{line}` failed ({}): {}",
        output.status,
        complaint.trim_end()
    )))
}

fn not_started(line: &str, error: &io::Error) -> Failure {
    Failure(format!("`{line}` could not be started: {error}"))
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
