//! Of all that happens, what somebody wants to see.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_datapath_common::DropReason;

use crate::view::{Flow, Happening, Outcome, Peer, Seen, Side};

/// What is wanted. Of a list one must fit; a list that is empty wants everything, and all lists must be content.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Kinds.
    pub events: Vec<Happening>,
    /// A container's name, its id or how that begins (twelve characters at least): at either end.
    pub containers: Vec<String>,
    /// A container's label, alone or with its value: at either end.
    pub labels: Vec<(String, Option<String>)>,
    /// A network's name: at either end.
    pub networks: Vec<String>,
    /// An address or prefix: at either end, translated or not.
    pub addresses: Vec<IpNet>,
    /// A port: at either end, translated or not.
    pub ports: Vec<u16>,
    /// Protocols by name or number.
    pub protocols: Vec<String>,
    /// Verdicts.
    pub verdicts: Vec<Outcome>,
    /// Reasons to be dropped, as words.
    pub reasons: Vec<String>,
    /// States of connections in the tables, as words.
    pub states: Vec<String>,
}

/// A shorter beginning of an id might be somebody's name.
const SHORT_ID: usize = 12;

/// The names that a filter's parts are asked for by.
pub const NAMES: [&str; 10] = [
    "event",
    "container",
    "label",
    "network",
    "address",
    "port",
    "protocol",
    "verdict",
    "reason",
    "state",
];

impl Filter {
    /// Adds a wish: one of [`NAMES`] and a value, as people write it. The error says what is wrong with it.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |wanted: &str| format!("invalid {name} {value:?}: {wanted}");
        match name {
            "event" => self.events.push(match value {
                "drop" => Happening::Drop,
                "open" => Happening::Open,
                "close" => Happening::Close,
                _ => return Err(wrong("drop, open or close is wanted")),
            }),
            "container" => self.containers.push(value.trim_start_matches('/').to_owned()),
            "label" => self.labels.push(match value.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (value.to_owned(), None),
            }),
            "network" => self.networks.push(value.to_owned()),
            "address" => {
                let prefix = value
                    .parse::<IpNet>()
                    .or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
                self.addresses
                    .push(prefix.map_err(|_| wrong("an address is wanted, or a prefix as 10.0.0.0/8"))?);
            }
            "port" => self
                .ports
                .push(value.parse().map_err(|_| wrong("a number from 0 to 65535 is wanted"))?),
            "protocol" => self.protocols.push(value.to_ascii_lowercase()),
            "verdict" => self.verdicts.push(match value {
                "forwarded" => Outcome::Forwarded,
                "dropped" => Outcome::Dropped,
                "denied" => Outcome::Denied,
                "rejected" => Outcome::Rejected,
                _ => return Err(wrong("forwarded, dropped, denied or rejected is wanted")),
            }),
            "reason" => {
                if !DropReason::ALL.iter().any(|reason| reason.word() == value) {
                    return Err(wrong(
                        "there is no such reason to be dropped (docs/drops.md has all of them)",
                    ));
                }
                self.reasons.push(value.to_owned());
            }
            "state" => match value {
                "unanswered" | "established" | "closing" | "closed" => self.states.push(value.to_owned()),
                _ => return Err(wrong("unanswered, established, closing or closed is wanted")),
            },
            _ => return Err(format!("nothing is filtered by {name}")),
        }
        Ok(())
    }

    /// Is it wanted? What was lost is told to all, unless it is of other reasons than were asked for.
    pub fn wants(&self, seen: &Seen) -> bool {
        if let Some(lost) = &seen.lost {
            return self.reasons.is_empty() || lost.of.is_empty() || self.reasons.contains(&lost.of);
        }
        let sides: Vec<&Side> = seen.sides().collect();
        one_of(&self.events, |event| *event == seen.event)
            && self.wants_ends(&sides, seen.protocol.as_ref())
            && one_of(&self.verdicts, |verdict| seen.verdict == Some(*verdict))
            && one_of(&self.reasons, |reason| {
                seen.drop_reason.as_ref().is_some_and(|given| given.name == *reason)
            })
    }

    /// Is this connection of the tables wanted?
    pub fn wants_flow(&self, flow: &Flow) -> bool {
        if *self == Self::default() {
            return true;
        }
        let peers = [
            Some(&flow.from),
            Some(&flow.to),
            flow.translated_from.as_ref(),
            flow.translated_to.as_ref(),
        ];
        let sides: Vec<Side> = peers.into_iter().flatten().map(side).collect();
        let sides: Vec<&Side> = sides.iter().collect();
        one_of(&self.states, |state| *state == flow.state) && self.wants_ends(&sides, Some(&flow.protocol))
    }

    fn wants_ends(&self, sides: &[&Side], protocol: Option<&String>) -> bool {
        let at_an_end = |of: &dyn Fn(&Side) -> bool| sides.iter().any(|side| of(side));
        one_of(&self.containers, |name| at_an_end(&|side| is_called(side, name)))
            && one_of(&self.labels, |label| at_an_end(&|side| bears(side, label)))
            && one_of(&self.networks, |network| at_an_end(&|side| side.network == *network))
            && one_of(&self.addresses, |prefix| {
                at_an_end(&|side| lies_in(side.address, prefix))
            })
            && one_of(&self.ports, |port| at_an_end(&|side| side.port == Some(*port)))
            && one_of(&self.protocols, |name| protocol == Some(name))
    }
}

/// A name of somebody who is gone says so behind it.
fn side(peer: &Peer) -> Side {
    Side {
        address: Some(peer.address),
        port: Some(peer.port).filter(|port| *port != 0),
        name: peer.name.trim_end_matches(" (gone)").to_owned(),
        container: peer.container.clone(),
        network: peer.network.clone(),
        labels: peer.labels.clone(),
    }
}

fn one_of<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(fits)
}

fn is_called(side: &Side, name: &str) -> bool {
    side.name == name || (name.len() >= SHORT_ID && side.container.starts_with(name))
}

fn bears(side: &Side, (key, value): &(String, Option<String>)) -> bool {
    let found = side.labels.get(key);
    found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
}

fn lies_in(address: Option<IpAddr>, prefix: &IpNet) -> bool {
    address.is_some_and(|address| prefix.contains(&address))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::view::{Lost, Reason};

    fn dropped() -> Seen {
        let web = Side {
            address: "172.17.0.2".parse().ok(),
            port: Some(4000),
            name: "web".into(),
            container: "0123456789abcdef".into(),
            network: "bridge".into(),
            labels: [("tier".to_owned(), "front".to_owned())].into(),
        };
        Seen {
            verdict: Some(Outcome::Denied),
            source: Some(web),
            destination: Some(Side {
                address: "10.1.2.3".parse().ok(),
                port: Some(443),
                ..Side::default()
            }),
            protocol: Some("tcp".into()),
            drop_reason: Some(Reason {
                name: "policy_denied".into(),
                number: 39,
                sentence: String::new(),
            }),
            ..Seen::of(Timestamp::UNIX_EPOCH, Happening::Drop)
        }
    }

    #[test]
    fn each_kind_of_filter_finds_what_fits_and_nothing_else() {
        let nothing = Filter::default();
        let one = |text: &str| vec![text.to_owned()];
        let cases = [
            (
                Filter {
                    containers: one("web"),
                    ..nothing.clone()
                },
                Filter {
                    containers: one("we"),
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    containers: one("0123456789ab"),
                    ..nothing.clone()
                },
                Filter {
                    containers: one("0123456789a"),
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    labels: vec![("tier".into(), None)],
                    ..nothing.clone()
                },
                Filter {
                    labels: vec![("tier".into(), Some("back".into()))],
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    networks: one("bridge"),
                    ..nothing.clone()
                },
                Filter {
                    networks: one("host"),
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    addresses: vec!["10.0.0.0/8".parse().unwrap()],
                    ..nothing.clone()
                },
                Filter {
                    addresses: vec!["10.9.0.0/16".parse().unwrap()],
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    ports: vec![1, 443],
                    ..nothing.clone()
                },
                Filter {
                    ports: vec![80],
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    protocols: one("tcp"),
                    ..nothing.clone()
                },
                Filter {
                    protocols: one("udp"),
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    verdicts: vec![Outcome::Denied],
                    ..nothing.clone()
                },
                Filter {
                    verdicts: vec![Outcome::Rejected],
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    reasons: one("policy_denied"),
                    ..nothing.clone()
                },
                Filter {
                    reasons: one("no_route"),
                    ..nothing.clone()
                },
            ),
            (
                Filter {
                    events: vec![Happening::Drop],
                    ..nothing.clone()
                },
                Filter {
                    events: vec![Happening::Open],
                    ..nothing.clone()
                },
            ),
        ];
        for (fitting, other) in cases {
            assert!(fitting.wants(&dropped()), "{fitting:?}");
            assert!(!other.wants(&dropped()), "{other:?}");
        }
        assert!(nothing.wants(&dropped()));
        let two = Filter {
            containers: one("web"),
            ports: vec![80],
            ..nothing
        };
        assert!(!two.wants(&dropped()), "all kinds must fit");
    }

    #[test]
    fn wishes_are_read_as_people_write_them_and_what_is_wrong_is_named() {
        let mut filter = Filter::default();
        for (name, value) in [
            ("event", "drop"),
            ("container", "/web"),
            ("label", "tier=front"),
            ("label", "tier"),
            ("network", "bridge"),
            ("address", "10.1.2.3"),
            ("address", "10.0.0.0/8"),
            ("port", "443"),
            ("protocol", "TCP"),
            ("verdict", "denied"),
            ("reason", "policy_denied"),
        ] {
            filter.add(name, value).unwrap();
        }
        assert!(filter.wants(&dropped()), "{filter:?}");
        for (name, value, wanted) in [
            ("event", "died", "drop, open or close"),
            ("address", "web", "an address"),
            ("port", "http", "a number"),
            ("verdict", "no", "forwarded"),
            ("reason", "because", "no such reason"),
            ("colour", "red", "nothing is filtered by colour"),
        ] {
            let why = Filter::default().add(name, value).unwrap_err();
            assert!(why.contains(wanted), "{why}");
        }
        assert!(NAMES.iter().all(|name| {
            !Filter::default()
                .add(name, "?")
                .is_err_and(|why| why.starts_with("nothing"))
        }));
    }

    #[test]
    fn what_was_lost_is_told_unless_it_is_of_another_reason() {
        let lost = |of: &str| Seen {
            lost: Some(Lost {
                of: of.into(),
                too_many: 3,
                ..Lost::default()
            }),
            ..Seen::of(Timestamp::UNIX_EPOCH, Happening::Lost)
        };
        let filter = Filter {
            containers: vec!["web".into()],
            reasons: vec!["no_route".into()],
            ..Filter::default()
        };
        assert!(filter.wants(&lost("")) && filter.wants(&lost("no_route")) && !filter.wants(&lost("truncated")));
    }
}
