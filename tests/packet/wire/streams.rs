//! TCP on every path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::datagrams::{ask, echo};
use super::namespace::{Namespace, ethtool, run};
use super::places::{FAMILIES, GATEWAY, HOST6, Places, WEB};
use super::rig::Rig;
use super::transfer::transfer;

fn streams_flow_on_every_path(offload: bool) {
    let mut rig = Rig::make(offload);
    for places in FAMILIES {
        let Places {
            gateway,
            web,
            shop,
            host,
            lan,
            loopback,
        } = places;
        let web_inside = SocketAddr::from((web, 80));

        let (caller, _) = transfer(&rig.shop, (web, 80).into(), &rig.web, web_inside);
        assert_eq!(caller.ip(), shop, "a neighbour is seen as itself");

        let (caller, _) = transfer(&rig.lan, (host, 8080).into(), &rig.web, web_inside);
        assert_eq!(caller.ip(), lan, "a client of a published port is seen as itself");

        let (caller, _) = transfer(&rig.web, (lan, 9000).into(), &rig.lan, (lan, 9000).into());
        assert_eq!(caller.ip(), host, "the world sees the host");

        let (caller, peer) = transfer(&rig.host, (loopback, 8080).into(), &rig.web, web_inside);
        assert_eq!(caller.ip(), gateway, "a process of the host is seen as the gateway");
        assert_eq!(peer, SocketAddr::from((loopback, 8080)), "and sees whom it called");

        let (caller, _) = transfer(&rig.host, (host, 8080).into(), &rig.web, web_inside);
        assert_eq!(caller.ip(), gateway);

        let (caller, _) = transfer(&rig.shop, (host, 8080).into(), &rig.web, web_inside);
        assert_eq!(caller.ip(), shop, "a neighbour by the published port is seen as itself");

        let (caller, _) = transfer(&rig.web, (host, 8080).into(), &rig.web, web_inside);
        assert_eq!(
            caller.ip(),
            gateway,
            "one's own published port is reached by way of the gateway"
        );

        let (caller, _) = transfer(&rig.web, (host, 7000).into(), &rig.host, (host, 7000).into());
        assert_eq!(caller.ip(), web, "the host sees the container");

        let (caller, _) = transfer(&rig.host, web_inside, &rig.web, web_inside);
        assert_eq!(caller.ip(), gateway);
    }
    rig.assert_clean();
}

/// Pitfall B52.
#[test]
fn streams_flow_on_every_path_with_super_packets() {
    streams_flow_on_every_path(true);
}

/// Pitfall B52.
#[test]
fn streams_flow_on_every_path_with_finished_checksums() {
    streams_flow_on_every_path(false);
}

/// Pitfall B52.
/// What a NIC has put together from frames whose sums it has proven.
#[test]
fn streams_flow_on_every_path_of_the_nic_with_frames_that_were_put_together() {
    let mut rig = Rig::make(true);
    rig.lan.inside(|| ethtool("eth0", false));
    rig.host.inside(|| run("ethtool", &["-K", "nic0", "gro", "on"]));
    for Places { web, host, lan, .. } in FAMILIES {
        transfer(&rig.lan, (host, 8080).into(), &rig.web, (web, 80).into());
        transfer(&rig.web, (lan, 9000).into(), &rig.lan, (lan, 9000).into());
    }
    rig.assert_clean();
}

#[test]
fn streams_flow_on_every_path_of_the_nic_in_jumbo_frames() {
    let mut rig = Rig::make(false);
    rig.set_mtu(9000);
    for Places {
        web, shop, host, lan, ..
    } in FAMILIES
    {
        transfer(&rig.lan, (host, 8080).into(), &rig.web, (web, 80).into());
        transfer(&rig.web, (lan, 9000).into(), &rig.lan, (lan, 9000).into());
        let (caller, _) = transfer(&rig.shop, (web, 80).into(), &rig.web, (web, 80).into());
        assert_eq!(caller.ip(), shop);
    }
    rig.assert_clean();
}

/// Pitfall B19.
#[test]
fn a_published_port_cannot_be_bound_by_a_process_of_the_host() {
    let rig = Rig::make(true);
    let bound = |namespace: &Namespace, address: IpAddr, port: u16| {
        namespace.inside(|| {
            TcpListener::bind((address, port))
                .map(drop)
                .map_err(|error| error.kind())
        })
    };
    let taken = Err(std::io::ErrorKind::AddrInUse);
    for places in FAMILIES {
        let anywhere = places.anywhere().ip();
        for address in [anywhere, places.loopback, places.host] {
            assert_eq!(bound(&rig.host, address, 8080), taken, "{address}");
        }
        assert_eq!(bound(&rig.host, places.host, 9090), Ok(()));
        assert_eq!(
            bound(&rig.web, anywhere, 8080),
            Ok(()),
            "another namespace has ports of its own"
        );
    }
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    assert_eq!(bound(&rig.host, mapped.into(), 8080), taken);
}

#[test]
fn a_closed_port_is_refused_at_once_on_every_path() {
    let mut rig = Rig::make(true);
    let paths = |places: Places| {
        [
            (&rig.shop, SocketAddr::from((places.web, 80)), places),
            (&rig.lan, (places.host, 8080).into(), places),
            (&rig.web, (places.lan, 9000).into(), places),
        ]
    };
    for (namespace, to, places) in FAMILIES.into_iter().flat_map(paths) {
        let refused =
            namespace.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(|e| e.kind()));
        assert_eq!(refused.map(drop), Err(std::io::ErrorKind::ConnectionRefused), "{to}");
        // A closed port of UDP is told by an ICMP error, translated by the packet it quotes.
        namespace.inside(|| {
            let socket = UdpSocket::bind(places.anywhere()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.connect(to).unwrap();
            socket.send(b"is anybody there?").unwrap();
            let answer = socket.recv(&mut [0; 8]).map_err(|error| error.kind());
            assert_eq!(answer, Err(std::io::ErrorKind::ConnectionRefused), "{to}");
        });
    }
    rig.assert_clean();
}

#[test]
fn a_socket_of_ipv6_reaches_ipv4_by_a_mapped_address_and_by_loopback() {
    let mut rig = Rig::make(true);
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 8080));
    let by_loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 8081));
    let by_address = SocketAddr::from((HOST6, 8081));
    for to in [mapped, by_loopback, by_address] {
        let (caller, peer) = transfer(&rig.host, to, &rig.web, (WEB, 80).into());
        assert_eq!(caller.ip(), GATEWAY, "{to}");
        assert_eq!(peer, to, "the caller sees whom it called");
    }
    let server = rig.web.inside(|| UdpSocket::bind((WEB, 80)).unwrap());
    let echo = std::thread::spawn(move || echo(&server, 2));
    rig.host.inside(|| {
        ask((Ipv6Addr::UNSPECIFIED, 0).into(), mapped, 100);
        let connected = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        connected.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connected.connect(by_loopback).unwrap();
        connected.send(b"by loopback").unwrap();
        let mut datagram = [0; 64];
        let (length, from) = connected.recv_from(&mut datagram).unwrap();
        assert_eq!((&datagram[..length], from), (&b"by loopback"[..], by_loopback));
        assert_eq!(connected.peer_addr().unwrap(), by_loopback);
    });
    echo.join().unwrap();
    rig.assert_clean();
}
