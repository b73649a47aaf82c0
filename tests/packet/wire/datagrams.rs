//! UDP, and what ICMP tells of it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::places::{FAMILIES, Places};
use super::rig::Rig;

#[test]
fn datagrams_find_their_way_also_in_pieces() {
    let mut rig = Rig::make(true);
    for places in FAMILIES {
        let Places {
            web, host, loopback, ..
        } = places;
        let server = rig.web.inside(|| UdpSocket::bind((web, 80)).unwrap());
        let echo = std::thread::spawn(move || echo(&server, 8));
        for (namespace, to) in [
            (&rig.shop, SocketAddr::from((web, 80))),
            (&rig.shop, (host, 8080).into()),
            (&rig.lan, (host, 8080).into()),
            (&rig.host, (loopback, 8080).into()),
        ] {
            for length in [100, 8000] {
                namespace.inside(|| ask(places.anywhere(), to, length));
            }
        }
        echo.join().unwrap();
    }
    rig.assert_clean();
}

/// As QUIC sends them: one call, one packet through the programs, many datagrams where it arrives.
#[test]
fn datagrams_that_are_sent_as_one_packet_arrive_one_by_one() {
    const SEGMENTS: usize = 40;
    const SEGMENT: usize = 1_200;
    let mut rig = Rig::make(true);
    for places in FAMILIES {
        let Places { web, host, lan, .. } = places;
        for (client, to, server, inside) in [
            (&rig.shop, (web, 80), &rig.web, (web, 80)),
            (&rig.lan, (host, 8080), &rig.web, (web, 80)),
            (&rig.web, (lan, 9000), &rig.lan, (lan, 9000)),
        ] {
            let server = server.inside(|| UdpSocket::bind(inside).unwrap());
            server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let sent: Vec<u8> = (0..SEGMENTS * SEGMENT).map(|place| (place / SEGMENT) as u8).collect();
            client.inside(|| {
                let socket = UdpSocket::bind(places.anywhere()).unwrap();
                set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT as i32);
                assert_eq!(socket.send_to(&sent, to).unwrap(), sent.len());
            });
            let mut datagram = [0; 2_000];
            for number in 0..SEGMENTS {
                let (length, _) = server
                    .recv_from(&mut datagram)
                    .unwrap_or_else(|error| panic!("datagram {number} to {to:?}: {error}"));
                assert!(
                    datagram[..length] == [number as u8; SEGMENT],
                    "datagram {number} to {to:?}"
                );
            }
        }
    }
    rig.assert_clean();
}

pub fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) {
    // SAFETY: the socket is open and the option an integer.
    let set = unsafe {
        let size = size_of::<i32>() as u32;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// What `traceroute` sees of the host: a datagram with one hop left gets no further, and its sender is told.
#[test]
fn the_host_is_seen_as_a_router_on_the_way() {
    let mut rig = Rig::make(true);
    for places in FAMILIES {
        let (level, hops, errors) = match places.web {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_RECVERR),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_RECVERR),
        };
        rig.web.inside(|| {
            let socket = UdpSocket::bind(places.anywhere()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            set_option(&socket, level, hops, 1);
            set_option(&socket, level, errors, 1);
            socket.connect((places.lan, 33_434)).unwrap();
            socket.send(b"how far is it?").unwrap();
            let told = socket.recv(&mut [0; 8]).map_err(|error| error.kind());
            assert_eq!(told, Err(std::io::ErrorKind::HostUnreachable), "{}", places.web);
        });
    }
    rig.assert_clean();
}

/// Somebody sends so many datagrams back to where they came from.
pub fn echo(server: &UdpSocket, times: usize) {
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut datagram = vec![0; 20_000];
    for _ in 0..times {
        let (length, from) = server.recv_from(&mut datagram).unwrap();
        server.send_to(&datagram[..length], from).unwrap();
    }
}

/// Somebody sends a datagram and gets it back from whom it was sent to.
pub fn ask(from: SocketAddr, to: SocketAddr, length: usize) {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sent = vec![length as u8; length];
    socket.send_to(&sent, to).unwrap();
    let mut datagram = vec![0; 20_000];
    let (length, answerer) = socket
        .recv_from(&mut datagram)
        .unwrap_or_else(|error| panic!("{to}: {error}"));
    assert_eq!(
        (&datagram[..length], answerer),
        (&sent[..], to),
        "the answer comes from whom was asked"
    );
}
