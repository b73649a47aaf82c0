//! `docker run` and its flags.

use lab::{Lab, start};

#[test]
fn run_shows_the_output_and_passes_on_the_exit_code() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    assert_eq!(docker.ok("run --rm busybox echo hello"), "hello");
    docker
        .words(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])
        .fails(7, "err");
    docker
        .run("run --rm busybox /no/such/program")
        .fails(127, "no such file or directory");
    docker
        .run("run --rm busybox /etc/passwd")
        .fails(126, "permission denied");
    docker.run("run --rm no-such-image").fails(125, "");
    docker
        .run("run --rm --no-such-flag busybox true")
        .fails(125, "unknown flag");
}
