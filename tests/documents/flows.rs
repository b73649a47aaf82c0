//! `docs/flows.md`: the times and numbers in it are those of the code.

use std::fs;

use sluice_datapath_common::flow::State;
use sluice_datapath_common::for_each_map;
use sluice_datapath_common::lifetime::{Class, lifetime};

fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/flows.md")).expect("the page on flows")
}

/// The protocols of a row, by number.
fn protocols(words: &str) -> &'static [u8] {
    match words {
        "TCP" => &[6],
        "UDP, UDP-Lite" => &[17, 136],
        "UDP" => &[17],
        "UDP-Lite" => &[136],
        "ICMP, ICMPv6" => &[1, 58],
        "SCTP" => &[132],
        // GRE, ESP, DCCP.
        "other" => &[47, 50, 33],
        _ => panic!("{words} is no protocol"),
    }
}

fn state(word: &str) -> State {
    match word {
        "`unanswered`" => State::Unanswered,
        "`established`" => State::Established,
        "`closing`" => State::Closing,
        "`closed`" => State::Closed,
        _ => panic!("{word} is no state"),
    }
}

/// Seconds.
fn time(words: &str) -> f64 {
    let (number, unit) = words.split_once(' ').expect("a number and a unit");
    let number: f64 = number.parse().expect("a number");
    match unit {
        "s" => number,
        "h" => number * 3600.0,
        _ => panic!("{unit} is no unit"),
    }
}

#[test]
fn the_page_on_flows_says_how_long_each_state_of_each_protocol_lasts() {
    let page = page();
    let mut told = Vec::new();
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| protocol |"))
        .skip(2);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [of, state_word, _, lasts] = cells[..] else {
            panic!("four cells: {row}")
        };
        let (calm, hurried) = lasts.split_once("; ").map_or((lasts, lasts), |(calm, hurried)| {
            let hurried = hurried.strip_suffix(" while a quarter of the table is in use");
            (calm, hurried.expect("when it is shorter"))
        });
        for protocol in protocols(of) {
            let (class, state) = (Class::of(*protocol) as u8, state(state_word));
            let seconds = |hurried| lifetime(class, state as u8, hurried) as f64 / 1e9;
            assert_eq!((seconds(false), seconds(true)), (time(calm), time(hurried)), "{row}");
            told.push((*protocol, state));
        }
    }
    for protocol in [6, 17, 136, 1, 58, 132, 47] {
        for state in [State::Unanswered, State::Established] {
            assert!(told.contains(&(protocol, state)), "{protocol} {state:?} is missing");
        }
    }
    for closed in [(6, State::Closing), (6, State::Closed), (132, State::Closed)] {
        assert!(told.contains(&closed), "{closed:?} is missing");
    }
}

macro_rules! capacities {
    ($($name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal, $sentence:literal;)+) => {
        &[$((stringify!($name), $capacity)),+]
    };
}

#[test]
fn the_page_on_flows_says_how_many_there_may_be() {
    let capacities: &[(&str, usize)] = for_each_map!(capacities);
    let page = page();
    for (table, what) in [
        ("FLOWS4", "| connections, in each address family |"),
        ("OPENING4", "| unanswered ones beyond that, in each address family |"),
    ] {
        let (_, capacity) = capacities.iter().find(|(name, _)| *name == table).expect("the table");
        let row = page.lines().find(|line| line.starts_with(what)).expect("a row");
        let number: String = row[what.len()..]
            .split('|')
            .next()
            .unwrap_or_default()
            .split(" (")
            .next()
            .unwrap_or_default()
            .replace(',', "");
        // Two entries a connection.
        assert_eq!(number.trim().parse(), Ok(capacity / 2), "{row}");
    }
}
