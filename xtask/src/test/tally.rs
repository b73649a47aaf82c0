//! How many passed, failed and were skipped.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::step::Outcome;

/// The counts, and the names of what failed.
#[derive(Default)]
pub struct Tally {
    /// Checks that are no tests.
    passed: usize,
    /// What each test program said last: passed and ignored.
    sums: BTreeMap<String, (usize, usize)>,
    failures: Vec<String>,
    /// What failed at first and passed when it was run again by itself.
    unsteady: Vec<String>,
    skipped: usize,
}

impl Tally {
    /// Something that is no test failed.
    pub fn fail(&mut self, what: &str) {
        self.failures.push(what.to_owned());
    }

    /// The tests of this program that have failed.
    pub fn failures_of(&self, program: &str) -> Vec<String> {
        let of_program = |failure: &String| failure.strip_prefix(program)?.strip_prefix(": ").map(str::to_owned);
        self.failures.iter().filter_map(of_program).collect()
    }

    /// A test that had failed has passed when it was run again by itself.
    pub fn passed_again(&mut self, program: &str, test: &str) {
        let name = format!("{program}: {test}");
        self.failures.retain(|failure| *failure != name);
        self.unsteady.push(name);
        self.passed += 1;
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

    /// Takes what the line of a test program says: the outcome of a test, or the sum at the end. Tells whether it was a sum.
    ///
    /// A program may run itself again for a test that needs a process of its own: only its last sum counts.
    pub fn read(&mut self, program: &str, line: &str) -> bool {
        if let Some((test, _)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... FAILED"))
        {
            let failure = format!("{program}: {test}");
            if !self.failures.contains(&failure) {
                self.failures.push(failure);
            }
        }
        let Some(sum) = line.strip_prefix("test result: ") else {
            return false;
        };
        let words: Vec<&str> = sum.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        let count = |what: &str| -> usize {
            let pair = words.windows(2).find(|pair| pair[1] == what);
            pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
        };
        self.sums
            .insert(program.to_owned(), (count("passed"), count("ignored")));
        true
    }

    /// Takes tests off the passed ones that said, one a line, that they could not run here.
    pub fn note_skipped(&mut self, notes: &str) {
        for note in notes.lines() {
            println!("skipped: {note}");
            self.skipped += 1;
        }
    }

    /// How many passed and how many were skipped. A test that only said that it could not run has passed in its program's eyes.
    fn counts(&self) -> (usize, usize) {
        let passed: usize = self.sums.values().map(|(passed, _)| passed).sum();
        let ignored: usize = self.sums.values().map(|(_, ignored)| ignored).sum();
        (
            (self.passed + passed).saturating_sub(self.skipped),
            self.skipped + ignored,
        )
    }

    /// Prints what failed and, as the last line, the counts.
    pub fn conclude(self) -> ExitCode {
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        for test in &self.unsteady {
            println!(
                "unsteady, and so a defect of it or of what it tests: {test} failed, and passed when run again by itself"
            );
        }
        let (passed, skipped) = self.counts();
        let unsteady = if self.unsteady.is_empty() {
            String::new()
        } else {
            format!(", {} passed at the second attempt only", self.unsteady.len())
        };
        let skipped = if skipped > 0 {
            format!(", {skipped} skipped")
        } else {
            String::new()
        };
        println!("{passed} passed, {} failed{skipped}{unsteady}", self.failures.len());
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
        assert!(tally.read("network", "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured"));
        tally.note_skipped("some test: no netkit in this kernel\n");
        assert_eq!(tally.counts(), (6, 3));
        assert_eq!(tally.failures, ["docker: running::run_shows_the_output"]);
    }

    #[test]
    fn what_passes_at_the_second_attempt_is_no_failure_and_is_named() {
        let mut tally = Tally::default();
        tally.read("docker", "test one ... FAILED");
        tally.read("docker", "test two ... FAILED");
        tally.read("docker_py", "test one ... FAILED");
        tally.read("docker", "test result: FAILED. 3 passed; 2 failed; 0 ignored");
        assert_eq!(tally.failures_of("docker"), ["one", "two"]);
        tally.passed_again("docker", "one");
        assert_eq!(tally.failures, ["docker: two", "docker_py: one"]);
        assert_eq!(
            (tally.counts(), tally.unsteady),
            ((4, 0), vec!["docker: one".to_owned()])
        );
    }

    #[test]
    fn a_program_that_runs_itself_again_is_counted_once() {
        let mut tally = Tally::default();
        for line in [
            "test life ... FAILED",
            "test result: FAILED. 0 passed; 1 failed; 0 ignored",
            "test life ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored",
        ] {
            tally.read("walk", line);
        }
        assert_eq!((tally.counts(), tally.failures.len()), ((2, 0), 1));
    }
}
