//! How many passed, failed and were skipped.

use std::process::ExitCode;

use crate::step::Outcome;

/// The counts, and the names of what failed.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    failures: Vec<String>,
    skipped: usize,
}

impl Tally {
    /// Something that is no test failed.
    pub fn fail(&mut self, what: &str) {
        self.failures.push(what.to_owned());
    }

    /// Counts a check that passes or fails as a whole.
    pub fn check(&mut self, what: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(failure) => {
                eprintln!("xtask: {failure}");
                self.fail(what);
            }
        }
    }

    /// Takes what the line of a test program says: the outcome of a test, or the sum at the end. Tells whether it was the sum.
    pub fn read(&mut self, program: &str, line: &str) -> bool {
        if let Some(test) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... FAILED"))
        {
            self.failures.push(format!("{program}: {}", test.0));
        }
        let Some(sum) = line.strip_prefix("test result: ") else {
            return false;
        };
        let count = |what: &str| -> usize {
            let words: Vec<&str> = sum.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            words
                .windows(2)
                .find(|pair| pair[1] == what)
                .and_then(|pair| pair[0].parse().ok())
                .unwrap_or(0)
        };
        self.passed += count("passed");
        self.skipped += count("ignored");
        true
    }

    /// Takes tests off the passed ones that said, one a line, that they could not run here.
    pub fn note_skipped(&mut self, notes: &str) {
        for note in notes.lines() {
            println!("skipped: {note}");
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        }
    }

    /// Prints what failed and, as the last line, the counts.
    pub fn conclude(self) -> ExitCode {
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        let skipped = if self.skipped > 0 {
            format!(", {} skipped", self.skipped)
        } else {
            String::new()
        };
        println!("{} passed, {} failed{skipped}", self.passed, self.failures.len());
        if self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn sums_are_added_and_failures_are_named() {
        let mut tally = Tally::default();
        assert!(!tally.read("docker", "test running::run_shows_the_output ... FAILED"));
        assert!(!tally.read("docker", "test running::passed_things ... ok"));
        assert!(tally.read(
            "docker",
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.13s"
        ));
        tally.note_skipped("some test: no netkit in this kernel\n");
        assert_eq!((tally.passed, tally.failures.len(), tally.skipped), (2, 1, 3));
        assert_eq!(tally.failures, ["docker: running::run_shows_the_output"]);
    }
}
