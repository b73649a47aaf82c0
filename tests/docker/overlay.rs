//! What travels between the hosts of a cluster: from the moment a container runs, by name, in both directions, and to nobody else.

use lab::{Cluster, Daemon, eventually};

const PAGE: &str = "sh -c 'echo hello from $(hostname) > /index.html; head -c 20000000 /dev/urandom > /large; exec httpd -f -p 80 -h /'";

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

    // a page and a large file, by name
    dockers[0].ok(&format!("run -d --name web --hostname web --net wide busybox {PAGE}"));
    eventually("the page is served", 30, || {
        dockers[1].run("exec right0 wget -q -T 5 -O - http://web/").stdout == "hello from web"
    });
    let sum = dockers[0].ok("exec web md5sum /large");
    let fetched = dockers[1].ok("exec right0 sh -c 'wget -q -O - http://web/large | md5sum'");
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
    let ran = dockers[1].run("exec right0 wget -q -T 2 -O - http://web/");
    assert!(!ran.is_ok(), "{ran}");
    dockers[1].ok(&format!(
        "run -d --name web --hostname another --net wide busybox {PAGE}"
    ));
    eventually("the page is served by the next one", 30, || {
        dockers[0].run("exec left wget -q -T 5 -O - http://web/").stdout == "hello from another"
    });
}

#[test]
fn a_port_published_on_the_mesh_is_open_on_every_host_and_shows_the_true_client() {
    let cluster = Cluster::new(2);
    let daemons: Vec<Daemon> = (0..2).map(|index| cluster.start(index, "")).collect();
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    dockers[0].ok(&format!(
        "run -d --name web --hostname web --net wide --label sluice.publish=mesh -p 8080:80 busybox {PAGE}"
    ));
    dockers[0].ok(
        "run -d --name seen --net wide --label sluice.publish=mesh -p 8081:81 busybox \
                   nc -lk -p 81 -e sh -c 'echo $NCAT_REMOTE_ADDR; netstat -tn | grep :81'",
    );
    for index in 0..2 {
        let address = Cluster::address(index);
        eventually("every host answers at the port", 30, || {
            let ran = cluster
                .bystander()
                .shell(&format!("curl -s -m 5 http://{address}:8080/"));
            ran.stdout.trim() == "hello from web"
        });
        eventually("the client is seen by its own address", 30, || {
            let ran = cluster
                .bystander()
                .shell(&format!("timeout 5 nc {address} 8081 < /dev/null"));
            ran.stdout.contains("10.88.1.254:")
        });
    }
}
