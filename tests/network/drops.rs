//! Drops as they happen, told to whoever follows.

use lab::{Background, Daemon, HOST, LAN, Lab, eventually, start};

/// Somebody who follows, and writes down what it is told.
fn follow(daemon: &Daemon, log: &str, options: &str) -> Background {
    let sluice = lab::binary("sluice");
    let socket = daemon.socket();
    daemon.host().spawn(
        log,
        &format!(
            "{} -H unix://{} drops --follow {options}",
            sluice.display(),
            socket.display()
        ),
    )
}

fn followers(daemon: &Daemon) -> String {
    let status = daemon.sluice("status").ok();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Followers of drops: "));
    line.unwrap_or_else(|| panic!("{status}")).to_owned()
}

/// How many the programs believe to listen.
fn listeners(daemon: &Daemon) -> String {
    let status = daemon.sluice("status").ok();
    let line = status.lines().find(|line| line.starts_with("LISTENERS"));
    let line = line.unwrap_or_else(|| panic!("{status}"));
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Pitfall B59.
#[test]
fn whoever_follows_is_told_of_each_drop_and_of_what_was_not_told() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "--icc=false");
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    docker.ok("run -d --name two busybox sleep 1000");
    let (one, two) = (docker.address("one"), docker.address("two"));
    let id = docker.ok("inspect -f {{.Id}} one");
    assert_eq!((followers(&daemon), listeners(&daemon)), ("0".into(), "0".into()));

    // Two at once, one for people and one for programs.
    let people = follow(&daemon, "people.log", "");
    let programs = follow(&daemon, "programs.log", "--json");
    eventually("both follow", 20, || followers(&daemon) == "2");
    assert_eq!(listeners(&daemon), "1");
    docker.run(&format!("exec one ping -c 1 -W 1 {two}"));
    let words = format!("icmp 8/0 one ({one}) > two ({two}), 98 bytes: The network does not let its containers talk");
    eventually("people are told in a sentence", 20, || {
        people
            .said()
            .lines()
            .any(|line| line.contains(" icc_disabled from_container one (bridge) ") && line.contains(&words))
    });
    let mut event = serde_json::Value::Null;
    eventually("programs are told the same", 20, || {
        let said = programs.said();
        let mut events = said.lines().filter_map(|line| serde_json::from_str(line).ok());
        event = events
            .find(|event: &serde_json::Value| event["reason"] == "icc_disabled")
            .unwrap_or_default();
        !event.is_null()
    });
    for (field, value) in [
        ("kind", "drop".into()),
        ("number", 12.into()),
        ("direction", "from_container".into()),
        ("container", "one".into()),
        ("container_id", id.as_str().into()),
        ("network", "bridge".into()),
        ("protocol", "icmp".into()),
        ("source", one.as_str().into()),
        ("destination", two.as_str().into()),
        ("destination_name", "two".into()),
        ("source_port", serde_json::Value::Null),
        ("icmp_type", 8.into()),
        ("length", 98.into()),
    ] {
        assert_eq!(event[field], value, "{field} of {event}");
    }
    assert!(
        event["device"].as_str().is_some_and(|device| device.starts_with("slc")),
        "{event}"
    );
    assert!(
        event["time"]
            .as_str()
            .is_some_and(|time| time.starts_with("20") && time.ends_with('Z')),
        "{event}"
    );

    // In from the LAN: the container is the one that it was for.
    lab.lan.run(&format!("ip route add {one} via {HOST}"));
    lab.lan.shell(&format!("ping -c 1 -W 1 {one}"));
    let words = " unpublished from_nic one (bridge) ";
    eventually("a drop at the NIC is told", 20, || {
        people
            .said()
            .lines()
            .any(|line| line.contains(words) && line.contains(LAN))
    });

    // More than is told in a second: two CPUs at most 64 each.
    let within = format!("nsenter --net=/proc/{}/ns/net", docker.pid("one"));
    lab.host.shell(&format!("{within} ping -q -l 400 -c 400 -W 1 {two}"));
    eventually("what was too much is told as a number", 30, || {
        people
            .said()
            .lines()
            .any(|line| line.contains(" icc_disabled: ") && line.contains(" more in the last second"))
    });
    assert!(
        daemon
            .sluice("drops")
            .ok()
            .contains("Not told one by one to those who followed: ")
    );

    // One goes, the other stays; a daemon that is killed has told nobody that it goes.
    drop(programs);
    eventually("one follows", 20, || followers(&daemon) == "1");
    daemon.kill();
    drop(people);
    daemon.boot();
    assert_eq!((followers(&daemon), listeners(&daemon)), ("0".into(), "0".into()));
    let again = follow(&daemon, "again.log", "");
    eventually("somebody follows again", 20, || followers(&daemon) == "1");
    docker.run(&format!("exec one ping -c 1 -W 1 {two}"));
    eventually("and is told", 20, || again.said().contains("icc_disabled"));
    drop(again);
    eventually("nobody listens", 20, || listeners(&daemon) == "0");
}
