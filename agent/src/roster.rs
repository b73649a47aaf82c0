//! Who bears an endpoint's number, and who bore it: flows and drops outlive endpoints, and people want names.

use std::collections::{BTreeMap, VecDeque};

use crate::desired::Desired;

/// How many names of the gone are kept.
const REMEMBERED: usize = 256;

/// Names by number.
#[derive(Default, Debug)]
pub struct Roster {
    present: BTreeMap<u32, String>,
    gone: VecDeque<(u32, String)>,
}

impl Roster {
    /// Takes over who is there now; whoever is not any more is remembered for a while.
    pub fn update(&mut self, desired: &Desired) {
        let present: BTreeMap<u32, String> = desired
            .endpoints
            .values()
            .map(|endpoint| (endpoint.number, endpoint.name.clone()))
            .collect();
        let before = std::mem::replace(&mut self.present, present);
        for (number, name) in before {
            if self.present.get(&number) != Some(&name) {
                self.gone.push_back((number, name));
            }
        }
        while self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
    }

    /// The name of who bears the number, or bore it last.
    pub fn name(&self, number: u32) -> String {
        if let Some(name) = self.present.get(&number) {
            return name.clone();
        }
        match self.gone.iter().rev().find(|(gone, _)| *gone == number) {
            Some((_, name)) => format!("{name} (gone)"),
            None => format!("endpoint #{number} (gone)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_gone_are_remembered_for_a_while() {
        let (mut roster, mut desired) = (Roster::default(), Desired::default());
        let endpoint = fixture::endpoint(7, 1);
        desired.endpoints.insert(endpoint.id.to_string(), endpoint);
        roster.update(&desired);
        assert_eq!(roster.name(7), "web7");
        roster.update(&Desired::default());
        assert_eq!(roster.name(7), "web7 (gone)");
        assert_eq!(roster.name(8), "endpoint #8 (gone)");
        for number in 100..400 {
            let mut desired = Desired::default();
            let mut endpoint = fixture::endpoint(9, 1);
            endpoint.number = number;
            desired.endpoints.insert(endpoint.id.to_string(), endpoint);
            roster.update(&desired);
        }
        assert_eq!(roster.name(7), "endpoint #7 (gone)");
        assert!(roster.gone.len() <= REMEMBERED);
    }
}
