//! A program that ran, and what it said.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What a finished program left.
#[derive(Debug)]
pub struct Ran {
    line: String,
    status: Option<ExitStatus>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    /// Runs the command to its end, with `input` on its standard input, and no longer than `limit`; then it is killed.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn command(command: &mut Command, input: &[u8], limit: Duration) -> Self {
        use std::os::unix::process::CommandExt;
        let line = shown(command);
        let stdin = if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        };
        let started = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = started.unwrap_or_else(|error| panic!("`{line}` could not be started: {error}"));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let stdin = child.stdin.take();
        thread::scope(|scope| {
            scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input)));
            let stdout = scope.spawn(move || everything(stdout));
            let stderr = scope.spawn(move || everything(stderr));
            let status = wait(&mut child, limit);
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
            Self {
                line,
                status,
                stdout: text(stdout),
                stderr: text(stderr),
            }
        })
    }

    /// The exit code; none when it was killed or took too long.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// Exit code 0?
    pub fn is_ok(&self) -> bool {
        self.code() == Some(0)
    }

    /// What it printed, without the line ends at the end.
    ///
    /// # Panics
    /// If it did not end with exit code 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.is_ok(), "{self}");
        self.stdout.trim_end().to_owned()
    }

    /// Checks that it failed with this exit code and said this on stderr.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        assert!(self.code() == Some(code), "exit code {code} was expected: {self}");
        assert!(
            self.stderr.contains(words),
            "\"{words}\" was expected on stderr: {self}"
        );
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "`{}` ended with {status}", self.line)?,
            None => write!(f, "`{}` took too long", self.line)?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

fn everything(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// Waits for the end; past the limit the whole process group is killed.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() > end {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
