//! The engine as programs meet it, by docker-py: a Python file for each subject, its tests named as sentences too.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::process::Command;

use lab::{Lab, Ran, patience, start};

/// The first Python that has docker-py (and not only a directory of the name `docker` around it), by its own path: in a test's host the search for it may end elsewhere.
fn python() -> String {
    let path = |python: &str| {
        let asked = Command::new(python)
            .args(["-c", "import docker.errors, sys; print(sys.executable)"])
            .output();
        let answer = asked.ok().filter(|answer| answer.status.success())?;
        Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    };
    let found = ["/usr/bin/python3", "python3"].into_iter().find_map(path);
    found.unwrap_or_else(|| panic!("docker-py is not installed (cargo xtask setup)"))
}

/// Runs all tests of a file against a daemon of its own.
#[track_caller]
fn run(file: &str) {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let mut command = lab.host.command(python());
    command
        .env("DOCKER_HOST", format!("unix://{}", daemon.socket().display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-W", "ignore"])
        .arg(format!("{}/docker_py/{file}", env!("CARGO_MANIFEST_DIR")))
        .arg("-v");
    let ran = Ran::command(&mut command, &[], patience(240));
    assert!(ran.is_ok(), "{ran}");
}

#[test]
fn containers_live_as_docker_py_expects() {
    run("containers.py");
}

#[test]
fn files_are_copied_as_docker_py_expects() {
    run("files.py");
}

#[test]
fn volumes_and_images_are_kept_as_docker_py_expects() {
    run("things.py");
}

#[test]
fn streams_flow_as_docker_py_expects() {
    run("streams.py");
}

#[test]
fn what_is_asked_less_often_is_as_docker_py_expects() {
    run("more.py");
}

#[test]
fn containers_for_tests_are_as_testcontainers_expects() {
    let asked = Command::new(python())
        .args(["-c", "import testcontainers.core.container"])
        .output();
    if !asked.is_ok_and(|answer| answer.status.success()) {
        return lab::skipped("testcontainers is not installed (pip install testcontainers)");
    }
    run("testing.py");
}
