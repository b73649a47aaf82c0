//! Numbers of endpoints in the datapath, and the generations of their lives.
//!
//! A number is given again as late as possible, like an address. Its next life must have a higher generation, or flows of its last life would be
//! taken for its own. Generations are drawn from one counter for all numbers that starts at the store's revision: every life costs at least one
//! commit, so the revision of a later start is beyond every generation given before, without a record of its own.

use std::collections::BTreeSet;

use crate::EngineError;

/// The greatest number: the datapath's tables have so many places.
const GREATEST: u32 = 65_535;

/// Numbers of all endpoints of this host.
#[derive(Default)]
pub(crate) struct Numbers {
    taken: BTreeSet<u32>,
    last: u32,
    generation: u32,
}

impl Numbers {
    /// Begins with generations beyond this revision of the store.
    pub fn beyond(revision: u64) -> Self {
        Self {
            generation: u32::try_from(revision & u64::from(u32::MAX)).unwrap_or(0),
            ..Default::default()
        }
    }

    /// Enters a number that an endpoint has already.
    pub fn enter(&mut self, number: u32, generation: u32) {
        self.taken.insert(number);
        self.last = self.last.max(number);
        self.generation = self.generation.max(generation);
    }

    /// A free number and the generation of its new life.
    pub fn take(&mut self) -> Result<(u32, u32), EngineError> {
        let after = if self.last >= GREATEST { 1 } else { self.last + 1 };
        let number = (after..=GREATEST)
            .chain(1..after)
            .find(|number| !self.taken.contains(number))
            .ok_or_else(|| EngineError::failed(format!("all {GREATEST} endpoints of this host are in use")))?;
        self.taken.insert(number);
        self.last = number;
        self.generation = self.generation.wrapping_add(1).max(1);
        Ok((number, self.generation))
    }

    /// Gives a number back.
    pub fn release(&mut self, number: u32) {
        self.taken.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_again_late_and_always_with_a_higher_generation() {
        let mut numbers = Numbers::default();
        let (first, generation) = numbers.take().unwrap();
        numbers.release(first);
        let mut lives = 1;
        let again = loop {
            let (number, generation) = numbers.take().unwrap();
            lives += 1;
            if number == first {
                break generation;
            }
            numbers.release(number);
        };
        assert!(again > generation);
        assert_eq!(lives, GREATEST + 1);
    }

    #[test]
    fn a_restarted_daemon_goes_on_beyond_all_generations_given_before() {
        let mut numbers = Numbers::beyond(100);
        numbers.enter(5, 40);
        assert_eq!(numbers.take().unwrap(), (6, 101));
    }
}
