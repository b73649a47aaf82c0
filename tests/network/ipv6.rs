//! IPv6 as people meet it: dual stack networks, published ports, masquerade and routes.

use std::net::{SocketAddr, TcpListener};

use lab::{Docker, Lab, patience, start};

use crate::traffic::{fetch, who_comes};

/// The host's global address in the LAN, and the LAN's.
pub const HOST6: &str = "2001:db8:88::1";
pub const LAN6: &str = "2001:db8:88::2";

/// Gives host and LAN IPv6, too.
pub fn with_ipv6(lab: Lab) -> Lab {
    lab.host.run(&format!("ip -6 address add {HOST6}/64 dev eth0 nodad"));
    lab.lan.run(&format!("ip -6 address add {LAN6}/64 dev eth0 nodad"));
    lab.host.run(&format!("ip -6 route add default via {LAN6}"));
    lab
}

fn address6(docker: &Docker, container: &str, network: &str) -> String {
    docker.inspect(
        container,
        &format!("{{{{(index .NetworkSettings.Networks \"{network}\").GlobalIPv6Address}}}}"),
    )
}

#[test]
fn the_default_network_has_both_families_and_the_first_packet_arrives() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "--ipv6 --fixed-cidr-v6 fd00:17::/64");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    docker.ok("run -d --name two busybox sleep 1000");
    let (one, two) = (address6(&docker, "one", "bridge"), address6(&docker, "two", "bridge"));
    assert_eq!((one.as_str(), two.as_str()), ("fd00:17::2", "fd00:17::3"));
    assert_eq!(
        docker.inspect(
            "one",
            "{{.NetworkSettings.IPv6Gateway}} {{.NetworkSettings.GlobalIPv6PrefixLen}}"
        ),
        "fd00:17::1 64"
    );
    assert!(
        docker
            .ok("exec one ip -6 route")
            .contains("default via fd00:17::1 dev eth0")
    );
    assert!(docker.ok("exec one cat /etc/hosts").contains("fd00:17::2"));
    for to in ["fd00:17::1", two.as_str(), HOST6, LAN6] {
        for number in 0..2 {
            let name = format!("young{number}");
            docker.ok(&format!("run -d --name {name} busybox sleep 1000"));
            let pid = docker.pid(&name);
            let line = format!("nsenter --net=/proc/{pid}/ns/net ping -6 -q -c 3 -i 0.2 -W 2 {to}");
            let sent = lab.host.run(&line);
            assert!(sent.contains(" 0% packet loss"), "{to}: {sent}");
            docker.ok(&format!("rm -f {name}"));
        }
    }
    lab.host.run(&format!("ping -6 -c 1 -W 2 {one}"));
    let server = who_comes(&lab.lan, &format!("[{LAN6}]:9000"));
    docker.words(&["exec", "one", "sh", "-c", &format!("echo hi | nc -w 5 {LAN6} 9000")]);
    assert_eq!(server.join().unwrap().ip().to_string(), HOST6, "masqueraded");
}

#[test]
fn a_page_is_fetched_by_ipv6_and_the_container_sees_the_true_client() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "--ipv6");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name other busybox sleep 1000");
    let web = address6(&docker, "web", "bridge");
    assert!(
        web.starts_with("fd"),
        "{web}: of a unique local prefix of the host's own"
    );
    assert!(docker.ok("port web").contains("[::]:8080"), "{}", docker.ok("port web"));
    // nginx of the image listens at IPv4 only: a server that has both families answers here
    let pid = docker.pid("web");
    let listener = lab::Host::within(pid, || TcpListener::bind(format!("[{web}]:80")).unwrap());
    let serving = std::thread::spawn(move || {
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = std::io::Read::read(&mut stream, &mut request);
            std::io::Write::write_all(&mut stream, b"HTTP/1.0 200 OK\r\n\r\nhello six\n").unwrap();
            peers.push(peer.ip().to_string());
        }
        peers
    });
    let hello = Ok("hello six".to_owned());
    assert_eq!(
        fetch(&lab.lan, &format!("http://[{HOST6}]:8080/")),
        hello,
        "from the LAN"
    );
    assert_eq!(fetch(&lab.host, "http://[::1]:8080/"), hello, "from the host at [::1]");
    assert_eq!(docker.fetch_from("other", HOST6, 8080), "hello six", "from a container");
    let peers = serving.join().unwrap();
    assert_eq!(peers[0], LAN6);
    assert_eq!(peers[2], address6(&docker, "other", "bridge"));
}

#[test]
fn loopback_of_ipv6_leads_to_a_container_that_has_ipv4_only() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80 -p [::1]:8081:80");
    for url in ["http://[::1]:8080/", "http://[::1]:8081/", "http://127.0.0.1:8080/"] {
        assert_eq!(fetch(&lab.host, url), Ok("hello".into()), "{url}");
    }
    assert!(fetch(&lab.host, "http://127.0.0.1:8081/").is_err());
}

#[test]
fn networks_with_ipv6_are_isolated_and_give_the_addresses_that_are_asked_for() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --ipv6 --subnet fd00:71::/64 red");
    docker.ok("network create --ipv6 blue");
    docker.ok("run -d --name one --network red --ip6 fd00:71::77 busybox sleep 1000");
    docker.ok("run -d --name two --network red busybox sleep 1000");
    docker.ok("run -d --name three --network blue busybox sleep 1000");
    assert_eq!(address6(&docker, "one", "red"), "fd00:71::77");
    let pings = |from: &str, to: &str| docker.run(&format!("exec {from} ping -6 -c 1 -W 1 {to}")).is_ok();
    assert!(pings("two", "fd00:71::77"));
    assert!(!pings("three", "fd00:71::77"));
    let three = address6(&docker, "three", "blue");
    assert!(three.starts_with("fd") && !pings("one", &three), "{three}");
    docker.ok("network connect blue one");
    assert!(pings("one", &three));
}

#[test]
fn in_routed_mode_containers_have_their_own_addresses_in_the_world() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok(
        "network create --ipv6 --subnet 2001:db8:99::/64 --opt com.docker.network.bridge.gateway_mode_ipv6=routed world",
    );
    lab.lan.run(&format!("ip -6 route add 2001:db8:99::/64 via {HOST6}"));
    docker.ok("run -d --name one --network world -p 8080:80 busybox sleep 1000");
    let one = address6(&docker, "one", "world");
    let server = who_comes(&lab.lan, &format!("[{LAN6}]:9000"));
    docker.words(&["exec", "one", "sh", "-c", &format!("echo hi | nc -w 5 {LAN6} 9000")]);
    assert_eq!(server.join().unwrap().ip().to_string(), one, "with its own address");
    let listen = |port: u16| lab::Host::within(docker.pid("one"), || TcpListener::bind(("::", port)).unwrap());
    let (_published, _closed) = (listen(80), listen(81));
    let connects = |port: u16, limit| {
        let to: SocketAddr = format!("[{one}]:{port}").parse().unwrap();
        lab.lan
            .inside(|| std::net::TcpStream::connect_timeout(&to, limit).is_ok())
    };
    assert!(connects(80, patience(5)), "the published port");
    assert!(!connects(81, std::time::Duration::from_secs(1)), "another port");
    lab.lan.run(&format!("ping -6 -c 1 -W 2 {one}"));
}

#[test]
fn the_hosts_own_settings_of_ipv6_stay_as_they_are() {
    let lab = with_ipv6(Lab::new());
    let settings = || {
        lab.host.run(
            "for name in all default eth0; do for setting in forwarding accept_ra autoconf disable_ipv6 accept_dad; do \
             echo $name $setting $(cat /proc/sys/net/ipv6/conf/$name/$setting); done; done",
        )
    };
    let before = settings();
    let daemon = start(&lab, "--ipv6");
    daemon.docker().ok("run -d --name one busybox sleep 1000");
    daemon.docker().ok(&format!("exec one ping -6 -c 1 -W 2 {LAN6}"));
    assert_eq!(settings(), before);
}

#[test]
fn ipv6_goes_on_while_the_daemon_is_killed_and_comes_back() {
    let lab = with_ipv6(Lab::new());
    let mut daemon = start(&lab, "--ipv6");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    let one = address6(&docker, "one", "bridge");
    let pid = docker.pid("one");
    let mut pings = lab.host.spawn(
        "ping.log",
        &format!("nsenter --net=/proc/{pid}/ns/net ping -6 -q -i 0.05 -c 100 -W 2 {LAN6}"),
    );
    daemon.kill();
    daemon.boot();
    assert_eq!(pings.wait(), Some(0), "{}", pings.said());
    assert!(pings.said().contains(" 0% packet loss"), "{}", pings.said());
    assert_eq!(address6(&daemon.docker(), "one", "bridge"), one);
}

#[test]
fn a_daemon_that_starts_again_with_ipv6_gives_it_to_the_default_network() {
    let lab = with_ipv6(Lab::new());
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    assert!(
        !docker.ok("exec one ip -o -6 address").contains("eth0"),
        "no IPv6 at all"
    );
    docker.ok("rm -f one");
    daemon.stop();
    drop(daemon);
    let daemon = lab::Daemon::start(&lab.host, "--ipv6");
    let docker = daemon.docker();
    docker.ok("run -d --name two busybox sleep 1000");
    docker.ok(&format!("exec two ping -6 -c 1 -W 2 {LAN6}"));
    assert!(daemon.sluice("flows").ok().contains("icmpv6"), "and its flows are told");
}
