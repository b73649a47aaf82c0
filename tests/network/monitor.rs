//! `sluice monitor`: what happens, shown to whoever looks.

use lab::{Background, Daemon, HOST, Lab, eventually, start};
use serde_json::Value;

fn monitor(daemon: &Daemon, log: &str, options: &str) -> Background {
    let sluice = lab::binary("sluice");
    let socket = daemon.socket();
    daemon.host().spawn(
        log,
        &format!("{} -H unix://{} monitor {options}", sluice.display(), socket.display()),
    )
}

fn lines(said: &str) -> Vec<Value> {
    said.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn followers(daemon: &Daemon) -> String {
    let status = daemon.sluice("status").ok();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Followers of drops: "));
    line.unwrap_or_else(|| panic!("{status}")).to_owned()
}

#[test]
fn whoever_monitors_sees_drops_and_conversations_with_names_labels_and_rules() {
    let lab = Lab::new();
    let log = lab.host.directory().join("flows.json");
    let daemon = start(
        &lab,
        &format!("--flow-log {} --flow-log-filter event=close", log.display()),
    );
    let docker = daemon.docker();
    docker.ok("run -d --name web --label tier=front -p 8080:80 busybox httpd -f -p 80");
    docker.ok("run -d --name db --label tier=back busybox httpd -f -p 5432");
    let (web, db) = (docker.address("web"), docker.address("db"));
    lab.host.run(&format!(
        "echo '{{name: db, select: {{labels: {{tier: back}}}}, ingress: [{{from: [{{labels: {{tier: front}}}}], ports: [5432]}}]}}' | {} -H unix://{} policy apply -f -",
        lab::binary("sluice").display(),
        daemon.socket().display()
    ));

    let all = monitor(&daemon, "all.log", "--flows --json");
    let some = monitor(
        &daemon,
        "some.log",
        "--json --verdict denied --label tier=back --port 22",
    );
    let people = monitor(&daemon, "people.log", "--flows -c db");
    let file = lab.host.directory().join("dead.pcapng");
    let packets = monitor(
        &daemon,
        "packets.log",
        &format!("--pcap {} -r policy_denied", file.display()),
    );
    eventually("four look, and the flow log", 30, || followers(&daemon) == "5");

    docker.words(&["exec", "web", "sh", "-c", &format!("echo | nc -w 1 {db} 22")]);
    docker.run(&format!("exec web wget -q -O - http://{db}:5432/"));
    lab.lan.shell(&format!("curl -s -m 5 http://{HOST}:8080/"));

    let find = |said: &str, fits: &dyn Fn(&Value) -> bool| lines(said).into_iter().find(|line| fits(line));
    let denied = |line: &Value| line["verdict"] == "denied" && line["destination"]["port"] == 22;
    eventually("the drop is seen by all who want it", 30, || {
        find(&all.said(), &denied).is_some() && find(&some.said(), &denied).is_some()
    });
    let dropped = find(&some.said(), &denied).unwrap_or_default();
    for (pointer, value) in [
        ("/event", "drop"),
        ("/source/name", "web"),
        ("/source/network", "bridge"),
        ("/source/labels/tier", "front"),
        ("/source/address", web.as_str()),
        ("/destination/name", "db"),
        ("/destination/labels/tier", "back"),
        ("/destination/address", db.as_str()),
        ("/protocol", "tcp"),
        ("/drop_reason/name", "policy_denied"),
        ("/policy", "db, ingress: allowed by no rule"),
        ("/point", "from_container"),
    ] {
        assert_eq!(
            dropped.pointer(pointer),
            Some(&Value::from(value)),
            "{pointer} of {dropped}"
        );
    }
    assert!(
        dropped.get("frame").is_none() && dropped.get("carried").is_none(),
        "{dropped}"
    );

    // A conversation from its opening to its end.
    let of_db = |event: &'static str| move |line: &Value| line["event"] == event && line["destination"]["port"] == 5432;
    eventually("it closes", 30, || find(&all.said(), &of_db("close")).is_some());
    let (open, close) = (
        find(&all.said(), &of_db("open")).unwrap_or_default(),
        find(&all.said(), &of_db("close")).unwrap_or_default(),
    );
    assert_eq!(
        (&open["verdict"], &open["policy"]),
        (&"forwarded".into(), &"db, rule 1 of ingress".into())
    );
    assert_eq!(
        (&close["carried"]["end"], &close["source"]["name"]),
        (&"closed".into(), &"web".into())
    );
    assert!(close["carried"]["bytes"].as_u64() > Some(200), "{close}");
    // In from the LAN by a published port.
    let published = |line: &Value| line["event"] == "open" && line["destination"]["port"] == 8080;
    eventually("the LAN's is seen", 30, || find(&all.said(), &published).is_some());
    let open = find(&all.said(), &published).unwrap_or_default();
    let answers = &open["translated_destination"];
    assert_eq!(
        (&open["destination"]["name"], &answers["name"], &answers["port"]),
        (&"host".into(), &"web".into(), &80.into())
    );
    assert!(lines(&some.said()).iter().all(denied), "{}", some.said());
    assert!(!people.said().contains("8080"), "{}", people.said());
    assert!(
        people.said().contains(&format!("DENIED   tcp web ({web}:")),
        "{}",
        people.said()
    );
    assert!(!people.said().contains('\u{1b}'), "no colours in a file");

    // The table of conversations, by the same filters.
    let flows: Value = serde_json::from_str(&daemon.sluice("flows --json -p 8080 --top").ok()).unwrap();
    assert_eq!(flows[0]["translated_to"]["network"], "bridge", "{flows}");
    assert_eq!(daemon.sluice("flows --json -c nobody").ok(), "[]");

    // What was written opens, with the reason beside the packet.
    eventually("the packet is in the file", 30, || {
        let read = lab.host.shell(&format!("tcpdump -nr {}", file.display()));
        read.stdout.contains(&format!("{db}.22"))
    });
    let bytes = std::fs::read(&file).unwrap();
    let comment = b"policy_denied: ";
    assert!(bytes.windows(comment.len()).any(|window| window == comment));

    // The flow log has what closed, and nothing else.
    let kept = || lines(&std::fs::read_to_string(&log).unwrap_or_default());
    eventually("the flow log has it", 30, || kept().iter().any(of_db("close")));
    assert!(kept().iter().all(|line| line["event"] == "close"), "{:?}", kept());

    drop((all, some, people, packets));
    eventually("nobody looks but the flow log", 30, || followers(&daemon) == "1");
    let refused = daemon.sluice("monitor --reason because");
    assert!(
        refused.stderr.contains("there is no such reason to be dropped"),
        "{refused}"
    );
}
