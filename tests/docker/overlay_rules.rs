//! Who may speak to whom holds between the hosts of a cluster as it does on one: networks without icc, links, internal networks. And what is hard to carry
//! is carried: what containers have wrapped themselves, and what is too long.

use lab::{Cluster, Daemon, Docker, eventually};

use crate::cluster::daemons;

/// Waits until a network is on a host.
fn has(docker: &Docker, network: &str) {
    eventually(&format!("{network} is there"), 30, || {
        docker.run(&format!("network inspect {network}")).is_ok()
    });
}

/// Does the container reach the port there?
fn reaches(docker: &Docker, container: &str, to: &str, port: u16) -> bool {
    let script = format!("echo | nc -w 2 {to} {port} >/dev/null");
    docker.words(&["exec", container, "sh", "-c", &script]).is_ok()
}

fn serve(docker: &Docker, options: &str) {
    let line = format!("run -d {options} busybox sh -c");
    let pages = "mkdir /www; echo here >/www/index.html; httpd -h /www -p 6379; httpd -h /www -p 6380; exec sleep 1000";
    let words: Vec<&str> = line.split(' ').chain([pages]).collect();
    docker.words(&words).ok();
}

#[test]
fn rules_of_a_network_hold_between_hosts() {
    let cluster = Cluster::new(2);
    let daemons = daemons(&cluster);
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();

    // without icc exactly what a link leads to, and only from the linking side
    dockers[0].ok("network create -d overlay -o com.docker.network.bridge.enable_icc=false closed");
    has(&dockers[1], "closed");
    serve(&dockers[0], "--name redis --net closed --expose 6379");
    serve(&dockers[1], "--name web --net closed");
    dockers[1].ok("create --name linked --net closed busybox sleep 1000");
    dockers[1].ok("network disconnect closed linked");
    dockers[1].ok("network connect --link redis:cache closed linked");
    dockers[1].ok("start linked");
    eventually("the linked port is open", 30, || {
        reaches(&dockers[1], "linked", "cache", 6379)
    });
    assert!(reaches(&dockers[1], "linked", "redis", 6379), "by its own name, too");
    assert!(
        !reaches(&dockers[1], "linked", "redis", 6380),
        "a port that is not exposed"
    );
    assert!(!reaches(&dockers[1], "web", "redis", 6379), "from who is not linked");
    assert!(!reaches(&dockers[0], "redis", "web", 6379), "from the other side");
    dockers[1].ok("network disconnect closed linked");
    dockers[1].ok("network connect closed linked");
    assert!(!reaches(&dockers[1], "linked", "redis", 6379), "the link is gone");

    // an internal one has no way out, and its members meet
    dockers[1].ok("network create -d overlay --internal -o direct-routing=true inside");
    has(&dockers[0], "inside");
    dockers[0].ok("run -d --name in0 --net inside busybox sleep 1000");
    dockers[1].ok("run -d --name in1 --net inside --net-alias twin busybox sleep 1000");
    dockers[0].ok("run -d --name in2 --net inside --net-alias twin busybox sleep 1000");
    dockers[0].ok("exec in0 ping -c 1 -W 2 in1");
    dockers[1].ok("exec in1 ping -c 1 -W 2 in0");
    assert!(
        !dockers[0].run("exec in0 ping -c 1 -W 1 10.88.1.254").is_ok(),
        "no way out"
    );
    // the bearers of a name are told in turn, on whichever hosts they are
    let twins = || dockers[1].run("exec in1 nslookup -type=a twin 127.0.0.11").stdout;
    let addresses: Vec<String> = ["in1", "in2"]
        .iter()
        .map(|name| {
            crate::cluster::residents(&daemons[0], "inside")[*name]
                .split('/')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(addresses.iter().all(|address| twins().contains(address)), "{}", twins());
    let first = |text: String| {
        let place = |address: &String| text.find(address.as_str());
        place(&addresses[0]) < place(&addresses[1])
    };
    eventually("each is told first at some time", 30, || {
        first(twins()) != first(twins())
    });
    // hosts of one link send on it as it is: nothing is wrapped
    let heard = cluster
        .switch
        .spawn("heard.log", "timeout 60 tcpdump -l -n -i port1 'icmp or udp port 4789'");
    eventually("somebody listens", 30, || heard.said().contains("listening"));
    dockers[0].ok("exec in0 ping -c 2 -W 2 in1");
    let direct = format!("> {}: ICMP echo request", addresses[0]);
    eventually("it is seen on the link", 30, || heard.said().contains(&direct));
    assert!(!heard.said().contains("VXLAN"), "{}", heard.said());
}

#[test]
fn a_container_that_routes_and_what_is_too_long_cross_between_hosts() {
    let cluster = Cluster::new(2);
    let daemons = daemons(&cluster);
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    has(&dockers[1], "wide");
    // it wraps what it sends by itself: a tunnel within the tunnel
    let tunnel = |docker: &Docker, name: &str, other: &str, inner: &str| {
        let at = |name: &str| {
            crate::cluster::residents(&daemons[0], "wide")[name]
                .split('/')
                .next()
                .unwrap()
                .to_owned()
        };
        let line = format!(
            "ip link add t0 type vxlan id 7 remote {} dstport 4790 && ip addr add {inner}/24 dev t0 && ip link set t0 up",
            at(other)
        );
        let pid = docker.pid(name);
        daemons[0]
            .host()
            .shell(&format!("nsenter --net=/proc/{pid}/ns/net sh -c '{line}'"))
            .ok();
    };
    for (docker, name) in [(&dockers[0], "left"), (&dockers[1], "right")] {
        docker.ok(&format!(
            "run -d --name {name} --net wide --cap-add NET_ADMIN busybox sleep 1000"
        ));
    }
    eventually("both are known", 30, || {
        crate::cluster::residents(&daemons[0], "wide").len() == 2
    });
    tunnel(&dockers[0], "left", "right", "10.99.0.1");
    tunnel(&dockers[1], "right", "left", "10.99.0.2");
    dockers[0].ok("exec left ping -c 2 -W 5 10.99.0.2");
    // a large file by streams of that tunnel, whose segments come as one
    let serves = "head -c 3000000 /dev/zero >/large; exec httpd -f -h / -p 7000";
    dockers[1].words(&["exec", "-d", "right", "sh", "-c", serves]).ok();
    let script = "timeout 20 wget -q -O - http://10.99.0.2:7000/large | wc -c";
    eventually("it crosses whole", 60, || {
        dockers[0].words(&["exec", "left", "sh", "-c", script]).stdout.trim() == "3000000"
    });
    // what is longer than the way is cut up, or its sender is told
    dockers[0].ok("exec left ping -c 1 -W 5 -s 4000 right");
    dockers[0].ok("exec left ping -c 1 -W 5 -s 60000 right");
}
