//! Does the number of networks matter? Hundreds are made with two containers each, and taken away again: the last ones are to cost what the
//! first ones did, and nothing of them is to stay.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::engine::Engine;
use super::interrupt;
use super::table::Table;
use crate::step::{self, Failure, Outcome, say};

/// How many networks there are in the end.
const ALL: usize = 500;
/// How many are timed together.
const BLOCK: usize = 100;
/// How much more the last block may take than the first: what is beyond grows with the number.
const TOLERANCE: f64 = 2.0;
/// How long devices may take to go, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(100);

/// Milliseconds for a network and its two containers, block by block.
#[derive(Default)]
pub struct Networks {
    made: Vec<f64>,
    removed: Vec<f64>,
}

impl Networks {
    /// Makes and removes them.
    pub fn measure(engine: &Engine) -> Outcome<Self> {
        say(format_args!("{ALL} networks with two containers each"));
        let before = devices(engine)?;
        let mut networks = Self::default();
        let laid = networks.make(engine);
        // also after a failure: others are measured in this place
        let lifted = networks.remove(engine);
        laid.and(lifted)?;
        // the kernel takes namespaces and their veths apart after all have been answered
        let patient_until = Instant::now() + PATIENCE;
        loop {
            let after = devices(engine)?;
            if before == after {
                return Ok(networks);
            }
            if Instant::now() > patient_until {
                return Err(Failure::new(format!(
                    "{before} devices before the networks, {after} after them"
                )));
            }
            thread::sleep(GLANCE);
        }
    }

    fn make(&mut self, engine: &Engine) -> Outcome {
        for block in 0..ALL / BLOCK {
            let start = Instant::now();
            for number in block * BLOCK..(block + 1) * BLOCK {
                interrupt::check()?;
                let network = format!("net{number}");
                step::output(&mut engine.docker(&["network", "create", &network]))?;
                for name in names(number) {
                    engine.run(&name, &["--network", &network], &["sleep", "1000000"])?;
                }
            }
            self.made.push(each(start));
        }
        Ok(())
    }

    fn remove(&mut self, engine: &Engine) -> Outcome {
        for block in 0..ALL / BLOCK {
            let start = Instant::now();
            for number in block * BLOCK..(block + 1) * BLOCK {
                let [one, two] = names(number);
                step::output(&mut engine.docker(&["rm", "--force", &one, &two]))?;
                step::output(&mut engine.docker(&["network", "rm", &format!("net{number}")]))?;
            }
            self.removed.push(each(start));
        }
        Ok(())
    }

    /// A row for each block.
    pub fn table(&self) -> Table {
        let columns = ["networks", "made, ms each", "removed, ms each"].map(String::from);
        let title = format!("{ALL} networks with two containers each, by the docker CLI one after another");
        let mut table = Table::new(title, columns);
        if self.made.is_empty() {
            return table;
        }
        for (block, (made, removed)) in self.made.iter().zip(&self.removed).enumerate() {
            let (first, last) = (block * BLOCK + 1, (block + 1) * BLOCK);
            table.row([
                format!("{first} to {last}"),
                format!("{made:.0}"),
                format!("{removed:.0}"),
            ]);
        }
        table.row([
            format!("the last are to take at most ×{TOLERANCE} of the first"),
            growth(self.made.first(), self.made.last()),
            // the first to go have the most beside them
            growth(self.removed.last(), self.removed.first()),
        ]);
        table
    }
}

fn names(number: usize) -> [String; 2] {
    ["one", "two"].map(|name| format!("{name}{number}"))
}

/// Milliseconds for one of a block.
fn each(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0 / BLOCK as f64
}

fn growth(few: Option<&f64>, many: Option<&f64>) -> String {
    match few.zip(many) {
        Some((few, many)) => {
            let ratio = many / few;
            format!("×{ratio:.2} {}", if ratio <= TOLERANCE { "✓" } else { "✗" })
        }
        None => String::from("–"),
    }
}

fn devices(engine: &Engine) -> Outcome<usize> {
    let mut ip = engine.host.command("ip");
    ip.args(["-o", "link"]);
    Ok(step::output(&mut ip)?.lines().count())
}
