//! How long `docker run --rm IMAGE true` takes, one and ten at once.

use std::process::Stdio;
use std::time::Instant;

use super::engine::{Engine, Kind};
use super::image;
use super::interrupt;
use super::sample::median;
use crate::step::{self, Doing, Failure, Outcome};

/// How many are started at once.
const AT_ONCE: usize = 10;

/// Milliseconds by the clock on the wall, the CLI included.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Which engine.
    pub kind: Kind,
    /// One at a time.
    pub single: Vec<f64>,
    /// Ten at once, until the last has ended.
    pub together: Vec<f64>,
}

impl Launch {
    /// Of one at a time.
    pub fn median(&self) -> Option<f64> {
        median(self.single.clone())
    }

    /// Of ten at once.
    pub fn median_together(&self) -> Option<f64> {
        median(self.together.clone())
    }
}

/// Measures all engines in turn, `rounds` times one and a third as often ten.
pub fn measure(engines: &[Engine], rounds: u32) -> Outcome<Vec<Launch>> {
    let mut launches: Vec<Launch> = engines
        .iter()
        .map(|engine| Launch {
            kind: engine.kind,
            single: Vec::new(),
            together: Vec::new(),
        })
        .collect();
    for round in 0..rounds {
        for (engine, launch) in engines.iter().zip(&mut launches) {
            interrupt::check()?;
            launch.single.push(single(engine)?);
            if round % 3 == 0 {
                launch.together.push(together(engine)?);
            }
        }
    }
    Ok(launches)
}

const COMMAND: [&str; 4] = ["run", "--rm", image::NAME, "true"];

/// Milliseconds that one takes.
pub fn single(engine: &Engine) -> Outcome<f64> {
    let start = Instant::now();
    step::output(&mut engine.docker(&COMMAND))?;
    Ok(milliseconds(start))
}

/// Milliseconds that ten at once take.
pub fn together(engine: &Engine) -> Outcome<f64> {
    let start = Instant::now();
    let running: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            engine
                .docker(&COMMAND)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
        })
        .collect();
    let mut failed = 0;
    for child in running {
        let status = child
            .and_then(|mut child| child.wait())
            .doing(|| String::from("run docker"))?;
        failed += usize::from(!status.success());
    }
    if failed > 0 {
        return Err(Failure::new(format!(
            "{failed} of {AT_ONCE} containers started at once by {} failed",
            engine.kind
        )));
    }
    Ok(milliseconds(start))
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
