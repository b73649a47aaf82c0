//! `sluice explain`: what would become of a packet, by the real programs, without a trace.

use lab::{Daemon, HOST, LAN, Lab, start};

fn explain(daemon: &Daemon, line: &str, code: i32) -> String {
    let ran = daemon.sluice(&format!("explain {line}"));
    assert_eq!(ran.code(), Some(code), "{ran}");
    ran.stdout
}

#[track_caller]
fn says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is missing in\n{told}");
    }
}

#[test]
fn what_would_become_of_a_packet_is_told_step_by_step_and_leaves_nothing() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --internal back");
    docker.ok("network create shop");
    docker.ok("run -d --name web --network shop -p 8080:80 busybox sleep 1000");
    docker.ok("run -d --name db --network shop --label tier=back busybox sleep 1000");
    docker.ok("run -d --name lone --network back busybox sleep 1000");
    let address = |name: &str, network: &str| {
        docker.inspect(name, &format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"))
    };
    let (web, db) = (address("web", "shop"), address("db", "shop"));
    lab.host.run(&format!(
        "echo '{{name: db, select: {{labels: {{tier: back}}}}, ingress: [{{from: [{{name: web}}], ports: [5432]}}]}}' | {} -H unix://{} policy apply -f -",
        lab::binary("sluice").display(),
        daemon.socket().display()
    ));
    let before = [daemon.sluice("flows").ok(), counts(&daemon)];

    let told = explain(&daemon, "web db 5432/tcp", 0);
    let (from, to) = (format!("web ({web})"), format!("db ({db}:5432)"));
    says(
        &told,
        &[
            &from,
            &to,
            "from_container sees it at slc",
            "db, rule 1 of ingress: allows it",
            "namespace of db",
            "forwarded",
        ],
    );
    let told = explain(&daemon, "web db 22/tcp", 1);
    says(
        &told,
        &["db, ingress: allowed by no rule: denies it", "dropped, policy_denied: "],
    );
    says(&explain(&daemon, "web db", 1), &["icmp", "policy_denied"]);
    says(
        &explain(&daemon, "lone web 80/tcp", 1),
        &["dropped, isolated_network: "],
    );
    says(
        &explain(&daemon, "lone 192.0.2.1 80/tcp", 1),
        &["dropped, internal_network: "],
    );
    // To the LAN: masqueraded.
    let told = explain(&daemon, &format!("web {LAN} 80/tcp"), 0);
    says(
        &told,
        &[
            "no document speaks of it",
            &format!("the source becomes host ({HOST}:"),
            "out of ",
        ],
    );
    // From the LAN: to a published port, and to one that is not.
    let told = explain(&daemon, &format!("{LAN} {HOST} 8080/tcp"), 0);
    says(
        &told,
        &[
            "from_nic",
            &format!("the destination becomes web ({web}:80)"),
            "namespace of web",
        ],
    );
    assert_eq!(told, explain(&daemon, &format!("{LAN} host 8080"), 0));
    says(
        &explain(&daemon, &format!("{LAN} host 8081/tcp"), 0),
        &["left to the host's own stack"],
    );
    says(
        &explain(&daemon, &format!("{LAN} {web} 80/tcp"), 1),
        &["dropped, unpublished: "],
    );
    // The host itself.
    let told = explain(&daemon, "host 127.0.0.1 8080/tcp", 0);
    says(
        &told,
        &[
            &format!("is turned to web ({web}:80) before a packet exists"),
            "from_host",
            "namespace of web",
        ],
    );
    // What cannot be asked.
    for (line, why) in [
        ("nobody web 80/tcp", "nobody is no container"),
        ("web db icmp4/3", "open no conversation"),
        ("web db tcp", "the port is to be said"),
        ("host 127.0.0.1 9/tcp", "nobody has published"),
    ] {
        let ran = daemon.sluice(&format!("explain {line}"));
        assert!(!ran.is_ok() && ran.stderr.contains(why), "{ran}");
    }
    let json: serde_json::Value = serde_json::from_str(&explain(&daemon, "web db 22/tcp --json", 1)).unwrap();
    assert_eq!(
        (&json["verdict"], &json["drop_reason"]["name"]),
        (&"denied".into(), &"policy_denied".into())
    );

    assert_eq!(
        before,
        [daemon.sluice("flows").ok(), counts(&daemon)],
        "nothing is left of all this"
    );
    let drops = daemon.sluice("drops").ok();
    for reason in ["policy_denied", "isolated_network", "internal_network", "unpublished"] {
        assert!(!drops.contains(reason), "{drops}");
    }

    // What is judged before documents, as rules.
    let rules = daemon.sluice("policy get --all").ok();
    for words in [
        [
            "network shop",
            "deny",
            "other networks",
            "isolated_network",
            "SUBNETS: ",
        ],
        ["network back", "deny", "world", "internal_network", "INTERNAL"],
        ["network shop", "allow", "shop", "everything", ": ICC"],
        ["port of web", "allow", "everybody", "8080/tcp", "PUBLISHED4: "],
    ] {
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(rules.lines().any(has), "{words:?} is missing in\n{rules}");
    }
    assert!(rules.contains("NAME"), "policies stand below: {rules}");
}

/// How often rules have spoken.
fn counts(daemon: &Daemon) -> String {
    daemon.sluice("policy get db").ok()
}
