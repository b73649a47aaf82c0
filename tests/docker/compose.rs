//! Compose: a file of two services, led by `docker-compose` 1.29 as Debian packages it (a Python program that speaks by docker-py). Compose v2 is a
//! plugin in Go, which Debian does not package: it is not what is tested here.

use std::process::Command;

use lab::{Daemon, Lab, Ran, eventually, patience, start};

const FILE: &str = r#"
version: "3"
services:
  web:
    image: web
    ports: ["8080:80"]
    environment:
      STORE: store
    depends_on: [store]
    volumes: ["data:/data:ro"]
    labels:
      tier: front
  store:
    image: busybox
    command: sh -c "echo ready; echo kept > /data/note; exec sleep 1000"
    stop_grace_period: 1s
    volumes: ["data:/data", "/own"]
    restart: unless-stopped
volumes:
  data:
"#;

/// Runs `docker-compose` with the words of the line.
fn compose(daemon: &Daemon, line: &str) -> Ran {
    let mut command: Command = daemon.host().command("docker-compose");
    command
        .env("DOCKER_HOST", format!("unix://{}", daemon.socket().display()))
        .env("PYTHONWARNINGS", "ignore")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("COMPOSE_PROJECT_NAME", "app")
        .env("COMPOSE_INTERACTIVE_NO_CLI", "1")
        .arg("-f")
        .arg(daemon.host().directory().join("compose.yml"))
        .args(line.split_whitespace());
    Ran::command(&mut command, &[], patience(120))
}

#[test]
fn an_application_of_two_services_comes_up_is_looked_at_and_goes() {
    if !std::path::Path::new("/usr/bin/docker-compose").exists() {
        return lab::skipped("docker-compose is not installed");
    }
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    std::fs::write(lab.host.directory().join("compose.yml"), FILE).unwrap();

    compose(&daemon, "up -d").ok();
    assert_eq!(
        docker.ok("network ls -q --filter name=^app_default$").lines().count(),
        1
    );
    assert_eq!(docker.ok("volume ls -q --filter name=^app_data$"), "app_data");
    let names = docker.ok("ps --format {{.Names}} --filter label=com.docker.compose.project=app");
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["app_store_1", "app_web_1"]);
    docker.wait_for_web("app_web_1");
    assert_eq!(
        lab.lan.run(&format!("curl -sS -m 10 http://{}:8080/", lab::HOST)),
        "hello"
    );
    let shown = compose(&daemon, "ps").ok();
    assert!(
        shown.contains("app_web_1") && shown.contains("0.0.0.0:8080->80/tcp"),
        "{shown}"
    );
    eventually("the store has said that it is ready", 10, || {
        compose(&daemon, "logs store").ok().contains("ready")
    });
    assert_eq!(compose(&daemon, "exec -T web cat /data/note").ok(), "kept");
    assert_eq!(compose(&daemon, "port web 80").ok(), "0.0.0.0:8080");
    assert!(compose(&daemon, "top store").ok().contains("sleep 1000"));

    // nothing changed: nothing is made again
    let before = docker.inspect("app_web_1", "{{.Id}}");
    compose(&daemon, "up -d").ok();
    assert_eq!(docker.inspect("app_web_1", "{{.Id}}"), before);
    // more of one, and back
    compose(&daemon, "up -d --scale store=2").ok();
    assert_eq!(
        docker
            .ok("ps -q --filter label=com.docker.compose.service=store")
            .lines()
            .count(),
        2
    );
    compose(&daemon, "up -d --scale store=1").ok();
    compose(&daemon, "restart -t 1 store").ok();
    compose(&daemon, "stop -t 1").ok();
    assert_eq!(docker.ok("ps -q"), "");
    compose(&daemon, "start").ok();
    // what changed is made again, with its volumes
    std::fs::write(
        lab.host.directory().join("compose.yml"),
        FILE.replace("tier: front", "tier: back"),
    )
    .unwrap();
    compose(&daemon, "up -d").ok();
    assert_ne!(docker.inspect("app_web_1", "{{.Id}}"), before);
    assert_eq!(compose(&daemon, "exec -T web cat /data/note").ok(), "kept");

    compose(&daemon, "down -v -t 1").ok();
    assert_eq!(docker.ok("ps -aq"), "");
    assert_eq!(docker.ok("volume ls -q --filter name=^app_"), "");
    assert_eq!(docker.ok("network ls -q --filter type=custom"), "");
}
