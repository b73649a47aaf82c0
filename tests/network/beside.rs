//! Beside other software, and while the host's network changes: what the kernel tells is followed, what others do is left alone.

use std::net::{Ipv4Addr, UdpSocket};

use lab::{Docker, HOST, Host, INTERNET, LAN, Lab, Watch, eventually, patience, start};

use crate::ipv6::{HOST6, LAN6, with_ipv6};
use crate::traffic::{fetch, who_comes};

/// With which address a container is seen at `to`.
fn seen_as(lab: &Lab, docker: &Docker, container: &str, to: &str) -> String {
    let at = if to.contains(':') {
        format!("[{to}]:9000")
    } else {
        format!("{to}:9000")
    };
    let server = who_comes(&lab.lan, &at);
    docker.words(&["exec", container, "sh", "-c", &format!("echo hi | nc -w 5 {to} 9000")]);
    server.join().unwrap().ip().to_string()
}

/// A second cable to the LAN, and somebody who looks at it.
#[must_use]
fn second_nic(lab: &Lab) -> Watch {
    lab.host.connect("eth1", &lab.lan, "eth1");
    lab.host.run("ip address add 10.89.0.1/24 dev eth1");
    lab.lan.run("ip address add 10.89.0.2/24 dev eth1");
    lab.lan.inside(|| Watch::over("eth1", Ipv4Addr::new(10, 89, 0, 0)))
}

#[test]
fn a_nic_that_comes_is_served_and_one_that_goes_is_forgotten() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name one busybox sleep 1000");
    for _ in 0..2 {
        let _watch = second_nic(&lab);
        eventually("the page is there by the new NIC", 10, || {
            fetch(&lab.lan, "http://10.89.0.1:8080/") == Ok("hello".into())
        });
        assert_eq!(seen_as(&lab, &docker, "one", "10.89.0.2"), "10.89.0.1");
        lab.host.run("ip link del eth1");
        assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
        docker.ok(&format!("exec one ping -c 1 -W 2 {LAN}"));
    }
}

#[test]
fn a_host_that_gets_another_address_is_served_and_masqueraded_with_it() {
    let lab = with_ipv6(Lab::new());
    let daemon = start(&lab, "--ipv6");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name one busybox sleep 1000");
    assert_eq!(seen_as(&lab, &docker, "one", LAN), HOST);
    assert_eq!(seen_as(&lab, &docker, "one", LAN6), HOST6);
    // As a DHCP client does it when the lease is another one.
    lab.host.run(&format!(
        "ip address add 10.88.0.77/24 dev eth0; ip address del {HOST}/24 dev eth0; \
         ip address show dev eth0 | grep -q 10.88.0.77 || ip address add 10.88.0.77/24 dev eth0; \
         ip route replace default via {LAN}"
    ));
    lab.host.run(&format!(
        "ip -6 address add 2001:db8:88::77/64 dev eth0 nodad; ip -6 address del {HOST6}/64 dev eth0"
    ));
    eventually("containers are seen with the new addresses", 10, || {
        seen_as(&lab, &docker, "one", LAN) == "10.88.0.77" && seen_as(&lab, &docker, "one", LAN6) == "2001:db8:88::77"
    });
    assert_eq!(fetch(&lab.lan, "http://10.88.0.77:8080/"), Ok("hello".into()));
    assert_eq!(fetch(&lab.host, "http://10.88.0.77:8080/"), Ok("hello".into()));
}

#[test]
fn a_default_route_that_moves_to_another_nic_is_followed() {
    let lab = Lab::new();
    let _watch = second_nic(&lab);
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    assert_eq!(seen_as(&lab, &docker, "one", INTERNET), HOST);
    lab.host.run("ip route replace default via 10.89.0.2");
    eventually("the way out is the other NIC", 10, || {
        seen_as(&lab, &docker, "one", INTERNET) == "10.89.0.1"
    });
    lab.host.run(&format!("ip route replace default via {LAN}"));
    eventually("and back", 10, || seen_as(&lab, &docker, "one", INTERNET) == HOST);
}

#[test]
fn a_changed_range_of_ephemeral_ports_is_kept_clear_of() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    let pid = docker.pid("one");
    let port_of = |from: u16| {
        let server = who_comes(&lab.lan, &format!("{LAN}:9000"));
        let line = format!("nsenter --net=/proc/{pid}/ns/net bash -c 'exec 3<>/dev/tcp/{LAN}/9000'");
        lab.host.run(&format!(
            "nsenter --net=/proc/{pid}/ns/net sysctl -qw net.ipv4.ip_local_port_range='{from} {from}'"
        ));
        lab.host.run(&line);
        server.join().unwrap().port()
    };
    assert_eq!(port_of(25_001), 25_001, "a port that is free and nobody's is kept");
    lab.host.run("sysctl -qw net.ipv4.ip_local_port_range='20000 30000'");
    let mut from = 25_001;
    eventually("ports of the host's own range are not kept", 30, || {
        from += 2;
        port_of(from) != from
    });
    docker.ok(&format!("exec one ping -c 1 -W 2 {LAN}"));
}

/// Pitfalls B4, B73.
#[test]
fn another_bridge_of_the_host_goes_on_forwarding_under_strict_settings() {
    let lab = Lab::new();
    let guest = Host::new();
    // As libvirt does it: a bridge, forwarding on, masquerade by nftables; and an administrator who trusts nobody.
    lab.host.connect("vnet0", &guest, "eth0");
    lab.host.run(
        "ip link add virbr9 type bridge; ip link set virbr9 up; ip link set vnet0 master virbr9; ip address add 192.168.122.1/24 dev virbr9; \
         sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1; \
         nft 'add table ip virt; add chain ip virt post { type nat hook postrouting priority 100; }; \
              add rule ip virt post ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 masquerade; \
              add chain ip virt incoming { type filter hook input priority 0; }; add rule ip virt incoming ct state invalid drop; \
              add chain ip virt through { type filter hook forward priority 0; }; add rule ip virt through ct state invalid drop'",
    );
    guest.run("ip address add 192.168.122.9/24 dev eth0; ip route add default via 192.168.122.1");
    let works = |when: &str| {
        let server = who_comes(&lab.lan, &format!("{LAN}:9000"));
        guest.run(&format!(
            "ping -c 1 -W 2 {LAN} && bash -c 'exec 3<>/dev/tcp/{LAN}/9000'"
        ));
        assert_eq!(server.join().unwrap().ip().to_string(), HOST, "{when}");
    };
    works("before");
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name one busybox sleep 1000");
    works("with containers");
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
    assert_eq!(
        fetch(&guest, "http://192.168.122.1:8080/"),
        Ok("hello".into()),
        "a guest is of the world"
    );
    assert_eq!(fetch(&lab.host, "http://127.0.0.1:8080/"), Ok("hello".into()));
    assert_eq!(
        fetch(&lab.host, &format!("http://{}/", docker.address("web"))),
        Ok("hello".into())
    );
    assert_eq!(docker.fetch_from("one", HOST, 8080), "hello");
    assert_eq!(seen_as(&lab, &docker, "one", LAN), HOST);
    docker.ok("rm -f web one");
    daemon.stop();
    assert!(daemon.clean_up().is_ok());
    works("afterwards");
}

/// Pitfall B15.
#[test]
fn a_process_of_the_host_does_not_stick_to_a_container_that_is_gone() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let serve = |name: &str| {
        docker.ok(&format!("run -d --name {name} -p 5353:53/udp busybox sleep 1000"));
        let socket = Host::within(docker.pid(name), || UdpSocket::bind("0.0.0.0:53").unwrap());
        socket.set_read_timeout(Some(patience(5))).unwrap();
        socket
    };
    let answers = |socket: &UdpSocket, server: &UdpSocket, who: &str| {
        socket.send(b"?").unwrap();
        let mut buffer = [0; 16];
        let (_, peer) = server.recv_from(&mut buffer).unwrap();
        server.send_to(who.as_bytes(), peer).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], who.as_bytes());
    };
    let first = serve("first");
    let socket = lab.host.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(patience(5))).unwrap();
        socket.connect("127.0.0.1:5353").unwrap();
        socket
    });
    answers(&socket, &first, "first");
    drop(first);
    docker.ok("rm -f first");
    let second = serve("second");
    let code = socket
        .recv(&mut [0; 16])
        .expect_err("nobody is there any more")
        .raw_os_error();
    assert_eq!(code, Some(libc::ECONNABORTED), "it is told, and need not wait");
    lab.host.inside(|| socket.connect("127.0.0.1:5353")).unwrap();
    answers(&socket, &second, "second");
}
