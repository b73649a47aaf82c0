//! Who gets which port.

use std::net::{IpAddr, Ipv4Addr};

use nix::errno::Errno;
use sluice_model::{Id, PortBinding, Protocol};

use super::{
    trial::{EPHEMERAL, try_bind},
    *,
};
use crate::Kind;

const ANY: Binding = Binding {
    address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    with_ipv6: false,
};

fn wish(container: &str, address: Option<&str>, host_ports: (u16, u16)) -> PortBinding {
    PortBinding {
        container: container.parse().unwrap(),
        host_address: address.map(|address| address.parse().unwrap()),
        host_ports,
        count: 1,
    }
}

fn id(byte: u8) -> Id {
    Id::from_bytes([byte; 32])
}

fn free(_: Protocol, _: IpAddr, _: u16) -> Result<(), Errno> {
    Ok(())
}

fn take(ports: &mut Ports, by: u8, wishes: &[PortBinding]) -> Result<Vec<u16>, EngineError> {
    let given = ports.take(&id(by), wishes, ANY, (40_000, 40_003), &free)?;
    Ok(given.iter().map(|port| port.host_port).collect())
}

#[test]
fn a_port_is_given_once_for_overlapping_addresses() {
    let mut ports = Ports::default();
    assert_eq!(
        take(&mut ports, 1, &[wish("80/tcp", None, (8080, 8080))]).unwrap(),
        [8080]
    );
    let error = take(&mut ports, 2, &[wish("80/tcp", Some("127.0.0.1"), (8080, 8080))]).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(
        error.message,
        "Bind for 127.0.0.1:8080 failed: port is already allocated"
    );
    assert!(
        take(&mut ports, 2, &[wish("80/udp", None, (8080, 8080))]).is_ok(),
        "UDP is another matter"
    );
    ports.release(&id(1));
    assert!(take(&mut ports, 3, &[wish("80/tcp", None, (8080, 8080))]).is_ok());
}

#[test]
fn a_port_without_an_address_is_one_of_both_families_and_one_with_an_address_is_not() {
    let mut ports = Ports::default();
    let both = Binding { with_ipv6: true, ..ANY };
    let mut at = |by, address, port| {
        let wish = [wish("80/tcp", address, (port, port))];
        let given = ports.take(&id(by), &wish, both, (40_000, 40_003), &free)?;
        Ok::<_, EngineError>(
            given
                .iter()
                .map(|port| port.host_address.to_string())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(at(1, None, 8080).unwrap(), ["0.0.0.0", "::"]);
    assert_eq!(at(2, Some("0.0.0.0"), 8081).unwrap(), ["0.0.0.0"]);
    assert_eq!(
        at(3, Some("::"), 8081).unwrap(),
        ["::"],
        "the other family is another matter"
    );
    assert_eq!(
        at(4, Some("::1"), 8080).unwrap_err().message,
        "Bind for [::1]:8080 failed: port is already allocated"
    );
}

#[test]
fn a_port_that_one_family_has_given_away_is_passed_over_in_a_search() {
    let mut ports = Ports::default();
    let both = Binding { with_ipv6: true, ..ANY };
    ports
        .take(&id(1), &[wish("80/tcp", Some("::"), (7000, 7000))], both, (1, 2), &free)
        .unwrap();
    let given = ports
        .take(&id(2), &[wish("80/tcp", None, (7000, 7001))], both, (1, 2), &free)
        .unwrap();
    assert_eq!(
        given.iter().map(|port| port.host_port).collect::<Vec<_>>(),
        [7001, 7001]
    );
}

#[test]
fn different_addresses_share_a_port_number() {
    let mut ports = Ports::default();
    assert!(take(&mut ports, 1, &[wish("80/tcp", Some("10.0.0.1"), (80, 80))]).is_ok());
    assert!(take(&mut ports, 2, &[wish("80/tcp", Some("10.0.0.2"), (80, 80))]).is_ok());
}

#[test]
fn a_range_gives_the_first_free_and_any_port_is_ephemeral() {
    let mut ports = Ports::default();
    assert_eq!(
        take(&mut ports, 1, &[wish("80/tcp", None, (7000, 7001))]).unwrap(),
        [7000]
    );
    assert_eq!(
        take(&mut ports, 2, &[wish("80/tcp", None, (7000, 7001))]).unwrap(),
        [7001]
    );
    assert_eq!(
        take(&mut ports, 3, &[wish("80/tcp", None, (7000, 7001))])
            .unwrap_err()
            .message,
        "all ports are allocated"
    );
    let mut any: Vec<u16> = (4..8)
        .map(|by| take(&mut ports, by, &[wish("80/tcp", None, (0, 0))]).unwrap()[0])
        .collect();
    any.sort_unstable();
    assert_eq!(any, [40_000, 40_001, 40_002, 40_003]);
}

#[test]
fn many_consecutive_ports_are_taken_as_one_range_and_given_back_as_one() {
    let mut ports = Ports::default();
    let told = |given: &[PublishedPort]| -> Vec<(u16, u16)> {
        given.iter().map(|port| (port.host_port, port.count)).collect()
    };
    let singles: Vec<_> = (20_000..30_000)
        .map(|port| wish(&format!("{port}/udp"), None, (port, port)))
        .collect();
    let range = [PortBinding {
        count: 10_000,
        ..singles[0].clone()
    }];
    // One by one, as an earlier version has written them down, and as one.
    for wishes in [&singles[..], &range] {
        let given = ports.take(&id(1), wishes, ANY, (0, 0), &free).unwrap();
        assert_eq!(told(&given), [(20_000, 10_000)]);
        ports.release(&id(1));
    }
    let given = ports.take(&id(1), &range, ANY, (0, 0), &free).unwrap();
    assert!(take(&mut ports, 2, &[wish("53/udp", None, (25_000, 25_000))]).is_err());
    // A daemon that starts again enters what it finds.
    let mut again = Ports::default();
    again.enter(&id(1), &given[0]);
    assert!(take(&mut again, 2, &[wish("53/udp", None, (29_999, 29_999))]).is_err());
    assert!(take(&mut again, 2, &[wish("53/udp", None, (30_000, 30_000))]).is_ok());
    again.release(&id(1));
    assert!(take(&mut again, 3, &[wish("53/udp", None, (25_000, 25_000))]).is_ok());
}

#[test]
fn a_port_of_another_program_is_noticed_among_many() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let trial = trial(10_000);
    let _ = trial(Protocol::Udp, loopback, 1);
    assert_eq!(trial(Protocol::Udp, loopback, port), Err(Errno::EADDRINUSE));
    assert_eq!(trial(Protocol::Tcp, loopback, 1), try_bind(Protocol::Tcp, loopback, 1));
    let nowhere = "192.0.2.77".parse().unwrap();
    assert_eq!(trial(Protocol::Udp, nowhere, 9), Err(Errno::EADDRNOTAVAIL));
}

#[test]
fn a_wish_that_fails_takes_nothing() {
    let mut ports = Ports::default();
    take(&mut ports, 1, &[wish("80/tcp", None, (81, 81))]).unwrap();
    assert!(
        take(
            &mut ports,
            2,
            &[wish("80/tcp", None, (80, 80)), wish("81/tcp", None, (81, 81))]
        )
        .is_err()
    );
    assert!(take(&mut ports, 3, &[wish("80/tcp", None, (80, 80))]).is_ok());
}

#[test]
fn a_port_of_sctp_can_be_published_whether_the_kernel_has_sctp_or_not() {
    let mut ports = Ports::default();
    let wish = [wish("9000/sctp", None, (9000, 9000))];
    let taken = ports.take(&id(1), &wish, ANY, EPHEMERAL, &try_bind);
    assert!(taken.is_ok(), "{:?}", taken.err().map(|error| error.message));
    assert!(
        ports.take(&id(2), &wish, ANY, EPHEMERAL, &try_bind).is_err(),
        "it is taken now"
    );
}

#[test]
fn a_port_of_another_program_is_told_from_one_of_ours() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut ports = Ports::default();
    let wish = [wish("80/tcp", Some("127.0.0.1"), (port, port))];
    let error = ports.take(&id(1), &wish, ANY, EPHEMERAL, &try_bind).unwrap_err();
    assert_eq!(error.kind, Kind::Failed);
    assert_eq!(
        error.message,
        format!("failed to bind host port for 127.0.0.1:{port}/tcp: address already in use")
    );
    drop(listener);
    assert!(ports.take(&id(1), &wish, ANY, EPHEMERAL, &try_bind).is_ok());
}

#[test]
fn publish_all_adds_what_is_exposed_and_not_bound() {
    let exposed = ["80/tcp".parse().unwrap(), "53/udp".parse().unwrap()];
    let all = wishes(&[wish("80/tcp", None, (8080, 8080))], &exposed, true);
    assert_eq!(all, [wish("80/tcp", None, (8080, 8080)), wish("53/udp", None, (0, 0))]);
    assert_eq!(wishes(&[], &exposed, false), []);
}

#[test]
fn a_range_of_which_one_port_is_taken_takes_none() {
    let mut ports = Ports::default();
    take(&mut ports, 1, &[wish("53/udp", None, (25_000, 25_000))]).unwrap();
    let range = [PortBinding {
        count: 10_000,
        ..wish("20000/udp", None, (20_000, 20_000))
    }];
    assert_eq!(
        take(&mut ports, 2, &range).unwrap_err().message,
        "Bind for 0.0.0.0:25000 failed: port is already allocated"
    );
    ports.release(&id(1));
    assert!(take(&mut ports, 3, &range).is_ok());
}

#[test]
fn publish_all_adds_nothing_that_a_range_has() {
    let range = PortBinding {
        count: 3,
        ..wish("80/tcp", None, (8080, 8080))
    };
    let exposed = ["80/tcp", "82/tcp", "83/tcp", "81/udp"].map(|port| port.parse().unwrap());
    let all = wishes(std::slice::from_ref(&range), &exposed, true);
    assert_eq!(all, [range, wish("83/tcp", None, (0, 0)), wish("81/udp", None, (0, 0))]);
}
