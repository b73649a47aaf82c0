//! Running containers that come to networks and leave them, with all that can be said of a place.

use lab::{Docker, HOST, LAN, Lab, eventually, start};

fn refusal(docker: &Docker, line: &str) -> String {
    let ran = docker.run(line);
    assert!(!ran.is_ok(), "`docker {line}` must fail: {ran}");
    ran.stderr.trim().to_owned()
}

#[test]
fn a_stream_goes_on_while_its_container_comes_to_other_networks_and_leaves_them() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create alpha");
    docker.ok("network create beta");
    docker.ok("run -d --name one --network beta busybox sleep 1000");
    // one line every tenth of a second, by a connection that stays
    lab.host.run("ip route add blackhole 203.0.113.0/24");
    let _server = lab.lan.spawn(
        "server.log",
        "python3 -c 'import socket,time\ns=socket.socket(); s.setsockopt(1,2,1); s.bind((\"0.0.0.0\",7000)); s.listen(); c,_=s.accept()\nfor n in range(100000): c.sendall(b\"%d\\n\" % n); time.sleep(0.05)'",
    );
    docker.words(&[
        "exec",
        "-d",
        "one",
        "sh",
        "-c",
        &format!("until nc {LAN} 7000 > /lines; do sleep 0.1; done"),
    ]);
    let lines = || -> usize {
        docker
            .ok("exec one wc -l /lines")
            .split_whitespace()
            .next()
            .map_or(0, |n| n.parse().unwrap_or(0))
    };
    eventually("the stream has begun", 20, || {
        docker.run("exec one test -s /lines").is_ok() && lines() > 5
    });
    let goes_on = |when: &str| {
        let so_far = lines();
        eventually(&format!("the stream goes on {when}"), 20, || lines() > so_far + 5);
    };
    docker.ok("network connect alpha one");
    goes_on("with another network");
    docker.ok("network connect bridge one");
    goes_on("with a third");
    docker.ok("network disconnect alpha one");
    docker.ok("network disconnect bridge one");
    goes_on("without them");
    let text = docker.ok("exec one cat /lines");
    let numbers: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(
        numbers.iter().enumerate().all(|(index, number)| index == *number),
        "it is one connection, and nothing is missing"
    );
}

#[test]
fn a_place_has_the_name_the_settings_and_the_precedence_that_are_wanted() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    docker.ok("network create --subnet 10.98.0.0/24 alpha");
    docker.ok("network create --subnet 10.99.0.0/24 --ipv6 --subnet fd00:99::/64 beta");
    // the CLI's long form, several networks at once
    docker.ok(
        "run -d --name one --network name=alpha,ip=10.98.0.9,driver-opt=com.docker.network.endpoint.ifname=lan0 \
         --network name=beta,ip6=fd00:99::9,mac-address=02:00:00:00:00:99,gw-priority=1,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1\" \
         busybox sleep 1000"
            .replace('"', "")
            .as_str(),
    );
    let addresses = docker.ok("exec one ip -o addr");
    assert!(
        addresses.contains("lan0    inet 10.98.0.9/24") && addresses.contains("inet6 fd00:99::9/64"),
        "{addresses}"
    );
    assert_eq!(
        docker.ok("exec one cat /sys/class/net/eth0/address"),
        "02:00:00:00:00:99"
    );
    assert_eq!(docker.ok("exec one cat /proc/sys/net/ipv4/conf/eth0/log_martians"), "1");
    assert_eq!(docker.ok("exec one cat /proc/sys/net/ipv4/conf/lan0/log_martians"), "0");
    let way_out = || docker.ok("exec one ip route show default");
    assert!(way_out().contains("via 10.99.0.1 dev eth0"), "{}", way_out());

    docker.ok("network create --subnet 10.97.0.0/24 gamma");
    docker.ok("network connect gamma one");
    assert!(
        way_out().contains("via 10.99.0.1 dev eth0"),
        "who leads goes on leading"
    );
    docker.ok("network disconnect gamma one");
    docker.ok(
        "network connect --gw-priority 5 --ip 10.97.0.7 --driver-opt com.docker.network.endpoint.ifname=out gamma one",
    );
    assert!(way_out().contains("via 10.97.0.1 dev out"), "{}", way_out());
    let leads = |line: &&str| line.starts_with("default");
    assert_eq!(way_out().lines().filter(leads).count(), 1, "busybox shows all routes");
    assert!(
        docker.ok("exec one ip -6 route show default").contains("fd00:99::1"),
        "gamma has no IPv6"
    );
    docker.ok(&format!("exec one ping -c 1 -W 2 {LAN}"));
    assert_eq!(
        docker.inspect("one", "{{.NetworkSettings.Networks.gamma.GwPriority}}"),
        "5"
    );
    docker.ok("network disconnect gamma one");
    assert!(way_out().contains("via 10.99.0.1 dev eth0"), "{}", way_out());
    docker.ok("restart -t 0 one");
    assert!(way_out().contains("via 10.99.0.1 dev eth0"), "{}", way_out());
    for (option, words) in [
        (
            "com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1",
            "a setting of a network device is wanted",
        ),
        ("com.docker.network.endpoint.ifname=lan0", "lan0"),
        (
            "com.docker.network.endpoint.colour=red",
            "com.docker.network.endpoint.colour",
        ),
    ] {
        let said = refusal(&docker, &format!("network connect --driver-opt {option} gamma one"));
        assert!(said.contains(words), "{option}: {said}");
    }
    let said = refusal(
        &docker,
        "network connect --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.no_such=1 gamma one",
    );
    assert!(said.contains("no_such"), "{said}");
    assert!(
        !docker.ok("exec one ip -o link").contains("eth1"),
        "nothing half-made is left"
    );
}

#[test]
fn a_gateway_stands_on_a_device_of_the_name_that_is_wanted() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --subnet 10.99.0.0/24 -o com.docker.network.bridge.name=br-mine mine");
    let borne = || lab.host.run("ip -o -4 addr show dev br-mine");
    assert!(borne().contains("10.99.0.1/24"), "{}", borne());
    docker.ok("run -d --name one --network mine busybox sleep 1000");
    docker.ok("exec one ping -c 1 -W 2 10.99.0.1");
    docker.ok(&format!("exec one ping -c 1 -W 2 {LAN}"));
    let one = docker.inspect("one", "{{.NetworkSettings.Networks.mine.IPAddress}}");
    lab.host.run(&format!("ping -c 1 -W 2 {one}"));
    lab.host.run(&format!("ping -c 1 -W 2 -I 10.99.0.1 {one}"));
    let said = refusal(
        &docker,
        "network create -o com.docker.network.bridge.name=br-mine other",
    );
    assert!(said.contains("br-mine"), "{said}");
    if daemon.is_ours() {
        daemon.kill();
        lab.host.run("ip link del br-mine");
        daemon.boot();
        assert!(borne().contains("10.99.0.1/24"), "{}", borne());
        let said = refusal(&docker, "network create -o com.docker.network.bridge.name=eth0 other");
        assert!(said.contains("eth0"), "{said}");
    }
    docker.ok("rm -f one");
    docker.ok("network rm mine");
    eventually("the device goes with its network", 30, || {
        !lab.host.shell("ip link show br-mine").is_ok()
    });
}

#[test]
fn ports_are_bound_where_the_network_or_the_daemon_says_and_free_when_nobody_runs() {
    let lab = Lab::new();
    let daemon = start(&lab, "--ip 127.0.0.1");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok(&format!(
        "network create -o com.docker.network.bridge.host_binding_ipv4={HOST} open"
    ));
    docker.run_web("near", "-p 8080:80");
    docker.run_web("far", "--network open -p 8080:80");
    let ports = |name: &str| docker.ok(&format!("ps --filter name={name} --format {{{{.Ports}}}}"));
    assert_eq!(ports("near"), "127.0.0.1:8080->80/tcp");
    assert_eq!(ports("far"), format!("{HOST}:8080->80/tcp"));
    assert_eq!(docker.ok("port far"), format!("80/tcp -> {HOST}:8080"));
    let page = |host: &lab::Host, address: &str| host.shell(&format!("curl -sS --max-time 5 http://{address}:8080/"));
    assert_eq!(page(&lab.lan, HOST).ok(), "hello");
    assert_eq!(page(&lab.host, "127.0.0.1").ok(), "hello");
    docker.ok("stop -t 0 near far");
    assert_eq!(docker.ok("port far"), "");
    docker.run_web("third", "-p 8080:80 -P");
    assert_eq!(docker.ok("port third 80"), "127.0.0.1:8080");
    let said = refusal(&docker, "start near");
    assert!(said.contains("port is already allocated"), "{said}");
    docker.ok("rm -f third");
    docker.ok("run -d --name random -P web");
    let given = docker.ok("port random 80");
    let port: u32 = given.rsplit(':').next().unwrap().parse().unwrap();
    assert!(given.starts_with("127.0.0.1:") && port >= 32768, "{given}");
}
