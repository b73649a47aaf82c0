//! Addresses: who gets which, with many who want one at once, and with a daemon that dies in the middle.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use lab::{Daemon, Docker, Lab, eventually, start};

/// Asks the daemon, which may be dead by then.
fn post(daemon: &Daemon, path: &str, body: &str) -> Result<String, String> {
    let ran = daemon.host().shell(&format!(
        "curl -sS -X POST -H 'Content-Type: application/json' --unix-socket {} -d '{body}' -w '%{{http_code}}' http://sluice{path}",
        daemon.socket().display()
    ));
    let said = ran.stdout.trim().to_owned();
    match ran.is_ok() && (said.ends_with("201") || said.ends_with("204")) {
        true => Ok(said),
        false => Err(said + &ran.stderr),
    }
}

/// A container on the network `small`, made and started; its id.
fn run(daemon: &Daemon, remove: bool, command: &str) -> Result<String, String> {
    let body = format!(
        r#"{{"Image": "busybox", "Cmd": {command}, "HostConfig": {{"NetworkMode": "small", "AutoRemove": {remove}}}}}"#
    );
    let made = post(daemon, "/containers/create", &body)?;
    let id = made.split('"').nth(3).unwrap_or_default().to_owned();
    post(daemon, &format!("/containers/{id}/start"), "").map(|_| id)
}

fn addresses(docker: &Docker) -> Vec<String> {
    docker
        .words(&[
            "network",
            "inspect",
            "-f",
            "{{range .Containers}}{{.IPv4Address}} {{end}}",
            "small",
        ])
        .ok()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[test]
fn two_hundred_who_run_at_once_neither_share_nor_lose_an_address_though_the_daemon_is_killed() {
    const PLACES: usize = 29;
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        // dockerd that was killed does not answer here when it is started again
        return;
    }
    let docker = daemon.docker();
    // .1 is the gateway's
    docker.ok("network create --subnet 10.99.0.0/27 small");
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (daemon, done) = (&daemon, &done);
        for _ in 0..200 {
            scope.spawn(move || {
                // with more at once than there are places some are told so, and the killed daemon answers nobody
                let _ = run(daemon, true, r#"["true"]"#);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        eventually("some have run", 60, || done.load(Ordering::Relaxed) >= 60);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(daemon.pid().cast_signed()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    });
    daemon.kill();
    daemon.boot();
    let left = docker.ok("ps -aq");
    if !left.is_empty() {
        let mut words = vec!["rm", "-f"];
        words.extend(left.lines());
        docker.words(&words);
    }
    eventually("all are gone", 30, || docker.ok("ps -aq").is_empty());
    assert_eq!(addresses(&docker), Vec::<String>::new());

    // every place is free, none is given twice, and no more than there are
    let daemon = &daemon;
    let outcomes: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..PLACES + 1)
            .map(|_| scope.spawn(move || run(daemon, false, r#"["sleep", "1000"]"#)))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let refused: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].contains("no available IPv4 addresses on this network's address pools"),
        "{refused:?}"
    );
    let given = addresses(&docker);
    let different: BTreeSet<&String> = given.iter().collect();
    assert_eq!((given.len(), different.len()), (PLACES, PLACES), "{given:?}");
    let devices: usize = lab.host.run("ip -o link | grep -c ' slc' || true").parse().unwrap();
    assert_eq!(devices, PLACES);
}

#[test]
fn many_networks_with_two_containers_each_come_and_go_without_a_trace() {
    const NETWORKS: usize = 20;
    let lab = Lab::new();
    let daemon = start(&lab, "--default-address-pool base=10.200.0.0/16,size=28");
    let docker = daemon.docker();
    let trace = |docker: &Docker| {
        (
            lab.host.run("ip -o link | wc -l"),
            lab.host.run("ip -o addr | wc -l"),
            docker.ok("network ls -q").lines().count(),
        )
    };
    let before = trace(&docker);
    let each = |work: &(dyn Fn(usize) + Sync)| {
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || (worker..NETWORKS).step_by(4).for_each(work));
            }
        });
    };
    each(&|number| {
        docker.ok(&format!("network create net{number}"));
        for name in ["one", "two"] {
            docker.ok(&format!(
                "run -d --name {name}{number} --network net{number} busybox sleep 1000"
            ));
        }
    });
    let subnets = docker.words(&[
        "network",
        "inspect",
        "-f",
        "{{range .IPAM.Config}}{{.Subnet}}{{end}}",
        "net0",
        "net19",
    ]);
    for subnet in subnets.ok().lines() {
        assert!(subnet.starts_with("10.200.") && subnet.ends_with("/28"), "{subnet}");
    }
    for number in [0, NETWORKS - 1] {
        let two = docker.words(&[
            "inspect",
            "-f",
            &format!("{{{{.NetworkSettings.Networks.net{number}.IPAddress}}}}"),
            &format!("two{number}"),
        ]);
        docker.ok(&format!("exec one{number} ping -c 1 -W 2 {}", two.ok()));
    }
    each(&|number| {
        docker.ok(&format!("rm -f one{number} two{number}"));
        docker.ok(&format!("network rm net{number}"));
    });
    eventually("nothing is left", 20, || trace(&docker) == before);
}

#[test]
fn a_subnet_that_somebody_has_is_refused_and_none_such_is_chosen() {
    let lab = Lab::new();
    lab.host
        .run("ip addr add 10.201.0.1/24 dev eth0 && ip route add 10.202.0.0/16 via 10.88.0.2");
    let daemon = start(&lab, "--default-address-pool base=10.200.0.0/14,size=16");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    let subnet = |name: &str| {
        docker.ok(&format!("network create {name}"));
        docker
            .words(&[
                "network",
                "inspect",
                "-f",
                "{{range .IPAM.Config}}{{.Subnet}}{{end}}",
                name,
            ])
            .ok()
    };
    // the default network took the first
    assert_eq!(
        subnet("free"),
        "10.203.0.0/16",
        "what the host has and routes is passed over"
    );
    let ran = docker.run("network create none-left");
    assert!(
        !ran.is_ok()
            && ran
                .stderr
                .contains("all predefined address pools have been fully subnetted"),
        "{ran}"
    );
    let ran = docker.run("network create --subnet 10.201.0.0/16 hosts");
    assert!(
        !ran.is_ok() && ran.stderr.contains("Pool overlaps with other one"),
        "{ran}"
    );
    docker.ok("network rm free");
    docker
        .ok("network create --subnet 10.203.0.0/24 --ip-range 10.203.0.16/30 --aux-address router=10.203.0.17 narrow");
    let taken: Vec<String> = (0..3)
        .map(|number| {
            docker.ok(&format!(
                "run -d --name box{number} --network narrow busybox sleep 1000"
            ));
            docker.inspect(
                &format!("box{number}"),
                "{{.NetworkSettings.Networks.narrow.IPAddress}}",
            )
        })
        .collect();
    assert_eq!(taken, ["10.203.0.16", "10.203.0.18", "10.203.0.19"]);
    // given back is not given again while there are others: late, not at once
    docker.ok("rm -f box0");
    docker.ok("network create --subnet 10.204.0.0/24 wide");
    let address = |name: &str| docker.inspect(name, "{{.NetworkSettings.Networks.wide.IPAddress}}");
    docker.ok("run -d --name first --network wide busybox sleep 1000");
    let before = address("first");
    docker.ok("rm -f first");
    docker.ok("run -d --name second --network wide busybox sleep 1000");
    assert_ne!(address("second"), before);
}
