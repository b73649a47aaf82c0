//! Nothing of ours is in netfilter, no bridge is made, no proxy runs.

use lab::{Docker, HOST, Host, LAN, Lab, start};

use crate::traffic::fetch;

/// What the system's own tools say of a host. `conntrack` says its count on stderr, which is left out.
fn netfilter(host: &Host) -> Vec<(&'static str, String)> {
    let tools = [
        "iptables-save",
        "nft list ruleset",
        "bridge link",
        "conntrack -L",
        "ip -d link show type bridge",
    ];
    tools
        .map(|tool| (tool, host.run(&format!("{tool} 2>/dev/null"))))
        .to_vec()
}

fn traffic_on_all_paths(lab: &Lab, docker: &Docker) {
    let address = docker.address("web");
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
    assert_eq!(fetch(&lab.host, "http://127.0.0.1:8080/"), Ok("hello".into()));
    assert_eq!(docker.fetch_from("other", &address, 80), "hello");
    assert_eq!(docker.fetch_from("other", HOST, 8080), "hello");
    docker.ok(&format!("exec other ping -c 1 -W 2 {LAN}"));
}

/// Pitfalls B4, B13, B14.
#[test]
fn netfilter_and_bridges_are_the_same_before_and_after_and_no_proxy_runs() {
    let lab = Lab::new();
    let before = netfilter(&lab.host);
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name other busybox sleep 1000");
    traffic_on_all_paths(&lab, &docker);
    assert_eq!(netfilter(&lab.host), before);
    let processes = lab.host.processes();
    assert!(
        !processes.iter().any(|(_, line)| line.contains("proxy")),
        "{processes:?}"
    );
    let listening = lab
        .host
        .run("awk '$4 == \"0A\" {print $2}' /proc/net/tcp /proc/net/tcp6");
    assert!(!listening.contains(":1F90"), "no socket holds port 8080: {listening}");
}

/// Pitfalls B22, B58.
#[test]
fn the_flows_of_containers_have_no_conntrack_entry_even_when_the_host_tracks_connections() {
    let lab = Lab::new();
    lab.host.run("nft 'add table ip watch; add chain ip watch in { type filter hook prerouting priority 0; }; add rule ip watch in ct state invalid drop; \
                  add chain ip watch forward { type filter hook forward priority 0; policy drop; }'");
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name other busybox sleep 1000");
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
    let address = docker.address("web");
    assert_eq!(docker.fetch_from("other", &address, 80), "hello");
    docker.ok(&format!("exec other ping -c 1 -W 2 {LAN}"));
    let tracked = lab.host.run("conntrack -L 2>/dev/null");
    assert!(!tracked.contains("172.17."), "{tracked}");
}

/// Pitfalls B5, B6, B35.
#[test]
fn flushing_the_ruleset_under_traffic_loses_nothing() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker
        .words(&[
            "exec",
            "web",
            "sh",
            "-c",
            "head -c 104857600 /dev/urandom > /usr/share/nginx/html/load",
        ])
        .ok();
    let sum = docker.ok("exec web sha256sum /usr/share/nginx/html/load");
    let fetched = lab.lan.directory().join("fetched");
    let mut transfer = lab.lan.spawn(
        "curl.log",
        &format!(
            "curl -sS --limit-rate 50M -o {} http://{HOST}:8080/load",
            fetched.display()
        ),
    );
    for _ in 0..10 {
        lab.host.run("nft flush ruleset");
        assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(transfer.wait(), Some(0), "{}", transfer.said());
    let arrived = lab.lan.run(&format!("sha256sum {}", fetched.display()));
    assert_eq!(arrived.split_whitespace().next(), sum.split_whitespace().next());
}
