//! Redirects carried out: a host, two containers and a LAN made of namespaces, and real sockets that talk through the programs.
//!
//! ```text
//!   web 10.7.0.2  fd07::2 ─┐                                  ┌─ lan 192.0.2.50  2001:db8::50
//!                          ├─ host: sluice0 10.7.0.1  fd07::1
//!   shop 10.7.0.3 fd07::3 ─┘        nic0 192.0.2.1  2001:db8::1
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use aya::programs::TcAttachType;
use lab::Watch;
use nix::sched::{CloneFlags, setns, unshare};
use sluice_datapath_common::config::Config;
use sluice_datapath_common::endpoint::{Attachment, Endpoint, EndpointKey};
use sluice_datapath_common::network::{
    NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES, NETWORK_MASQUERADES6, Network,
};
use sluice_datapath_common::publish::{Publication, PublishKey};
use sluice_datapath_common::uplink::{LocalAddress, Uplink};
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6, Ipv6Address, programs};

use crate::datapath::Datapath;
use crate::frame::{TCP, UDP};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const SHOP: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 3);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 1);
const WEB6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2);
const SHOP6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 3);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const LAN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50);
const MAC: &str = "02:42:00:00:00:01";
const NETWORK: u32 = 2;
/// Several times what a socket buffers, so that super-packets form.
const TRANSFER: usize = 6 << 20;

/// A network namespace that lives as long as this value.
pub struct Namespace(File);

impl Namespace {
    fn make() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        });
        made.join().unwrap()
    }

    /// Runs the closure in the namespace, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

pub struct Rig {
    pub host: Namespace,
    pub web: Namespace,
    pub shop: Namespace,
    pub lan: Namespace,
    datapath: Datapath,
    /// No container's address leaves by the NIC, in no test.
    _watch: Watch,
}

impl Rig {
    /// Makes all of it. With `offload` off, every checksum is finished by its sender and proven by its receiver.
    pub fn make(offload: bool) -> Self {
        let (host, web, shop, lan) = (
            Namespace::make(),
            Namespace::make(),
            Namespace::make(),
            Namespace::make(),
        );
        let (web_path, shop_path, lan_path) = (web.path(), shop.path(), lan.path());
        let cookie = host.inside(move || {
            ip(&format!(
                "link add sluice0 index 21 address {MAC} type veth peer name sluice0-dp index 22"
            ));
            ip(&format!(
                "link add slc1 index 11 address {MAC} type veth peer name eth0 netns {web_path}"
            ));
            ip(&format!(
                "link add slc2 index 12 address {MAC} type veth peer name eth0 netns {shop_path}"
            ));
            ip(&format!(
                "link add nic0 index 31 type veth peer name eth0 netns {lan_path}"
            ));
            for device in ["sluice0-dp", "slc1", "slc2"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
            }
            ip("addr add 10.7.0.1/24 dev sluice0");
            ip("addr add fd07::1/64 dev sluice0 nodad");
            ip("addr add 192.0.2.1/24 dev nic0");
            ip("addr add 2001:db8::1/64 dev nic0 nodad");
            ["sluice0", "sluice0-dp", "slc1", "slc2", "nic0"]
                .iter()
                .for_each(|device| ip(&format!("link set {device} up")));
            std::fs::write("/proc/sys/net/ipv4/conf/sluice0/forwarding", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/sluice0/forwarding", "1").unwrap();
            netns_cookie()
        });
        for (namespace, last) in [(&web, 2), (&shop, 3)] {
            namespace.inside(|| {
                ip(&format!("link set eth0 address 02:42:0a:07:00:0{last}"));
                ip(&format!("addr add 10.7.0.{last}/24 dev eth0"));
                ip(&format!("addr add fd07::{last}/64 dev eth0 nodad"));
                ip("link set eth0 up");
                ip("route add default via 10.7.0.1");
                ip("route add default via fd07::1");
                ethtool("eth0", offload);
            });
        }
        lan.inside(|| {
            ip("addr add 192.0.2.50/24 dev eth0");
            ip("addr add 2001:db8::50/64 dev eth0 nodad");
            ip("link set eth0 up");
            ethtool("eth0", offload);
        });
        if !offload {
            host.inside(|| {
                ["sluice0", "sluice0-dp", "nic0"]
                    .iter()
                    .for_each(|device| ethtool(device, false))
            });
        }
        let config = Config {
            netns_cookie: cookie,
            host_leg_ifindex: 22,
            host_ifindex: 21,
            host_mac: [0x02, 0x42, 0, 0, 0, 1],
            ephemeral_first: 32_768,
            ephemeral_last: 60_999,
            padding: [0; 6],
        };
        let mut rig = Self {
            host,
            web,
            shop,
            _watch: lan.inside(|| Watch::over("eth0", HOST)),
            lan,
            datapath: Datapath::load(&config),
        };
        rig.fill();
        rig.attach();
        rig
    }

    /// Gives all devices this MTU.
    pub fn set_mtu(&self, mtu: u32) {
        let set = |namespace: &Namespace, devices: &[&str]| {
            namespace.inside(|| {
                devices
                    .iter()
                    .for_each(|device| ip(&format!("link set {device} mtu {mtu}")))
            });
        };
        set(&self.host, &["sluice0", "sluice0-dp", "slc1", "slc2", "nic0"]);
        [&self.web, &self.shop, &self.lan]
            .iter()
            .for_each(|namespace| set(namespace, &["eth0"]));
    }

    fn fill(&mut self) {
        let datapath = &mut self.datapath;
        datapath.set("EPOCH", 0, 1u32);
        datapath.set(
            "NETWORKS",
            NETWORK,
            Network {
                flags: NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES | NETWORK_MASQUERADES6,
                mtu: 1500,
                gateway4: GATEWAY.into(),
                gateway6: GATEWAY6.into(),
                gateway_mac: [0x02, 0x42, 0, 0, 0, 1],
                padding: [0; 2],
            },
        );
        datapath.insert_subnet(Ipv4Address::new([10, 7, 0, 0]), 24, NETWORK);
        let prefix = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 0);
        datapath.insert_subnet6(prefix.into(), 64, NETWORK);
        for (number, address, address6) in [(1, WEB, WEB6), (2, SHOP, SHOP6)] {
            let [a, b, c, d] = address.octets();
            let (ifindex, mac) = (10 + number, [0x02, 0x42, a, b, c, d]);
            let key = EndpointKey::<Ipv4> {
                network: NETWORK,
                address: address.into(),
            };
            let endpoint = Endpoint {
                endpoint: number,
                ifindex,
                mac,
                padding: [0; 2],
            };
            datapath.insert("ENDPOINTS4", key, endpoint);
            let key = EndpointKey::<Ipv6> {
                network: NETWORK,
                address: address6.into(),
            };
            datapath.insert("ENDPOINTS6", key, endpoint);
            datapath.insert(
                "ATTACHMENTS",
                ifindex,
                Attachment {
                    endpoint: number,
                    generation: 0,
                    network: NETWORK,
                    address4: address.into(),
                    address6: address6.into(),
                    mac,
                    padding: [0; 2],
                },
            );
        }
        for (address, gateway_of) in [(GATEWAY, NETWORK), (HOST, 0)] {
            datapath.insert(
                "LOCAL4",
                Ipv4Address::from(address),
                LocalAddress {
                    ifindex: 21,
                    gateway_of,
                },
            );
        }
        for (address, gateway_of) in [(GATEWAY6, NETWORK), (HOST6, 0)] {
            let local = LocalAddress {
                ifindex: 21,
                gateway_of,
            };
            datapath.insert("LOCAL6", Ipv6Address::from(address), local);
        }
        datapath.insert(
            "UPLINKS6",
            31u32,
            Uplink::<Ipv6> {
                address: HOST6.into(),
                mtu: 1500,
            },
        );
        datapath.insert(
            "UPLINKS4",
            31u32,
            Uplink::<Ipv4> {
                address: HOST.into(),
                mtu: 1500,
            },
        );
        // 8080 of both families, and 8081 of IPv4 alone.
        for (protocol, port) in [(TCP, 8080u16), (UDP, 8080), (TCP, 8081), (UDP, 8081)] {
            let publication = Publication::<Ipv4> {
                network: NETWORK,
                endpoint: 1,
                address: WEB.into(),
                port: 80u16.to_be(),
                first: 0,
            };
            let key = PublishKey::<Ipv4> {
                address: Ipv4Address(0),
                port: port.to_be(),
                protocol,
                padding: 0,
            };
            datapath.insert("PUBLISHED4", key, publication);
            let address = match port {
                8080 => WEB6.into(),
                _ => Ipv6Address::mapped(WEB.into()),
            };
            let publication = Publication::<Ipv6> {
                network: NETWORK,
                endpoint: 1,
                address,
                port: 80u16.to_be(),
                first: 0,
            };
            let key = PublishKey::<Ipv6> {
                address: Ipv6Address::default(),
                port: port.to_be(),
                protocol,
                padding: 0,
            };
            datapath.insert("PUBLISHED6", key, publication);
            datapath.reserve(port, protocol);
            datapath.reserve_for(libc::AF_INET6 as u8, port, protocol);
        }
    }

    fn attach(&mut self) {
        let Self { host, datapath, .. } = self;
        host.inside(move || {
            datapath.attach(programs::FROM_CONTAINER, "slc1", TcAttachType::Ingress);
            datapath.attach(programs::FROM_CONTAINER, "slc2", TcAttachType::Ingress);
            datapath.attach(programs::FROM_HOST, "sluice0-dp", TcAttachType::Ingress);
            datapath.attach(programs::FROM_NIC, "nic0", TcAttachType::Ingress);
            datapath.attach(programs::TO_NIC, "nic0", TcAttachType::Egress);
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let cgroup = mounts
                .lines()
                .find(|line| line.contains(" - cgroup2 "))
                .and_then(|line| line.split(' ').nth(4));
            datapath.attach_hooks(&File::open(cgroup.expect("a cgroup2 mount")).unwrap());
        });
    }

    /// Nobody has seen a wrong checksum, and nothing has been dropped.
    pub fn assert_clean(&mut self) {
        for namespace in [&self.host, &self.web, &self.shop, &self.lan] {
            let statistics = namespace.inside(|| std::fs::read_to_string("/proc/net/snmp").unwrap());
            for protocol in ["Tcp", "Udp", "Icmp"] {
                assert_eq!(counter(&statistics, protocol, "InCsumErrors"), 0, "{protocol}");
            }
            let statistics = namespace.inside(|| std::fs::read_to_string("/proc/net/snmp6").unwrap());
            for line in statistics.lines().filter(|line| line.contains("InCsumErrors")) {
                assert!(line.ends_with("\t0"), "{line}");
            }
        }
        let drops = self.datapath.drops();
        let expected = [sluice_datapath_common::DropReason::Multicast];
        let unexpected: Vec<_> = drops.iter().filter(|drop| !expected.contains(&drop.0)).collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
    }
}

/// A counter of /proc/net/snmp.
fn counter(statistics: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = statistics
        .lines()
        .filter(|line| line.starts_with(&format!("{protocol}:")));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|other| other == name).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

fn ip(line: &str) {
    let ip = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(
        ip.status.success(),
        "ip {line}: {}",
        String::from_utf8_lossy(&ip.stderr)
    );
}

fn ethtool(device: &str, offload: bool) {
    if offload {
        return;
    }
    let done = Command::new("ethtool")
        .args(["-K", device, "tx", "off", "tso", "off", "gso", "off"])
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "ethtool {device}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The cookie of the thread's network namespace.
fn netns_cookie() -> u64 {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut cookie, mut size) = (0u64, 8u32);
    // SAFETY: the socket is open, and the kernel writes eight bytes at most.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    assert_eq!(done, 0);
    cookie
}

/// Somebody serves: takes a connection, reads what comes, and sends as much back. Says who called.
fn serve(listener: TcpListener) -> (SocketAddr, usize) {
    let (mut stream, caller) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let read = expect_pattern(&mut stream);
    send_pattern(&mut stream);
    (caller, read)
}

/// Somebody calls: sends, then reads what comes back. Says who it thinks it talks to.
fn call(to: SocketAddr) -> (SocketAddr, usize) {
    let mut stream =
        TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let peer = stream.peer_addr().unwrap();
    send_pattern(&mut stream);
    (peer, expect_pattern(&mut stream))
}

/// Bytes whose place in the stream can be seen.
fn pattern(at: usize) -> Vec<u8> {
    (at..at + 65_536)
        .map(|place| (place ^ place >> 8 ^ place >> 16) as u8)
        .collect()
}

fn send_pattern(stream: &mut TcpStream) {
    (0..TRANSFER)
        .step_by(65_536)
        .for_each(|at| stream.write_all(&pattern(at)).unwrap());
    stream.shutdown(Shutdown::Write).unwrap();
}

fn expect_pattern(stream: &mut TcpStream) -> usize {
    let mut piece = vec![0; 65_536];
    for at in (0..TRANSFER).step_by(65_536) {
        stream.read_exact(&mut piece).unwrap();
        assert!(piece == pattern(at), "the stream differs near {at}");
    }
    assert_eq!(stream.read(&mut piece).unwrap(), 0, "nothing follows");
    TRANSFER
}

/// Listens. A process that another test is just starting holds what it inherits for a moment, the listener before this one included.
fn listen(at: SocketAddr) -> TcpListener {
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(at) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.unwrap_or_else(|error| panic!("listen at {at}: {error}")),
        }
    }
}

/// A transfer each way from `client` to `at`, which is served at `inside` of `server`. Who called, and whom the caller sees.
fn transfer(client: &Namespace, at: SocketAddr, server: &Namespace, inside: SocketAddr) -> (SocketAddr, SocketAddr) {
    let listener = server.inside(|| listen(inside));
    std::thread::scope(|scope| {
        let served = scope.spawn(|| serve(listener));
        let (peer, read) = client.inside(|| call(at));
        assert_eq!(read, TRANSFER);
        let (caller, read) = served.join().unwrap();
        assert_eq!(read, TRANSFER);
        (caller, peer)
    })
}

/// Where everybody is, in one family.
#[derive(Clone, Copy)]
pub struct Places {
    pub gateway: IpAddr,
    pub web: IpAddr,
    pub shop: IpAddr,
    pub host: IpAddr,
    pub lan: IpAddr,
    pub loopback: IpAddr,
}

pub const FAMILIES: [Places; 2] = [
    Places {
        gateway: IpAddr::V4(GATEWAY),
        web: IpAddr::V4(WEB),
        shop: IpAddr::V4(SHOP),
        host: IpAddr::V4(HOST),
        lan: IpAddr::V4(LAN),
        loopback: IpAddr::V4(Ipv4Addr::LOCALHOST),
    },
    Places {
        gateway: IpAddr::V6(GATEWAY6),
        web: IpAddr::V6(WEB6),
        shop: IpAddr::V6(SHOP6),
        host: IpAddr::V6(HOST6),
        lan: IpAddr::V6(LAN6),
        loopback: IpAddr::V6(Ipv6Addr::LOCALHOST),
    },
];

impl Places {
    fn anywhere(&self) -> SocketAddr {
        match self.web {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}

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

/// Somebody sends so many datagrams back to where they came from.
fn echo(server: &UdpSocket, times: usize) {
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut datagram = vec![0; 20_000];
    for _ in 0..times {
        let (length, from) = server.recv_from(&mut datagram).unwrap();
        server.send_to(&datagram[..length], from).unwrap();
    }
}

/// Somebody sends a datagram and gets it back from whom it was sent to.
fn ask(from: SocketAddr, to: SocketAddr, length: usize) {
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

/// What `traceroute` sees of the host: a datagram with one hop left gets no further, and its sender is told.
#[test]
fn the_host_is_seen_as_a_router_on_the_way() {
    let one: i32 = 1;
    let mut rig = Rig::make(true);
    for places in FAMILIES {
        let (level, hops, errors) = match places.web {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_RECVERR),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_RECVERR),
        };
        rig.web.inside(|| {
            let socket = UdpSocket::bind(places.anywhere()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            for option in [hops, errors] {
                // SAFETY: the socket is open and the option an integer.
                let set = unsafe {
                    let size = size_of::<i32>() as u32;
                    libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const one).cast(), size)
                };
                assert_eq!(set, 0);
            }
            socket.connect((places.lan, 33_434)).unwrap();
            socket.send(b"how far is it?").unwrap();
            let told = socket.recv(&mut [0; 8]).map_err(|error| error.kind());
            assert_eq!(told, Err(std::io::ErrorKind::HostUnreachable), "{}", places.web);
        });
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
