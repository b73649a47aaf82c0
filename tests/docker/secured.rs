//! A cluster whose etcd wants certificates and a password; what its hosts claim from each other; and what goes on while a daemon is dead.

use std::path::Path;

use lab::{Cluster, Docker, Host, eventually};

use crate::cluster::{refused, residents};

/// An authority, and certificates of it for etcd (at `10.88.1.254`) and for the hosts.
fn certify(host: &Host) {
    let script = "key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'; \
        openssl req -x509 $key -keyout ca.key -out ca.crt -days 2 -subj /CN=authority && \
        for name in member client; do \
            openssl req $key -keyout $name.key -out $name.csr -subj /CN=$name && \
            printf 'subjectAltName=IP:10.88.1.254,IP:127.0.0.1' >$name.ext && \
            openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.crt || exit 1; \
        done";
    host.run(&format!("cd {} && {script}", host.directory().display()));
}

/// A member that speaks TLS, knows `root` by a password, and takes nobody else.
fn secure(cluster: &mut Cluster) -> lab::Background {
    cluster.kill_etcd();
    let host = cluster.bystander();
    certify(host);
    let place = host.directory().display();
    let line = format!(
        "etcd --data-dir {place}/secured --listen-client-urls https://0.0.0.0:2379 --advertise-client-urls https://10.88.1.254:2379 \
         --cert-file {place}/member.crt --key-file {place}/member.key --trusted-ca-file {place}/ca.crt --client-cert-auth \
         --unsafe-no-fsync --logger zap --log-level error"
    );
    let etcd = host.spawn("secured.log", &line);
    let ask = |line: &str| {
        host.shell(&format!(
            "exec env ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:2379 --cacert {place}/ca.crt --cert {place}/client.crt \
             --key {place}/client.key --command-timeout 2s {line}"
        ))
    };
    eventually("etcd answers", 60, || ask("get /there").is_ok());
    ask("user add root:secret").ok();
    ask("user grant-role root root").ok();
    ask("auth enable").ok();
    etcd
}

fn flags(place: &Path, password: &str) -> String {
    let place = place.display();
    format!(
        "--cluster-store-opt kv.cacertfile={place}/ca.crt --cluster-store-opt kv.certfile={place}/client.crt \
         --cluster-store-opt kv.keyfile={place}/client.key --cluster-user root --cluster-password-file {place}/{password} \
         --cluster-store-opt discovery.ttl=600s"
    )
}

/// Runs a shell's line in a container, in the background.
fn begin(docker: &Docker, container: &str, script: &str) {
    docker.words(&["exec", "-d", container, "sh", "-c", script]).ok();
}

#[test]
fn a_cluster_with_certificates_and_a_password_agrees_on_ports_and_subnets_and_works_on_without_a_daemon() {
    let mut cluster = Cluster::new(2);
    let _etcd = secure(&mut cluster);
    let place = cluster.bystander().directory().to_owned();
    std::fs::write(place.join("right"), "secret\n").unwrap();
    std::fs::write(place.join("wrong"), "guessed\n").unwrap();
    let store = "etcd://10.88.1.254:2379/site";
    // a device stands for its address, and a wrong password for none
    let mut daemons = [
        cluster.start_with(0, store, "eth0", &flags(&place, "right")),
        cluster.start_with(1, store, "eth0", &flags(&place, "wrong")),
    ];
    let dockers = [daemons[0].docker(), daemons[1].docker()];
    refused(&dockers[1].run("network create -d overlay mine"), "etcd");
    let status = daemons[1].sluice("cluster status").ok();
    assert!(status.contains("Joined: no"), "{status}");
    daemons[1].stop();
    daemons[1].set_flags(&format!(
        "--cluster-store {store} --cluster-advertise eth0 {}",
        flags(&place, "right")
    ));
    daemons[1].boot();
    eventually("both are in the cluster", 30, || {
        let status = daemons[0].sluice("cluster status").ok();
        status.contains("10.88.1.1") && status.contains("10.88.1.2")
    });

    // what a host has for itself no network of the cluster takes from it
    dockers[0].ok("network create --subnet 10.50.3.0/24 mine");
    eventually("the other hosts know", 30, || {
        dockers[1].run("network rm trial");
        let ran = dockers[1].run("network create -d overlay --subnet 10.50.0.0/16 trial");
        !ran.is_ok()
            && ran
                .stderr
                .contains("Pool overlaps with other one on this address space")
    });
    let ran = dockers[1].run("network create -d overlay --subnet 10.50.3.0/25 trial");
    refused(&ran, &format!("on host {}", cluster.hosts[0].name()));
    // nor is anything sent in the clear that was to be encrypted
    let ran = dockers[1].run("network create -d overlay -o encrypted sealed");
    if !ran.is_ok() {
        refused(&ran, "the network is encrypted, and this host cannot encrypt");
        refused(
            &dockers[1].run("network create -d overlay -o encrypted -o direct-routing sealed"),
            "what goes without VXLAN is not encrypted",
        );
    }

    // a port of all hosts is one container's
    dockers[1].ok("network create -d overlay wide");
    eventually("the network is on both", 30, || {
        dockers[0].run("network inspect wide").is_ok()
    });
    let serve = "mkdir /www; echo here >/www/index.html; exec httpd -f -h /www -p 80";
    let words = "run -d --name right --net wide --label sluice.publish=mesh -p 8080:80 busybox sh -c";
    let words: Vec<&str> = words.split(' ').chain([serve]).collect();
    dockers[1].words(&words).ok();
    let mesh = "create --net wide --label sluice.publish=mesh -p 8080:80 --name other busybox sleep 1000";
    dockers[0].ok(mesh);
    refused(&dockers[0].run("start other"), "8080");
    dockers[0].ok("rm other");
    dockers[0].ok("run -d --name left --net wide busybox sleep 1000");
    eventually("both tell of both", 30, || {
        daemons.iter().all(|daemon| residents(daemon, "wide").len() == 2)
    });
    let page = |index: usize| {
        let address = Cluster::address(index);
        let ran = cluster
            .bystander()
            .shell(&format!("curl -sS --max-time 10 http://{address}:8080/"));
        ran.stdout.trim() == "here"
    };
    for index in 0..2 {
        eventually("every host answers at the port", 30, || page(index));
    }

    // its daemon dies: streams, new connections and published ports go on
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
    daemons[1].kill();
    let so_far = lines();
    eventually("the stream goes on", 30, || lines() > so_far + 10);
    eventually("new connections are made", 30, || {
        dockers[0].run("exec left ping -c 1 -W 2 right").is_ok()
    });
    for index in 0..2 {
        eventually("every host answers at the port", 30, || page(index));
    }
    daemons[1].boot();
    let so_far = lines();
    eventually("a daemon that comes back breaks nothing", 30, || lines() > so_far + 10);

    // what has ended is free for others
    dockers[1].ok("rm -f right");
    dockers[0].ok(&mesh.replacen("create", "run -d", 1));
}
