//! Random packets, given to the programs and to the [`reference`](crate::reference): verdict, bytes, tables and counters must agree.
//!
//! `SLUICE_PACKETS` says how many, `SLUICE_SEED` with which seed to begin; `SLUICE_SEED=fresh` begins where nobody has been. Unless told otherwise every
//! run sends the same packets, so that a change is judged by what it changes. What fails is made as short as it can be and printed as a test that goes
//! into [`found`].

mod abroad;
mod census;
mod chance;
mod change;
mod compare;
mod generate;
mod place;
mod shrink;
mod six;
mod speaking;
mod stage;
mod step;
mod tables;
mod trial;
mod world;

mod found;

use std::env;
use std::time::Instant;

use census::Census;
use chance::Chance;
use stage::Stage;
use step::Case;
use trial::Trial;

/// How many, if nobody says.
const PACKETS: u64 = 1_000_000;
/// Where to begin, if nobody says.
const SEED: u64 = 20_260_101;
/// Steps from a fresh world to the next one.
const STEPS: usize = 120;

/// Pitfalls B40, B45. And whatever nobody has thought of yet.
#[test]
fn the_programs_do_what_the_reference_does_with_a_million_random_packets() {
    let number = |value: String| value.parse::<u64>().expect("a number");
    let packets = env::var("SLUICE_PACKETS").map_or(PACKETS, number);
    let first = match env::var("SLUICE_SEED") {
        Ok(seed) if seed == "fresh" => chance::fresh_seed(),
        Ok(seed) => number(seed),
        Err(_) => SEED,
    };
    println!("SLUICE_SEED={first} SLUICE_PACKETS={packets}");
    let mut stage = Stage::set();
    let started = Instant::now();
    let (mut seed, mut heard) = (first, 0);
    let mut census = Census::default();
    while heard < packets {
        let mut case = Case::default();
        let mut trial = Trial::begin(&mut stage);
        let mut chance = Chance::of(seed);
        let mut outcome = Ok(());
        for label in 0..STEPS {
            let step = generate::step(&mut chance, &trial);
            case.steps.push((label, step));
            outcome = trial.take(label, &step);
            if outcome.is_err() {
                break;
            }
        }
        let outcome = outcome.and_then(|()| trial.compare_everything());
        heard += trial.packets;
        census.add(&trial);
        if let Err(what) = outcome {
            println!("SLUICE_SEED={seed} fails: {what}\nmaking it short …");
            let (case, what) = shrink::shrink(&mut stage, case, what);
            panic!("{what}\n\n{}", case.as_test(seed));
        }
        seed += 1;
    }
    println!("{heard} packets in {:.1} s\n{census}", started.elapsed().as_secs_f64());
    census.assert_variety();
}
