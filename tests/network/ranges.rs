//! Ranges of published ports, in both families.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use lab::{HOST, Host, Lab, patience, start};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

use crate::ipv6::{HOST6, with_ipv6};
use crate::traffic::fetch;

/// Entries of a table.
fn entries(status: &str, table: &str) -> u32 {
    let line = status
        .lines()
        .find(|line| line.split_whitespace().next() == Some(table));
    let line = line.unwrap_or_else(|| panic!("{table} in {status}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A socket of TCP that has a port and does nothing with it.
fn idle(address: &str) -> OwnedFd {
    let address: SocketAddr = address.parse().unwrap();
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    socket
}

/// Pitfall B12.
#[test]
fn ten_thousand_ports_are_one_range_that_is_reached_from_everywhere() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "--ipv6 --fixed-cidr-v6 fd00:17::/64");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("run -d --name other busybox sleep 1000");
    let before = daemon.sluice("status").ok();
    docker.run_web("web", "-p 20000-29999:1-10000");
    // Port 80 stands behind 20079, where nginx of the image listens at IPv4 only; behind 20080 a server that has both families.
    let _both = lab::Host::within(docker.pid("web"), || TcpListener::bind("[::]:81").unwrap());
    let opens = |who: &Host, to: IpAddr, port| {
        who.inside(|| TcpStream::connect_timeout(&SocketAddr::new(to, port), patience(5)).is_ok())
    };
    for (who, to) in [
        (&lab.lan, HOST),
        (&lab.lan, HOST6),
        (&lab.host, HOST),
        (&lab.host, HOST6),
        (&lab.host, "127.0.0.1"),
        (&lab.host, "::1"),
    ] {
        let to: IpAddr = to.parse().unwrap();
        assert!(opens(who, to, 20_080), "{to}");
        for beside in [20_078, 20_081, 30_080] {
            assert!(!opens(who, to, beside), "{to} {beside}");
        }
    }
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:20079/")), Ok("hello".into()));
    assert_eq!(docker.fetch_from("other", HOST, 20_079), "hello");
    let status = daemon.sluice("status").ok();
    for family in ["4", "6"] {
        let all =
            |status: &str| entries(status, &format!("RANGES{family}")) + entries(status, &format!("PUBLISHED{family}"));
        assert!((1..64).contains(&(all(&status) - all(&before))), "{status}");
    }
    // As Docker lists them.
    let ports = docker.ok("ps --filter name=web --format {{.Ports}}");
    assert_eq!(
        ports.split(", ").count(),
        20_000,
        "a port is told by itself where the container has another number for it"
    );
    assert!(ports.contains("0.0.0.0:20079->80/tcp, [::]:20079->80/tcp"));
    docker.ok("run -d --name same -p 40000-40099:40000-40099/udp busybox sleep 1000");
    assert_eq!(
        docker.ok("ps --filter name=same --format {{.Ports}}"),
        "0.0.0.0:40000-40099->40000-40099/udp, [::]:40000-40099->40000-40099/udp"
    );
    docker.ok("rm -f same");
    let listed = docker.ok("port web");
    assert_eq!(listed.lines().count(), 20_000);
    for line in [
        "80/tcp -> 0.0.0.0:20079",
        "80/tcp -> [::]:20079",
        "10000/tcp -> 0.0.0.0:29999",
    ] {
        assert!(listed.lines().any(|listed| listed == line), "{line}");
    }
    assert_eq!(
        docker.inspect(
            "web",
            "{{(index (index .HostConfig.PortBindings \"80/tcp\") 0).HostPort}}"
        ),
        "20079"
    );
    // Each port of it is taken.
    for port in [20_000, 25_000, 29_999] {
        let refused = docker.run(&format!("run --name late -p {port}:80 busybox true"));
        assert!(
            refused.stderr.contains("port is already allocated"),
            "{port}: {refused}"
        );
        docker.ok("rm -f late");
        let held = lab.host.inside(|| TcpListener::bind(("0.0.0.0", port)).map(drop));
        assert_eq!(held.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "{port}");
    }
    docker.ok("rm -f web");
    let status = daemon.sluice("status").ok();
    for table in ["RANGES4", "RANGES6", "PUBLISHED4", "PUBLISHED6", "RESERVED"] {
        assert_eq!(entries(&status, table), entries(&before, table));
    }
}

#[test]
fn a_range_is_refused_for_one_port_that_a_program_of_the_host_holds_whatever_it_does_with_it() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let held = [
        ("tcp", "0.0.0.0:33333"),
        ("tcp", "[::1]:33333"),
        ("tcp", "127.0.0.1:33333"),
        ("udp", "0.0.0.0:33333"),
        ("udp", "[::]:33333"),
        ("udp", "127.0.0.1:33333"),
    ];
    for (protocol, address) in held {
        let publish = format!("run --name web -p 33000-33999:33000-33999/{protocol} busybox true");
        let refused = match protocol {
            "tcp" => {
                let socket = lab.host.inside(|| idle(address));
                let refused = docker.run(&publish);
                drop(socket);
                refused
            }
            _ => {
                let socket = lab.host.inside(|| UdpSocket::bind(address).unwrap());
                let refused = docker.run(&publish);
                drop(socket);
                refused
            }
        };
        assert!(
            refused.stderr.contains(":33333") && refused.stderr.contains("address already in use"),
            "{protocol} {address}: {refused}"
        );
        docker.ok("rm -f web");
        docker.ok(&publish);
        docker.ok("rm -f web");
    }
}
