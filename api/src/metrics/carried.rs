//! What networks have carried: a sum that never shrinks, though containers go and begin again from nothing.

use std::collections::BTreeMap;

use sluice_engine::Carried;

/// Bytes and packets received, bytes and packets sent.
pub(super) type Figures = [u64; 4];

/// What an endpoint has carried.
pub(super) fn figures(carried: &Carried) -> Figures {
    let (received, sent) = (carried.traffic.received, carried.traffic.sent);
    [received.bytes, received.packets, sent.bytes, sent.packets]
}

/// Sums by network, as far as somebody has collected them: what an endpoint carried after the last time before it went is not known.
#[derive(Default, Debug)]
pub(super) struct Totals {
    /// Of endpoints that were there the last time, by id.
    last: BTreeMap<String, (String, Figures)>,
    /// Of those that are gone, by network.
    gone: BTreeMap<String, Figures>,
}

impl Totals {
    /// Takes in what is carried now.
    pub(super) fn take(&mut self, carried: &[Carried]) {
        let now: BTreeMap<String, (String, Figures)> = carried
            .iter()
            .map(|carried| (carried.endpoint.clone(), (carried.network.clone(), figures(carried))))
            .collect();
        for (endpoint, (network, before)) in std::mem::replace(&mut self.last, now) {
            let present = self.last.get(&endpoint);
            // fewer than before: the container has started again
            let goes_on = present.is_some_and(|(_, now)| now.iter().zip(before).all(|(now, before)| *now >= before));
            if !goes_on {
                add(self.gone.entry(network).or_default(), before);
            }
        }
    }

    /// The sums.
    pub(super) fn networks(&self) -> impl Iterator<Item = (&str, Figures)> {
        let mut sums: BTreeMap<&str, Figures> = BTreeMap::new();
        for (network, figures) in self.gone.iter().chain(self.last.values().map(|(name, of)| (name, of))) {
            add(sums.entry(network).or_default(), *figures);
        }
        sums.into_iter()
    }
}

fn add(sum: &mut Figures, more: Figures) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

#[cfg(test)]
mod tests {
    use sluice_engine::{Direction, Traffic};

    use super::*;

    fn carried(endpoint: &str, network: &str, bytes: u64) -> Carried {
        let direction = Direction {
            bytes,
            packets: bytes / 100,
            ..Direction::default()
        };
        Carried {
            endpoint: endpoint.to_owned(),
            container: format!("of-{endpoint}"),
            network: network.to_owned(),
            traffic: Traffic {
                received: direction,
                sent: Direction::default(),
            },
        }
    }

    fn of(totals: &Totals, network: &str) -> Figures {
        totals
            .networks()
            .find(|(name, _)| *name == network)
            .map_or([0; 4], |(_, figures)| figures)
    }

    #[test]
    fn what_a_network_has_carried_does_not_shrink_when_containers_go_or_begin_again() {
        let mut totals = Totals::default();
        totals.take(&[
            carried("a", "net", 1000),
            carried("b", "net", 500),
            carried("c", "other", 300),
        ]);
        assert_eq!(of(&totals, "net"), [1500, 15, 0, 0]);
        totals.take(&[carried("a", "net", 1200), carried("c", "other", 300)]);
        assert_eq!(of(&totals, "net"), [1700, 17, 0, 0], "the one that is gone counts");
        totals.take(&[carried("a", "net", 100)]);
        assert_eq!(
            of(&totals, "net"),
            [1800, 18, 0, 0],
            "the one that began again counts twice"
        );
        assert_eq!(of(&totals, "other"), [300, 3, 0, 0]);
        totals.take(&[carried("a", "net", 150)]);
        assert_eq!(of(&totals, "net"), [1850, 18, 0, 0]);
    }
}
