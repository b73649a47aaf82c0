//! The daemon may die: packets do not wait for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use lab::{Daemon, HOST, Lab, eventually, start};

use crate::traffic::ask;

/// Pitfall B27.
#[test]
fn a_daemon_killed_during_a_transfer_harms_it_not() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker
        .words(&[
            "exec",
            "web",
            "sh",
            "-c",
            "head -c 104857600 /dev/urandom > /usr/share/nginx/html/load",
        ])
        .ok();
    let sum = docker.ok("exec web sha256sum /usr/share/nginx/html/load");
    let fetched = lab.lan.directory().join("fetched");
    let mut transfer = lab.lan.spawn(
        "curl.log",
        &format!(
            "curl -sS --limit-rate 30M -o {} http://{HOST}:8080/load",
            fetched.display()
        ),
    );
    eventually("the transfer has begun", 10, || {
        fetched.metadata().is_ok_and(|file| file.len() > 1_000_000)
    });
    daemon.kill();
    std::thread::sleep(std::time::Duration::from_millis(300));
    daemon.boot();
    assert_eq!(transfer.wait(), Some(0), "{}", transfer.said());
    let arrived = lab.lan.run(&format!("sha256sum {}", fetched.display()));
    assert_eq!(arrived.split_whitespace().next(), sum.split_whitespace().next());
}

/// Pitfall B27.
#[test]
fn of_a_thousand_new_connections_none_fails_while_the_daemon_is_killed_and_comes_back() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    let address = format!("{HOST}:8080");
    let done = AtomicUsize::new(0);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let clients = [&lab.lan, &lab.host].map(|from| {
            let (address, done) = (&address, &done);
            scope.spawn(move || {
                from.inside(|| {
                    let mut failures = Vec::new();
                    for number in 0..500 {
                        match ask(address) {
                            Ok(answer) if answer.ends_with("hello\n") => {}
                            Ok(answer) => failures.push(format!("connection {number}: {answer:?}")),
                            Err(error) => failures.push(format!("connection {number}: {error}")),
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                    failures
                })
            })
        });
        eventually("200 connections were made", 60, || done.load(Ordering::Relaxed) >= 200);
        daemon.kill();
        eventually("600 connections were made", 60, || done.load(Ordering::Relaxed) >= 600);
        daemon.boot();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(done.into_inner(), 1000);
    assert!(failures.is_empty(), "{} failed: {failures:#?}", failures.len());
}

/// What a restart must not change: devices by number, the container's process.
fn identity(lab: &Lab, daemon: &Daemon) -> (String, String) {
    let state =
        "{{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{.State.Status}} {{.NetworkSettings.Networks.bridge.IPAddress}}";
    (
        lab.host.run("ip -o link | cut -d: -f1,2"),
        daemon.docker().inspect("web", state),
    )
}

/// Pinned programs, links and maps by inode: one that is made anew has another.
fn pins(lab: &Lab) -> Vec<String> {
    lab.host
        .run("find /sys/fs/bpf/sluice -type f -printf '%i %p\\n'")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Pitfall B55.
#[test]
fn a_killed_daemon_that_comes_back_finds_everything_as_it_was_and_goes_on() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker
        .words(&[
            "run",
            "-d",
            "--name",
            "talker",
            "busybox",
            "sh",
            "-c",
            "i=0; while sleep 0.1; do i=$((i+1)); echo line $i; done",
        ])
        .ok();
    let before = identity(&lab, &daemon);
    let pins_before = pins(&lab);
    daemon.kill();
    std::thread::sleep(std::time::Duration::from_millis(500));
    daemon.boot();
    assert_eq!(identity(&lab, &daemon), before);
    // A young device may get its link, in the place of a filter, only now; nothing that was there is made anew.
    let pins = pins(&lab);
    let gone: Vec<&String> = pins_before.iter().filter(|pin| !pins.contains(pin)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert_eq!(docker.ok("ps --format {{.Names}}|sort").lines().count(), 2);

    let log = docker.ok("logs talker");
    let numbers: Vec<usize> = log
        .lines()
        .map(|line| line.trim_start_matches("line ").parse().unwrap())
        .collect();
    assert!(numbers.len() > 4, "the log went on while there was no daemon: {log}");
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "no line is missing or there twice: {log}"
    );
    assert_eq!(docker.ok("exec web cat /usr/share/nginx/html/index.html"), "hello");
    assert!(lab.lan.inside(|| ask(&format!("{HOST}:8080"))).is_ok());
    docker.ok("stop web");
    assert_eq!(
        docker.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 0"
    );
    docker.ok("start web");
    eventually("the page is there again", 10, || {
        lab.lan.inside(|| ask(&format!("{HOST}:8080"))).is_ok()
    });
    assert!(docker.run("stop -t 1 talker").is_ok());
}

#[test]
fn a_container_that_ends_while_there_is_no_daemon_has_its_exit_code_afterwards() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .words(&[
            "run",
            "-d",
            "--name",
            "brief",
            "busybox",
            "sh",
            "-c",
            "sleep 1; echo last words; exit 42",
        ])
        .ok();
    daemon.kill();
    std::thread::sleep(lab::patience(2));
    daemon.boot();
    assert_eq!(
        docker.inspect("brief", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 42"
    );
    assert_eq!(docker.ok("logs brief"), "last words");
    assert_eq!(docker.ok("wait brief"), "42");
    docker.ok("rm brief");
}
