//! The tools that people reach for when something is wrong: traceroute, tracepath, ping of all sizes, iperf3.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use lab::{Background, Docker, HOST, Host, LAN, Lab, Loss, eventually, patience, start};

use crate::ipv6::{HOST6, LAN6, with_ipv6};

/// Somebody behind a router with a narrow link.
const FAR: &str = "203.0.113.2";
const FAR6: &str = "2001:db8:fa::2";
/// The MTU of that link.
const NARROW: u32 = 1300;

/// A machine behind the LAN's router, which forwards from now on. It says that it takes long segments, as one behind a further link would. Nobody
/// holds ICMP errors back.
fn far_away(lab: &Lab) -> Host {
    let far = Host::new();
    lab.lan.connect("far0", &far, "eth0");
    lab.lan.run(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip link set far0 mtu {NARROW}; \
         ip address add 203.0.113.1/24 dev far0; ip -6 address add 2001:db8:fa::1/64 dev far0 nodad"
    ));
    far.run(&format!(
        "ip link set eth0 mtu {NARROW}; ip address add {FAR}/24 dev eth0; ip -6 address add {FAR6}/64 dev eth0 nodad; \
         ip route add default via 203.0.113.1 advmss 1460; ip -6 route add default via 2001:db8:fa::1 advmss 1440"
    ));
    for host in [&lab.host, &lab.lan, &far] {
        host.run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
    }
    far
}

/// What a tool says in the network namespace of a container.
fn within(lab: &Lab, pid: u32, line: &str) -> String {
    lab.host.run(&format!("nsenter --net=/proc/{pid}/ns/net {line}"))
}

/// Who answers to each number of hops.
fn hops(trace: &str) -> Vec<&str> {
    let lines = trace.lines().filter(|line| !line.starts_with("traceroute"));
    lines.filter_map(|line| line.split_whitespace().nth(1)).collect()
}

fn address6(docker: &Docker, container: &str) -> String {
    docker.inspect(container, "{{.NetworkSettings.Networks.bridge.GlobalIPv6Address}}")
}

/// Pitfall B48.
#[test]
fn traceroute_and_tracepath_show_the_way_from_a_container_and_toward_one() {
    let lab = with_ipv6(Lab::new());
    let far = far_away(&lab);
    let daemon = start(&lab, "--ipv6 --fixed-cidr-v6 fd00:17::/64");
    let docker = daemon.docker();
    docker.ok("run -d --name one -p 8080:80 -p 8080:80/udp busybox sleep 1000");
    let pid = docker.pid("one");
    let _listener = Host::within(pid, || TcpListener::bind("[::]:80").unwrap());
    for (to, way) in [(FAR, ["172.17.0.1", LAN, FAR]), (FAR6, ["fd00:17::1", LAN6, FAR6])] {
        // By UDP, by echo requests and by SYNs to a closed port.
        for by in ["", "-I", "-T -p 9"] {
            let trace = within(&lab, pid, &format!("traceroute -n -q 1 -N 1 -w 5 -m 6 {by} {to}"));
            assert_eq!(hops(&trace), way, "{by}: {trace}");
        }
        let path = within(&lab, pid, &format!("tracepath -n {to}"));
        assert!(
            path.contains(&format!("pmtu {NARROW}")) && path.contains("reached"),
            "{path}"
        );
        assert!(way.iter().all(|hop| path.contains(hop)), "{path}");
    }
    // A published port is the host's to those who come: no hop more.
    for (to, way) in [(HOST, ["203.0.113.1", HOST]), (HOST6, ["2001:db8:fa::1", HOST6])] {
        for by in ["-T -p 8080", "-U -p 8080"] {
            let trace = far.run(&format!("traceroute -n -q 1 -N 1 -w 5 -m 6 {by} {to}"));
            assert_eq!(hops(&trace), way, "{by}: {trace}");
        }
        let path = far.run(&format!("tracepath -n -p 8080 {to}"));
        assert!(path.contains("reached"), "{path}");
    }
}

/// Pitfall B25.
#[test]
fn the_mtu_of_a_path_is_found_by_whoever_sends_and_pings_of_all_sizes_pass() {
    let lab = with_ipv6(Lab::new());
    let far = far_away(&lab);
    let daemon = start(&lab, "--ipv6");
    let docker = daemon.docker();
    docker.ok("run -d --name one -p 8080:80 -p 9090:90/udp busybox sleep 1000");
    docker.ok("run -d --name two busybox sleep 1000");
    let pid = docker.pid("one");
    // A server in the container that says much to who asks; and a client in it that says much.
    let server = Host::within(pid, || TcpListener::bind("[::]:80").unwrap());
    for (published, away) in [
        (format!("{HOST}:8080"), format!("{FAR}:9000")),
        (format!("[{HOST6}]:8080"), format!("[{FAR6}]:9000")),
    ] {
        let forget = "ip route flush cache; ip -6 route flush cache";
        within(&lab, pid, &format!("sh -c '{forget}'"));
        let [published, away]: [SocketAddr; 2] = [&published, &away].map(|address| address.parse().unwrap());
        let asked = far.inside(|| TcpStream::connect_timeout(&published, patience(10)).unwrap());
        let (asker, peer) = server.accept().unwrap();
        much(asker, asked);
        assert_path_mtu(&lab, pid, &peer.ip().to_string().replace("::ffff:", ""));

        within(&lab, pid, &format!("sh -c '{forget}'"));
        let listener = far.inside(|| TcpListener::bind(away).unwrap());
        let speaker = Host::within(pid, || TcpStream::connect_timeout(&away, patience(10)).unwrap());
        let (heard, _) = listener.accept().unwrap();
        much(speaker, heard);
        assert_path_mtu(&lab, pid, &away.ip().to_string());
    }
    // In pieces, on the way out and back, and to the other container.
    let two = [docker.address("two"), address6(&docker, "two")];
    for to in [LAN, LAN6, FAR, FAR6, two[0].as_str(), two[1].as_str()] {
        for size in [56, 1452, 8000, 60_000] {
            within(&lab, pid, &format!("ping -n -q -c 1 -W 10 -M dont -s {size} {to}"));
        }
    }
    datagrams_in_pieces(&lab, pid);
}

/// A megabyte from one end to the other.
fn much(mut from: TcpStream, mut to: TcpStream) {
    to.set_read_timeout(Some(patience(20))).unwrap();
    let writing = std::thread::spawn(move || from.write_all(&vec![7; 1 << 20]));
    let mut heard = Vec::new();
    to.read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len(), 1 << 20);
    writing.join().unwrap().unwrap();
}

fn assert_path_mtu(lab: &Lab, pid: u32, to: &str) {
    let route = within(lab, pid, &format!("ip route get {to}"));
    assert!(route.contains(&format!("mtu {NARROW}")), "the container knows: {route}");
}

/// UDP that does not fit into a packet: to a published port, and from a container to the world, with answers.
fn datagrams_in_pieces(lab: &Lab, pid: u32) {
    let bind = |address: &'static str| {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(patience(10))).unwrap();
        socket
    };
    let question: Vec<u8> = (0..20_000u32).map(|place| (place / 5) as u8).collect();
    for (client, to, server) in [
        (
            lab.lan.inside(|| bind("[::]:0")),
            [format!("[::ffff:{HOST}]:9090"), format!("[{HOST6}]:9090")],
            Host::within(pid, || bind("[::]:90")),
        ),
        (
            Host::within(pid, || bind("[::]:0")),
            [format!("[::ffff:{LAN}]:9091"), format!("[{LAN6}]:9091")],
            lab.lan.inside(|| bind("[::]:9091")),
        ),
    ] {
        for to in to {
            let mut buffer = vec![0; 65_536];
            client.send_to(&question, &to).unwrap();
            let (length, peer) = server
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("to {to}: {error}"));
            assert!(buffer[..length] == question, "to {to}");
            server.send_to(&question, peer).unwrap();
            let (length, from) = client
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("from {to}: {error}"));
            assert!(
                buffer[..length] == question && from.to_string() == to,
                "from {from}, not {to}"
            );
        }
    }
}

/// Megabytes of each measurement.
const LOAD: u64 = 8;

#[test]
fn iperf3_runs_on_every_path_by_a_cable_that_loses_packets() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name one -p 5201:5201 busybox sleep 1000");
    docker.ok("run -d --name two busybox sleep 1000");
    let (one, two) = (docker.pid("one"), docker.pid("two"));
    let lossy = [
        lab.host.inside(|| Loss::of(40, "eth0")),
        lab.lan.inside(|| Loss::of(40, "eth0")),
    ];
    let enter = |pid: u32| format!("nsenter --net=/proc/{pid}/ns/net ");
    let address = docker.address("one");
    {
        let _server = serving(&lab.host, &enter(one), "one", || {
            Host::within(one, || listens("127.0.0.1"))
        });
        measure(&lab.lan, "", HOST, true);
        measure(&lab.host, &enter(two), &address, false);
        measure(&lab.host, "", "127.0.0.1", false);
    }
    let _server = serving(&lab.lan, "", "lan", || lab.lan.inside(|| listens("127.0.0.1")));
    measure(&lab.host, &enter(two), LAN, true);
    for loss in &lossy {
        assert!(loss.lost() > 0, "nothing was lost");
    }
}

/// iperf3's server, which listens.
fn serving(host: &Host, enter: &str, name: &str, listens: impl Fn() -> bool) -> Background {
    let server = host.spawn(&format!("iperf3-{name}.log"), &format!("{enter}iperf3 -s"));
    eventually("iperf3 listens", 10, listens);
    server
}

fn listens(at: &str) -> bool {
    TcpStream::connect((at, 5201)).is_ok()
}

/// Some megabytes there and back.
fn measure(host: &Host, enter: &str, to: &str, by_the_lossy_cable: bool) {
    for direction in ["", "-R"] {
        let line = format!("{enter}iperf3 --json --connect-timeout 20000 -c {to} -n {LOAD}M {direction}");
        let report: serde_json::Value = serde_json::from_str(&host.run(&line)).unwrap();
        let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
        // When all is sent the receiver may still have a window's worth to come.
        assert!(received >= LOAD << 19, "{line}: {received} bytes came");
        let again = report["end"]["sum_sent"]["retransmits"].as_u64();
        assert!(
            !by_the_lossy_cable || again > Some(0),
            "{line}: what is lost is sent again, {again:?} times"
        );
    }
}
