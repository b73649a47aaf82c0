//! What travels between the hosts of a cluster: from the moment a container runs, by name, in both directions, and to nobody else.

use lab::{Cluster, Daemon, Docker, eventually};

/// A page that says by which host name it is served, and a large file. Who asks is logged.
const PAGE: [&str; 3] = [
    "sh",
    "-c",
    "echo hello from $(hostname) > /index.html; head -c 20000000 /dev/urandom > /large; exec httpd -f -v -p 80 -h /",
];
/// Runs a container in the background.
fn run(docker: &Docker, options: &str, command: &[&str]) {
    let line = format!("run -d {options} busybox");
    let words: Vec<&str> = line.split_whitespace().chain(command.iter().copied()).collect();
    docker.words(&words).ok();
}

/// Pitfall B32.
#[test]
fn containers_of_two_hosts_meet_as_soon_as_they_run_and_those_of_another_network_do_not() {
    let cluster = Cluster::new(2);
    let daemons: Vec<Daemon> = (0..2).map(|index| cluster.start(index, "")).collect();
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    dockers[0].ok("network create -d overlay other");
    eventually("the networks are on both hosts", 30, || {
        dockers[1].ok("network ls -q --filter driver=overlay").lines().count() == 2
    });
    dockers[0].ok("run -d --name left --net wide busybox sleep 1000");

    // who has just come is met at once, from either side
    for round in 0..3 {
        dockers[1].ok(&format!("run -d --name right{round} --net wide busybox sleep 1000"));
        dockers[0].ok(&format!("exec left ping -c 1 -W 2 right{round}"));
        dockers[1].ok(&format!("exec right{round} ping -c 1 -W 2 left"));
    }

    // a page and a large file
    run(&dockers[0], "--name web --hostname web --net wide", &PAGE);
    let fetch = |docker: &Docker, asker: &str, server: &Docker, path: &str, then: &str| {
        let address = server.inspect("web", "{{.NetworkSettings.Networks.wide.IPAddress}}");
        let script = format!("printf 'GET /{path} HTTP/1.0\\r\\n\\r\\n' | timeout 30 nc {address} 80 {then}");
        docker.words(&["exec", asker, "sh", "-c", &script]).stdout
    };
    eventually("the page is served", 30, || {
        fetch(&dockers[1], "right0", &dockers[0], "", "").contains("hello from web")
    });
    let sum = dockers[0].ok("exec web md5sum /large");
    let fetched = fetch(
        &dockers[1],
        "right0",
        &dockers[0],
        "large",
        "| tail -c 20000000 | md5sum",
    );
    assert_eq!(sum.split_whitespace().next(), fetched.split_whitespace().next());

    // the wrapping has room in the cable's frames, and the world is there as on any network
    let mtu = dockers[1].ok("exec right0 cat /sys/class/net/eth0/mtu");
    assert_eq!(mtu, "1450");
    dockers[1].ok("exec right0 ping -c 1 -W 2 10.88.1.254");
    let gateway = dockers[1]
        .words(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "wide"])
        .ok();
    for (docker, name) in [(&dockers[0], "left"), (&dockers[1], "right0")] {
        docker.ok(&format!("exec {name} ping -c 1 -W 2 {gateway}"));
    }

    // nobody of another network
    let address = dockers[0].inspect("left", "{{.NetworkSettings.Networks.wide.IPAddress}}");
    dockers[1].ok("run -d --name stranger --net other busybox sleep 1000");
    let ran = dockers[1].run(&format!("exec stranger ping -c 2 -W 1 {address}"));
    assert!(!ran.is_ok(), "{ran}");

    // who has gone is not there any more, and whoever has its name next is
    dockers[0].ok("rm -f web");
    let ran = dockers[1].run("exec right0 ping -c 1 -W 1 web");
    assert!(!ran.is_ok(), "{ran}");
    run(&dockers[1], "--name web --hostname another --net wide", &PAGE);
    eventually("the page is served by the next one", 30, || {
        fetch(&dockers[0], "left", &dockers[1], "", "").contains("hello from another")
    });
}

/// Pitfall B11.
#[test]
fn a_port_published_on_the_mesh_is_open_on_every_host_and_shows_the_true_client() {
    let cluster = Cluster::new(2);
    let daemons: Vec<Daemon> = (0..2).map(|index| cluster.start(index, "")).collect();
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    let mesh = "--net wide --label sluice.publish=mesh";
    run(
        &dockers[0],
        &format!("--name web --hostname web {mesh} -p 8080:80"),
        &PAGE,
    );
    for index in 0..2 {
        let address = Cluster::address(index);
        eventually("every host answers at the port", 30, || {
            let ran = cluster
                .bystander()
                .shell(&format!("curl -s -m 5 http://{address}:8080/"));
            ran.stdout.trim() == "hello from web"
        });
        let asked = |docker: &Docker| docker.run("logs web").stderr.matches("10.88.1.254").count();
        assert!(
            asked(&dockers[0]) > index,
            "by way of host {index} the client is seen by its own address"
        );
    }
}

#[test]
fn each_host_is_reached_by_the_underlay_that_it_tells_and_the_narrowest_says_how_much_fits() {
    let cluster = Cluster::new(2);
    let second = lab::Host::new();
    second.run("ip link add lan type bridge && ip link set lan up");
    for (index, host) in cluster.hosts.iter().enumerate() {
        let port = format!("port{index}");
        host.connect("eth1", &second, &port);
        second.run(&format!("ip link set {port} master lan"));
        host.run(&format!(
            "ip address add 10.89.1.{}/24 dev eth1 && ip link set eth1 mtu 1400",
            index + 1
        ));
    }
    // the one has both, the other wants to be reached by the second only
    let store = cluster.store();
    let daemons = [
        cluster.start_with(0, &store, "eth0,eth1", ""),
        cluster.start_with(1, &store, "eth1", ""),
    ];
    let dockers = [daemons[0].docker(), daemons[1].docker()];
    dockers[0].ok("network create -d overlay wide");
    eventually("the network is on both hosts", 30, || {
        dockers[1].run("network inspect wide").is_ok()
    });
    let heard = second.spawn("heard.log", "timeout 60 tcpdump -l -n -i port0 'udp port 4789'");
    eventually("somebody listens", 30, || heard.said().contains("listening"));
    dockers[0].ok("run -d --name left --net wide busybox sleep 1000");
    dockers[1].ok("run -d --name right --net wide busybox sleep 1000");
    for (docker, from, to) in [(&dockers[0], "left", "right"), (&dockers[1], "right", "left")] {
        eventually("they meet", 30, || {
            docker.run(&format!("exec {from} ping -c 1 -W 1 {to}")).is_ok()
        });
        assert_eq!(docker.ok(&format!("exec {from} cat /sys/class/net/eth0/mtu")), "1350");
        // whole, and not in pieces
        docker.ok(&format!("exec {from} ping -c 1 -W 5 -s 1322 {to}"));
    }
    // back it may go by the first, which the other likes best
    eventually("it is seen on the second link", 30, || {
        heard.said().contains("> 10.89.1.2.4789: VXLAN")
    });
}
