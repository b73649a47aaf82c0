//! What is not let through, and that it is counted.

use lab::{HOST, LAN, Lab, start};

use crate::traffic::fetch;

#[test]
fn without_icc_containers_do_not_meet_and_everything_else_goes_on() {
    let lab = Lab::new();
    let daemon = start(&lab, "--icc=false");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name other busybox sleep 1000");
    let web = docker.address("web");
    assert_eq!(docker.fetch_from("other", &web, 80), "");
    assert!(!docker.run(&format!("exec other ping -c 1 -W 1 {web}")).is_ok());
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
    assert_eq!(fetch(&lab.host, "http://127.0.0.1:8080/"), Ok("hello".into()));
    assert_eq!(fetch(&lab.host, &format!("http://{web}/")), Ok("hello".into()));
    docker.ok(&format!("exec other ping -c 1 -W 2 {LAN}"));
    docker.ok(&format!("exec other ping -c 1 -W 2 {HOST}"));
    let drops = daemon.sluice("drops").ok();
    assert!(
        drops
            .lines()
            .any(|line| line.contains("icc_disabled") && line.contains("other")),
        "{drops}"
    );
}

#[test]
fn a_forged_source_address_is_dropped_and_counted() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name liar busybox sleep 1000");
    docker.ok("run -d --name neighbour busybox sleep 1000");
    let liar = docker.pid("liar");
    let neighbour = docker.address("neighbour");
    let within = |line: &str| lab.host.shell(&format!("nsenter --net=/proc/{liar}/ns/net {line}"));
    // Who is asked honestly first is not asked for its MAC address with the forged one: that would die as ARP already.
    for to in [LAN, HOST, &neighbour] {
        within(&format!("ping -c 1 -W 2 {to}")).ok();
    }
    within("ip address add 172.17.200.200/32 dev eth0").ok();
    for to in [LAN, HOST, &neighbour] {
        let answered = within(&format!("ping -c 2 -W 1 -I 172.17.200.200 {to}"));
        assert!(!answered.is_ok(), "a forged packet was answered: {answered}");
    }
    let drops = daemon.sluice("drops").ok();
    let line = drops
        .lines()
        .find(|line| line.contains("forged_source"))
        .unwrap_or_else(|| panic!("not counted:\n{drops}"));
    assert!(line.contains("liar"), "{drops}");
    docker.ok(&format!("exec liar ping -c 1 -W 2 {LAN}"));
}

#[test]
fn joining_and_leaving_a_network_touches_no_flow_of_another() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create zeta");
    docker.ok("network create alpha");
    docker.ok("run -d --name one --network zeta busybox sleep 1000");
    docker.ok("run -d --name two --network zeta busybox sleep 1000");
    let pid = docker.pid("one");
    let two = docker.inspect("two", "{{.NetworkSettings.Networks.zeta.IPAddress}}");
    let mut floods = [LAN, two.as_str()].map(|to| {
        lab.host.spawn(
            &format!("ping-{to}.log"),
            &format!("nsenter --net=/proc/{pid}/ns/net ping -q -i 0.01 -c 300 -W 2 {to}"),
        )
    });
    for _ in 0..3 {
        docker.ok("network connect alpha one");
        docker.ok("network disconnect alpha one");
    }
    for flood in &mut floods {
        assert_eq!(flood.wait(), Some(0), "{}", flood.said());
        assert!(flood.said().contains(" 0% packet loss"), "{}", flood.said());
    }
}

#[test]
fn in_a_routed_network_of_ipv4_the_lan_meets_containers_at_their_own_addresses() {
    let mut lab = Lab::new();
    lab.watch.forgive();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("network create --subnet 10.71.0.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=routed world");
    lab.lan.run(&format!("ip route add 10.71.0.0/24 via {HOST}"));
    docker.run_web("open", "--network world --ip 10.71.0.9 -p 8080:80");
    docker.run_web("closed", "--network world --ip 10.71.0.8");
    assert_eq!(fetch(&lab.lan, "http://10.71.0.9/"), Ok("hello".into()));
    assert!(fetch(&lab.lan, "http://10.71.0.8/").is_err());
    lab.lan.run("ping -c 1 -W 2 10.71.0.8");
    let server = crate::traffic::who_comes(&lab.lan, &format!("{LAN}:9000"));
    docker.words(&["exec", "open", "sh", "-c", &format!("echo hi | nc -w 5 {LAN} 9000")]);
    assert_eq!(server.join().unwrap().ip().to_string(), "10.71.0.9");
}

#[test]
fn networks_meet_the_world_as_their_gateway_mode_says() {
    let mut lab = Lab::new();
    lab.watch.forgive();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    let option = "-o com.docker.network.bridge";
    docker.ok(&format!(
        "network create --internal --subnet 10.71.1.0/24 {option}.gateway_mode_ipv4=isolated apart"
    ));
    docker.ok(&format!(
        "network create --subnet 10.71.2.0/24 {option}.gateway_mode_ipv4=nat-unprotected open"
    ));
    docker.ok(&format!(
        "network create --subnet 10.71.3.0/24 {option}.enable_ip_masquerade=false bare"
    ));
    lab.lan.run(&format!("ip route add 10.71.0.0/16 via {HOST}"));
    for network in ["apart", "open", "bare"] {
        docker.run_web(&format!("{network}-web"), &format!("--network {network}"));
        docker.ok(&format!(
            "run -d --name {network}-other --network {network} busybox sleep 1000"
        ));
    }
    let address = |name: &str, network: &str| {
        docker.inspect(name, &format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"))
    };
    let pings = |from: &str, to: &str| docker.run(&format!("exec {from} ping -c 1 -W 1 {to}")).is_ok();
    // name, the network's gateway answers, the LAN answers, the LAN comes in at the container's own address
    for (network, gateway, host, outward, inward) in [
        ("apart", "10.71.1.1", false, false, false),
        ("open", "10.71.2.1", true, true, true),
        ("bare", "10.71.3.1", true, false, false),
    ] {
        let (web, other) = (format!("{network}-web"), format!("{network}-other"));
        let at = address(&web, network);
        assert_eq!(
            docker.fetch_from(&other, &at, 80),
            "hello",
            "{network}: neighbours meet"
        );
        assert_eq!(pings(&other, gateway), host, "{network}: the gateway");
        assert_eq!(pings(&other, LAN), outward, "{network}: the LAN");
        assert_eq!(
            fetch(&lab.lan, &format!("http://{at}/")).is_ok(),
            inward,
            "{network}: from the LAN"
        );
        let borne = lab.host.run("ip -o -4 address").contains(gateway);
        assert_eq!(borne, host, "{network}: the host's address in it");
    }
    let server = crate::traffic::who_comes(&lab.lan, &format!("{LAN}:9001"));
    docker.words(&[
        "exec",
        "open-other",
        "sh",
        "-c",
        &format!("echo hi | nc -w 5 {LAN} 9001"),
    ]);
    assert_eq!(
        server.join().unwrap().ip().to_string(),
        HOST,
        "what it asks itself is masqueraded"
    );
}
