//! `docker exec`, without a terminal.

use lab::{Lab, start};

#[test]
fn exec_runs_beside_the_program_with_its_own_exit_code_user_and_environment() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box -e COLOUR=blue busybox sleep 1000");
    assert_eq!(docker.ok("exec box echo hello"), "hello");
    let ran = docker.words(&["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!(
        (ran.code(), ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(9), "out\n", "err\n"),
        "{ran}"
    );
    assert_eq!(
        docker
            .words(&["exec", "-e", "SHAPE=round", "box", "sh", "-c", "echo $COLOUR $SHAPE"])
            .ok(),
        "blue round"
    );
    assert_eq!(docker.ok("exec -u ada -w /tmp box id -un"), "ada");
    assert_eq!(docker.ok("exec -w /tmp box pwd"), "/tmp");
    assert_eq!(docker.fed(&["exec", "-i", "box", "sort"], b"b\na\n").ok(), "a\nb");
    // Old engines say 126 of both.
    assert!(matches!(docker.run("exec box no-such-program").code(), Some(126 | 127)));
    assert_eq!(docker.run("exec box /etc/passwd").code(), Some(126));
    docker
        .run("exec no-such-box true")
        .fails(1, "No such container: no-such-box");
    let processes = docker.ok("exec box ps -o pid,args");
    assert!(
        processes.lines().any(|line| line.trim() == "1 sleep 1000"),
        "{processes}"
    );
}

#[test]
fn a_detached_exec_goes_on_and_a_stopped_container_has_none() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    docker
        .words(&["exec", "-d", "box", "sh", "-c", "sleep 0.3; echo done > /tmp/mark"])
        .ok();
    lab::eventually("the detached program has done its work", 5, || {
        docker.run("exec box cat /tmp/mark").stdout == "done\n"
    });
    docker.ok("kill box");
    docker.run("exec box true").fails(1, "is not running");
}
