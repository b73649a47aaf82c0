//! Networks on a device of the host: macvlan, and a Linux bridge with a LAN card in it.

use lab::{Docker, Engine, HOST, INTERNET, LAN, Lab, start};

/// What a command that must fail says.
#[track_caller]
fn refusal(docker: &Docker, line: &str) -> String {
    let ran = docker.run(line);
    assert!(!ran.is_ok(), "`docker {line}` must fail: {ran}");
    ran.stderr.trim().to_owned()
}

/// Does the kernel have macvlan devices?
fn has_macvlan(lab: &Lab) -> bool {
    let has = lab
        .host
        .shell("ip link add link eth0 name probe type macvlan && ip link del probe")
        .is_ok();
    if !has {
        lab::skipped("this kernel has no macvlan devices");
    }
    has
}

#[test]
fn containers_on_a_macvlan_network_are_machines_of_the_lan() {
    let lab = Lab::new();
    if !has_macvlan(&lab) {
        return;
    }
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("network create -d macvlan --subnet 10.88.0.0/24 --gateway 10.88.0.2 --ip-range 10.88.0.64/26 -o parent=eth0 lan");
    assert_eq!(
        docker
            .words(&["network", "inspect", "-f", "{{.Driver}} {{.Options}}", "lan"])
            .ok(),
        "macvlan map[parent:eth0]"
    );
    docker.run_web("web", "--network lan");
    // the CLI has no such word for engines as old as the stock one
    let mac = if daemon.is_ours() {
        "--mac-address 02:00:00:00:00:77"
    } else {
        ""
    };
    docker.ok(&format!(
        "run -d --name two --network lan --ip 10.88.0.77 {mac} busybox sleep 1000"
    ));
    let web = docker.inspect("web", "{{.NetworkSettings.Networks.lan.IPAddress}}");
    assert_eq!(web, "10.88.0.64");
    let page = |host: &lab::Host, address: &str| host.run(&format!("curl -sS --max-time 10 http://{address}/"));
    assert_eq!(page(&lab.lan, &web), "hello", "from the LAN at its own address");
    lab.lan.run("ping -c 1 -W 2 10.88.0.77");
    assert!(mac.is_empty() || lab.lan.run("ip neigh").contains("02:00:00:00:00:77"));
    assert_eq!(docker.fetch_from("two", &web, 80), "hello");
    docker.ok(&format!("exec two ping -c 1 -W 2 {INTERNET}"));
    docker.ok("exec two ping -c 1 -W 2 web");
    assert!(
        docker
            .ok("exec two ip route")
            .contains("default via 10.88.0.2 dev eth0")
    );

    if daemon.is_ours() {
        daemon.kill();
        daemon.boot();
        assert_eq!(
            page(&lab.lan, &web),
            "hello",
            "a daemon that comes back finds the devices"
        );
    }
    docker.ok("network disconnect lan two");
    assert!(!docker.ok("exec two ip -o link").contains("eth0"));
    docker.ok("network connect --ip 10.88.0.78 lan two");
    lab.lan.run("ping -c 1 -W 2 10.88.0.78");
    let said = refusal(&docker, "network rm lan");
    assert!(said.contains("has active endpoints"), "{said}");
    docker.ok("rm -f web two");
    docker.ok("network rm lan");
}

#[test]
fn a_macvlan_network_keeps_to_its_mode_and_names_what_cannot_be() {
    let lab = Lab::new();
    if !has_macvlan(&lab) {
        return;
    }
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let create =
        "network create -d macvlan --subnet 10.88.0.0/24 --gateway 10.88.0.2 --ip-range 10.88.0.64/26 -o parent=eth0";
    docker.ok(&format!("{create} -o macvlan_mode=private apart"));
    docker.ok("run -d --name one --network apart busybox sleep 1000");
    docker.ok("run -d --name two --network apart busybox sleep 1000");
    docker.ok(&format!("exec one ping -c 1 -W 2 {LAN}"));
    let two = docker.inspect("two", "{{.NetworkSettings.Networks.apart.IPAddress}}");
    assert!(
        !docker.run(&format!("exec one ping -c 1 -W 1 {two}")).is_ok(),
        "private means so"
    );
    docker.ok("rm -f one two");
    docker.ok("network rm apart");

    docker.ok(&format!("{create} -o macvlan_mode=passthru alone"));
    docker.ok("run --rm --network alone busybox ping -c 1 -W 2 10.88.0.2");
    let said = refusal(
        &docker,
        &format!(
            "{} other",
            create.replace("10.88.0.0", "10.87.0.0").replace("10.88.0.", "10.87.0.")
        ),
    );
    assert!(said.contains("already using parent interface"), "{said}");
    docker.ok("network rm alone");
    for (options, words) in [
        (
            "-o parent=eth0 -o macvlan_mode=loud",
            "requested macvlan mode 'loud' is not valid",
        ),
        ("-o parent=lo", "loopback interface is not a valid"),
        ("-o parent=nowhere", "nowhere"),
    ] {
        let said = refusal(&docker, &format!("network create -d macvlan {options} bad"));
        assert!(said.contains(words), "{options}: {said}");
    }
}

/// Puts the host's LAN card into a bridge, which takes its address and its way out.
fn build_bridge(lab: &Lab) {
    lab.host.run(&format!(
        "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up && ip link set eth0 master br0 && \
         ip addr del {HOST}/24 dev eth0 && ip addr add {HOST}/24 dev br0 && ip route add default via {LAN}"
    ));
}

#[test]
fn on_a_bridge_with_a_lan_card_containers_get_addresses_of_the_lan() {
    let lab = Lab::new();
    build_bridge(&lab);
    let gateway = if Engine::is_ours() {
        ""
    } else {
        " --default-gateway 10.88.0.2"
    };
    let mut daemon = start(&lab, &format!("-b br0 --fixed-cidr 10.88.0.64/26{gateway}"));
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name two busybox sleep 1000");
    let (web, two) = (docker.address("web"), docker.address("two"));
    assert!(
        web.starts_with("10.88.0.") && two.starts_with("10.88.0."),
        "{web} {two}"
    );
    let page = |host: &lab::Host, url: &str| host.run(&format!("curl -sS --max-time 10 http://{url}/"));
    assert_eq!(page(&lab.lan, &web), "hello", "from the LAN at its own address");
    assert_eq!(page(&lab.lan, &format!("{HOST}:8080")), "hello", "at the host's");
    assert_eq!(page(&lab.host, &web), "hello", "from the host");
    assert_eq!(page(&lab.host, "127.0.0.1:8080"), "hello");
    assert_eq!(docker.fetch_from("two", &web, 80), "hello", "from a neighbour");
    assert_eq!(docker.fetch_from("two", HOST, 8080), "hello", "by the host's address");
    for to in [LAN, HOST, INTERNET, &web] {
        docker.ok(&format!("exec two ping -c 1 -W 3 {to}"));
    }
    if !daemon.is_ours() {
        return;
    }
    // the LAN sees them as they are, and the datapath sees what they say
    lab.lan.run(&format!("ping -c 1 -W 2 {two}"));
    let (pid, mac) = (docker.pid("two"), lab.host.run("cat /sys/class/net/br0/address"));
    let within = |line: &str| lab.host.shell(&format!("nsenter --net=/proc/{pid}/ns/net {line}"));
    within("ip address add 10.88.0.200/32 dev eth0").ok();
    assert!(!within(&format!("ping -c 1 -W 1 -I 10.88.0.200 {LAN}")).is_ok());
    let drops = daemon.sluice("drops").ok();
    assert!(
        drops
            .lines()
            .any(|line| line.contains("forged") && line.contains("two")),
        "{drops}"
    );
    daemon.kill();
    daemon.boot();
    assert_eq!(page(&lab.lan, &web), "hello");
    assert_eq!(
        lab.host.run("cat /sys/class/net/br0/address"),
        mac,
        "the bridge is called as before"
    );
    docker.ok("network create mine");
    docker.ok("run -d --name apart --network mine busybox sleep 1000");
    assert!(
        !docker.run(&format!("exec apart ping -c 1 -W 1 {two}")).is_ok(),
        "networks stay apart"
    );
    docker.ok(&format!("exec apart ping -c 1 -W 2 {LAN}"));
}

#[test]
fn on_a_bridge_too_the_host_is_reached_where_it_is_said() {
    if !Engine::is_ours() {
        return;
    }
    let lab = Lab::new();
    build_bridge(&lab);
    let daemon = start(&lab, "-b br0 --fixed-cidr 10.88.0.64/26 --host-access=none");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name one busybox sleep 1000");
    assert!(!docker.run(&format!("exec one ping -c 1 -W 1 {HOST}")).is_ok());
    let drops = daemon.sluice("drops").ok();
    assert!(
        drops
            .lines()
            .any(|line| line.contains("host_access") && line.contains("one")),
        "{drops}"
    );
    assert_eq!(
        docker.fetch_from("one", HOST, 8080),
        "hello",
        "a published port is open"
    );
    for to in [LAN, INTERNET] {
        docker.ok(&format!("exec one ping -c 1 -W 3 {to}"));
    }
    let one = docker.address("one");
    lab.host.run(&format!("ping -c 1 -W 2 {one}"));
}

#[test]
fn on_a_bridge_too_containers_do_not_meet_without_icc() {
    let lab = Lab::new();
    build_bridge(&lab);
    let daemon = start(&lab, "-b br0 --fixed-cidr 10.88.0.64/26 --icc=false");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    docker.ok("run -d --name one busybox sleep 1000");
    docker.ok("run -d --name two busybox sleep 1000");
    let two = docker.address("two");
    assert!(!docker.run(&format!("exec one ping -c 1 -W 1 {two}")).is_ok());
    docker.ok(&format!("exec one ping -c 1 -W 2 {LAN}"));
    lab.lan.run(&format!("ping -c 1 -W 2 {two}"));
    let drops = daemon.sluice("drops").ok();
    assert!(
        drops
            .lines()
            .any(|line| line.contains("icc_disabled") && line.contains("one")),
        "{drops}"
    );
}
