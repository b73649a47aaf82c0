//! Datagrams in pieces that come in any order, from hand-made fragments to real sockets, on every path and in both directions.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage};

use crate::frame::{UDP, checksum};
use crate::wire::{FAMILIES, Namespace, Places, Rig};

/// In which order the fragments of a datagram are sent.
#[derive(Clone, Copy, Debug)]
enum Order {
    Reverse,
    FirstLast,
    LastFirst,
}

const ORDERS: [Order; 3] = [Order::Reverse, Order::FirstLast, Order::LastFirst];

/// An ordinary fragment and one of a jumbo frame, bytes above the IP header.
const ORDINARY: usize = 1_448;
const JUMBO: usize = 8_936;

impl Order {
    fn arrange<T>(self, fragments: &mut [T]) {
        match self {
            Self::Reverse => fragments.reverse(),
            Self::FirstLast => fragments.rotate_left(1),
            Self::LastFirst => fragments.rotate_right(1),
        }
    }
}

#[test]
fn a_datagram_arrives_whole_whatever_the_order_of_its_fragments() {
    let mut rig = Rig::make(true);
    for places in FAMILIES {
        let Places {
            web, shop, host, lan, ..
        } = places;
        let server = Receiver::at(&rig.web, (web, 80));
        let paths = [
            (&rig.shop, (shop, 4000), (web, 80)),
            (&rig.shop, (shop, 4001), (host, 8080)),
            (&rig.lan, (lan, 4000), (host, 8080)),
            (&rig.host, (places.gateway, 4000), (web, 80)),
        ];
        for (namespace, from, to) in paths {
            for order in ORDERS {
                for length in [1_500, 9_000, 60_000] {
                    let datagram = pattern(length);
                    send(namespace, from, to, &datagram, ORDINARY, order);
                    let seen = server.expect(&datagram, &format!("{from:?} to {to:?}, {length} bytes, {order:?}"));
                    assert_eq!(seen, SocketAddr::from(from));
                }
            }
        }
    }
    rig.assert_clean();
}

#[test]
fn masqueraded_datagrams_and_their_answers_come_in_any_order() {
    let mut rig = Rig::make(true);
    for places in FAMILIES {
        let Places { web, host, lan, .. } = places;
        let server = Receiver::at(&rig.lan, (lan, 9000));
        let client = Receiver::at(&rig.web, (web, 4000));
        for order in ORDERS {
            let datagram = pattern(40_000);
            send(&rig.web, (web, 4000), (lan, 9000), &datagram, ORDINARY, order);
            let seen = server.expect(&datagram, &format!("outward, {order:?}"));
            assert_eq!(seen.ip(), host, "the world sees the host");
            let answer = pattern(50_000);
            send(
                &rig.lan,
                (lan, 9000),
                (seen.ip(), seen.port()),
                &answer,
                ORDINARY,
                order,
            );
            let from = client.expect(&answer, &format!("inward, {order:?}"));
            assert_eq!(from, SocketAddr::from((lan, 9000)));
        }
    }
    rig.assert_clean();
}

#[test]
fn fragments_of_jumbo_frames_wait_like_all_others() {
    let mut rig = Rig::make(true);
    rig.set_mtu(9000);
    for places in FAMILIES {
        let server = Receiver::at(&rig.web, (places.web, 80));
        for (namespace, from, to) in [
            (&rig.shop, (places.shop, 4000), (places.web, 80)),
            (&rig.lan, (places.lan, 4000), (places.host, 8080)),
        ] {
            for order in ORDERS {
                let datagram = pattern(40_000);
                send(namespace, from, to, &datagram, JUMBO, order);
                server.expect(&datagram, &format!("{from:?} to {to:?}, {order:?}"));
            }
        }
    }
    rig.assert_clean();
}

/// The host's stack finds its own datagrams whole, though their later fragments may be somebody else's as long as the first is missing.
#[test]
fn the_hosts_own_datagrams_are_not_kept_from_it() {
    let mut rig = Rig::make(true);
    for places in FAMILIES {
        let server = Receiver::at(&rig.host, (places.host, 2049));
        for order in ORDERS {
            let datagram = pattern(20_000);
            send(
                &rig.lan,
                (places.lan, 4000),
                (places.host, 2049),
                &datagram,
                ORDINARY,
                order,
            );
            server.expect(&datagram, &format!("{order:?}"));
        }
    }
    rig.assert_clean();
}

/// A real socket that takes datagrams.
struct Receiver(UdpSocket);

impl Receiver {
    fn at(namespace: &Namespace, address: (IpAddr, u16)) -> Self {
        let socket = namespace.inside(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(socket)
    }

    /// This datagram comes next. Says from whom.
    #[track_caller]
    fn expect(&self, datagram: &[u8], path: &str) -> SocketAddr {
        let mut received = vec![0; 65_536];
        let (length, from) = self
            .0
            .recv_from(&mut received)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(
            received[..length] == *datagram,
            "{path}: {length} bytes came, but others"
        );
        from
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ at >> 8) as u8).collect()
}

/// Sends a datagram in fragments of so many bytes, by a raw socket.
fn send(namespace: &Namespace, from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8], size: usize, order: Order) {
    let mut fragments = fragments(from, to, payload, size);
    order.arrange(&mut fragments);
    let family = if to.0.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    namespace.inside(|| {
        let socket = socket::socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
        let address = SockaddrStorage::from(SocketAddr::from((to.0, 0)));
        for fragment in fragments {
            socket::sendto(socket.as_raw_fd(), &fragment, &address, MsgFlags::empty()).unwrap();
        }
    });
}

/// The IP packets that carry a UDP datagram.
fn fragments(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NUMBER: AtomicU16 = AtomicU16::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let (source, destination) = (octets(from.0), octets(to.0));
    let length = (8 + payload.len()) as u16;
    let mut udp = [from.1.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    udp.extend(payload);
    let pseudo = [&source[..], &destination, &[0, UDP], &length.to_be_bytes()].concat();
    let sum = checksum(&[pseudo, udp.clone()].concat());
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let pieces = udp.chunks(size).enumerate().map(|(index, piece)| {
        let offset = (index * size) as u16;
        let more = u16::from(usize::from(offset) + piece.len() < udp.len());
        let addresses = [&source[..], &destination].concat();
        match from.0 {
            IpAddr::V4(_) => {
                let place = (offset / 8) | (more << 13);
                let mut header = vec![0x45, 0];
                header.extend((20 + piece.len() as u16).to_be_bytes());
                header.extend(number.to_be_bytes());
                header.extend(place.to_be_bytes());
                header.extend([64, UDP, 0, 0]);
                header.extend(addresses);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                [&header, piece].concat()
            }
            IpAddr::V6(_) => {
                const FRAGMENT: u8 = 44;
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((8 + piece.len() as u16).to_be_bytes());
                header.extend([FRAGMENT, 64]);
                header.extend(addresses);
                header.extend([UDP, 0]);
                header.extend((offset | more).to_be_bytes());
                header.extend(u32::from(number).to_be_bytes());
                [&header, piece].concat()
            }
        }
    });
    pieces.collect()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
