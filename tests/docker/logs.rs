//! What a container said: written down, rotated, chosen from, followed.

use std::{collections::BTreeSet, fs::OpenOptions, io::Read};

use lab::{Daemon, Lab, eventually, start};

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
        // While a file is packed (the driver local does so by itself) the next one grows: all may be said before the packing is done.
        assert!(
            (numbers[0] > 1 || name != "plain") && numbers.len() > 300,
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

/// The numbers a log holds, which must be all up to the last, in order and once each.
fn counted(said: &str) -> usize {
    for (at, line) in said.lines().enumerate() {
        assert_eq!(line.parse(), Ok(at + 1));
    }
    said.lines().count()
}

#[test]
fn a_log_is_whole_although_the_daemon_dies_while_it_is_written_and_rotated() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return lab::skipped("Docker's containers end with their daemon");
    }
    let docker = daemon.docker();
    let script = "i=0; while [ ! -e /enough ]; do i=$((i+1)); echo $i; done; echo $i > /count; sleep 1000";
    docker
        .sh("-d --name box --log-opt max-size=100k --log-opt max-file=1000", script)
        .ok();
    let root = daemon.data_root();
    let rotated = || {
        let files = lab
            .host
            .run(&format!("ls {}/containers/*/ | grep -c json.log", root.display()));
        files.parse::<u32>().unwrap()
    };
    for round in 1..=2 {
        let before = rotated();
        daemon.kill();
        eventually("it is rotated meanwhile", 30, || rotated() > before);
        daemon.boot();
        assert!(counted(&docker.ok("logs box")) > 1000 * round);
    }
    docker.ok("exec box touch /enough");
    eventually("it has said all", 30, || docker.run("exec box cat /count").is_ok());
    let count: usize = docker.ok("exec box cat /count").parse().unwrap();
    eventually("all of it is in the log", 30, || {
        docker.ok("logs --tail 1 box") == count.to_string()
    });
    assert_eq!(counted(&docker.ok("logs box")), count);
    docker.ok("rm -f box");
}

/// A program that sleeps, and has done nothing for a moment.
fn stands_still(pid: u32) -> bool {
    let look = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<String> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        // its state, and the time it has had, in its own code and in the kernel's
        (fields[0].clone(), fields[11].clone(), fields[12].clone())
    };
    let before = look();
    std::thread::sleep(std::time::Duration::from_millis(200));
    before.0 == "S" && before == look()
}

/// A disk that takes nothing is a pipe that nobody reads.
#[test]
fn who_writes_faster_than_the_disk_waits_for_it_and_nobody_else_does() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        return lab::skipped("Docker's daemon writes the logs itself, and does not start with such a file");
    }
    let docker = daemon.docker();
    docker.ok("create --name box busybox seq 1 100000");
    let log = docker.inspect("box", "{{.LogPath}}");
    lab.host.run(&format!("rm -f {log}; mkfifo {log}"));
    let mut disk = OpenOptions::new().read(true).write(true).open(&log).unwrap();
    docker.ok("start box");
    let pid = docker.pid("box");
    eventually("it waits for the disk", 30, || stands_still(pid));
    for name in ["one", "two"] {
        assert_eq!(docker.ok(&format!("run --rm --name {name} busybox echo {name}")), name);
    }
    assert_eq!(docker.ok("ps --format {{.Names}}"), "box");
    assert!(stands_still(pid));
    // it takes all again: nothing was lost
    let (mut lines, mut rest) = (0_u32, Vec::new());
    while lines < 100_000 {
        let mut piece = vec![0; 64 << 10];
        let length = disk.read(&mut piece).unwrap();
        rest.extend_from_slice(&piece[..length]);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let entry: serde_json::Value = serde_json::from_slice(&line).unwrap();
            lines += 1;
            assert_eq!(entry["log"], format!("{lines}\n"));
        }
    }
    assert_eq!(docker.ok("wait box"), "0");
    // and when it never does, the container can be stopped all the same
    docker.ok("create --name stuck busybox yes");
    let log = docker.inspect("stuck", "{{.LogPath}}");
    lab.host.run(&format!("rm -f {log}; mkfifo {log}"));
    let disk = OpenOptions::new().read(true).write(true).open(&log).unwrap();
    docker.ok("start stuck");
    let pid = docker.pid("stuck");
    eventually("it waits for the disk", 30, || stands_still(pid));
    docker.ok("stop -t 1 stuck");
    assert_eq!(
        docker.inspect("stuck", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
    drop(disk);
    docker.ok("rm stuck box");
}
