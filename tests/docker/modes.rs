//! Network modes: another container's, none, the host's; and what is changed on a running container.

use lab::{Docker, Host, Lab, eventually, start};

/// What a command that must fail says.
#[track_caller]
fn refusal(docker: &Docker, line: &str) -> String {
    let ran = docker.run(line);
    assert!(!ran.is_ok(), "`docker {line}` must fail: {ran}");
    ran.stderr.trim().to_owned()
}

#[test]
fn who_shares_anothers_network_is_called_like_it_reads_the_same_files_and_follows_it() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "--hostname front --domainname example.org");
    docker.ok("run -d --name guest --network container:web busybox sleep 1000");
    docker.ok("run -d --name third --network container:guest busybox sleep 1000");
    let id = docker.inspect("web", "{{.Id}}");
    assert_eq!(
        docker.fetch_from("guest", "127.0.0.1", 80),
        "hello",
        "they meet over lo"
    );
    assert_eq!(docker.fetch_from("third", "127.0.0.1", 80), "hello", "and so on");
    for file in ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"] {
        let of = |name: &str| docker.ok(&format!("exec {name} cat {file}"));
        assert_eq!((of("guest"), of("third")), (of("web"), of("web")), "{file}");
    }
    assert_eq!(docker.ok("exec guest hostname"), "front");
    assert_eq!(
        docker.inspect("guest", "{{.HostsPath}}"),
        docker.inspect("web", "{{.HostsPath}}")
    );
    assert!(docker.ok("exec guest ps").lines().count() < 5, "processes stay apart");
    assert!(!docker.run("exec guest test -e /etc/nginx").is_ok(), "files stay apart");
    let shown = docker.words(&[
        "inspect",
        "--format",
        "{{json .NetworkSettings.Networks}} {{json .NetworkSettings.Ports}}",
        "guest",
    ]);
    assert_eq!(shown.ok(), "{} {}");
    let mode = docker.inspect("guest", "{{.HostConfig.NetworkMode}}");
    assert_eq!(mode, format!("container:{id}"));

    docker.ok("restart -t 0 web");
    docker.wait_for_web("web");
    assert_eq!(docker.inspect("guest", "{{.State.Running}}"), "true");
    docker.ok("restart -t 0 guest");
    assert_eq!(docker.fetch_from("guest", "127.0.0.1", 80), "hello");

    docker.ok("stop -t 0 web");
    let links = docker.ok("exec guest ip -o link");
    assert!(links.contains("lo:") && !links.contains("eth0"), "{links}");
    let said = refusal(&docker, "restart -t 0 guest");
    assert!(
        said.contains("cannot join network") && said.contains("of a non running container"),
        "{said}"
    );
    docker.ok("rm -f guest third web");
}

#[test]
fn what_cannot_be_with_a_shared_network_is_refused_in_dockers_words() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create mine");
    docker.ok("run -d --name web busybox sleep 1000");
    docker.ok("run -d --name guest --network container:web busybox sleep 1000");
    docker.ok("run -d --name bare --network none busybox sleep 1000");
    for (flags, words) in [
        ("--hostname me", "conflicting options: hostname and the network mode"),
        ("--dns 9.9.9.9", "conflicting options: dns and the network mode"),
        (
            "--add-host db:10.0.0.1",
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            "-p 80:80",
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "-P",
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "--expose 80",
            "conflicting options: port exposing and the container type network mode",
        ),
    ] {
        let said = refusal(
            &docker,
            &format!("run --rm --network container:web {flags} busybox true"),
        );
        assert!(said.contains(words), "{flags}: {said}");
    }
    let (status, said) = daemon.request(
        "POST",
        "/v1.41/containers/create",
        r#"{"Image": "busybox", "MacAddress": "02:00:00:00:00:01", "HostConfig": {"NetworkMode": "container:web"}}"#,
    );
    assert!(
        status == 400 && said.contains("conflicting options: mac-address and the network mode"),
        "{status} {said}"
    );
    let said = refusal(&docker, "run --rm --network container:nobody busybox true");
    assert!(said.contains("No such container: nobody"), "{said}");
    let said = refusal(&docker, "run --name own --network container:own busybox true");
    assert!(!said.is_empty());
    let said = refusal(&docker, "network connect mine guest");
    assert!(
        said.contains("container sharing network namespace with another container or host"),
        "{said}"
    );
    let said = refusal(&docker, "network connect mine bare");
    assert!(said.contains("private (none) mode"), "{said}");
    // what an image exposes is nobody's wish
    docker.import(&lab::busybox(), "exposing", &["EXPOSE 80"]);
    docker.ok("run --rm --network container:web exposing true");
}

/// Moves a veth end into a container as the `pipework` script does: through an entry of /var/run/netns.
fn pipework(host: &Host, pid: u32, device: &str, name: &str, address: &str) {
    host.run(&format!(
        "mkdir -p /var/run/netns && ln -sf /proc/{pid}/ns/net /var/run/netns/{pid} && \
         ip link set {device} netns {pid} && \
         ip netns exec {pid} ip link set {device} name {name} && \
         ip netns exec {pid} ip addr add {address} dev {name} && \
         ip netns exec {pid} ip link set {name} up && \
         rm -f /var/run/netns/{pid}"
    ));
}

#[test]
fn a_container_without_a_network_is_wired_by_hand() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name one --network none busybox sleep 1000");
    docker.ok("run -d --name two --network none busybox sleep 1000");
    let links = docker.ok("exec one ip -o link");
    assert!(links.lines().count() == 1 && links.contains("lo:"), "{links}");
    assert!(
        docker
            .ok("exec one ping -c 1 -W 1 127.0.0.1")
            .contains("1 packets received")
    );
    let (one, two) = (docker.pid("one"), docker.pid("two"));

    // pipework br1 CONTAINER 10.77.0.2/24@10.77.0.1
    lab.host
        .run("ip link add br1 type bridge && ip addr add 10.77.0.1/24 dev br1 && ip link set br1 up");
    lab.host
        .run("ip link add v1one type veth peer name v1port && ip link set v1port master br1 up");
    pipework(&lab.host, one, "v1one", "eth1", "10.77.0.2/24");
    lab.host.run(&format!(
        "ln -sf /proc/{one}/ns/net /var/run/netns/{one} && ip netns exec {one} ip route replace default via 10.77.0.1 && rm /var/run/netns/{one}"
    ));
    docker.ok("exec one ping -c 1 -W 2 10.77.0.1");
    lab.host.run("ping -c 1 -W 2 10.77.0.2");
    assert!(
        docker
            .ok("exec one ip route")
            .contains("default via 10.77.0.1 dev eth1")
    );

    // a point-to-point connection between two containers
    lab.host.run("ip link add ptp-a type veth peer name ptp-b");
    pipework(&lab.host, one, "ptp-a", "ptp", "10.1.1.1/32");
    pipework(&lab.host, two, "ptp-b", "ptp", "10.1.1.2/32");
    for (pid, other) in [(one, "10.1.1.2"), (two, "10.1.1.1")] {
        lab.host.run(&format!(
            "nsenter --net=/proc/{pid}/ns/net ip route add {other}/32 dev ptp"
        ));
    }
    docker.ok("exec one ping -c 1 -W 2 10.1.1.2");
    docker.ok("exec two ping -c 1 -W 2 10.1.1.1");
    let shown = docker.inspect(
        "one",
        "{{range $name, $place := .NetworkSettings.Networks}}{{$name}}{{end}}",
    );
    assert_eq!(shown, "none");
    docker.ok("rm -f one two");
    // the kernel takes a namespace apart some time after its last process has gone
    eventually("the other end goes with the namespace", 30, || {
        !lab.host.shell("ip link show v1port").is_ok()
    });
}

#[test]
fn in_the_hosts_network_a_container_is_as_a_process_of_the_host() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let said = docker.run("run -d --name one --network host -p 80:80 busybox nc -l -p 4444");
    assert!(
        said.is_ok()
            && said
                .stderr
                .contains("Published ports are discarded when using host network mode"),
        "{said}"
    );
    let devices = |text: String| -> Vec<String> {
        let name = |line: &str| {
            line.split_whitespace()
                .nth(1)
                .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        };
        text.lines().filter_map(name).collect()
    };
    assert_eq!(
        devices(docker.ok("run --rm --network host busybox ip -o link")),
        devices(lab.host.run("ip -o link"))
    );
    eventually("the container listens at the host", 10, || {
        lab.host.run("ss -Hlnt").contains(":4444")
    });
    let collides = docker.run("run --rm --network host busybox nc -l -p 4444");
    assert!(!collides.is_ok() && collides.stderr.contains("Address"), "{collides}");
    let denied = docker.run("run --rm --network host busybox ip link set lo mtu 1400");
    assert!(!denied.is_ok() && denied.stderr.contains("permitted"), "{denied}");
    docker.ok("run --rm --network host --cap-add NET_ADMIN busybox ip link set lo mtu 65000");
    assert_eq!(lab.host.run("cat /sys/class/net/lo/mtu").trim(), "65000");
    assert_eq!(docker.ok("port one"), "");
    assert_eq!(
        docker.ok("run --rm --network host busybox hostname"),
        lab.host.run("hostname").trim()
    );
}

#[test]
fn a_daemon_without_a_default_network_gives_containers_loopback() {
    let lab = Lab::new();
    let daemon = start(&lab, "-b none");
    let docker = daemon.docker();
    assert_eq!(
        docker.ok("network ls --format {{.Name}}").lines().collect::<Vec<_>>(),
        ["host", "none"]
    );
    let links = docker.ok("run --rm busybox ip -o link");
    assert!(links.lines().count() == 1 && links.contains("lo:"), "{links}");
    docker.ok("network create mine");
    docker.ok("run --rm --network mine busybox ip link show eth0");
}
