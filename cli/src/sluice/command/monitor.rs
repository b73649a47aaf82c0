//! `sluice monitor`: drops as they happen, and conversations as they open and close.

use std::{
    fs::File,
    io::{IsTerminal, Write},
    net::{IpAddr, SocketAddr},
};

use base64::Engine;
use clap::Args;
use http_body_util::BodyExt;
use jiff::tz::TimeZone;
use sluice_agent::view::{Happening, Outcome, Seen, Side};

use super::ends::Ends;
use crate::{
    daemon::{self, Daemon},
    failure::Failure,
    measure,
    output::print,
    pcapng::{Capture, Packet},
    query,
};

/// `sluice monitor`
#[derive(Args)]
pub struct Monitor {
    /// Conversations too, as they open and close
    #[arg(short, long)]
    flows: bool,
    /// A document on each line (docs/monitor.md)
    #[arg(long, conflicts_with = "pcap")]
    json: bool,
    /// Write dropped packets as pcapng for Wireshark or tcpdump, each with the reason as its comment; `-`: to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "flows")]
    pcap: Option<String>,
    /// Only this kind: drop, open or close
    #[arg(short, long, value_name = "KIND")]
    event: Vec<String>,
    #[command(flatten)]
    ends: Ends,
    /// Only this verdict: forwarded, dropped, denied or rejected
    #[arg(short, long)]
    verdict: Vec<String>,
    /// Only dropped for this reason (docs/drops.md)
    #[arg(short, long)]
    reason: Vec<String>,
}

impl Monitor {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let mut capture = match self.pcap.as_deref() {
            None => None,
            Some("-") if std::io::stdout().is_terminal() => {
                return Err(Failure::Usage(
                    "cannot write packets to a terminal: send standard output to a file or a program, as in `sluice monitor --pcap - | tcpdump -r -`".to_owned(),
                ));
            }
            Some("-") => Some(Box::new(std::io::stdout()) as Box<dyn Write>),
            Some(path) => {
                let file = File::create(path);
                let file = file.map_err(|why| Failure::Usage(format!("cannot write packets to {path}: {why}")))?;
                Some(Box::new(file) as Box<dyn Write>)
            }
        }
        .map(|out| Capture::begin(out, "sluice monitor", LONGEST))
        .transpose()
        .map_err(|why| self.not_written(&why))?;
        let colour = Colour::of_terminal();
        let response = daemon.stream(&self.path()).await?;
        let (mut body, mut pending) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(daemon::broken)?.into_data() {
                pending.extend_from_slice(&data);
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let bytes: Vec<u8> = pending.drain(..=end).collect();
                if self.json {
                    print(&String::from_utf8_lossy(&bytes))?;
                    continue;
                }
                // What cannot be read is of a kind that only a newer daemon knows.
                let Ok(seen) = serde_json::from_slice::<Seen>(&bytes) else {
                    continue;
                };
                match &mut capture {
                    None => print(&(line(&seen, colour) + "\n"))?,
                    Some(_) if seen.lost.is_some() => eprintln!("{}", line(&seen, Colour(false))),
                    Some(capture) => match write(capture, &seen) {
                        // Whoever read along has seen enough.
                        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                        written => written.map_err(|why| self.not_written(&why))?,
                    },
                }
            }
        }
        Ok(())
    }

    fn path(&self) -> String {
        let mut pairs = Vec::new();
        let is_flow = |event: &String| event == "open" || event == "close";
        if self.flows || self.event.iter().any(is_flow) {
            pairs.push(("flows", "1"));
        }
        if self.pcap.is_some() {
            pairs.push(("frames", "1"));
        }
        pairs.extend(self.ends.pairs());
        let others = [
            ("event", &self.event),
            ("verdict", &self.verdict),
            ("reason", &self.reason),
        ];
        for (name, values) in others {
            pairs.extend(values.iter().map(|value| (name, value.as_str())));
        }
        format!("/sluice/v1/monitor{}", query::query(&pairs))
    }

    fn not_written(&self, why: &std::io::Error) -> Failure {
        let to = self.pcap.as_deref().unwrap_or_default();
        Failure::Usage(format!("cannot write packets to {to}: {why}"))
    }
}

/// So much of a packet is shown at most.
const LONGEST: u32 = 192;

/// Writes a drop; of what has no frame any more (a fragment that waited in vain) there is nothing to write.
fn write<W: Write>(capture: &mut Capture<W>, seen: &Seen) -> std::io::Result<()> {
    let Some(frame) = &seen.frame else { return Ok(()) };
    let decoded = base64::engine::general_purpose::STANDARD.decode(frame);
    let bytes = decoded.map_err(std::io::Error::other)?;
    capture.write(&Packet {
        time: u64::try_from(seen.time.as_nanosecond()).unwrap_or_default(),
        device: seen.device.as_deref().unwrap_or("unknown"),
        bytes: &bytes,
        length: seen.length.unwrap_or(bytes.len() as u32),
        comment: &why(seen),
    })
}

/// Words in colour, or plain.
#[derive(Clone, Copy)]
struct Colour(bool);

impl Colour {
    /// On a terminal, unless somebody does not want them (no-color.org).
    fn of_terminal() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const FAINT: &str = "2";

/// `12:00:00.123 DROPPED tcp web (172.17.0.2:4000) > db (172.17.0.3:80) icc_disabled: The network …`
fn line(seen: &Seen, colour: Colour) -> String {
    let clock = seen.time.to_zoned(TimeZone::system()).strftime("%H:%M:%S.%3f");
    let clock = colour.paint(FAINT, &clock.to_string());
    if let Some(lost) = &seen.lost {
        let of = match lost.of.as_str() {
            "" => String::new(),
            of => format!(" of {of}"),
        };
        let text = format!(
            "LOST {}{of}: {} too many to tell, {} not read in time, {} faster than they were read here",
            lost.too_many + lost.unread + lost.missed,
            lost.too_many,
            lost.unread,
            lost.missed
        );
        return format!("{clock} {}", colour.paint(YELLOW, &text));
    }
    let (code, word) = match (seen.event, seen.verdict) {
        (_, Some(Outcome::Rejected)) => (RED, "REJECTED"),
        (_, Some(Outcome::Denied)) => (RED, "DENIED"),
        (_, Some(Outcome::Dropped)) => (RED, "DROPPED"),
        (Happening::Close, _) => (FAINT, "CLOSE"),
        _ => (GREEN, "OPEN"),
    };
    let mut text = format!("{clock} {} {}", colour.paint(code, &format!("{word:8}")), ends(seen));
    if seen.event == Happening::Drop {
        return format!("{text} {}", colour.paint(code, &why(seen)));
    }
    if let Some(policy) = &seen.policy {
        text += &format!(" by {policy}");
    }
    if let Some(carried) = &seen.carried {
        let (sent, received) = (measure::size(carried.bytes), measure::size(carried.reply_bytes));
        text += &format!(
            " {} after {:.1} s: sent {} ({sent}), received {} ({received})",
            carried.end, carried.age, carried.packets, carried.reply_packets
        );
    }
    text
}

/// `icc_disabled: The network does not …`, and by which rule.
fn why(seen: &Seen) -> String {
    let mut text = match &seen.drop_reason {
        Some(reason) => format!("{}: {}", reason.name, reason.sentence),
        None => String::new(),
    };
    if let Some(policy) = &seen.policy {
        text += &format!(" ({policy})");
    }
    text
}

/// `tcp web (172.17.0.2:4000) > 192.0.2.1:8080 as db (172.17.0.3:80)`
fn ends(seen: &Seen) -> String {
    let protocol = match (&seen.protocol, seen.ether_type) {
        (Some(number), _) if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("protocol {number}"),
        (Some(name), _) => name.clone(),
        (None, Some(kind)) => format!("ethernet type {kind:#06x}"),
        (None, None) => String::new(),
    };
    let mut text = protocol;
    if let Some(icmp) = &seen.icmp
        && let (Some(kind), Some(code)) = (icmp.kind, icmp.code)
    {
        text += &format!(" {kind}/{code}");
    }
    if let Some(source) = &seen.source {
        text += &format!(" {}", side(source));
    }
    if let Some(source) = &seen.translated_source {
        text += &format!(" as {}", side(source));
    }
    if let Some(destination) = &seen.destination {
        text += &format!(" > {}", side(destination));
    }
    if let Some(destination) = &seen.translated_destination {
        text += &format!(" to {}", side(destination));
    }
    text
}

fn side(side: &Side) -> String {
    let address = |address: IpAddr| match side.port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    match (side.address.map(address), side.name.as_str()) {
        (Some(address), "") => address,
        (Some(address), name) => format!("{name} ({address})"),
        (None, name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jiff::Timestamp;
    use sluice_agent::view::{Carried, Lost, Reason};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        monitor: Monitor,
    }

    fn path(arguments: &str) -> String {
        let words = std::iter::once("monitor").chain(arguments.split_whitespace());
        Command::parse_from(words).monitor.path()
    }

    fn side_of(name: &str, address: &str, port: u16) -> Option<Side> {
        Some(Side {
            address: address.parse().ok(),
            port: Some(port),
            name: name.into(),
            ..Side::default()
        })
    }

    fn opened() -> Seen {
        Seen {
            verdict: Some(Outcome::Forwarded),
            source: side_of("", "192.0.2.9", 4000),
            destination: side_of("host", "192.0.2.1", 8080),
            translated_destination: side_of("web", "172.17.0.2", 80),
            protocol: Some("tcp".into()),
            ..Seen::of(Timestamp::UNIX_EPOCH, Happening::Open)
        }
    }

    fn after_the_clock(seen: &Seen) -> String {
        line(seen, Colour(false)).split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn what_is_wanted_is_asked_of_the_daemon() {
        assert_eq!(path(""), "/sluice/v1/monitor");
        assert_eq!(
            path("-f -c web -c db --label tier=front --verdict denied"),
            "/sluice/v1/monitor?flows=1&container=web&container=db&label=tier%3Dfront&verdict=denied"
        );
        assert_eq!(path("--event open"), "/sluice/v1/monitor?flows=1&event=open");
        assert_eq!(path("--pcap -"), "/sluice/v1/monitor?frames=1");
    }

    #[test]
    fn a_conversation_is_a_line_from_its_opening_to_its_end() {
        assert_eq!(
            after_the_clock(&opened()),
            "OPEN     tcp 192.0.2.9:4000 > host (192.0.2.1:8080) to web (172.17.0.2:80)"
        );
        let closed = Seen {
            event: Happening::Close,
            verdict: None,
            carried: Some(Carried {
                packets: 6,
                bytes: 400,
                reply_packets: 5,
                reply_bytes: 5_000,
                age: 1.25,
                end: "closed".into(),
            }),
            ..opened()
        };
        let line = after_the_clock(&closed);
        assert!(line.starts_with("CLOSE    tcp 192.0.2.9:4000"), "{line}");
        assert!(
            line.contains(" closed after 1.2 s: sent 6 (400B), received 5 (5kB)"),
            "{line}"
        );
    }

    #[test]
    fn a_drop_says_why_and_by_which_rule_and_is_red_on_a_terminal() {
        let dropped = Seen {
            event: Happening::Drop,
            verdict: Some(Outcome::Denied),
            drop_reason: Some(Reason {
                name: "policy_denied".into(),
                number: 39,
                sentence: "A document is against it.".into(),
            }),
            policy: Some("db, rule 1 of ingress".into()),
            translated_destination: None,
            ..opened()
        };
        assert_eq!(
            after_the_clock(&dropped),
            "DENIED   tcp 192.0.2.9:4000 > host (192.0.2.1:8080) policy_denied: A document is against it. (db, rule 1 of ingress)"
        );
        assert!(line(&dropped, Colour(true)).contains("\x1b[31mDENIED  \x1b[0m"));
    }

    #[test]
    fn what_was_lost_is_shown() {
        let lost = Seen {
            lost: Some(Lost {
                of: "open".into(),
                too_many: 90,
                unread: 7,
                missed: 0,
            }),
            ..Seen::of(Timestamp::UNIX_EPOCH, Happening::Lost)
        };
        assert!(after_the_clock(&lost).starts_with("LOST 97 of open: 90 too many to tell, 7 not read in time"));
    }
}
