//! Links: another container by a name of one's own, as Docker has them on the default network.

use lab::{Docker, Lab, eventually, start};

/// A container's address on the default network.
fn address(docker: &Docker, container: &str) -> String {
    docker.inspect(container, "{{.NetworkSettings.IPAddress}}")
}

/// What a command that must fail says.
#[track_caller]
fn refusal(docker: &Docker, line: &str) -> String {
    let ran = docker.run(line);
    assert!(!ran.is_ok(), "`docker {line}` must fail: {ran}");
    ran.stderr.trim().to_owned()
}

/// Does the container reach the port there?
fn reaches(docker: &Docker, container: &str, address: &str, port: u16) -> bool {
    let script = format!("echo | nc -w 2 {address} {port} >/dev/null");
    docker.words(&["exec", container, "sh", "-c", &script]).is_ok()
}

#[test]
fn a_link_gives_a_name_an_environment_and_a_place_in_what_is_shown() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name redis --hostname store --expose 6379 --expose 7000-7002 -e MODE=fast busybox sleep 1000");
    docker.ok("run -d --name web --link redis:cache busybox sleep 1000");
    let redis = address(&docker, "redis");
    let hosts = docker.ok("exec web cat /etc/hosts");
    assert!(hosts.contains(&format!("{redis}\tcache store redis")), "{hosts}");
    let env = docker.ok("exec web env");
    for line in [
        format!("CACHE_PORT=tcp://{redis}:6379"),
        format!("CACHE_PORT_6379_TCP=tcp://{redis}:6379"),
        format!("CACHE_PORT_6379_TCP_ADDR={redis}"),
        "CACHE_PORT_6379_TCP_PORT=6379".into(),
        "CACHE_PORT_6379_TCP_PROTO=tcp".into(),
        format!("CACHE_PORT_7000_TCP_START=tcp://{redis}:7000"),
        format!("CACHE_PORT_7000_TCP_END=tcp://{redis}:7002"),
        "CACHE_PORT_7000_TCP_PORT_END=7002".into(),
        "CACHE_NAME=/web/cache".into(),
        "CACHE_ENV_MODE=fast".into(),
    ] {
        assert!(env.lines().any(|other| other == line), "{line} is not in {env}");
    }
    assert_eq!(docker.inspect("web", "{{.HostConfig.Links}}"), "[/redis:/web/cache]");
    let names = docker.ok("ps --filter name=redis --no-trunc --format {{.Names}}");
    let mut names: Vec<&str> = names.split(',').collect();
    names.sort_unstable();
    assert_eq!(names, ["redis", "web/cache"]);
    assert_eq!(docker.inspect("web/cache", "{{.Name}}"), "/redis");

    // It is followed to another address.
    docker
        .words(&["exec", "web", "sh", "-c", "echo 192.0.2.9 mine >>/etc/hosts"])
        .ok();
    docker.ok("stop -t 0 redis");
    docker.ok("run -d --name filler busybox sleep 1000");
    docker.ok("run -d --name filler2 busybox sleep 1000");
    docker.ok("start redis");
    let now = address(&docker, "redis");
    assert_ne!(now, redis);
    eventually("the hosts file follows", 10, || {
        let hosts = docker.ok("exec web cat /etc/hosts");
        hosts.contains(&format!("{now}\tcache")) && hosts.contains("192.0.2.9 mine")
    });

    // A link is taken away by its name, and the container it meant stays.
    docker.ok("rm --link web/cache");
    assert_eq!(docker.inspect("web", "{{.HostConfig.Links}}"), "[]");
    assert_eq!(docker.inspect("redis", "{{.State.Running}}"), "true");
    assert_eq!(
        docker.ok("ps --filter name=redis --no-trunc --format {{.Names}}"),
        "redis"
    );
}

#[test]
fn a_link_to_nobody_and_to_who_does_not_run_is_refused_in_dockers_words() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let said = refusal(&docker, "create --name web --link nobody:cache busybox true");
    assert!(said.contains("could not get container for nobody"), "{said}");
    docker.ok("create --name redis busybox sleep 1000");
    let said = refusal(&docker, "run --name web --link redis:cache busybox true");
    assert!(
        said.contains("Cannot link to a non running container: /redis AS /web/cache"),
        "{said}"
    );
    let said = refusal(&docker, "create --link redis:a:b busybox true");
    assert!(said.contains("bad format for links: redis:a:b"), "{said}");
    // Who is gone is missed.
    docker.ok("rm redis");
    let said = refusal(&docker, "start web");
    assert!(
        said.contains("Cannot link to a non running container: /redis AS /web/cache"),
        "{said}"
    );
}

#[test]
fn without_icc_exactly_the_exposed_ports_are_open_from_the_linking_side() {
    let lab = Lab::new();
    let daemon = start(&lab, "--icc=false");
    let docker = daemon.docker();
    let serve = "mkdir /www; echo here >/www/index.html; httpd -h /www -p 6379; httpd -h /www -p 6380; sleep 1000";
    docker
        .words(&[
            "run", "-d", "--name", "redis", "--expose", "6379", "busybox", "sh", "-c", serve,
        ])
        .ok();
    docker.ok("run -d --name other busybox sleep 1000");
    docker
        .words(&[
            "run",
            "-d",
            "--name",
            "web",
            "--link",
            "redis:cache",
            "busybox",
            "sh",
            "-c",
            serve,
        ])
        .ok();
    let (redis, web) = (address(&docker, "redis"), address(&docker, "web"));
    eventually("redis listens", 20, || reaches(&docker, "web", &redis, 6379));
    assert!(!reaches(&docker, "web", &redis, 6380), "a port that is not exposed");
    assert!(!reaches(&docker, "redis", &web, 6379), "from the other side");
    assert!(!reaches(&docker, "other", &redis, 6379), "from who is not linked");
    docker.ok("rm --link web/cache");
    eventually("the link closes", 10, || !reaches(&docker, "web", &redis, 6379));
}

/// Docker opens nothing there.
#[test]
fn on_a_network_of_ones_own_without_icc_a_link_is_a_name_and_a_way_that_follow_the_target() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    docker.ok("network create -o com.docker.network.bridge.enable_icc=false closed");
    let serve = "httpd -h /tmp -p 6379; httpd -h /tmp -p 6380; sleep 1000";
    let words = [
        "run",
        "-d",
        "--name",
        "redis",
        "--network",
        "closed",
        "--expose",
        "6379",
        "busybox",
        "sh",
        "-c",
        serve,
    ];
    docker.words(&words).ok();
    docker.ok("run -d --name web --network closed --link redis:cache busybox sleep 1000");
    docker.ok("run -d --name late busybox sleep 1000");
    docker.ok("network connect --link redis:store closed late");
    let links = [("web", "cache"), ("late", "store")];
    let all_work = |when: &str| {
        for (from, name) in links {
            eventually(&format!("{from} reaches {name} {when}"), 30, || {
                reaches(&docker, from, name, 6379)
            });
            assert!(
                !reaches(&docker, from, name, 6380),
                "{from}, a port that is not exposed"
            );
        }
    };
    all_work("at first");
    assert!(!reaches(&docker, "web", "store", 6379), "another's name");
    let address = || docker.inspect("redis", "{{.NetworkSettings.Networks.closed.IPAddress}}");
    let before = address();
    docker.ok("stop -t 0 redis");
    docker.ok("run -d --name filler --network closed busybox sleep 1000");
    docker.ok("start redis");
    assert_ne!(address(), before);
    all_work("at its new address");
    // and the linking side starts again, too
    docker.ok("restart -t 0 web");
    all_work("after its own restart");
    assert!(!reaches(&docker, "filler", &address(), 6379), "who is not linked");
}
