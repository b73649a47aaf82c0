//! What happens after an end: restart policies, `--rm`, daemons that were away, hosts that were started anew.

use lab::{Daemon, Docker, Lab, eventually, start};

fn state(docker: &Docker, name: &str) -> String {
    docker.inspect(name, "{{.State.Status}}")
}

fn restarts(docker: &Docker, name: &str) -> u32 {
    docker.inspect(name, "{{.RestartCount}}").parse().unwrap()
}

fn sh(docker: &Docker, flags: &str, script: &str) {
    let mut words = vec!["run", "-d"];
    words.extend(flags.split_whitespace());
    words.extend(["busybox", "sh", "-c", script]);
    docker.words(&words).ok();
}

#[test]
fn on_failure_starts_again_so_often_and_no_more() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    sh(&docker, "--name box --restart on-failure:3", "echo try; exit 7");
    eventually("it has given up", 20, || {
        restarts(&docker, "box") == 3 && state(&docker, "box") == "exited"
    });
    assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "7");
    assert_eq!(docker.run("logs box").stdout, "try\n".repeat(4));
    sh(&docker, "--name fine --restart on-failure", "exit 0");
    eventually("it has ended", 10, || state(&docker, "fine") == "exited");
    assert_eq!(restarts(&docker, "fine"), 0);
    docker.ok("start box");
    eventually("the count has begun anew", 20, || {
        restarts(&docker, "box") == 3 && state(&docker, "box") == "exited"
    });
    docker
        .run("run --rm --restart always busybox true")
        .fails(125, "--restart and --rm");
}

/// Pitfall B28.
#[test]
fn what_waits_for_its_restart_is_shown_so_and_can_be_stopped_but_not_entered() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    sh(&docker, "--name box --restart always", "exit 3");
    // after five restarts the pauses are seconds long
    eventually("its pauses are long", 30, || {
        restarts(&docker, "box") >= 5 && state(&docker, "box") == "restarting"
    });
    assert_eq!(
        docker.inspect(
            "box",
            "{{.State.Running}} {{.State.Restarting}} {{.State.Pid}} {{.State.ExitCode}}"
        ),
        "true true 0 3"
    );
    let status = docker.ok("ps --filter status=restarting --format {{.Status}}");
    assert!(status.starts_with("Restarting (3) "), "{status}");
    docker
        .run("exec box true")
        .fails(1, "is restarting, wait until the container is running");
    docker.run("rm box").fails(1, "restarting");
    docker.ok("stop box");
    assert_eq!(
        docker.inspect("box", "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}"),
        "exited false 3"
    );
    let before = restarts(&docker, "box");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(
        (state(&docker, "box").as_str(), restarts(&docker, "box")),
        ("exited", before)
    );
    docker.ok("rm box");
}

#[test]
fn run_ends_with_the_first_end_although_the_policy_starts_it_again() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let ran = docker.sh("--name box --restart always", "echo one; exit 4");
    assert_eq!((ran.code(), ran.stdout.as_str()), (Some(4), "one\n"), "{ran}");
    docker.ok("rm -f box");
}

#[test]
fn a_policy_may_be_changed_later() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    sh(&docker, "--name box", "sleep 1000");
    docker.ok("update --restart on-failure:2 box");
    assert_eq!(
        docker.inspect(
            "box",
            "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
        ),
        "on-failure 2"
    );
    sh(&docker, "--name again --restart always", "sleep 0.3");
    eventually("it starts again", 10, || restarts(&docker, "again") >= 1);
    docker.ok("update --restart no again");
    eventually("it rests", 20, || state(&docker, "again") == "exited");
}

#[test]
fn after_a_restart_of_the_daemon_the_policies_have_their_say() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    for (name, policy) in [
        ("always", "always"),
        ("stopped", "unless-stopped"),
        ("up", "unless-stopped"),
    ] {
        sh(&docker, &format!("--name {name} --restart {policy}"), "sleep 1000");
    }
    docker.ok("stop -t 0 always stopped");
    daemon.stop();
    daemon.boot();
    eventually("always means always", 15, || state(&docker, "always") == "running");
    eventually("what ran runs", 15, || state(&docker, "up") == "running");
    assert_eq!(state(&docker, "stopped"), "exited");
    docker.ok("rm -f always up stopped");
}

#[test]
fn what_ended_while_the_daemon_was_away_is_removed_or_started_again_as_it_was_to_be() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return; // the stock engine takes its containers down with it
    }
    let docker = daemon.docker();
    sh(&docker, "--rm --name gone", "sleep 1");
    sh(&docker, "--name again --restart on-failure", "sleep 1; exit 6");
    sh(&docker, "--name plain", "sleep 1; exit 5");
    daemon.kill();
    std::thread::sleep(std::time::Duration::from_secs(3));
    daemon.boot();
    eventually("--rm has removed it", 10, || {
        docker.ok("ps -a --filter name=gone -q").is_empty()
    });
    eventually("the policy has started it", 10, || restarts(&docker, "again") >= 1);
    assert_eq!(
        docker.inspect("plain", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 5"
    );
    docker.ok("rm -f again plain");
}

#[test]
fn a_restart_to_come_comes_although_the_daemon_dies_meanwhile() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    sh(&docker, "--name box --restart always", "exit 3");
    eventually("its pauses are long", 30, || {
        restarts(&docker, "box") >= 5 && state(&docker, "box") == "restarting"
    });
    let before = restarts(&docker, "box");
    daemon.kill();
    daemon.boot();
    eventually("it was started again", 15, || restarts(&docker, "box") > before);
    docker.ok("rm -f box");
}

#[test]
fn a_shim_that_is_stuck_does_not_keep_the_next_daemon_from_its_work() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    sh(
        &docker,
        "--name stuck",
        "trap 'exit 7' TERM; while :; do sleep 0.1; done",
    );
    sh(&docker, "--name well", "sleep 1000");
    let id = docker.inspect("stuck", "{{.Id}}");
    let shims = lab.host.processes().into_iter();
    let mut shims = shims.filter(|(_, line)| line.starts_with("sluice-shim") && line.contains(&id));
    let shim = nix::unistd::Pid::from_raw(shims.next().unwrap().0.cast_signed());
    let pid = docker.pid("stuck");
    daemon.kill();
    nix::sys::signal::kill(shim, nix::sys::signal::SIGSTOP).unwrap();
    daemon.boot();
    assert_eq!(docker.ok("exec well echo hello"), "hello");
    assert_eq!((state(&docker, "stuck"), docker.pid("stuck")), ("running".into(), pid));
    docker.run("kill -s USR1 stuck").fails(1, "has not answered in time");
    // it comes to itself
    nix::sys::signal::kill(shim, nix::sys::signal::SIGCONT).unwrap();
    docker.ok("stop stuck");
    assert_eq!(docker.inspect("stuck", "{{.State.ExitCode}}"), "7");
    docker.ok("rm -f stuck well");
}

#[test]
fn after_a_reboot_of_the_host_always_and_unless_stopped_run_and_the_others_have_ended() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    for (name, flags) in [
        ("always", "--restart always"),
        ("up", "--restart unless-stopped"),
        ("stopped", "--restart unless-stopped"),
        ("failing", "--restart on-failure"),
        ("plain", ""),
        ("gone", "--rm"),
    ] {
        sh(&docker, &format!("--name {name} {flags}"), "sleep 1000");
    }
    docker.ok("stop -t 0 stopped");
    let before = docker.pid("up");
    let processes = docker.pid("plain");
    reboot(&mut daemon);
    eventually("what was to run runs", 15, || {
        state(&docker, "always") == "running" && state(&docker, "up") == "running"
    });
    assert_ne!(docker.pid("up"), before);
    assert_eq!(restarts(&docker, "up"), 0);
    for name in ["stopped", "failing", "plain"] {
        assert_eq!(state(&docker, name), "exited", "{name}");
    }
    assert_eq!(docker.inspect("plain", "{{.State.ExitCode}}"), "255");
    // Whoever is init here takes its time to bury an orphan.
    eventually("the process of the last life is gone", 20, || {
        !std::path::Path::new(&format!("/proc/{processes}")).exists()
    });
    assert_eq!(docker.ok("ps -a --filter name=gone -q"), "");
    docker.ok("start plain");
    assert_eq!(
        docker.ok("exec up cat /etc/hostname"),
        docker.inspect("up", "{{.Config.Hostname}}")
    );
    docker.ok("exec always ping -c 1 -W 5 172.17.0.1");
    docker.ok("rm -f always up stopped failing plain");
}

/// What a daemon sees of a reboot: no process, mount, cgroup, device or pin of its own is left, nor what is kept in memory, and the boot is another
/// than that of its last record.
fn reboot(daemon: &mut Daemon) {
    daemon.kill();
    let host = daemon.host();
    let (run, data) = (
        daemon.exec_root().display().to_string(),
        daemon.data_root().display().to_string(),
    );
    host.run(&format!(
        "awk '{{{{ print $1; print $3 }}}}' {run}/containers/*/pids | xargs -r kill -9 2>/dev/null; true"
    ));
    let left = format!(
        "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^({run}|{data})/' | sort -r | xargs -r umount -l; rm -rf {run}"
    );
    host.run(&left);
    host.run("for link in $(ls /sys/class/net | grep -E '^(slc|sluice)'); do ip link del $link 2>/dev/null; done; rm -rf /sys/fs/bpf/sluice");
    let parent = format!("{}-default", host.name());
    eventually("the cgroups are gone", 20, || {
        let places = format!(
            "find /sys/fs/cgroup -depth -type d -path '*/{parent}*' -exec rmdir {{}} + 2>/dev/null; find /sys/fs/cgroup -type d -path '*/{parent}*'"
        );
        host.shell(&places).stdout.is_empty()
    });
    std::fs::write(
        daemon.data_root().join("boot-id"),
        "11111111-2222-3333-4444-555555555555\n",
    )
    .unwrap();
    daemon.boot();
}

#[test]
fn wait_knows_the_next_end_and_the_removal() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    sh(&docker, "--rm --name box", "sleep 1; exit 9");
    let (status, body) = daemon.request("POST", "/v1.41/containers/box/wait?condition=removed", "");
    assert!(status == 200 && body.contains("\"StatusCode\":9"), "{status} {body}");
    assert_eq!(docker.ok("ps -aq"), "");
    sh(&docker, "--name ended", "exit 2");
    eventually("it has ended", 10, || state(&docker, "ended") == "exited");
    let (_, body) = daemon.request("POST", "/v1.41/containers/ended/wait?condition=not-running", "");
    assert!(body.contains("\"StatusCode\":2"), "{body}");
    std::thread::scope(|scope| {
        let next = scope.spawn(|| daemon.request("POST", "/v1.41/containers/ended/wait?condition=next-exit", ""));
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(!next.is_finished(), "its last end is not its next");
        docker.ok("start ended");
        assert!(next.join().unwrap().1.contains("\"StatusCode\":2"));
    });
}
