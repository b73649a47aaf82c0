//! What befalls a cluster: an etcd that forgets, goes back, or loses members; hosts that are cut off, stand still, come and go. What is left agrees.

use lab::{Cluster, Daemon, Docker, Frozen, eventually};

use crate::cluster::{daemons, refused, residents};

/// All daemons tell of these on a network, and tell the same of them.
#[track_caller]
fn everybody(daemons: &[Daemon], network: &str, names: &[&str]) {
    eventually(&format!("all tell of {names:?}"), 60, || {
        let told: Vec<_> = daemons.iter().map(|daemon| residents(daemon, network)).collect();
        told[0].len() == names.len()
            && names.iter().all(|name| told[0].contains_key(*name))
            && told.iter().all(|others| *others == told[0])
    });
}

/// What etcd has reserved is what these have: a name and an address each.
#[track_caller]
fn reserved(cluster: &Cluster, names: &[&str]) {
    eventually("each name and each address has its bearer", 60, || {
        let taken = cluster.keys("/sluice/v1/taken/names/");
        let told: Vec<&str> = taken.iter().filter_map(|key| key.rsplit('/').next()).collect();
        let addresses = cluster.keys("/sluice/v1/taken/addresses/");
        told.len() == names.len() && names.iter().all(|name| told.contains(name)) && addresses.len() == names.len()
    });
}

fn run(docker: &Docker, name: &str, network: &str) {
    docker.ok(&format!("run -d --name {name} --net {network} busybox sleep 1000"));
}

#[track_caller]
fn meet(docker: &Docker, from: &str, to: &str) {
    eventually(&format!("{from} reaches {to}"), 30, || {
        docker.run(&format!("exec {from} ping -c 1 -W 1 {to}")).is_ok()
    });
}

/// Pitfalls B30, B31, B60.
#[test]
fn what_etcd_has_forgotten_is_read_again_and_what_it_never_knew_is_told_anew() {
    let mut cluster = Cluster::new(2);
    let daemons = daemons(&cluster);
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    eventually("the network is on both", 30, || {
        dockers[1].run("network inspect wide").is_ok()
    });
    run(&dockers[0], "left", "wide");
    run(&dockers[1], "right", "wide");
    run(&dockers[1], "old", "wide");
    everybody(&daemons, "wide", &["left", "old", "right"]);
    cluster.save_etcd();

    // a daemon stands still for longer than its lease lives, and etcd forgets what it has missed
    let frozen = Frozen::these(&[daemons[1].pid()]);
    run(&dockers[0], "new", "wide");
    let said = daemons[0].log();
    assert!(
        said.contains("a container was started whose way these hosts did not know after 1 s"),
        "who starts one does not wait for ever"
    );
    dockers[0].ok("rm -f left");
    cluster.forget_past();
    eventually("who stands still is taken for dead", 30, || {
        residents(&daemons[0], "wide").len() == 1
    });
    drop(frozen);
    everybody(&daemons, "wide", &["new", "old", "right"]);
    meet(&dockers[0], "new", "right");
    meet(&dockers[1], "old", "new");
    reserved(&cluster, &["new", "old", "right"]);

    // etcd knows again what it knew at first, and nothing of what came later
    dockers[1].ok("rm -f old");
    dockers[0].ok("network create -d overlay later");
    run(&dockers[0], "late", "later");
    eventually("the network is on both", 30, || {
        dockers[1].run("network inspect later").is_ok()
    });
    cluster.restore_etcd();
    everybody(&daemons, "wide", &["new", "right"]);
    everybody(&daemons, "later", &["late"]);
    reserved(&cluster, &["late", "new", "right"]);
    meet(&dockers[0], "new", "right");
    for daemon in &daemons {
        eventually("nothing is wrong any more", 60, || {
            let status = daemon.sluice("cluster status --json").ok();
            status.contains("\"trouble\":null") && !status.contains("\"lease\":null")
        });
    }
    eventually("all works as before", 60, || {
        dockers[1].run("rm -f last");
        dockers[1]
            .run("run -d --name last --net later busybox sleep 1000")
            .is_ok()
    });
    meet(&dockers[1], "last", "late");
}

#[test]
fn who_was_cut_off_gives_up_what_went_to_others_meanwhile_and_all_agree_again() {
    let cluster = Cluster::new(2);
    let daemons = daemons(&cluster);
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay --subnet 10.40.0.0/24 wide");
    eventually("the network is on both", 30, || {
        dockers[1].run("network inspect wide").is_ok()
    });
    run(&dockers[0], "left", "wide");
    run(&dockers[1], "twin", "wide");
    run(&dockers[1], "mate", "wide");
    everybody(&daemons, "wide", &["left", "mate", "twin"]);
    let address = residents(&daemons[0], "wide")["twin"]
        .split('/')
        .next()
        .unwrap()
        .to_owned();

    cluster.cut(1);
    eventually("a host that is cut off is taken for dead", 60, || {
        residents(&daemons[0], "wide").len() == 1
    });
    // on it all goes on but what needs the others' word
    meet(&dockers[1], "mate", "twin");
    refused(
        &dockers[1].run("run --name none --net wide busybox true"),
        "cannot put container none on network wide",
    );
    dockers[1].ok("run --rm busybox true");
    // name and address go to another
    dockers[0].ok(&format!(
        "run -d --name twin --net wide --ip {address} busybox sleep 1000"
    ));
    cluster.heal(1);
    everybody(&daemons, "wide", &["left", "mate", "twin"]);
    eventually("the one who was cut off has left", 60, || {
        !dockers[1].ok("exec twin ip -o address").contains(&address)
    });
    eventually("the log says so", 30, || {
        daemons[1].log().contains("container twin is taken off network")
    });
    reserved(&cluster, &["left", "mate", "twin"]);
    meet(&dockers[1], "mate", "twin");
    meet(&dockers[0], "twin", "mate");
    meet(&dockers[0], "left", "mate");
    assert_eq!(dockers[1].inspect("twin", "{{.State.Running}}"), "true", "it runs on");
}

#[test]
fn an_etcd_of_three_may_lose_one_and_hosts_meet_over_ipv6_and_leave_and_come() {
    let mut cluster = Cluster::with_members(2, 3);
    for (index, host) in cluster.hosts.iter().enumerate() {
        host.run(&format!("ip address add fd00:88::{}/64 dev eth0 nodad", index + 1));
    }
    let store = cluster.store();
    // one tells its device, the other its address
    let mut daemons = [
        cluster.start_with(0, &store, "fd00:88::1", ""),
        Daemon::start(&cluster.hosts[1], ""),
    ];
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[1].import(&lab::busybox(), "busybox", &["CMD [\"sh\"]"]);

    // a host that stood alone comes, and its containers do not notice
    dockers[1].ok("run -d --name early busybox sleep 1000");
    let began = dockers[1].inspect("early", "{{.State.StartedAt}} {{.State.Pid}}");
    refused(
        &dockers[1].run("network create -d overlay wide"),
        "belongs to no cluster",
    );
    daemons[1].stop();
    let member = format!("--cluster-store {store} --cluster-advertise fd00:88::2 --cluster-store-opt discovery.ttl=5s");
    daemons[1].set_flags(&member);
    daemons[1].boot();
    dockers[0].ok("network create -d overlay --ipv6 wide");
    eventually("the network is on both", 30, || {
        dockers[1].run("network inspect wide").is_ok()
    });
    dockers[1].ok("network connect wide early");
    assert_eq!(
        dockers[1].inspect("early", "{{.State.StartedAt}} {{.State.Pid}}"),
        began
    );

    run(&dockers[0], "left", "wide");
    everybody(&daemons, "wide", &["early", "left"]);
    meet(&dockers[0], "left", "early");
    let mtu = dockers[0].ok("exec left cat /sys/class/net/eth0/mtu");
    assert_eq!(mtu, "1430", "an underlay of IPv6 takes more");
    let format = "{{(index .NetworkSettings.Networks \"wide\").GlobalIPv6Address}}";
    let inner = dockers[1].inspect("early", format);
    dockers[0].ok(&format!("exec left ping -6 -c 1 -W 2 {inner}"));
    let sixes = cluster.hosts[0].run("ip -6 -o address show dev eth0");
    assert!(sixes.contains("fd00:88::1"), "{sixes}");

    // without one member all goes on, also when it was the first or the leader
    cluster.kill_member(0);
    dockers[1].ok("create --name middle --net wide busybox sleep 1000");
    eventually("two members are enough", 60, || dockers[1].run("start middle").is_ok());
    everybody(&daemons, "wide", &["early", "left", "middle"]);
    meet(&dockers[0], "left", "middle");
    // with one alone nothing new comes, and what is there stays
    cluster.kill_member(1);
    dockers[0].ok("create --name late --net wide busybox sleep 1000");
    refused(
        &dockers[0].run("start late"),
        "cannot put container late on network wide",
    );
    meet(&dockers[0], "left", "middle");
    let status = daemons[0].sluice("cluster status").ok();
    assert!(status.contains("10.88.1.254"), "the members are told of: {status}");
    cluster.start_etcd();
    eventually("with three all works", 60, || dockers[0].run("start late").is_ok());
    everybody(&daemons, "wide", &["early", "late", "left", "middle"]);

    // it leaves, and its containers run on; nobody comes to what it shares no more
    daemons[1].stop();
    daemons[1].set_flags("");
    daemons[1].boot();
    assert_eq!(
        dockers[1].inspect("early", "{{.State.StartedAt}} {{.State.Pid}}"),
        began
    );
    refused(
        &dockers[1].run("run --name stray --net wide busybox true"),
        "belongs to no cluster",
    );
    dockers[1].ok("exec early ping -c 1 -W 2 middle");
    eventually("the others forget it", 60, || {
        let told = residents(&daemons[0], "wide");
        told.len() == 2 && told.contains_key("left") && told.contains_key("late")
    });
    // and comes again
    daemons[1].stop();
    daemons[1].set_flags(&member);
    daemons[1].boot();
    everybody(&daemons, "wide", &["early", "late", "left", "middle"]);
    meet(&dockers[0], "late", "early");
}
