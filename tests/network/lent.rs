//! A port of the host that a masqueraded connection leaves with, and a program of the host that wants the same one: whoever comes second gets what is
//! left, and neither hears what is the other's.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::{HOST, Host, LAN, Lab, eventually, patience, start};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::ipv6::{HOST6, LAN6, with_ipv6};

/// Where it is asked in the LAN, TCP and UDP, and where else.
const SERVED: u16 = 9000;
const SERVED_TOO: u16 = 9001;

/// Answers each line and datagram with the address that it sees, until it goes.
struct Server<'a>(&'a AtomicBool);

impl<'a> Server<'a> {
    fn start<'scope>(
        scope: &'scope thread::Scope<'scope, '_>,
        lan: &'scope Host,
        at: SocketAddr,
        ends: &'scope AtomicBool,
    ) -> Server<'scope> {
        let (tcp, udp) = lan.inside(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()));
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        scope.spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((stream, peer)) => {
                        stream.set_nonblocking(false).unwrap();
                        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                        scope.spawn(move || answer_lines(stream, peer, ends));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        scope.spawn(move || {
            let mut buffer = [0; 64];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(peer.to_string().as_bytes(), peer);
                }
            }
        });
        Server(ends)
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn answer_lines(mut stream: TcpStream, peer: SocketAddr, ends: &AtomicBool) {
    let mut buffer = [0; 64];
    while !ends.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => drop(stream.write_all(peer.to_string().as_bytes())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn bound(kind: SockType, from: SocketAddr) -> OwnedFd {
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    // what was closed a moment ago is in TIME_WAIT
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    socket
}

/// Connects from this port.
fn dial(from: SocketAddr, to: SocketAddr) -> Result<TcpStream, Errno> {
    let socket = bound(SockType::Stream, from);
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience(10))).unwrap();
    Ok(stream)
}

/// Whom the other side sees.
fn seen(stream: &mut TcpStream) -> SocketAddr {
    stream.write_all(b"?").unwrap();
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).unwrap();
    std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap()
}

/// The same of a datagram; what is lost is sent again.
fn seen_by_datagram(socket: &UdpSocket, to: SocketAddr) -> SocketAddr {
    let mut answer = None;
    eventually("a datagram is answered", 30, || {
        let mut buffer = [0; 64];
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send_to(b"?", to).unwrap();
        let heard = socket.recv_from(&mut buffer).ok().filter(|(_, peer)| *peer == to);
        answer = heard.map(|(length, _)| std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap());
        answer.is_some()
    });
    answer.unwrap()
}

/// Pitfall B43.
#[test]
fn a_program_of_the_host_and_a_masqueraded_connection_share_a_port_and_neither_hears_the_other() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "--ipv6 --fixed-cidr-v6 fd00:17::/64");
    let docker = daemon.docker();
    docker.ok("run -d --name web busybox sleep 1000");
    let pid = docker.pid("web");
    for (host, lan) in [(HOST, LAN), (HOST6, LAN6)] {
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            let [host, lan]: [IpAddr; 2] = [host, lan].map(|address| address.parse().unwrap());
            let any = |port| SocketAddr::new(if host.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, port);
            let (server, other) = (SocketAddr::new(lan, SERVED), SocketAddr::new(lan, SERVED_TOO));
            let _server = Server::start(scope, &lab.lan, server, &ends);
            let _other = Server::start(scope, &lab.lan, other, &ends);

            // TCP, the container first: it keeps the port, as another socket of the host would.
            let mut theirs = Host::within(pid, || dial(any(20_000), server)).unwrap();
            assert_eq!(seen(&mut theirs), SocketAddr::new(host, 20_000));
            let refused = lab.host.inside(|| dial(any(20_000), server).map(drop));
            assert_eq!(refused.unwrap_err(), Errno::EADDRNOTAVAIL, "{host}");
            // To anybody else, and for those who come, the port is the program's.
            let mut ours = lab.host.inside(|| dial(any(20_000), other)).unwrap();
            assert_eq!(seen(&mut ours), SocketAddr::new(host, 20_000));
            drop(ours);
            let listener = lab.host.inside(|| TcpListener::bind(any(20_000))).unwrap();
            let _client = lab
                .lan
                .inside(|| TcpStream::connect_timeout(&SocketAddr::new(host, 20_000), patience(10)))
                .unwrap();
            listener.accept().unwrap();
            drop(listener);
            assert_eq!(seen(&mut theirs), SocketAddr::new(host, 20_000), "it goes on");
            // When it is closed the port is anybody's.
            drop(theirs);
            eventually("the port is given back", 30, || {
                lab.host
                    .inside(|| dial(any(20_000), server))
                    .is_ok_and(|mut ours| seen(&mut ours) == SocketAddr::new(host, 20_000))
            });

            // TCP, the program first: the container gets another.
            let mut ours = lab.host.inside(|| dial(any(20_001), server)).unwrap();
            let mut theirs = Host::within(pid, || dial(any(20_001), server)).unwrap();
            assert_ne!(seen(&mut theirs).port(), 20_001);
            assert_eq!(seen(&mut ours), SocketAddr::new(host, 20_001));
            drop((ours, theirs));

            // UDP, the container first: it moves to another port once the program speaks from this one.
            let theirs = Host::within(pid, || UdpSocket::bind(any(20_002))).unwrap();
            assert_eq!(seen_by_datagram(&theirs, server), SocketAddr::new(host, 20_002));
            let ours = lab.host.inside(|| UdpSocket::bind(any(20_002))).unwrap();
            for _ in 0..3 {
                assert_eq!(
                    seen_by_datagram(&ours, server),
                    SocketAddr::new(host, 20_002),
                    "the program's"
                );
                assert_ne!(seen_by_datagram(&theirs, server).port(), 20_002, "the container's");
            }
            // The same for a program that connects.
            let theirs = Host::within(pid, || UdpSocket::bind(any(20_003))).unwrap();
            assert_eq!(seen_by_datagram(&theirs, server), SocketAddr::new(host, 20_003));
            let ours = lab.host.inside(|| UdpSocket::bind(any(20_003))).unwrap();
            ours.connect(server).unwrap();
            eventually("the program is answered", 30, || {
                ours.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                ours.send(b"?").is_ok() && ours.recv(&mut [0; 64]).is_ok()
            });
            assert_ne!(seen_by_datagram(&theirs, server).port(), 20_003);

            // UDP, the program first.
            let ours = lab.host.inside(|| UdpSocket::bind(any(20_004))).unwrap();
            let theirs = Host::within(pid, || UdpSocket::bind(any(20_004))).unwrap();
            assert_ne!(seen_by_datagram(&theirs, server).port(), 20_004);
            assert_eq!(seen_by_datagram(&ours, server), SocketAddr::new(host, 20_004));
        });
    }
}
