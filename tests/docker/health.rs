//! Health checks.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use lab::{Docker, Lab, eventually, start};

/// Well while /tmp/well is there.
const CHECK: &str = "cat /tmp/well";

fn run_checked(docker: &Docker, name: &str, more: &[&str]) {
    let mut words = vec![
        "run",
        "-d",
        "--name",
        name,
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
    ];
    words.extend(more);
    words.extend(["busybox", "sleep", "1000"]);
    docker.words(&words).ok();
}

fn health(docker: &Docker, name: &str) -> String {
    docker.inspect(name, "{{.State.Health.Status}}")
}

#[test]
fn a_container_is_starting_then_healthy_then_not_and_everybody_is_told() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let mut command = docker.command(&["events", "--filter", "event=health_status", "--format", "{{.Action}}"]);
    let mut events = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    run_checked(&docker, "box", &["--health-cmd", CHECK, "--health-start-period", "3s"]);
    assert_eq!(health(&docker, "box"), "starting");
    let status = docker.ok("ps --format {{.Status}}");
    assert!(status.ends_with(" (health: starting)"), "{status}");
    assert_eq!(docker.ok("ps -q --filter health=starting").lines().count(), 1);
    docker.ok("exec box touch /tmp/well");
    eventually("it is well", 10, || health(&docker, "box") == "healthy");
    assert!(docker.ok("ps --format {{.Status}}").ends_with(" (healthy)"));
    docker.ok("exec box rm /tmp/well");
    eventually("it is ill", 10, || health(&docker, "box") == "unhealthy");
    assert!(docker.ok("ps --format {{.Status}}").ends_with(" (unhealthy)"));
    let streak: u32 = docker
        .inspect("box", "{{.State.Health.FailingStreak}}")
        .parse()
        .unwrap();
    assert!(streak >= 2);
    eventually("five results are kept", 10, || {
        docker.inspect("box", "{{len .State.Health.Log}}") == "5"
    });
    let last = docker.inspect(
        "box",
        "{{with index .State.Health.Log 4}}{{.ExitCode}} {{.Output}}{{end}}",
    );
    assert!(last.starts_with("1 cat: ") && last.contains("No such file"), "{last}");
    let told = BufReader::new(events.stdout.take().unwrap()).lines().take(2);
    let told: Vec<String> = told.map(Result::unwrap).collect();
    events.kill().unwrap();
    events.wait().unwrap();
    assert_eq!(told, ["health_status: healthy", "health_status: unhealthy"]);
    docker.ok("rm -f box");
}

#[test]
fn a_probe_that_takes_too_long_is_killed_and_counts_as_a_failure() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    run_checked(
        &docker,
        "box",
        &["--health-cmd", "exec sleep 777", "--health-timeout", "300ms"],
    );
    eventually("it is ill", 20, || health(&docker, "box") == "unhealthy");
    let last = docker.inspect(
        "box",
        "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}",
    );
    assert!(last.starts_with("-1 Health check exceeded timeout (300ms)"), "{last}");
    let probes = || docker.ok("exec box ps -o args").matches("sleep 777").count();
    assert!(probes() <= 1, "dead probes do not pile up");
    docker.ok("rm -f box");
}

#[test]
fn the_images_check_is_the_containers_unless_it_wants_none() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let changes = ["HEALTHCHECK --interval=200ms --retries=7 CMD [\"true\"]"];
    docker.import(&lab::busybox(), "checked", &changes);
    docker.ok("run -d --name box checked sleep 1000");
    eventually("it is well", 10, || health(&docker, "box") == "healthy");
    assert_eq!(
        docker.inspect("box", "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Retries}}"),
        "[CMD true] 7"
    );
    docker.ok("run -d --name none --no-healthcheck checked sleep 1000");
    assert_eq!(docker.inspect("none", "{{.State.Health}}"), "<nil>");
    assert_eq!(docker.ok("ps --filter health=none --format {{.Names}}"), "none");
    docker.ok("stop -t 0 box");
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "exited");
    docker.ok("start box");
    eventually("it is well again", 10, || health(&docker, "box") == "healthy");
    docker
        .run("run -d --health-cmd true --health-interval 1us busybox true")
        .fails(125, "Interval in Healthcheck cannot be less than 1ms");
    docker.ok("rm -f box none");
}

#[test]
fn health_is_known_to_the_next_daemon_too() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return; // the stock engine takes its containers down with it
    }
    let docker = daemon.docker();
    run_checked(&docker, "box", &["--health-cmd", CHECK, "--health-interval", "1s"]);
    docker.ok("exec box touch /tmp/well");
    eventually("it is well", 10, || health(&docker, "box") == "healthy");
    daemon.kill();
    daemon.boot();
    assert_eq!(health(&docker, "box"), "healthy", "at once, not after a probe");
    docker.ok("exec box rm /tmp/well");
    eventually("it is looked after", 10, || health(&docker, "box") == "unhealthy");
    docker.ok("rm -f box");
}
