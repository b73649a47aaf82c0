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
