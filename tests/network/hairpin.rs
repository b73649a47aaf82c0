//! Who reaches a published port, and by which address: one table. It is Docker's, but for what stands beside it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::{Docker, HOST, Host, Lab, patience, start};

use crate::ipv6::{HOST6, with_ipv6};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Tcp,
    Udp,
}
use Protocol::{Tcp, Udp};

/// From where it is asked.
#[derive(Clone)]
enum Client {
    Machine(Host),
    Container(u32),
}

impl Client {
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Machine(host) => host.inside(work),
            Self::Container(pid) => Host::within(*pid, work),
        }
    }

    /// Is there an answer? Who should get one has patience, who should not waits a second.
    fn reaches(&self, protocol: Protocol, to: SocketAddr, hopes: bool) -> bool {
        let limit = if hopes { patience(10) } else { Duration::from_secs(1) };
        self.inside(|| match protocol {
            Tcp => ask_tcp(to, limit).is_ok_and(|answer| answer == b"here"),
            Udp => ask_udp(to, limit).is_ok_and(|answer| answer == b"here"),
        })
    }
}

fn ask_tcp(to: SocketAddr, limit: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn ask_udp(to: SocketAddr, limit: Duration) -> std::io::Result<Vec<u8>> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(b"who is there?")?;
    let mut buffer = [0; 16];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// Answers at port 80 of a container, TCP and UDP, of every family it has, until it goes.
struct Server<'a> {
    ends: &'a AtomicBool,
}

impl<'a> Server<'a> {
    fn start<'scope>(scope: &'scope thread::Scope<'scope, '_>, pid: u32, ends: &'scope AtomicBool) -> Server<'scope> {
        let (tcp, udp) = Host::within(pid, || {
            (
                TcpListener::bind("[::]:80").unwrap(),
                UdpSocket::bind("[::]:80").unwrap(),
            )
        });
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        scope.spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, _)) => drop(stream.write_all(b"here")),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        scope.spawn(move || {
            let mut buffer = [0; 64];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(b"here", peer);
                }
            }
        });
        Server { ends }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// The port that is published, and the container's own.
const PUBLISHED: u16 = 8080;
const INSIDE: u16 = 80;

/// `x` reaches, `-` does not.
///
/// A network is its own world: another is reached by a published port at an address of the host, never at the container's. Loopback is that of
/// whoever asks. What is not published is closed to the LAN, also when it has a route.
#[rustfmt::skip]
const TABLE: [(&str, [char; 6]); 5] = [
    //                   127.0.0.1  host  container  [::1]  host, IPv6  container, IPv6
    ("same container",  ['-',       'x',  'x',       '-',   'x',        'x']),
    ("same network",    ['-',       'x',  'x',       '-',   'x',        'x']),
    ("other network",   ['-',       'x',  '-',       '-',   'x',        '-']),
    ("host",            ['x',       'x',  'x',       'x',   'x',        'x']),
    ("LAN",             ['-',       'x',  '-',       '-',   'x',        '-']),
];

/// The same for a container without IPv6. Docker's proxy turned IPv6 into IPv4 and lost the client's address by it; here the host's own processes
/// are turned at the socket, and nobody else.
#[rustfmt::skip]
const TABLE_OF_IPV4_ONLY: [(&str, [char; 5]); 3] = [
    //                   127.0.0.1  host  container  [::1]  host, IPv6
    ("host",            ['x',       'x',  'x',       'x',   'x']),
    ("other network",   ['-',       'x',  '-',       '-',   '-']),
    ("LAN",             ['-',       'x',  '-',       '-',   '-']),
];

/// The same for ports published at 127.0.0.1 and [::1] alone.
#[rustfmt::skip]
const TABLE_OF_LOOPBACK: [(&str, [char; 4]); 4] = [
    //                   127.0.0.1  host  [::1]  host, IPv6
    ("host",            ['x',       '-',  'x',   '-']),
    ("same network",    ['-',       '-',  '-',   '-']),
    ("other network",   ['-',       '-',  '-',   '-']),
    ("LAN",             ['-',       '-',  '-',   '-']),
];

fn addresses(docker: &Docker, container: &str, network: &str) -> (IpAddr, Option<IpAddr>) {
    let member = |name: &str| {
        docker.inspect(
            container,
            &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{name}}}}}"),
        )
    };
    (
        member("IPAddress").parse().unwrap(),
        member("GlobalIPv6Address").parse().ok(),
    )
}

/// Asks for every cell at once and tells all that are not as the table says.
fn compare<const N: usize>(table: &[(&str, [char; N])], clients: &[(&str, Client)], columns: [SocketAddr; N]) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let mut asked = Vec::new();
        for (row, cells) in table {
            let (_, client) = clients.iter().find(|(name, _)| name == row).unwrap();
            for (to, cell) in columns.iter().zip(cells) {
                for protocol in [Tcp, Udp] {
                    let hopes = *cell == 'x';
                    let asking = scope.spawn(move || client.reaches(protocol, *to, hopes));
                    asked.push((format!("{row} -> {to} {protocol:?}"), hopes, asking));
                }
            }
        }
        asked
            .into_iter()
            .filter_map(|(what, hopes, asking)| {
                let reached = asking.join().unwrap();
                (reached != hopes).then(|| format!("{what}: {}", if reached { "reached" } else { "no answer" }))
            })
            .collect()
    });
    assert!(
        wrong.is_empty(),
        "{} cells are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Pitfall B9.
#[test]
fn b9_a_published_port_is_reached_from_where_docker_lets_it_be_and_from_nowhere_else() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --ipv6 --subnet 10.71.0.0/24 --subnet fd00:71::/64 red");
    docker.ok("network create --ipv6 --subnet 10.72.0.0/24 --subnet fd00:72::/64 blue");
    docker.ok("network create --subnet 10.73.0.0/24 old");
    let ports = |at: u16| format!("-p {at}:{INSIDE} -p {at}:{INSIDE}/udp");
    docker.ok(&format!(
        "run -d --name web --network red {} busybox sleep 1000",
        ports(PUBLISHED)
    ));
    docker.ok("run -d --name neighbour --network red busybox sleep 1000");
    docker.ok("run -d --name stranger --network blue busybox sleep 1000");
    docker.ok(&format!(
        "run -d --name old --network old {} busybox sleep 1000",
        ports(8081)
    ));
    let shy = "-p 127.0.0.1:8082:80 -p 127.0.0.1:8082:80/udp -p [::1]:8082:80 -p [::1]:8082:80/udp";
    docker.ok(&format!("run -d --name shy --network red {shy} busybox sleep 1000"));
    // The LAN knows the way to every container.
    for subnet in ["10.71.0.0/24", "10.72.0.0/24", "10.73.0.0/24"] {
        lab.lan.run(&format!("ip route add {subnet} via {HOST}"));
    }
    for subnet in ["fd00:71::/64", "fd00:72::/64"] {
        lab.lan.run(&format!("ip -6 route add {subnet} via {HOST6}"));
    }
    let clients = [
        ("same container", Client::Container(docker.pid("web"))),
        ("same network", Client::Container(docker.pid("neighbour"))),
        ("other network", Client::Container(docker.pid("stranger"))),
        ("host", Client::Machine(lab.host.clone())),
        ("LAN", Client::Machine(lab.lan.clone())),
    ];
    let at = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let servers = ["web", "old", "shy"].map(|name| Server::start(scope, docker.pid(name), &ends));
        let (web4, web6) = addresses(&docker, "web", "red");
        compare(
            &TABLE,
            &clients,
            [
                at("127.0.0.1", PUBLISHED),
                at(HOST, PUBLISHED),
                SocketAddr::new(web4, INSIDE),
                at("::1", PUBLISHED),
                at(HOST6, PUBLISHED),
                SocketAddr::new(web6.unwrap(), INSIDE),
            ],
        );
        let (old4, old6) = addresses(&docker, "old", "old");
        assert_eq!(old6, None);
        compare(
            &TABLE_OF_IPV4_ONLY,
            &clients,
            [
                at("127.0.0.1", 8081),
                at(HOST, 8081),
                SocketAddr::new(old4, INSIDE),
                at("::1", 8081),
                at(HOST6, 8081),
            ],
        );
        compare(
            &TABLE_OF_LOOPBACK,
            &clients,
            [at("127.0.0.1", 8082), at(HOST, 8082), at("::1", 8082), at(HOST6, 8082)],
        );
        drop(servers);
    });
}
