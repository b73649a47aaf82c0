//! Networks on several hosts that share an etcd: what is made on one is there on all, and nobody has what is another's.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use lab::{Cluster, Daemon, Ran, eventually};

/// Daemons on all hosts of a cluster.
pub fn daemons(cluster: &Cluster) -> Vec<Daemon> {
    thread::scope(|scope| {
        let starting: Vec<_> = (0..cluster.hosts.len())
            .map(|index| scope.spawn(move || cluster.start(index, "")))
            .collect();
        starting.into_iter().map(|daemon| daemon.join().unwrap()).collect()
    })
}

/// Name and address of everybody on a network, as a daemon tells.
pub fn residents(daemon: &Daemon, network: &str) -> BTreeMap<String, String> {
    let format = "{{range .Containers}}{{.Name}} {{.IPv4Address}}\n{{end}}";
    let told = daemon
        .docker()
        .words(&["network", "inspect", "--format", format, network])
        .ok();
    told.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .collect()
}

/// It was refused with these words.
#[track_caller]
pub fn refused(ran: &Ran, words: &str) {
    assert!(
        !ran.is_ok() && ran.stderr.contains(words),
        "{words:?} was expected: {ran}"
    );
}

#[test]
fn a_network_made_on_one_host_is_on_all_and_names_and_addresses_are_nobody_elses() {
    let cluster = Cluster::new(3);
    let daemons = daemons(&cluster);
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();

    // on all, with the same subnet, as soon as it is made
    let id = dockers[0].ok("network create -d overlay --label tier=back my-overlay");
    for docker in &dockers {
        let row = [
            "network",
            "ls",
            "--no-trunc",
            "--filter",
            "name=my-overlay",
            "--format",
            "{{.ID}} {{.Driver}} {{.Scope}}",
        ];
        eventually("the network is on all hosts", 30, || {
            docker.words(&row).ok() == format!("{id} overlay global")
        });
    }
    let subnets: BTreeSet<String> = dockers
        .iter()
        .map(|docker| {
            let format = "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}} {{.Labels.tier}}";
            docker.words(&["network", "inspect", "-f", format, "my-overlay"]).ok()
        })
        .collect();
    assert_eq!(subnets.len(), 1, "{subnets:?}");

    // of all who make networks at the same time nobody gets another's name or subnet
    let made: Vec<Ran> = thread::scope(|scope| {
        let making: Vec<_> = (0..12)
            .map(|number| {
                let docker = &dockers[number % 3];
                scope.spawn(move || docker.run(&format!("network create -d overlay net{}", number / 3)))
            })
            .collect();
        making.into_iter().map(|made| made.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 4, "one of each three");
    for lost in made.iter().filter(|made| !made.is_ok()) {
        refused(lost, "already exists");
    }
    eventually("all networks are on all hosts", 30, || {
        dockers
            .iter()
            .all(|docker| docker.ok("network ls -q --filter scope=global").lines().count() == 5)
    });
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    let all = dockers[2]
        .words(&[
            "network",
            "inspect",
            "-f",
            format,
            "my-overlay",
            "net0",
            "net1",
            "net2",
            "net3",
        ])
        .ok();
    assert_eq!(all.lines().collect::<BTreeSet<_>>().len(), 5, "{all}");

    // names and addresses, asked for by three hosts at the same time
    let ran: Vec<(String, Ran)> = thread::scope(|scope| {
        let running: Vec<_> = (0..12)
            .map(|number| {
                let docker = &dockers[number % 3];
                let name = format!("same{}", number / 3);
                scope.spawn(move || {
                    let ran = docker.run(&format!("run -d --name {name} --net my-overlay busybox sleep 1000"));
                    (name, ran)
                })
            })
            .collect();
        running.into_iter().map(|ran| ran.join().unwrap()).collect()
    });
    let winners: Vec<&String> = ran
        .iter()
        .filter(|(_, ran)| ran.is_ok())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        winners.iter().collect::<BTreeSet<_>>().len(),
        4,
        "each name has one bearer: {winners:?}"
    );
    assert_eq!(winners.len(), 4, "{winners:?}");
    for (name, lost) in ran.iter().filter(|(_, ran)| !ran.is_ok()) {
        refused(
            lost,
            &format!("endpoint with name {name} already exists in network my-overlay"),
        );
    }
    for daemon in &daemons {
        eventually("all hosts tell of all containers", 30, || {
            residents(daemon, "my-overlay").len() == 4
        });
    }
    let told: BTreeSet<_> = daemons.iter().map(|daemon| residents(daemon, "my-overlay")).collect();
    assert_eq!(told.len(), 1, "all hosts tell the same: {told:?}");
    let addresses: BTreeSet<&String> = told.iter().flat_map(BTreeMap::values).collect();
    assert_eq!(addresses.len(), 4, "{told:?}");

    // an address that is asked for is refused when it is another host's
    let taken = addresses
        .first()
        .map(|address| address.split('/').next().unwrap().to_owned())
        .unwrap();
    for docker in &dockers {
        let ran = docker.run(&format!("run --rm --net my-overlay --ip {taken} busybox true"));
        refused(&ran, "Address already in use");
    }
    // with their hosts
    let hosts = dockers[0].ok("network inspect my-overlay");
    assert_eq!(hosts.matches("\"Host\":").count(), 4, "{hosts}");

    // nobody removes what others are on
    for docker in &dockers {
        refused(&docker.run("network rm my-overlay"), "has active endpoints");
    }
    for docker in &dockers {
        let own = docker.ok("ps -aq");
        if !own.is_empty() {
            docker.ok(&format!("rm -f {}", own.replace('\n', " ")));
        }
    }
    // at once: what has ended is nobody's when the answer comes
    dockers[1].ok("run -d --name same0 --net my-overlay busybox sleep 1000");
    dockers[1].ok("rm -f same0");
    dockers[2].ok("network rm my-overlay");
    for docker in &dockers {
        eventually("the network is gone everywhere", 30, || {
            docker.ok("network ls -q --filter name=my-overlay").is_empty()
        });
    }
    let status = daemons[1].sluice("cluster status").ok();
    assert!(status.contains("Joined: yes") && status.contains("leader"), "{status}");
    assert_eq!(status.matches("10.88.1.").count(), 4, "three hosts and etcd: {status}");
    let status = daemons[1].sluice("cluster status --json").ok();
    assert!(status.contains("\"behind\":0"), "{status}");
}

/// Pitfall B60.
#[test]
fn without_etcd_all_goes_on_but_what_needs_the_others_and_all_of_it_when_it_is_back() {
    let cluster = Cluster::new(2);
    let mut daemons = daemons(&cluster);
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    dockers[1].ok("network create near");
    eventually("the network is on both", 30, || {
        dockers[1].run("network inspect wide").is_ok()
    });
    dockers[0].ok("run -d --name left --net wide busybox sleep 1000");
    let serve = "mkdir /www; echo here >/www/index.html; exec httpd -f -h /www -p 80";
    let words = "run -d --name right --net wide --net-alias twin -p 8080:80 busybox sh -c";
    let words: Vec<&str> = words.split(' ').chain([serve]).collect();
    dockers[1].words(&words).ok();
    eventually("both tell of both", 30, || {
        daemons.iter().all(|daemon| residents(daemon, "wide").len() == 2)
    });
    let before = residents(&daemons[0], "wide");
    // a connection that stays, one line after the other
    let begin = |docker: &lab::Docker, container: &str, script: &str| {
        docker.words(&["exec", "-d", container, "sh", "-c", script]).ok();
    };
    begin(&dockers[0], "left", "sleep 10000 | nc -l -p 7000 >/lines");
    begin(
        &dockers[1],
        "right",
        "n=0; while true; do n=$((n+1)); echo $n; sleep 0.1; done | (until nc left 7000; do sleep 0.2; done)",
    );
    let lines = || -> usize {
        let told = dockers[0].run("exec left wc -l /lines").stdout;
        told.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    eventually("the stream has begun", 30, || lines() > 3);
    let status = |daemon: &Daemon| daemon.sluice("cluster status --json").ok();
    let lease = |daemon: &Daemon| {
        let told = status(daemon);
        let lease = told.split("\"lease\":").nth(1).and_then(|rest| rest.split(',').next());
        lease.unwrap_or_default().to_owned()
    };
    let lease_before = lease(&daemons[1]);

    let frozen = cluster.freeze_etcd();
    // what is of this host alone goes on
    dockers[1].ok("run --rm --net near busybox true");
    // a container that would need the others' word is refused with the reason
    let ran = dockers[1].run("run -d --name new --net wide busybox sleep 1000");
    refused(&ran, "cannot put container new on network wide");
    refused(&ran, "etcd");
    refused(&dockers[0].run("network create -d overlay later"), "etcd");
    let told = daemons[0].sluice("cluster status").ok();
    assert!(told.contains("no answer") && told.contains("10.88.1.2"), "{told}");
    // so do streams, new connections, and published ports
    let (so_far, started) = (lines(), std::time::Instant::now());
    eventually("the stream goes on", 30, || lines() > so_far + 5);
    eventually("new connections are made", 30, || {
        dockers[0].run("exec left ping -c 1 -W 2 right").is_ok()
    });
    let page = format!("curl -sS --max-time 10 http://{}:8080/", Cluster::address(1));
    eventually("the port is published", 30, || {
        cluster.bystander().shell(&page).stdout.trim() == "here"
    });
    // one that ends ends, and names are known on
    let names = dockers[0].run("exec left nslookup -type=a right 127.0.0.11").stdout;
    assert!(names.contains(before["right"].split('/').next().unwrap()), "{names}");
    dockers[1].ok("rm -f right");
    // longer than the lease lives
    eventually("the lease would have ended", 30, || started.elapsed().as_secs() > 8);
    assert_eq!(residents(&daemons[0], "wide").len(), 2, "what is known stays known");
    drop(frozen);

    eventually("what has ended is told", 30, || {
        residents(&daemons[0], "wide").len() == 1
    });
    eventually("the host is in the cluster again", 30, || {
        let told = status(&daemons[1]);
        told.contains("\"trouble\":null") && !told.contains("\"lease\":null")
    });
    dockers[1].ok("run -d --name right --net wide busybox sleep 1000");
    eventually("both tell of both again", 30, || {
        daemons.iter().all(|daemon| residents(daemon, "wide").len() == 2)
    });
    assert_ne!(lease(&daemons[1]), lease_before, "the one before has ended");
    assert_eq!(
        residents(&daemons[0], "wide")["left"],
        before["left"],
        "nobody lost an address"
    );

    // a daemon that dies is the others' business only when its lease ends; its containers are told anew when it is back
    daemons[1].kill();
    eventually("a dead host's containers are gone", 30, || {
        residents(&daemons[0], "wide").len() == 1
    });
    daemons[1].boot();
    eventually("they are back", 30, || residents(&daemons[0], "wide").len() == 2);
}
