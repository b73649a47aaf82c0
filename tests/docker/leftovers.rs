//! The end: of a container, of the daemon, of everything.

use lab::{HOST, Lab, Snapshot, start};

#[test]
fn a_removed_container_leaves_nothing() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("run --rm busybox true"); // what is made once for all, like the cgroup's parent, may stay
    let before = Snapshot::take(&lab.host);
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name other busybox sleep 1000");
    docker.ok("exec other true");
    lab.lan.run(&format!("curl -sS http://{HOST}:8080/"));
    docker.ok("rm -f web other");
    assert_eq!(before.left(&lab.host), "");
}

#[test]
fn after_the_last_container_and_a_clean_up_the_host_is_as_before() {
    let lab = Lab::new();
    let before = Snapshot::take(&lab.host);
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name other busybox sleep 1000");
    lab.host.run("curl -sS http://127.0.0.1:8080/");
    docker.ok("rm -f web other");
    assert_eq!(daemon.stop(), Some(0));
    daemon.clean_up().ok();
    assert_eq!(before.difference(&Snapshot::take(&lab.host)), "");
}

#[test]
fn cleaning_up_ends_what_still_runs() {
    let lab = Lab::new();
    let before = Snapshot::take(&lab.host);
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box -p 8080:80 busybox sleep 1000");
    daemon.kill();
    daemon.clean_up().ok();
    assert_eq!(before.difference(&Snapshot::take(&lab.host)), "");
}

#[test]
fn term_ends_the_daemon_and_leaves_containers_running() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    let pid = docker.pid("web");
    assert_eq!(daemon.stop(), Some(0));
    assert!(
        !lab.host.inside(|| daemon.exec_root().join("daemon.pid").exists()),
        "the pid file is gone"
    );
    assert_eq!(
        lab.lan.run(&format!("curl -sS --max-time 5 http://{HOST}:8080/")),
        "hello"
    );
    daemon.boot();
    assert_eq!(docker.pid("web"), pid);
    assert_eq!(docker.inspect("web", "{{.State.Status}}"), "running");
}

#[test]
fn a_second_daemon_of_the_same_instance_does_not_start() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let line = lab.host.run(&format!("tr '\\0' ' ' < /proc/{}/cmdline", daemon.pid()));
    let ran = lab.host.shell(&format!("timeout 10 {line}"));
    assert!(!ran.is_ok() && ran.code() != Some(124), "{ran}");
    assert_eq!(daemon.docker().ok("run --rm busybox echo alive"), "alive");
}
