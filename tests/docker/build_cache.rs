//! What builds take of earlier ones and of registries, what they leave, and how they end early.

use std::fs;

use lab::{Daemon, Guard, Lab, Registry, eventually, start};

use crate::builds::{build, context};

#[test]
fn steps_are_taken_of_images_that_are_named() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let made = context(
        &lab,
        "cached",
        &[(
            "Dockerfile",
            "FROM busybox\nENV A=b\nRUN head -c 100 /dev/urandom > /noise\nRUN true\nLABEL c=d\nCOPY --from=busybox:latest /etc/group /taken\n",
        )],
    );
    build(&daemon, &made, "--network none -t one").ok();
    let layers = |image: &str| docker.inspect(image, "{{json .RootFS.Layers}}");
    let before = layers("one");
    assert_eq!(
        docker.ok("run --rm --network none one cat /taken"),
        docker.ok("run --rm --network none one cat /etc/group")
    );
    // what is loaded has no past here
    let tar = lab.host.directory().join("one.tar").display().to_string();
    docker.ok(&format!("save -o {tar} one"));
    docker.ok("rmi one");
    docker.ok("image prune -f");
    docker.ok(&format!("load -i {tar}"));
    let said = build(
        &daemon,
        &made,
        "--network none --cache-from nobody/none --cache-from one -t two",
    )
    .ok();
    assert!(!said.contains("Running in"), "{said}");
    assert_eq!(layers("two"), before);
    assert_eq!(
        docker.inspect("two", "{{.Config.Labels.c}} {{.Config.Env}}"),
        docker.inspect("one", "{{.Config.Labels.c}} {{.Config.Env}}")
    );
    // an image that went another way is of no use
    let said = build(&daemon, &made, "--network none --cache-from busybox -t three").ok();
    assert!(said.contains("Running in") && layers("three") != before, "{said}");
    if daemon.is_ours() {
        let said = daemon
            .sluice(&format!(
                "build --network none --cache-from one -t four {}",
                made.display()
            ))
            .ok();
        assert!(!said.contains("Running in"), "{said}");

        docker.ok("rmi one two three four");
        let pruned = docker.ok("builder prune -f -a");
        assert!(pruned.contains("Total reclaimed space"), "{pruned}");
        assert!(daemon.sluice("builder prune").ok().contains("Total reclaimed space: 0"));
        let (status, said) = daemon.request("POST", "/build/prune?keep-storage=5", "");
        assert!(status == 501 && said.contains("--keep-storage"), "{status} {said}");
        assert_eq!(docker.ok("images -aq").lines().count(), 1, "{}", docker.ok("images -a"));
        build(&daemon, &made, "--network none -t five").ok();
        docker.ok("builder prune -f -a");
        let said = build(&daemon, &made, "--network none -t six").ok();
        assert!(!said.contains("Using cache"), "all of it is made again: {said}");
        docker.ok("run --rm --network none five true");
    }
    docker.ok("system prune -f");
}

#[test]
fn a_base_is_brought_when_it_is_missing_and_when_that_is_asked_for() {
    if !Registry::is_installed() {
        return lab::skipped("docker-registry is not installed");
    }
    let lab = Lab::new();
    let registry = Registry::start(&lab.host, 5000, Guard::Open);
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let (base, old) = (registry.name("base:1"), registry.name("old:1"));
    let change = |text: &str| {
        docker.import(&lab::busybox(), &base, &[&format!("LABEL age={text}")]);
    };
    let made = context(&lab, "based", &[("Dockerfile", &format!("FROM {base}\nLABEL own=1\n"))]);
    change("old");
    docker.ok(&format!("push {base}"));
    docker.ok(&format!("rmi {base}"));
    let age = || docker.inspect("built", "{{.Config.Labels.age}}");
    let said = build(&daemon, &made, "-t built").ok();
    assert!(said.contains("Pulling from base") && age() == "old", "{said}");
    docker.ok(&format!("tag {base} {old}"));
    change("new");
    docker.ok(&format!("push {base}"));
    docker.ok(&format!("tag {old} {base}"));
    let said = build(&daemon, &made, "-t built").ok();
    assert!(!said.contains("Pulling") && age() == "old", "{said}");
    let said = build(&daemon, &made, "--pull -t built").ok();
    assert!(said.contains("Downloaded newer image") && age() == "new", "{said}");
}

/// A build by HTTP that a test can leave behind: what it says is in the log.
fn begin(daemon: &Daemon, lab: &Lab, tar: &str, id: &str) -> lab::Background {
    let log = format!("build-{id}.log");
    let line = format!(
        "curl -sSN --unix-socket {} -H 'Content-Type: application/x-tar' --data-binary @{tar} 'http://sluice/build?buildid={id}&t={id}'",
        daemon.socket().display()
    );
    let build = lab.host.spawn(&log, &line);
    eventually("the step runs", 60, || build.said().contains("here it is 42"));
    build
}

#[test]
fn a_build_that_is_stopped_or_whose_daemon_is_killed_leaves_nothing() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return lab::skipped("Docker stops only builds of BuildKit, and its containers end with it");
    }
    let made = context(
        &lab,
        "long",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN echo x > /x\nRUN echo here it is $((6*7)); sleep 1000\n",
        )],
    );
    let tar = lab.host.directory().join("long.tar").display().to_string();
    lab.host.run(&format!("tar -C {} -cf {tar} .", made.display()));
    let docker = daemon.docker();
    let left = daemon.data_root().join("building");
    let is_clean = || docker.ok("ps -aq").is_empty() && fs::read_dir(&left).map_or(0, Iterator::count) == 0;

    let mut build = begin(&daemon, &lab, &tar, "stopped");
    assert_eq!(daemon.request("POST", "/build/cancel?id=stopped", "").0, 200);
    build.wait();
    assert!(build.said().contains("context canceled"), "{}", build.said());
    eventually("nothing is left", 30, is_clean);
    assert_eq!(
        daemon.request("POST", "/build/cancel?id=stopped", "").0,
        200,
        "it is stopped already"
    );
    let (status, said) = daemon.request("POST", "/build/cancel", "");
    assert!(status == 400 && said.contains("build ID not provided"), "{said}");
    // the client that goes away
    drop(begin(&daemon, &lab, &tar, "left"));
    eventually("nothing is left", 30, is_clean);

    let build = begin(&daemon, &lab, &tar, "killed");
    daemon.kill();
    drop(build);
    daemon.boot();
    let docker = daemon.docker();
    eventually("nothing is left", 30, || {
        docker.ok("ps -aq").is_empty() && fs::read_dir(&left).map_or(0, Iterator::count) == 0
    });
    // the step that was done is known, and all of the store can be read
    let log = begin(&daemon, &lab, &tar, "again").said();
    assert!(log.contains("Using cache"), "{log}");
    lab.host.run(&format!(
        "docker -H unix://{} save busybox > /dev/null",
        daemon.socket().display()
    ));
}
