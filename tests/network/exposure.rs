//! What of a host is reached from where, and that a firewall which believes otherwise is named.

use lab::{HOST, Lab, start};

use crate::traffic::fetch;

const RULES: &str = "
table inet filter {
  set trusted {
    type ipv4_addr
    flags interval
    elements = { 192.0.2.0/24 }
  }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname lo accept
    meta l4proto { icmp, ipv6-icmp } accept
    tcp dport { 22, 9443 } accept
    ip saddr @trusted tcp dport 8443 accept
    udp dport 9000 accept
  }
}
";

/// Pitfall B1.
#[test]
fn published_ports_that_the_hosts_firewall_believes_closed_are_named() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80 -p 127.0.0.1:8081:81 -p 9000-9001:9000-9001/udp");
    docker.ok("run -d --name some --label sluice.publish-from=192.0.2.0/24 -p 8443:443 busybox sleep 1000");
    docker.ok("run -d --name plain --network host busybox sleep 1000");
    let shown = || daemon.sluice("exposure").ok();
    let line = |shown: &str, at: &str| {
        let line = shown.lines().find(|line| line.contains(at));
        line.unwrap_or_else(|| panic!("{at} is not in\n{shown}")).to_owned()
    };

    // nobody believes anything
    let before = shown();
    for (at, parts) in [
        ("0.0.0.0:8080/tcp", &["web", "bridge", "80", "everywhere", "none"][..]),
        ("127.0.0.1:8081/tcp", &["web", "this host", "-"]),
        ("0.0.0.0:9000-9001/udp", &["9000-9001", "everywhere"]),
        ("0.0.0.0:8443/tcp", &["some", "this host, 192.0.2.0/24"]),
        ("0.0.0.0:*/*", &["plain", "host", "where the firewall lets in"]),
    ] {
        let line = line(&before, at);
        parts
            .iter()
            .for_each(|part| assert!(line.contains(part), "{part}: {line}"));
    }
    assert!(!before.contains("WARNING"), "{before}");

    // a table of somebody's own, as the handbooks have it
    let rules = lab.host.directory().join("rules.nft");
    std::fs::write(&rules, RULES).unwrap();
    lab.host.run(&format!("nft -f {}", rules.display()));
    let strict = shown();
    assert!(
        line(&strict, "0.0.0.0:8080/tcp").contains("CLOSED by nftables (inet filter) at eth0"),
        "{strict}"
    );
    assert!(
        line(&strict, "0.0.0.0:9000-9001/udp").contains("limited by"),
        "one of two: {strict}"
    );
    assert!(
        line(&strict, "0.0.0.0:8443/tcp").ends_with("open"),
        "those it is for: {strict}"
    );
    assert!(line(&strict, "127.0.0.1:8081/tcp").ends_with('-'), "{strict}");
    let warning = line(&strict, "WARNING: web: 0.0.0.0:8080/tcp");
    assert!(warning.contains("believes it closed at eth0"), "{warning}");
    // and it is mistaken
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
    lab.host.run("nft flush ruleset");

    // and by the words of iptables, of which ufw consists
    lab.host.run(
        "iptables -N ufw-user-input; iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A INPUT -j ufw-user-input; \
         iptables -A ufw-user-input -p tcp -m tcp --dport 8443 -j ACCEPT; iptables -P INPUT DROP",
    );
    let ufw = shown();
    assert!(
        line(&ufw, "0.0.0.0:8080/tcp").contains("CLOSED by ufw at eth0"),
        "{ufw}"
    );
    assert!(line(&ufw, "0.0.0.0:8443/tcp").ends_with("open"), "{ufw}");
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));

    let (status, json) = daemon.request("GET", "/sluice/v1/exposure", "");
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &found["firewalls"]), (200, &serde_json::json!(["ufw"])));
    let closed = found["openings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|opening| opening["port"] == 8080)
        .unwrap();
    assert_eq!(closed["beliefs"][0]["belief"], "closed");
    assert_eq!(closed["clients"], "everybody");
}
