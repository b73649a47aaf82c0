//! Who fills a table of flows that has no room left, in a sentence: whoever is refused for it is seldom the one who fills it.

use std::time::Duration;

use tokio::time::Instant;

use crate::view::Share;

/// How often it is written to the log.
const PAUSE: Duration = Duration::from_secs(60);
/// How many of those who hold most are named.
const NAMED: usize = 3;

/// Says what is to be said of a table with so many entries of so many, two for each connection; none: it has room.
pub fn sentence(table: &str, entries: u64, capacity: u64, shares: &[Share]) -> Option<String> {
    // A batch of connections that is just over may be cleared away between two looks.
    let is_full = capacity > 0 && entries.saturating_mul(20) >= capacity.saturating_mul(19);
    is_full.then(|| {
        let holders: Vec<String> = shares
            .iter()
            .take(NAMED)
            .map(|share| format!("{} holds {}", share.endpoint, share.connections))
            .collect();
        let holders = match holders.is_empty() {
            true => "who holds them is not counted yet".to_owned(),
            false => holders.join(", "),
        };
        format!(
            "the table of flows {table} is full with {} of {} connections, and new ones are refused: {holders}; --flows makes room, --flows-per-container \
             limits each",
            entries / 2,
            capacity / 2
        )
    })
}

/// Keeps the log from being filled by it.
#[derive(Default)]
pub struct Warner {
    last: Option<Instant>,
}

impl Warner {
    /// Writes it to the log, unless it did so a moment ago.
    pub fn warn(&mut self, sentence: &str) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now.duration_since(last) >= PAUSE) {
            self.last = Some(now);
            tracing::warn!("{sentence}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_names_those_who_hold_most() {
        let share = |name: &str, connections| Share {
            endpoint: name.into(),
            connections,
            half_open: 0,
        };
        let shares = [share("hog", 900), share("web", 100), share("db", 20), share("host", 4)];
        let told = sentence("FLOWS4", 2048, 2048, &shares).unwrap();
        assert!(
            told.starts_with(
                "the table of flows FLOWS4 is full with 1024 of 1024 connections, and new ones are refused: \
                 hog holds 900, web holds 100, db holds 20;"
            ),
            "{told}"
        );
        assert!(sentence("FLOWS4", 1940, 2048, &shares).is_none(), "there is room");
        assert!(sentence("FLOWS4", 1946, 2048, &[]).unwrap().contains("not counted yet"));
    }
}
