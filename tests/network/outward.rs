//! From a container to the world: masquerade, pings, long transfers.

use lab::{HOST, INTERNET, LAN, Lab, start};

use crate::traffic::{accept_one, send_one};

#[test]
fn a_server_of_the_lan_sees_the_address_of_the_host() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    for address in [LAN, INTERNET] {
        let server = accept_one(&lab.lan, &format!("{address}:9000"));
        docker
            .words(&[
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                &format!("echo hello | nc -w 5 {address} 9000"),
            ])
            .ok();
        let (peer, said) = server.join().unwrap();
        assert_eq!(peer.ip().to_string(), HOST);
        assert_eq!(said, b"hello\n");
    }
}

#[test]
fn an_echo_of_the_lan_comes_back() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    docker.ok("run -d --name two busybox sleep 1000");
    let two = docker.address("two");
    for address in [LAN, INTERNET, HOST, "172.17.0.1", two.as_str()] {
        docker.ok(&format!("exec one ping -c 2 -W 2 {address}"));
    }
    lab.host.run(&format!("ping -c 2 -W 2 {two}"));
}

#[test]
fn a_hundred_megabytes_arrive_intact_both_ways() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name mule busybox sleep 1000");
    let load = lab.lan.directory().join("load");
    lab.lan
        .run(&format!("head -c 104857600 /dev/urandom > {}", load.display()));
    let sum = |line: String| line.split_whitespace().next().unwrap().to_owned();
    let true_sum = sum(lab.lan.run(&format!("sha256sum {}", load.display())));

    let sender = send_one(&lab.lan, &format!("{LAN}:9001"), &load);
    docker
        .words(&[
            "exec",
            "mule",
            "sh",
            "-c",
            &format!("nc {LAN} 9001 < /dev/null > /tmp/load"),
        ])
        .ok();
    assert_eq!(sender.join().unwrap().ip().to_string(), HOST);
    assert_eq!(sum(docker.ok("exec mule sha256sum /tmp/load")), true_sum, "inward");

    let receiver = accept_one(&lab.lan, &format!("{LAN}:9002"));
    docker
        .words(&["exec", "mule", "sh", "-c", &format!("nc {LAN} 9002 < /tmp/load")])
        .ok();
    let (_, bytes) = receiver.join().unwrap();
    assert!(
        bytes == std::fs::read(&load).unwrap(),
        "outward: {} bytes came",
        bytes.len()
    );
}

#[test]
fn without_masquerade_nothing_leaves_and_the_rest_works() {
    let lab = Lab::new();
    let daemon = start(&lab, "--ip-masq=false");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    docker.ok("run -d --name two busybox sleep 1000");
    assert!(!docker.run(&format!("exec one ping -c 1 -W 1 {LAN}")).is_ok());
    docker.ok(&format!("exec one ping -c 1 -W 2 {}", docker.address("two")));
    docker.ok(&format!("exec one ping -c 1 -W 2 {HOST}"));
}

#[test]
fn bip_and_mtu_and_dns_are_what_the_daemon_was_told() {
    let lab = Lab::new();
    let daemon = start(&lab, "--bip 192.168.77.1/24 --mtu 1400 --dns 9.9.9.9");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    assert!(docker.address("one").starts_with("192.168.77."));
    assert_eq!(docker.ok("exec one cat /sys/class/net/eth0/mtu"), "1400");
    assert!(
        docker
            .ok("exec one ip route")
            .contains("default via 192.168.77.1 dev eth0")
    );
    assert!(
        docker
            .ok("exec one cat /etc/resolv.conf")
            .contains("nameserver 9.9.9.9")
    );
    docker.ok(&format!("exec one ping -c 1 -W 2 {LAN}"));
}

#[test]
fn containers_without_a_network_have_only_loopback_and_those_of_the_host_have_its_devices() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    assert_eq!(docker.ok("run --rm --net none busybox ls /sys/class/net"), "lo");
    assert!(docker.ok("run --rm --net host busybox ip address").contains(HOST));
    assert_eq!(docker.ok("run --rm busybox ls /sys/class/net"), "eth0\nlo");
}

/// Pitfall B16.
#[test]
fn a_young_container_loses_no_packet() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    for number in 0..5 {
        docker.ok(&format!("run -d --name young{number} busybox sleep 1000"));
        let pid = docker.pid(&format!("young{number}"));
        for to in ["172.17.0.1", LAN] {
            let sent = lab.host.run(&format!(
                "nsenter --net=/proc/{pid}/ns/net ping -q -i 0.002 -c 200 -W 2 {to}"
            ));
            assert!(sent.contains(" 0% packet loss"), "container {number} to {to}: {sent}");
        }
    }
}
