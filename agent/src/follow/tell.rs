//! An event of the ring, in words.

use std::{collections::HashSet, net::IpAddr};

use aya::Pod;
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use sluice_datapath_common::{
    DropReason, Ipv4, Ipv6,
    event::{DropEvent, FRAME_BYTES, FlowEvent, OPENED},
    flow::{FLOW_REWRITES_DESTINATION, FLOW_REWRITES_SOURCE},
};

use super::ended::{GONE, IDLE};
use crate::{
    expire::now,
    kernel::netlink::device_name,
    observe::{Told, direction_word, protocol, reason_words, towards},
    roster::{Resident, Roster},
    view::{Carried, DropTold, Happening, Icmp, Outcome, Reason, Seen, Side},
};

/// What a record of the ring is.
pub enum Record {
    /// A packet died; how its frame begins, if that was asked for.
    Drop(DropEvent, Vec<u8>),
    /// A conversation opened or closed.
    Flow4(Box<FlowEvent<Ipv4>>),
    /// As above.
    Flow6(Box<FlowEvent<Ipv6>>),
}

/// What a record is, by its length, which tells them apart. The kernel rounds it up to eight bytes, which all of them are.
pub fn read(record: &[u8]) -> Option<Record> {
    const DROP: usize = size_of::<DropEvent>();
    const SHOWN: usize = DROP + FRAME_BYTES;
    const FLOW4: usize = size_of::<FlowEvent<Ipv4>>();
    const FLOW6: usize = size_of::<FlowEvent<Ipv6>>();
    Some(match record.len() {
        DROP => Record::Drop(value(record)?, Vec::new()),
        SHOWN => {
            let event: DropEvent = value(record)?;
            let there = (event.length as usize).min(FRAME_BYTES);
            Record::Drop(event, record.get(DROP..DROP + there)?.to_vec())
        }
        FLOW4 => Record::Flow4(Box::new(value(record)?)),
        FLOW6 => Record::Flow6(Box::new(value(record)?)),
        _ => return None,
    })
}

fn value<T: Pod>(record: &[u8]) -> Option<T> {
    // SAFETY: so long, and any bytes are a value of a `Pod`.
    (record.len() >= size_of::<T>()).then(|| unsafe { record.as_ptr().cast::<T>().read_unaligned() })
}

/// Now, on two clocks.
#[derive(Clone, Copy)]
pub struct Clock {
    /// CLOCK_MONOTONIC, ns.
    monotonic: u64,
    wall: Timestamp,
}

impl Clock {
    /// Reads both.
    pub fn read() -> Self {
        Self {
            monotonic: now(),
            wall: Timestamp::now(),
        }
    }

    /// When it was so late by the monotonic clock.
    fn when(self, time: u64) -> Timestamp {
        let ago = SignedDuration::from_nanos(self.monotonic.saturating_sub(time) as i64);
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

/// The event with names, in the words of the field.
pub fn tell(event: &DropEvent, roster: &Roster, clock: Clock) -> DropTold {
    let (reason, sentence) = reason_words(event.reason);
    let [source, destination] = [event.source, event.destination].map(|words| address(event.family, words));
    let resident = roster
        .resident(event.endpoint)
        .or_else(|| source.and_then(|address| roster.at(address)))
        .or_else(|| destination.and_then(|address| roster.at(address)));
    let name = |address: Option<IpAddr>| {
        let resident = address.and_then(|address| roster.at(address));
        resident.map_or_else(String::new, |resident| resident.name.clone())
    };
    let is_ip = matches!(event.ether_type, 0x0800 | 0x86dd) && event.family != 0;
    let is_icmp = is_ip && matches!(event.protocol, 1 | 58);
    let [kind, code] = event.source_port.to_ne_bytes();
    let port = |port: u16| match u16::from_be(port) {
        0 => None,
        _ if is_icmp => None,
        port => Some(port),
    };
    DropTold {
        time: clock.when(event.time),
        reason,
        sentence,
        number: event.reason,
        direction: direction_word(event.direction),
        container: resident.map_or_else(String::new, |resident| resident.name.clone()),
        container_id: resident.map_or_else(String::new, |resident| resident.container.clone()),
        network: resident.map_or_else(String::new, |resident| resident.network.clone()),
        device: match event.ifindex {
            0 => String::new(),
            ifindex => device_name(ifindex).unwrap_or_else(|| format!("#{ifindex}")),
        },
        ether_type: event.ether_type,
        protocol: match event.ether_type {
            0x0806 => "arp".to_owned(),
            _ if is_ip => protocol(event.protocol),
            _ => String::new(),
        },
        source,
        source_name: name(source),
        source_port: port(event.source_port),
        destination,
        destination_name: name(destination),
        destination_port: port(event.destination_port),
        icmp_type: is_icmp.then_some(kind),
        icmp_code: is_icmp.then_some(code),
        icmp_id: (is_icmp && event.destination_port != 0).then(|| u16::from_be(event.destination_port)),
        length: event.length,
    }
}

/// A family whose conversations are told.
pub trait Recorded: Told {
    /// The event, of whichever family.
    fn record(event: FlowEvent<Self>) -> Record;
}

impl Recorded for Ipv4 {
    fn record(event: FlowEvent<Self>) -> Record {
        Record::Flow4(Box::new(event))
    }
}

impl Recorded for Ipv6 {
    fn record(event: FlowEvent<Self>) -> Record {
        Record::Flow6(Box::new(event))
    }
}

/// A conversation that opened or closed, with names. `host`: the host's addresses.
pub fn see_flow<F: Told>(event: &FlowEvent<F>, roster: &Roster, host: &HashSet<IpAddr>, clock: Clock) -> Seen {
    let (key, flow) = (&event.key, &event.flow);
    let is_icmp = key.protocol == F::ICMP;
    let end = |address: F::Address, port: u16, endpoint: u32| {
        let address = F::told(address);
        let port = Some(u16::from_be(port)).filter(|port| *port != 0 && !is_icmp);
        let resident = roster.resident(endpoint).or_else(|| roster.at(address));
        side(Some(address), port, resident).map(|side| match side.name.is_empty() && host.contains(&address) {
            true => Side {
                name: "host".to_owned(),
                ..side
            },
            false => side,
        })
    };
    let rewrites = |flag: u8| flow.flags & flag != 0;
    let (source, destination) = (flow.source_endpoint, flow.destination_endpoint);
    let is_end = event.kind != u32::from(OPENED);
    Seen {
        verdict: (!is_end).then_some(Outcome::Forwarded),
        source: end(key.source, key.source_port, source),
        destination: match rewrites(FLOW_REWRITES_DESTINATION) {
            true => end(key.destination, key.destination_port, 0),
            false => end(key.destination, key.destination_port, destination),
        },
        protocol: Some(protocol(key.protocol)),
        icmp: is_icmp.then(|| Icmp {
            kind: None,
            code: None,
            id: Some(u16::from_be(key.source_port)),
        }),
        policy: roster.rule(event.rule).cloned(),
        translated_source: match rewrites(FLOW_REWRITES_SOURCE) {
            true => end(flow.source, flow.source_port, 0),
            false => None,
        },
        translated_destination: match rewrites(FLOW_REWRITES_DESTINATION) {
            true => end(flow.destination, flow.destination_port, destination),
            false => None,
        },
        towards: Some(towards(flow.action).to_owned()),
        carried: is_end.then(|| Carried {
            packets: flow.packets,
            bytes: flow.bytes,
            reply_packets: event.reply_packets,
            reply_bytes: event.reply_bytes,
            age: event.time.saturating_sub(flow.opened) as f64 / 1e9,
            end: match event.kind {
                IDLE => "idle",
                GONE => "container",
                _ => "closed",
            }
            .to_owned(),
        }),
        ..Seen::of(
            clock.when(event.time),
            if is_end { Happening::Close } else { Happening::Open },
        )
    }
}

/// The same drop for those who see more: with its ends, the rule that refused it and how its frame begins.
pub fn see(event: &DropEvent, told: &DropTold, frame: &[u8], roster: &Roster) -> Seen {
    let by_number = roster.resident(event.endpoint);
    let at = |address: Option<IpAddr>| address.and_then(|address| roster.at(address));
    // Who speaks at a veth is known by that, whatever address it claims.
    let source = by_number.or_else(|| at(told.source));
    let not_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let verdict = match DropReason::from_number(event.reason) {
        Some(DropReason::PolicyDenied) => Outcome::Denied,
        Some(DropReason::PolicyRejected) => Outcome::Rejected,
        _ => Outcome::Dropped,
    };
    Seen {
        verdict: Some(verdict),
        source: side(told.source, told.source_port, source),
        destination: side(told.destination, told.destination_port, at(told.destination)),
        protocol: not_empty(&told.protocol),
        icmp: told.icmp_type.map(|kind| Icmp {
            kind: Some(kind),
            code: told.icmp_code,
            id: told.icmp_id,
        }),
        drop_reason: Some(Reason {
            name: told.reason.clone(),
            number: told.number,
            sentence: told.sentence.clone(),
        }),
        policy: roster.rule(event.rule).cloned(),
        point: Some(told.direction.clone()),
        device: not_empty(&told.device),
        ether_type: Some(told.ether_type),
        length: Some(told.length),
        frame: (!frame.is_empty()).then(|| base64::engine::general_purpose::STANDARD.encode(frame)),
        ..Seen::of(told.time, Happening::Drop)
    }
}

/// An end, if anything is known of it.
pub fn side(address: Option<IpAddr>, port: Option<u16>, resident: Option<&Resident>) -> Option<Side> {
    if address.is_none() && resident.is_none() {
        return None;
    }
    let resident = resident.cloned();
    let (name, container, network, labels) = resident.map_or_else(Default::default, |resident| {
        (resident.name, resident.container, resident.network, resident.labels)
    });
    Some(Side {
        address,
        port,
        name,
        container,
        network,
        labels,
    })
}

/// The address as the standard library has it.
fn address(family: u8, words: [u32; 4]) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    match i32::from(family) {
        libc::AF_INET => Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
        libc::AF_INET6 => Some(IpAddr::from(bytes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sluice_datapath_common::{DropReason, drop::Direction};

    use super::*;
    use crate::{desired::Desired, fixture, view};

    fn event() -> DropEvent {
        DropEvent {
            time: 5_000_000_000,
            source: [u32::from_ne_bytes([172, 17, 0, 8]), 0, 0, 0],
            destination: [u32::from_ne_bytes([192, 0, 2, 9]), 0, 0, 0],
            endpoint: 7,
            length: 74,
            source_port: 40_000u16.to_be(),
            destination_port: 80u16.to_be(),
            ether_type: 0x0800,
            protocol: 6,
            family: libc::AF_INET as u8,
            reason: DropReason::InternalNetwork as u8,
            direction: Direction::FromContainer as u8,
            ..DropEvent::default()
        }
    }

    fn roster() -> Roster {
        let (mut roster, mut desired) = (Roster::default(), Desired::default());
        let (endpoint, network) = (fixture::endpoint(7, 1), fixture::network(2));
        desired.endpoints.insert(endpoint.id.to_string(), endpoint);
        desired.networks.insert(network.id.to_string(), network);
        roster.update(&desired);
        roster
    }

    fn clock() -> Clock {
        Clock {
            monotonic: 7_000_000_000,
            wall: "2026-01-01T00:00:02Z".parse().unwrap(),
        }
    }

    #[test]
    fn an_event_is_told_with_names_and_the_time_of_day() {
        let told = tell(&event(), &roster(), clock());
        assert_eq!(told.time.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!((told.reason.as_str(), told.number), ("internal_network", 11));
        assert_eq!((told.container.as_str(), told.network.as_str()), ("web7", "net2"));
        assert_eq!(told.container_id, fixture::endpoint(7, 1).container.to_string());
        assert_eq!(
            (told.source_name.as_str(), told.destination_name.as_str()),
            ("web7", "")
        );
        assert_eq!((told.source_port, told.destination_port), (Some(40_000), Some(80)));
        assert_eq!(told.source.unwrap().to_string(), "172.17.0.8");
        assert_eq!(
            (told.protocol.as_str(), told.icmp_type, told.device.as_str()),
            ("tcp", None, "")
        );
    }

    #[test]
    fn a_ping_has_a_type_and_an_identifier_instead_of_ports() {
        let ping = DropEvent {
            protocol: 1,
            source_port: u16::from_ne_bytes([8, 0]),
            destination_port: 77u16.to_be(),
            ..event()
        };
        let told = tell(&ping, &roster(), clock());
        assert_eq!((told.source_port, told.destination_port), (None, None));
        assert_eq!(
            (told.icmp_type, told.icmp_code, told.icmp_id),
            (Some(8), Some(0), Some(77))
        );
    }

    #[test]
    fn what_happens_at_a_nic_is_told_of_the_container_it_was_for() {
        let arrived = DropEvent {
            endpoint: 0,
            direction: Direction::FromNic as u8,
            source: event().destination,
            destination: event().source,
            ..event()
        };
        let told = tell(&arrived, &roster(), clock());
        assert_eq!((told.container.as_str(), told.direction.as_str()), ("web7", "from_nic"));
        assert_eq!(
            (told.source_name.as_str(), told.destination_name.as_str()),
            ("", "web7")
        );
    }

    #[test]
    fn a_frame_that_could_not_be_read_has_no_addresses() {
        let frame = DropEvent {
            family: 0,
            ether_type: 0x88cc,
            ..event()
        };
        let told = tell(&frame, &roster(), clock());
        assert_eq!(
            (told.source, told.destination, told.protocol.as_str()),
            (None, None, "")
        );
        let line = serde_json::to_value(view::Told::Drop(Box::new(told))).unwrap();
        assert_eq!((&line["kind"], &line["ether_type"]), (&"drop".into(), &0x88cc.into()));
    }

    #[test]
    fn a_record_of_another_length_is_no_event() {
        assert!(
            matches!(read(&[0; 72]), Some(Record::Drop(event, frame)) if event == DropEvent::default() && frame.is_empty())
        );
        assert!(matches!(read(&[0; 160]), Some(Record::Flow4(_))) && matches!(read(&[0; 224]), Some(Record::Flow6(_))));
        assert!(read(&[0; 64]).is_none());
    }

    #[test]
    fn of_a_short_frame_only_what_it_has_is_shown() {
        let event = DropEvent { length: 60, ..event() };
        // SAFETY: it has no padding.
        let bytes: [u8; size_of::<DropEvent>()] = unsafe { std::mem::transmute(event) };
        let record = [&bytes[..], &[7; FRAME_BYTES]].concat();
        let Some(Record::Drop(read, frame)) = read(&record) else {
            panic!("not a drop")
        };
        assert_eq!((read, frame.len()), (event, 60));
        let seen = see(&event, &tell(&event, &roster(), clock()), &frame, &roster());
        assert_eq!(seen.verdict, Some(Outcome::Dropped));
        let source = seen.source.unwrap();
        assert_eq!((source.name.as_str(), source.port), ("web7", Some(40_000)));
        assert_eq!(seen.frame.map(|text| text.len()), Some(80));
    }
}
