//! `sluice top` without a container: endpoints, what they carry and what of it dies, live.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    io::{IsTerminal, stdout},
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::Line as Text,
    widgets::{Row, Table},
};
use serde::Deserialize;
use sluice_agent::view::{Drop, Flow};

use super::{datapath::document, flows};
use crate::{daemon::Daemon, failure::Failure, measure};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);
/// So many connections and reasons to be dropped are shown.
const SHOWN: usize = 8;

/// An endpoint, as the daemon tells it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct Endpoint {
    id: String,
    container: String,
    network: String,
    received: Traffic,
    sent: Traffic,
}

/// What went one way since the container started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
struct Traffic {
    bytes: u64,
    packets: u64,
}

/// What was found at a moment.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    endpoints: Vec<Endpoint>,
    drops: Vec<Drop>,
    flows: Vec<Flow>,
}

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sort {
    Rate,
    Drops,
    Name,
}

/// What an endpoint does in a second.
#[derive(Clone, PartialEq, Debug)]
struct Rates {
    container: String,
    network: String,
    /// Bytes.
    received: u64,
    sent: u64,
    /// Both ways.
    packets: u64,
    /// Of its container.
    drops: u64,
    /// Of its container, ever.
    dropped: u64,
}

/// What is to be done about a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    End,
    Sort(Sort),
    Nothing,
}

/// Shows it until somebody presses q.
pub async fn show(daemon: &Daemon) -> Result<(), Failure> {
    if !stdout().is_terminal() {
        return Err(Failure::Usage(
            "`sluice top` without a container is for a terminal; `sluice flows --top --json`, `sluice drops --json` and /metrics are for programs".to_owned(),
        ));
    }
    // Asked before the terminal is ours: what is wrong is said in plain words.
    let first = Sample::take(daemon).await?;
    let mut terminal = ratatui::try_init().map_err(|why| trouble(&why))?;
    let shown = watch(daemon, &mut terminal, first).await;
    ratatui::restore();
    shown
}

async fn watch(daemon: &Daemon, terminal: &mut DefaultTerminal, first: Sample) -> Result<(), Failure> {
    let (mut before, mut present) = (first.clone(), first);
    let mut sort = Sort::Rate;
    loop {
        terminal
            .draw(|frame| draw(frame, &before, &present, sort))
            .map_err(|why| trouble(&why))?;
        let until = Instant::now() + PERIOD;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            // Nothing else is to be done meanwhile.
            if !event::poll(left).map_err(|why| trouble(&why))? {
                break;
            }
            let wish = match event::read().map_err(|why| trouble(&why))? {
                Event::Key(key) if key.kind == KeyEventKind::Press => wish(key),
                _ => Wish::Nothing,
            };
            match wish {
                Wish::End => return Ok(()),
                Wish::Sort(by) => sort = by,
                Wish::Nothing => {}
            }
            terminal
                .draw(|frame| draw(frame, &before, &present, sort))
                .map_err(|why| trouble(&why))?;
        }
        before = std::mem::replace(&mut present, Sample::take(daemon).await?);
    }
}

fn trouble(why: &std::io::Error) -> Failure {
    Failure::Usage(format!("cannot use the terminal: {why}"))
}

fn wish(key: KeyEvent) -> Wish {
    match (key.code, key.modifiers) {
        (KeyCode::Char('c'), KeyModifiers::CONTROL) | (KeyCode::Char('q') | KeyCode::Esc, _) => Wish::End,
        (KeyCode::Char('r'), _) => Wish::Sort(Sort::Rate),
        (KeyCode::Char('d'), _) => Wish::Sort(Sort::Drops),
        (KeyCode::Char('n'), _) => Wish::Sort(Sort::Name),
        _ => Wish::Nothing,
    }
}

impl Sample {
    async fn take(daemon: &Daemon) -> Result<Self, Failure> {
        let flows = format!("/sluice/v1/flows?sort=bytes&limit={SHOWN}");
        Ok(Self {
            endpoints: document(&daemon.get_bytes("/sluice/v1/endpoints").await?)?,
            drops: document(&daemon.get_bytes("/sluice/v1/drops").await?)?,
            flows: document(&daemon.get_bytes(&flows).await?)?,
            at: Instant::now(),
        })
    }

    /// Packets that died, by what `of` says of them.
    fn dropped(&self, of: impl Fn(&Drop) -> String) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for drop in &self.drops {
            *sums.entry(of(drop)).or_default() += drop.packets;
        }
        sums
    }
}

/// So much more in a second. What is less than before has begun anew.
fn rate(before: u64, present: u64, passed: Duration) -> u64 {
    let more = present.checked_sub(before).unwrap_or(present);
    match passed.as_secs_f64() {
        passed if passed > 0.0 => (more as f64 / passed).round() as u64,
        _ => 0,
    }
}

fn rates(before: &Sample, present: &Sample, sort: Sort) -> Vec<Rates> {
    let passed = present.at.duration_since(before.at);
    let earlier: BTreeMap<&str, &Endpoint> = before
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.id.as_str(), endpoint))
        .collect();
    let of = |drop: &Drop| drop.endpoint.clone();
    let (drops_before, drops) = (before.dropped(of), present.dropped(of));
    let mut rates: Vec<Rates> = present
        .endpoints
        .iter()
        .map(|endpoint| {
            let (received, sent) = earlier
                .get(endpoint.id.as_str())
                .map_or((endpoint.received, endpoint.sent), |earlier| {
                    (earlier.received, earlier.sent)
                });
            let dropped = drops.get(&endpoint.container).copied().unwrap_or(0);
            let dropped_before = drops_before.get(&endpoint.container).copied().unwrap_or(0);
            Rates {
                container: endpoint.container.clone(),
                network: endpoint.network.clone(),
                received: rate(received.bytes, endpoint.received.bytes, passed),
                sent: rate(sent.bytes, endpoint.sent.bytes, passed),
                packets: rate(received.packets, endpoint.received.packets, passed)
                    + rate(sent.packets, endpoint.sent.packets, passed),
                drops: rate(dropped_before, dropped, passed),
                dropped,
            }
        })
        .collect();
    rates.sort_by(|one, other| (&one.container, &one.network).cmp(&(&other.container, &other.network)));
    match sort {
        Sort::Name => {}
        Sort::Rate => rates.sort_by_key(|rates| Reverse(rates.received + rates.sent)),
        Sort::Drops => rates.sort_by_key(|rates| Reverse((rates.drops, rates.dropped))),
    }
    rates
}

/// Reasons by how many die of each now, then by how many ever did.
fn reasons(before: &Sample, present: &Sample) -> Vec<(String, u64, u64)> {
    let passed = present.at.duration_since(before.at);
    let of = |drop: &Drop| drop.reason.clone();
    let earlier = before.dropped(of);
    let mut reasons: Vec<(String, u64, u64)> = present
        .dropped(of)
        .into_iter()
        .map(|(reason, ever)| {
            let now = rate(earlier.get(&reason).copied().unwrap_or(0), ever, passed);
            (reason, now, ever)
        })
        .collect();
    reasons.sort_by_key(|(_, now, ever)| Reverse((*now, *ever)));
    reasons.truncate(SHOWN);
    reasons
}

fn draw(frame: &mut Frame<'_>, before: &Sample, present: &Sample, sort: Sort) {
    let rates = rates(before, present, sort);
    let reasons = reasons(before, present);
    let height = |lines: usize| Constraint::Length(lines as u16 + 2);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        height(present.flows.len()),
        height(reasons.len()),
    ]);
    let [title, endpoints, flows, drops] = areas.areas(frame.area());
    let sum = |of: fn(&Rates) -> u64| rates.iter().map(of).sum::<u64>();
    let words = format!(
        "{} endpoints  received {}/s  sent {}/s   r, d, n: sort by rate, drops, name   q: end",
        rates.len(),
        measure::size(sum(|rates| rates.received)),
        measure::size(sum(|rates| rates.sent)),
    );
    frame.render_widget(
        Text::from(words).style(Style::new().add_modifier(Modifier::BOLD)),
        title,
    );
    let heads = [
        "CONTAINER",
        "NETWORK",
        "RECEIVED/s",
        "SENT/s",
        "PACKETS/s",
        "DROPS/s",
        "DROPPED",
    ];
    let rows = rates.iter().map(|rates| {
        let row = Row::new([
            rates.container.clone(),
            rates.network.clone(),
            measure::size(rates.received),
            measure::size(rates.sent),
            rates.packets.to_string(),
            rates.drops.to_string(),
            rates.dropped.to_string(),
        ]);
        match rates.drops {
            0 => row,
            _ => row.style(Style::new().fg(Color::Red)),
        }
    });
    let widths = [24, 16, 11, 11, 10, 8, 10].map(Constraint::Min);
    frame.render_widget(table(rows.collect(), &widths, heads), endpoints);
    let rows = present.flows.iter().map(|flow| Row::new(flows::cells(flow)));
    let heads = ["PROTOCOL", "FROM", "TO", "STATE", "SENT", "RECEIVED"];
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(11),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    frame.render_widget(table(rows.collect(), &widths, heads), flows);
    let rows = reasons
        .into_iter()
        .map(|(reason, now, ever)| Row::new([reason, now.to_string(), ever.to_string()]));
    let widths = [Constraint::Min(24), Constraint::Length(10), Constraint::Fill(1)];
    frame.render_widget(table(rows.collect(), &widths, ["REASON", "DROPS/s", "DROPPED"]), drops);
}

fn table<'a, const CELLS: usize>(rows: Vec<Row<'a>>, widths: &[Constraint], heads: [&'a str; CELLS]) -> Table<'a> {
    let head = Row::new(heads).style(Style::new().add_modifier(Modifier::REVERSED));
    Table::new(rows, widths.iter().copied()).header(head)
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn endpoint(container: &str, received: u64, sent: u64) -> Endpoint {
        let traffic = |bytes| Traffic {
            bytes,
            packets: bytes / 100,
        };
        Endpoint {
            id: format!("id of {container}"),
            container: container.into(),
            network: "shop".into(),
            received: traffic(received),
            sent: traffic(sent),
        }
    }

    fn dropped(endpoint: &str, packets: u64) -> Drop {
        Drop {
            reason: "icc_disabled".into(),
            sentence: String::new(),
            direction: "from_container".into(),
            endpoint: endpoint.into(),
            packets,
            bytes: 0,
        }
    }

    fn samples() -> (Sample, Sample) {
        let at = Instant::now();
        let before = Sample {
            at,
            endpoints: vec![endpoint("web", 1_000, 0), endpoint("db", 50_000, 0)],
            drops: vec![dropped("web", 10)],
            flows: vec![],
        };
        let present = Sample {
            at: at + Duration::from_secs(2),
            // The database has started anew.
            endpoints: vec![
                endpoint("web", 5_000, 2_000_000),
                endpoint("db", 400, 0),
                endpoint("new", 9, 9),
            ],
            drops: vec![dropped("web", 30), dropped("", 2)],
            flows: vec![],
        };
        (before, present)
    }

    #[test]
    fn what_has_come_since_is_told_by_the_second_and_in_the_order_that_is_wished() {
        let (before, present) = samples();
        let by = |sort| {
            let rates = rates(&before, &present, sort);
            rates.iter().map(|rates| rates.container.clone()).collect::<Vec<_>>()
        };
        assert_eq!(by(Sort::Rate), ["web", "db", "new"]);
        assert_eq!(by(Sort::Name), ["db", "new", "web"]);
        assert_eq!(by(Sort::Drops)[0], "web");
        let rates = rates(&before, &present, Sort::Rate);
        let web = &rates[0];
        assert_eq!(
            (web.received, web.sent, web.drops, web.dropped),
            (2_000, 1_000_000, 10, 30)
        );
        assert_eq!(rates[1].received, 200, "what began anew is counted from nothing");
        assert_eq!(rates[2].received, 0, "what was not there before has no rate yet");
        assert_eq!(reasons(&before, &present), [("icc_disabled".to_owned(), 11, 32)]);
    }

    #[test]
    fn it_fits_into_a_usual_terminal_and_survives_a_small_one() {
        let (before, present) = samples();
        for (width, height) in [(120, 30), (80, 24), (20, 3)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal
                .draw(|frame| draw(frame, &before, &present, Sort::Rate))
                .unwrap();
            if height > 20 {
                let shown = terminal.backend().to_string();
                for words in ["3 endpoints", "CONTAINER", "web", "1MB", "icc_disabled", "REASON"] {
                    assert!(shown.contains(words), "{words} is missing in\n{shown}");
                }
            }
        }
    }

    #[test]
    fn keys_end_it_and_change_the_order() {
        let press = |code| wish(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(press(KeyCode::Char('q')), Wish::End);
        assert_eq!(press(KeyCode::Char('d')), Wish::Sort(Sort::Drops));
        assert_eq!(press(KeyCode::Char('c')), Wish::Nothing);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(wish(interrupt), Wish::End);
    }
}
