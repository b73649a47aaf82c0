//! An event of the ring, in words.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use sluice_datapath_common::event::DropEvent;

use crate::{
    expire::now,
    kernel::netlink::device_name,
    observe::{direction_word, protocol, reason_words},
    roster::Roster,
    view::DropTold,
};

/// The event of a record. The kernel rounds its length up to eight bytes, which an event's is.
pub fn event(record: &[u8]) -> Option<DropEvent> {
    // SAFETY: so long, and any bytes are an event (`plain_old_data!`).
    (record.len() == size_of::<DropEvent>()).then(|| unsafe { record.as_ptr().cast::<DropEvent>().read_unaligned() })
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
    use crate::{desired::Desired, fixture, view::Told};

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
        let line = serde_json::to_value(Told::Drop(Box::new(told))).unwrap();
        assert_eq!((&line["kind"], &line["ether_type"]), (&"drop".into(), &0x88cc.into()));
    }

    #[test]
    fn a_record_of_another_length_is_no_event() {
        assert_eq!(super::event(&[0; 64]), Some(DropEvent::default()));
        assert_eq!(super::event(&[0; 72]), None);
    }
}
