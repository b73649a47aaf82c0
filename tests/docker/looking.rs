//! What people look at: ps, stats, events, top; and what is pruned.

use std::collections::BTreeSet;

use lab::{Daemon, Docker, Lab, eventually, start};

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

#[test]
fn logs_are_chosen_by_time_and_place_and_followed_to_the_end() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh("-d --name box", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done")
        .ok();
    let followed = docker.run("logs -f --tail 0 box").stdout;
    assert!(followed.ends_with("6\n") && !followed.starts_with("1\n"), "{followed}");
    let stamped = docker.ok("logs -t box");
    let times: Vec<&str> = stamped.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(docker.words(&["logs", "--since", times[3], "box"]).ok(), "4\n5\n6");
    assert_eq!(docker.words(&["logs", "--until", times[2], "box"]).ok(), "1\n2\n3");
    assert_eq!(
        docker
            .words(&["logs", "--since", times[1], "--until", times[3], "box"])
            .ok(),
        "2\n3\n4"
    );
    assert_eq!(docker.ok("logs --tail 2 box"), "5\n6");
    assert_eq!(docker.ok("logs --since 1h --tail 1 box"), "6");
    docker.ok("run --name silent --log-driver none busybox echo hello");
    docker
        .run("logs silent")
        .fails(1, "configured logging driver does not support reading");
    docker
        .run("run --rm --log-driver nosuch busybox true")
        .fails(125, "nosuch");
    eventually("it has ended", 10, || {
        docker.inspect("box", "{{.State.Status}}") == "exited"
    });
}

#[test]
fn a_rotated_log_is_read_as_one_whatever_keeps_it() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let bounds = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    for (name, driver, more) in [
        ("plain", "json-file", &[][..]),
        ("packed", "json-file", &["--log-opt", "compress=true"][..]),
        ("local", "local", &[][..]),
    ] {
        let mut words = vec!["run", "-d", "--name", name, "--log-driver", driver];
        words.extend(bounds);
        words.extend(more);
        words.extend(["busybox", "seq", "1", "5000"]);
        docker.words(&words).ok();
        docker.ok(&format!("wait {name}"));
        let said = docker.ok(&format!("logs {name}"));
        let numbers: Vec<u32> = said.lines().map(|line| line.parse().unwrap()).collect();
        let expected: Vec<u32> = (numbers[0]..=5000).collect();
        assert_eq!(
            numbers, expected,
            "{name}: nothing is missing between the first and the last"
        );
        // While a file is packed the next one grows: on a busy machine all of it may be said before the packing is done.
        assert!(
            (numbers[0] > 1 || name == "packed") && numbers.len() > 300,
            "{name}: {} lines are kept",
            numbers.len()
        );
        assert_eq!(
            docker.ok(&format!("logs --tail 400 {name}")).lines().next(),
            Some("4601"),
            "{name}"
        );
    }
    assert_eq!(docker.inspect("local", "{{.LogPath}}"), "");
    docker.ok("run -d --name chased --log-opt max-size=50k --log-opt max-file=100 busybox seq 1 20000");
    let followed = docker.ok("logs -f chased");
    let lines: Vec<&str> = followed.lines().collect();
    assert_eq!(
        (lines.len(), lines.first(), lines.last()),
        (20000, Some(&"1"), Some(&"20000"))
    );
    docker.ok("run --name tagged --label tier=front --log-opt labels=tier busybox echo hello");
    assert_eq!(docker.ok("logs --details tagged"), "tier=front hello");
}

#[test]
fn a_log_that_nobody_waits_for_is_whole_when_it_has_room_and_bears_what_expressions_choose() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let flags = "-d --name apart --label tier=front --label zone=a -e COLOUR=blue -e SIZE=xl --log-opt mode=non-blocking \
                 --log-opt max-buffer-size=4m --log-opt max-size=50k --log-opt max-file=50 --log-opt labels-regex=^t --log-opt env-regex=^(COL|X)";
    docker.sh(flags, "seq 1 2000; exit 3").ok();
    assert_eq!(docker.ok("wait apart"), "3");
    let said = docker.ok("logs apart");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        (lines.len(), lines.first(), lines.last()),
        (2000, Some(&"1"), Some(&"2000"))
    );
    let details = docker.ok("logs --details --tail 1 apart");
    assert_eq!(details, "COLOUR=blue,tier=front 2000");
    docker.ok("start apart");
    docker.ok("wait apart");
    assert_eq!(
        docker.ok("logs apart").lines().count(),
        4000,
        "the second life is added to the first"
    );
    docker
        .run("run --rm --log-opt max-buffer-size=1m busybox true")
        .fails(125, "max-buffer-size option is only supported with 'mode=non-blocking'");
    docker
        .run("run --rm --log-opt mode=often busybox true")
        .fails(125, "logging mode not supported: often");
}

/// The lines of a log as the API sends them: each behind a header of eight bytes, the last of which are its length.
fn heard(daemon: &Daemon, name: &str, query: &str) -> Vec<String> {
    let (status, body) = daemon.request("GET", &format!("/containers/{name}/logs?{query}"), "");
    assert_eq!(status, 200, "{body}");
    let (mut rest, mut lines) = (body.as_bytes(), Vec::new());
    while let Some((header, after)) = rest.split_first_chunk::<8>() {
        let (line, after) = after.split_at(usize::from(header[7]));
        lines.push(String::from_utf8_lossy(line).trim_end().to_owned());
        rest = after;
    }
    lines
}

/// What a mixture of options shall show of lines with their times: the tail is taken first, then the times have their say, as in Docker.
fn chosen(lines: &[(String, u32)], tail: Option<usize>, since: Option<&str>, until: Option<&str>) -> Vec<u32> {
    let first = lines.len().saturating_sub(tail.unwrap_or(usize::MAX));
    lines[first..]
        .iter()
        .filter(|(time, _)| {
            since.is_none_or(|since| time.as_str() >= since) && until.is_none_or(|until| time.as_str() <= until)
        })
        .map(|(_, number)| *number)
        .collect()
}

#[test]
fn logs_are_chosen_by_every_mixture_of_tail_since_until_and_stream() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    // even ones by stderr
    let script = "for i in 1 3 5 7; do echo $i; sleep 0.05; echo $((i+1)) >&2; sleep 0.05; done";
    for (name, driver) in [("plain", "json-file"), ("local", "local")] {
        docker.sh(&format!("--name {name} --log-driver {driver}"), script).ok();
        let all = heard(&daemon, name, "stdout=1&stderr=1&timestamps=1");
        let lines: Vec<(String, u32)> = all
            .iter()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(time, number)| (time.to_owned(), number.parse().unwrap()))
            .collect();
        // on a busy machine a word on one stream may overtake one on the other
        let numbers: BTreeSet<u32> = lines.iter().map(|line| line.1).collect();
        assert_eq!(numbers, (1..=8).collect(), "{name}");
        for tail in ["all", "0", "1", "3", "100", "-1", "nonsense"] {
            for (since, until) in [
                (None, None),
                (Some(2), None),
                (None, Some(4)),
                (Some(1), Some(6)),
                (Some(5), Some(2)),
            ] {
                let time = |at: Option<usize>| at.map(|at| lines[at].0.as_str());
                let expected = chosen(&lines, tail.parse().ok(), time(since), time(until));
                let mut words = vec!["logs", "--tail", tail];
                for (flag, at) in [("--since", time(since)), ("--until", time(until))] {
                    if let Some(at) = at {
                        words.extend([flag, at]);
                    }
                }
                words.push(name);
                let ran = docker.words(&words);
                let shown: BTreeSet<u32> = format!("{}{}", ran.stdout, ran.stderr)
                    .lines()
                    .map(|line| line.parse().unwrap_or_else(|_| panic!("{ran}")))
                    .collect();
                assert_eq!(shown, expected.into_iter().collect(), "{name}: {words:?}");
                for (streams, is_wanted) in [
                    ("stdout=1&stderr=0", (|number: u32| number % 2 == 1) as fn(u32) -> bool),
                    ("stdout=0&stderr=1", |number| number % 2 == 0),
                ] {
                    let heard = heard(&daemon, name, &format!("{streams}&tail={tail}"));
                    let expected = chosen(&lines, tail.parse().ok(), None, None);
                    let expected: Vec<u32> = expected.into_iter().filter(|number| is_wanted(*number)).collect();
                    let heard: Vec<u32> = heard.iter().map(|line| line.parse().unwrap()).collect();
                    assert_eq!(heard, expected, "{name}: {streams}, tail {tail}");
                }
            }
        }
    }
}
