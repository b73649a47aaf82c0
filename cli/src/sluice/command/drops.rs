//! `sluice drops`: the counters, or each packet as it dies.

use clap::Args;
use http_body_util::BodyExt;
use jiff::tz::TimeZone;
use sluice_agent::view::{Drop, DropTold, Share, Status, Telling, Told};

use crate::{
    daemon::{self, Daemon},
    failure::Failure,
    measure,
    output::print,
    table,
};

use super::datapath::{document, line};

/// `sluice drops`
#[derive(Args)]
pub struct Drops {
    /// As JSON; with --follow, a document on each line
    #[arg(long)]
    json: bool,
    /// Each packet as it dies, from now on
    #[arg(short, long)]
    follow: bool,
}

impl Drops {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        if self.follow {
            return self.follow(daemon).await;
        }
        let bytes = daemon.get_bytes("/sluice/v1/drops").await?;
        if self.json {
            return print(&(String::from_utf8_lossy(&bytes).trim_end().to_owned() + "\n"));
        }
        let telling: Telling = document(&daemon.get_bytes("/sluice/v1/drops/telling").await?)?;
        let drops: Vec<Drop> = document(&bytes)?;
        let holders = match drops.iter().any(|drop| is_for_room(&drop.reason)) {
            true => {
                let status: Status = document(&daemon.get_bytes("/sluice/v1/status").await?)?;
                holders(&status.shares)
            }
            false => String::new(),
        };
        print(&(self::drops(drops) + &holders + &untold(&telling)))
    }

    async fn follow(&self, daemon: &Daemon) -> Result<(), Failure> {
        let response = daemon.stream("/sluice/v1/drops?follow=1").await?;
        let (mut body, mut pending) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(daemon::broken)?.into_data() {
                pending.extend_from_slice(&data);
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let bytes: Vec<u8> = pending.drain(..=end).collect();
                if self.json {
                    print(&String::from_utf8_lossy(&bytes))?;
                } else if let Ok(told) = serde_json::from_slice(&bytes) {
                    // What cannot be read is of a kind that only a newer daemon knows.
                    print(&(line_of(&told) + "\n"))?;
                }
            }
        }
        Ok(())
    }
}

/// Most frequent first.
fn drops(mut drops: Vec<Drop>) -> String {
    drops.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.reason.cmp(&b.reason)));
    let mut lines = vec![line(["REASON", "DIRECTION", "ENDPOINT", "PACKETS", "BYTES", "WHY"])];
    lines.extend(drops.iter().map(|drop| {
        let endpoint = if drop.endpoint.is_empty() { "-" } else { &drop.endpoint };
        let (packets, bytes) = (drop.packets.to_string(), measure::size(drop.bytes));
        line([
            &drop.reason,
            &drop.direction,
            endpoint,
            &packets,
            &bytes,
            &drop.sentence,
        ])
    }));
    table::align(&lines)
}

/// Was there no room for the connection?
fn is_for_room(reason: &str) -> bool {
    matches!(reason, "flow_table_full" | "flow_limit")
}

/// Who holds connections now, whoever holds most first: who is refused one is seldom the one who has too many.
fn holders(shares: &[Share]) -> String {
    const NAMED: usize = 5;
    let holders: Vec<String> = shares
        .iter()
        .take(NAMED)
        .map(|share| format!("{} {}", share.endpoint, share.connections))
        .collect();
    match holders.is_empty() {
        true => String::new(),
        false => format!("\nConnections are held by: {}\n", holders.join(", ")),
    }
}

/// What those who followed were not told; nothing if they were told all.
pub fn untold(telling: &Telling) -> String {
    let (too_many, lost) = telling.untold.iter().fold((0, 0), |(too_many, lost), untold| {
        (too_many + untold.too_many, lost + untold.lost)
    });
    if (too_many, lost, telling.missed) == (0, 0, 0) {
        return String::new();
    }
    format!(
        "\nNot told one by one to those who followed: {too_many} (too many of a reason in a second), {lost} (not read in time); lines that slow followers missed: {}\n",
        telling.missed
    )
}

/// `2026-11-21T12:00:00.123+00:00 icc_disabled from_container web (bridge) slc1: tcp 172.17.0.2:4000 > 172.17.0.3:80, 74 bytes: The network …`
fn line_of(told: &Told) -> String {
    let told = match told {
        Told::Drop(told) => told,
        Told::Untold(untold) => {
            let total = untold.too_many + untold.lost;
            return format!(
                "{} {}: {total} more in the last second ({} too many to tell, {} lost before they were read)",
                clock(untold.time),
                untold.reason,
                untold.too_many,
                untold.lost
            );
        }
        Told::Missed { time, lines } => {
            return format!("{} {lines} lines came faster than they were read here", clock(*time));
        }
    };
    let mut text = format!("{} {} {}", clock(told.time), told.reason, told.direction);
    if !told.container.is_empty() {
        text += &format!(" {} ({})", told.container, told.network);
    }
    if !told.device.is_empty() {
        text += &format!(" {}", told.device);
    }
    text += &format!(": {}", packet(told));
    format!("{text}, {} bytes: {}", told.length, told.sentence)
}

/// `tcp 172.17.0.2:4000 > db (172.17.0.3:80)`
fn packet(told: &DropTold) -> String {
    let protocol = match told.protocol.as_str() {
        "" => format!("ethernet type {:#06x}", told.ether_type),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("protocol {number}"),
        name => name.to_owned(),
    };
    let kind = match (told.icmp_type, told.icmp_code) {
        (Some(kind), Some(code)) => format!(" {kind}/{code}"),
        _ => String::new(),
    };
    let end = |address: Option<std::net::IpAddr>, port: Option<u16>, name: &str| {
        let address = match (address?, port) {
            (address, None) => address.to_string(),
            (address, Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
        };
        Some(match name {
            "" => address,
            name => format!("{name} ({address})"),
        })
    };
    let source = end(told.source, told.source_port, &told.source_name);
    let destination = end(told.destination, told.destination_port, &told.destination_name);
    match (source, destination) {
        (Some(source), Some(destination)) => format!("{protocol}{kind} {source} > {destination}"),
        _ => format!("{protocol}{kind}"),
    }
}

fn clock(time: jiff::Timestamp) -> String {
    time.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%dT%H:%M:%S.%3f%:z")
        .to_string()
}

#[cfg(test)]
mod tests {
    use sluice_agent::view::Untold;

    use super::*;

    fn dropped() -> DropTold {
        DropTold {
            time: "2026-01-01T00:00:00.123456Z".parse().unwrap(),
            reason: "icc_disabled".into(),
            sentence: "The network does not let its containers talk to each other (icc=false).".into(),
            number: 12,
            direction: "from_container".into(),
            container: "web".into(),
            container_id: "abc".into(),
            network: "bridge".into(),
            device: "slc1".into(),
            ether_type: 0x0800,
            protocol: "tcp".into(),
            source: "172.17.0.2".parse().ok(),
            source_name: "web".into(),
            source_port: Some(4000),
            destination: "172.17.0.3".parse().ok(),
            destination_name: String::new(),
            destination_port: Some(80),
            icmp_type: None,
            icmp_code: None,
            icmp_id: None,
            length: 74,
        }
    }

    #[test]
    fn a_drop_is_a_line_with_who_and_why() {
        let line = line_of(&Told::Drop(Box::new(dropped())));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.contains(".123"), "{time}");
        assert_eq!(
            rest,
            "icc_disabled from_container web (bridge) slc1: tcp web (172.17.0.2:4000) > 172.17.0.3:80, 74 bytes: The network does not let its \
             containers talk to each other (icc=false)."
        );
    }

    #[test]
    fn a_drop_that_could_not_be_read_says_what_is_known() {
        let frame = DropTold {
            ether_type: 0x88cc,
            protocol: String::new(),
            source: None,
            destination: None,
            ..dropped()
        };
        assert_eq!(packet(&frame), "ethernet type 0x88cc");
        let ping = DropTold {
            protocol: "icmp".into(),
            source_port: None,
            destination_port: None,
            icmp_type: Some(8),
            icmp_code: Some(0),
            ..dropped()
        };
        assert_eq!(packet(&ping), "icmp 8/0 web (172.17.0.2) > 172.17.0.3");
        let other = DropTold {
            protocol: "47".into(),
            ..ping
        };
        assert!(packet(&other).starts_with("protocol 47"));
    }

    #[test]
    fn what_was_not_told_is_said() {
        let all = Untold {
            time: jiff::Timestamp::UNIX_EPOCH,
            reason: "multicast".into(),
            number: 7,
            too_many: 90,
            lost: 10,
        };
        assert!(line_of(&Told::Untold(all.clone())).contains("multicast: 100 more"));
        let mut telling = Telling::default();
        assert_eq!(untold(&telling), "");
        telling.untold.push(all);
        assert!(untold(&telling).contains("90 (too many of a reason in a second), 10 (not read in time)"));
        let missed = Told::Missed {
            time: jiff::Timestamp::UNIX_EPOCH,
            lines: 3,
        };
        assert!(line_of(&missed).ends_with("3 lines came faster than they were read here"));
    }

    #[test]
    fn the_most_frequent_drop_comes_first() {
        let drop = |reason: &str, packets| Drop {
            reason: reason.into(),
            sentence: "a sentence".into(),
            direction: "from_container".into(),
            endpoint: String::new(),
            packets,
            bytes: 0,
        };
        let text = drops(vec![drop("rare", 1), drop("often", 100)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("often") && lines[2].starts_with("rare"), "{text}");
    }
}
