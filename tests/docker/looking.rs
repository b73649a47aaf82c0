//! What people look at: ps, stats, events, top; and what is pruned.

use lab::{Docker, Lab, start};

/// Names of containers, in order.
fn names(docker: &Docker, flags: &str) -> Vec<String> {
    let mut words = vec!["ps", "--format", "{{.Names}}"];
    words.extend(flags.split_whitespace());
    let mut names: Vec<String> = docker.words(&words).ok().lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn ps_finds_containers_by_every_filter() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let source = lab.host.directory().join("source");
    std::fs::create_dir(&source).unwrap();
    docker
        .sh(
            "-d --name one --label tier=front --label zone=a -p 8080:80 --expose 90",
            "sleep 1000",
        )
        .ok();
    docker
        .sh(
            &format!(
                "-d --name two --label tier=back --network none -v {}:/data",
                source.display()
            ),
            "sleep 1000",
        )
        .ok();
    docker.run("run --name ended busybox sh -c false");
    docker.sh("--name three", "exit 3");
    docker.ok("create --name made --expose 99 busybox true");
    docker.ok("pause two");
    let id = docker.inspect("one", "{{.Id}}");
    for (flags, wanted) in [
        ("", "one two"),
        ("-a", "ended made one three two"),
        ("--last 2", "made three"),
        ("-l", "made"),
        ("--filter status=paused", "two"),
        ("--filter status=created", "made"),
        ("--filter status=exited --filter status=created", "ended made three"),
        ("-a --filter exited=3", "three"),
        ("-a --filter exited=0", ""),
        ("--filter label=tier", "one two"),
        ("--filter label=tier=back", "two"),
        ("--filter label=tier --filter label=zone=a", "one"),
        ("-a --filter name=t", "three two"),
        ("-a --filter name=^t", "three two"),
        ("-a --filter name=^/two$", "two"),
        ("-a --filter before=ended", "one two"),
        ("-a --filter since=ended", "made three"),
        ("--filter ancestor=busybox", "one two"),
        ("--filter ancestor=nosuch", ""),
        ("--filter network=none", "two"),
        ("--filter network=bridge", "one"),
        ("--filter publish=8080", "one"),
        ("--filter publish=80-9000/tcp", "one"),
        ("--filter publish=8080/udp", ""),
        ("--filter expose=90", "one"),
        ("--filter expose=80-100/tcp", "one"),
        ("--filter expose=80", "one"),
        ("--filter expose=8080", ""),
        ("--filter expose=1 --filter publish=8080", "one"),
        ("--filter expose=1 --filter publish=1", ""),
        ("--filter expose=90 --filter name=two", ""),
        ("-a --filter expose=99", ""),
        ("--filter volume=/data", "two"),
        ("--filter health=none", "one two"),
        ("--filter is-task=false", "one two"),
        ("--filter is-task=true", ""),
    ] {
        assert_eq!(names(&docker, flags).join(" "), wanted, "ps {flags}");
    }
    assert_eq!(names(&docker, &format!("--filter id={}", &id[..8])), ["one"]);
    docker.run("ps --filter nonsense=x").fails(1, "nonsense");
    docker.run("ps --filter status=asleep").fails(1, "asleep");
    docker.ok("exec one sh -c true");
    docker
        .words(&["exec", "one", "sh", "-c", "head -c 100000 /dev/zero > /file"])
        .ok();
    let size = docker
        .words(&["ps", "-s", "--filter", "name=one", "--format", "{{.Size}}"])
        .ok();
    assert!(size.starts_with("100kB (virtual "), "{size}");
    docker.ok("unpause two");
}

#[test]
fn stats_tell_what_a_container_uses() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh("-d --name busy -m 64m --pids-limit 50", "while :; do :; done")
        .ok();
    docker.ok("create --name idle busybox true");
    let format = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}";
    let line = docker.words(&["stats", "--no-stream", "--format", format, "busy"]).ok();
    let words: Vec<&str> = line.split_whitespace().collect();
    let percent: f64 = words[1].trim_end_matches('%').parse().unwrap();
    assert!(words[0] == "busy" && percent > 1.0, "{line}");
    assert!(line.contains("/ 64MiB") && words.last() == Some(&"1"), "{line}");
    let line = docker.words(&["stats", "--no-stream", "--format", format, "idle"]).ok();
    assert!(line.starts_with("idle 0.00%"), "{line}");

    docker.words(&[
        "exec",
        "busy",
        "sh",
        "-c",
        "for i in 1 2 3; do ping -c 1 -W 1 172.17.0.1; done",
    ]);
    let (status, body) = daemon.request("GET", "/v1.41/containers/busy/stats?stream=0&one-shot=1", "");
    assert_eq!(status, 200, "{body}");
    let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(stats["name"], "/busy");
    assert_eq!(stats["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    assert_eq!(stats["memory_stats"]["limit"], 64 << 20);
    assert_eq!(stats["pids_stats"]["limit"], 50);
    let positive = |value: &serde_json::Value| value.as_u64().is_some_and(|value| value > 0);
    for value in [
        &stats["cpu_stats"]["cpu_usage"]["total_usage"],
        &stats["cpu_stats"]["system_cpu_usage"],
        &stats["cpu_stats"]["online_cpus"],
        &stats["memory_stats"]["usage"],
        &stats["networks"]["eth0"]["tx_bytes"],
        &stats["networks"]["eth0"]["rx_packets"],
    ] {
        assert!(positive(value), "{stats:#}");
    }
    let (_, body) = daemon.request("GET", "/v1.41/containers/busy/stats?stream=0", "");
    let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(
        positive(&stats["precpu_stats"]["cpu_usage"]["total_usage"]),
        "{stats:#}"
    );
    let (status, _) = daemon.request("GET", "/v1.41/containers/nobody/stats?stream=0", "");
    assert_eq!(status, 404);
    docker.ok("rm -f busy");
}

#[test]
fn prune_removes_what_does_not_run() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.sh("-d --name up", "sleep 1000").ok();
    docker.sh("--name ended", "head -c 50000 /dev/zero > /file");
    docker.ok("create --name made --label keep busybox true");
    assert!(
        !docker.ok("container prune -f --filter until=1h").contains("Deleted"),
        "all are younger"
    );
    let said = docker.ok("container prune -f --filter label!=keep");
    assert!(
        said.contains("Deleted Containers:") && said.contains("Total reclaimed space: 50kB"),
        "{said}"
    );
    assert_eq!(names(&docker, "-a"), ["made", "up"]);
    docker.ok("container prune -f --filter label=keep");
    assert_eq!(names(&docker, "-a"), ["up"]);
    let (status, body) = daemon.request(
        "POST",
        "/v1.41/containers/prune?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D",
        "",
    );
    assert!(status == 400 && body.contains("colour"), "{status} {body}");
}

#[test]
fn events_tell_a_whole_life_and_the_past_is_remembered() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let begin = lab.host.run("date +%s.%N");
    docker
        .sh(
            "-d --name box --label tier=front",
            "trap 'exit 3' TERM; while :; do sleep 0.1; done",
        )
        .ok();
    docker.ok("pause box");
    docker.ok("unpause box");
    docker.ok("rename box crate");
    docker.ok("exec crate true");
    docker.ok("top crate");
    docker.ok("kill -s USR1 crate");
    docker.ok("update --restart no crate");
    docker.run("restart -t 5 crate");
    docker.ok("stop -t 0 crate");
    docker.ok("rm crate");
    docker.ok("tag busybox other:2");
    docker.ok("rmi other:2");
    docker.ok("volume create data");
    docker.ok("volume rm data");
    docker.ok("network create mine");
    docker.ok("network rm mine");
    let end = lab.host.run("date +%s.%N");
    let past = |filters: &[&str], format: &str| {
        let mut words = vec!["events", "--since", &begin, "--until", &end, "--format", format];
        for filter in filters {
            words.extend(["--filter", filter]);
        }
        docker.words(&words).ok()
    };
    let mut seen: Vec<String> = past(&["type=container"], "{{.Action}}")
        .lines()
        .map(str::to_owned)
        .collect();
    seen.retain(|event| !event.starts_with("exec_die"));
    let mut wanted = vec![
        "create",
        "start",
        "pause",
        "unpause",
        "rename",
        "exec_create: true ",
        "exec_start: true ",
        "top",
        "kill",
        "update",
        // restart: the program answers TERM
        "kill",
        "die",
        "stop",
        "start",
        "restart",
        // stop: it is given no time
        "kill",
        "kill",
        "die",
        "stop",
        "destroy",
    ];
    // an end and the signal that caused it are told by different hands: their order is left open
    let order = |events: &mut [String]| {
        let mut at = 0;
        while at + 1 < events.len() {
            if events[at] == "die" && events[at + 1] == "kill" {
                events.swap(at, at + 1);
                at = 0;
            }
            at += 1;
        }
    };
    order(&mut seen);
    // TERM may end it before KILL is needed
    if seen.iter().filter(|event| *event == "kill").count() == 3 {
        wanted.remove(15);
    }
    assert_eq!(seen, wanted);
    assert_eq!(
        past(
            &["event=rename"],
            "{{.Actor.Attributes.oldName}} {{.Actor.Attributes.name}}"
        ),
        "/box crate"
    );
    assert_eq!(
        past(&["event=die", "label=tier=front"], "{{.Actor.Attributes.exitCode}}")
            .lines()
            .next(),
        Some("3")
    );
    assert_eq!(past(&["event=die", "label=tier=back"], "{{.Action}}"), "");
    assert_eq!(past(&["event=start", "container=crate"], "{{.Action}}"), "start");
    let signal = past(&["event=kill"], "{{.Actor.Attributes.signal}}");
    assert_eq!(signal.lines().next(), Some("10"), "{signal}");
    for (kind, wanted) in [
        ("image", "tag other:2\nuntag other:2"),
        ("volume", "create data\ndestroy data"),
        ("network", "create mine\ndestroy mine"),
    ] {
        let format = match kind {
            "volume" => "{{.Action}} {{.Actor.ID}}",
            _ => "{{.Action}} {{.Actor.Attributes.name}}",
        };
        let told = past(
            &[
                &format!("type={kind}"),
                "event=tag",
                "event=untag",
                "event=create",
                "event=destroy",
            ],
            format,
        );
        // what Docker calls an untagged image is its id
        let told = match (kind, daemon.is_ours()) {
            ("image", false) => told.replace(
                &format!("untag {}", docker.inspect("busybox", "{{.Id}}")),
                "untag other:2",
            ),
            _ => told,
        };
        assert_eq!(told, wanted, "{kind}");
    }
    let networks = past(
        &["type=network"],
        "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}",
    );
    assert!(
        networks.starts_with("connect bridge bridge\ndisconnect bridge bridge"),
        "{networks}"
    );
}

#[test]
fn top_takes_the_options_of_ps() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    let table = docker.ok("top box -o pid,comm,args");
    let (titles, row) = table.split_once('\n').unwrap();
    assert_eq!(
        titles.split_whitespace().collect::<Vec<_>>(),
        ["PID", "COMMAND", "COMMAND"]
    );
    assert!(
        row.contains("sleep 1000") && row.starts_with(&docker.pid("box").to_string()),
        "{table}"
    );
    assert!(docker.ok("top box").contains("UID"));
    docker.ok("stop -t 0 box");
    docker.run("top box").fails(1, "is not running");
}
