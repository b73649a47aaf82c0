//! The life of a container, from `create` to `rm`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use lab::{Lab, eventually, patience, start};

#[test]
fn a_container_is_created_started_stopped_and_started_again() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .words(&[
            "create",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done",
        ])
        .ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "created");
    docker.ok("start box");
    docker.ok("start box"); // twice is not a mistake
    assert_eq!(
        docker.inspect("box", "{{.State.Status}} {{.State.Running}}"),
        "running true"
    );
    eventually("it has set its trap", 5, || {
        docker.run("logs box").stdout.contains("up")
    });
    docker.ok("stop box");
    assert_eq!(
        docker.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    assert_eq!(docker.ok("logs box"), "up\nbye");
    docker.ok("start box");
    eventually("it is up again", 5, || {
        docker.run("logs box").stdout.matches("up").count() == 2
    });
    docker.ok("rm -f box");
    assert_eq!(docker.ok("ps -aq"), "");
}

#[test]
fn who_does_not_hear_term_is_killed_after_the_time_given() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name deaf busybox sleep 1000"); // process 1 has no handler, so TERM does nothing
    let begin = std::time::Instant::now();
    docker.ok("stop -t 1 deaf");
    assert!(begin.elapsed() >= std::time::Duration::from_millis(900));
    assert!(begin.elapsed() < patience(6));
    assert_eq!(docker.inspect("deaf", "{{.State.ExitCode}}"), "137");
}

#[test]
fn kill_sends_the_signal_named() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh("-d --name box", "trap 'echo one' USR1; while :; do sleep 0.1; done")
        .ok();
    eventually("the signal is heard", 5, || {
        docker.ok("kill -s USR1 box");
        docker.run("logs box").stdout.contains("one")
    });
    assert_eq!(docker.inspect("box", "{{.State.Running}}"), "true");
    docker.ok("kill box");
    assert_eq!(docker.ok("wait box"), "137");
    docker.run("kill box").fails(1, "is not running");
    docker.run("kill -s NOSUCH box").fails(1, "");
}

#[test]
fn wait_waits_for_the_end_and_tells_the_exit_code() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.sh("-d --name box", "sleep 1; exit 5").ok();
    assert_eq!(docker.ok("wait box"), "5");
    assert_eq!(docker.ok("wait box"), "5");
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    let refused = docker.run("rm box");
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.to_lowercase().contains("container"), "{refused}");
    docker.ok("rm -f box");
    docker.run("rm box").fails(1, "No such container: box");
}

#[test]
fn logs_keep_both_streams_apart_and_follow_until_the_end() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh(
            "-d --name box",
            "echo out; echo err >&2; for i in 1 2 3; do sleep 0.3; echo $i; done",
        )
        .ok();
    let followed = docker.run("logs -f box");
    assert_eq!(
        (followed.stdout.as_str(), followed.stderr.as_str()),
        ("out\n1\n2\n3\n", "err\n"),
        "{followed}"
    );
    assert_eq!(docker.run("logs --tail 1 box").stdout, "3\n");
    let stamped = docker.run("logs -t --tail 1 box").stdout;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z 3\n"), "{stamped}");
}

#[test]
fn ps_shows_what_runs_and_with_all_also_what_ended() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name runs -p 8080:80 busybox sleep 1000");
    docker.ok("run --name ended busybox true");
    assert_eq!(docker.ok("ps --format {{.Names}}"), "runs");
    let mut all: Vec<String> = docker
        .ok("ps -a --format {{.Names}}")
        .lines()
        .map(str::to_owned)
        .collect();
    all.sort();
    assert_eq!(all, ["ended", "runs"]);
    let line = docker
        .words(&["ps", "--format", "{{.Image}}|{{.Command}}|{{.Status}}|{{.Ports}}"])
        .ok();
    assert!(line.starts_with("busybox|\"sleep 1000\"|Up "), "{line}");
    assert!(line.contains("0.0.0.0:8080->80/tcp"), "{line}");
    assert_eq!(docker.ok("ps -a --filter status=exited --format {{.Names}}"), "ended");
    assert_eq!(docker.ok("ps -a --filter name=runs --format {{.Names}}"), "runs");
    assert!(
        docker
            .words(&["ps", "-a", "--filter", "name=ended", "--format", "{{.Status}}"])
            .ok()
            .starts_with("Exited (0)")
    );
}

#[test]
fn a_container_may_be_called_by_the_start_of_its_id() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let id = docker.ok("run -d busybox sleep 1000");
    assert_eq!(docker.inspect(&id[..6], "{{.Id}}"), id);
    docker.ok(&format!("kill {}", &id[..12]));
}

#[test]
fn events_tell_what_happens_to_containers() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let mut command = docker.command(&[
        "events",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    let mut events = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(patience(1));
    docker.sh("--name box", "exit 4");
    docker.ok("rm box");
    let lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut seen: Vec<String> = Vec::new();
    for line in lines {
        seen.push(line.unwrap());
        if seen.last().unwrap().starts_with("destroy") {
            break;
        }
    }
    events.kill().unwrap();
    events.wait().unwrap();
    seen.retain(|event| !event.starts_with("attach") && !event.starts_with("disconnect"));
    assert_eq!(seen, ["create box", "start box", "die box", "destroy box"]);
}

#[test]
fn a_failed_start_is_told_and_leaves_a_container_that_never_ran() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .run("run -d --name box busybox /no/such/program")
        .fails(127, "no such file or directory");
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "created");
    docker.ok("rm box");
}

#[test]
fn a_container_has_its_own_signal_and_patience_for_its_stop() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let script = "trap 'exit 3' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let run = |flags: &[&str]| {
        let mut words = vec!["run", "-d", "--name", "box"];
        words.extend(flags);
        words.extend(["busybox", "sh", "-c", script]);
        docker.words(&words).ok();
        eventually("it is ready", 10, || docker.run("logs box").stdout.contains("ready"));
    };
    run(&["--stop-signal", "USR1"]);
    docker.ok("stop box");
    assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "3");
    docker.ok("rm box");
    run(&["--stop-timeout", "1"]);
    docker.ok("stop box");
    assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "137");
    docker.ok("rm box");
    run(&[]);
    if daemon.is_ours() {
        // the reference is older than this option (API 1.42)
        docker.ok("stop -s USR1 box");
        assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "3");
    }
    docker.ok("restart -t 0 box");
    assert_eq!(
        docker.inspect("box", "{{.State.Status}} {{.RestartCount}}"),
        "running 0"
    );
    docker.ok("rm -f box");
}
