//! The MTU is that of the way out, and changes with it.

use lab::{Docker, Host, LAN, Lab, eventually, start};

fn mtu_in(docker: &Docker, container: &str) -> u32 {
    docker
        .ok(&format!("exec {container} cat /sys/class/net/eth0/mtu"))
        .parse()
        .unwrap_or_else(|_| panic!("{container} has no MTU"))
}

/// Pitfall B25.
#[test]
fn networks_follow_the_mtu_of_the_way_out_while_their_containers_run() {
    let lab = Lab::new();
    let both = |mtu: u32| {
        for host in [&lab.host, &lab.lan] {
            host.run(&format!("ip link set eth0 mtu {mtu}"));
        }
    };
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("network create mine");
    docker.ok("network create -o com.docker.network.driver.mtu=1300 fixed");
    docker.ok("run -d --name one --network mine busybox sleep 1000");
    docker.ok("run -d --name two --network fixed busybox sleep 1000");
    docker.run_web("web", "-p 8080:80");
    assert_eq!((mtu_in(&docker, "one"), mtu_in(&docker, "two")), (1500, 1300));
    let page = |host: &Host| host.run(&format!("curl -sS --max-time 10 http://{}:8080/", lab::HOST));
    for mtu in [1400, 9000, 1500] {
        both(mtu);
        eventually(&format!("the MTU is {mtu}"), 20, || {
            mtu_in(&docker, "one") == mtu && mtu_in(&docker, "web") == mtu
        });
        assert_eq!(mtu_in(&docker, "two"), 1300);
        docker.ok("run -d --name late --network mine busybox sleep 1000");
        assert_eq!(mtu_in(&docker, "late"), mtu);
        docker.ok("rm -f late");
        assert_eq!(page(&lab.lan), "hello");
        // to the byte, and not to be cut up
        let most = mtu - 28;
        docker.ok(&format!("exec one ping -c 1 -W 3 -s {most} {LAN}"));
    }
    // a way out of its own, by the route's word
    lab.host.run(&format!("ip route replace default via {LAN} mtu 1350"));
    eventually("the route's MTU is taken", 20, || mtu_in(&docker, "one") == 1350);
    let shown = docker.words(&[
        "network",
        "inspect",
        "-f",
        "{{index .Options \"com.docker.network.driver.mtu\"}}",
        "bridge",
    ]);
    assert_eq!(shown.ok(), "1350");
}
