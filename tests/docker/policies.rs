//! Who may speak to whom, by documents: `sluice policy`, and what containers notice of it.

use std::path::PathBuf;

use lab::{Cluster, Daemon, Docker, Lab, eventually, start};

/// A file with documents, for as long as this lives.
struct Written(PathBuf);

impl Written {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-policy-{name}-{}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn apply(daemon: &Daemon, name: &str, text: &str) -> String {
    let written = Written::new(name, text);
    daemon.sluice(&format!("policy apply -f {}", written.0.display())).ok()
}

/// Does the container reach the port there?
fn reaches(docker: &Docker, container: &str, address: &str, port: u16) -> bool {
    let script = format!("echo | nc -w 2 {address} {port} >/dev/null");
    docker.words(&["exec", container, "sh", "-c", &script]).is_ok()
}

/// Runs a container with this label that serves two ports.
fn run(docker: &Docker, name: &str, app: &str, network: &str) -> String {
    let serve = "mkdir /www; httpd -h /www -p 6379; httpd -h /www -p 6380; sleep 1000";
    let label = format!("app={app}");
    let words = [
        "run", "-d", "--name", name, "--label", &label, "--net", network, "busybox", "sh", "-c", serve,
    ];
    docker.words(&words).ok();
    let address = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    docker.inspect(name, &address)
}

const DB: &str = "
name: db
description: only the web talks to the database
select: {labels: {app: db}}
ingress:
  - from: [{labels: {app: web}}]
    ports: [6379]
  - action: reject
    from: [{name: rude}]
";

const WATCH: &str = "
name: watch
audit: true
select: {labels: {app: web}}
egress:
  - to: [{labels: {app: nobody}}]
";

#[test]
fn documents_say_who_speaks_to_whom_from_the_first_packet_on_without_the_daemon_too() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create shop");
    let db = run(&docker, "db", "db", "shop");
    let page = run(&docker, "web", "web", "shop");
    run(&docker, "other", "other", "shop");
    run(&docker, "rude", "other", "shop");
    eventually("the database listens", 30, || {
        reaches(&docker, "other", &db, 6379) && reaches(&docker, "other", &db, 6380)
    });

    // what would change, and that nothing has
    let written = Written::new("db", DB);
    let diff = daemon.sluice(&format!("policy diff -f {}", written.0.display())).ok();
    assert!(diff.starts_with("policy db: new\n+ {"), "{diff}");
    assert!(reaches(&docker, "other", &db, 6379));
    let would = format!("policy test -f {} other db 6379/tcp --expect deny", written.0.display());
    let said = daemon.sluice(&would).ok();
    assert!(
        said.contains("ingress: deny (db, ingress: allowed by no rule)"),
        "{said}"
    );
    assert!(
        !daemon.sluice("policy test other db 6379/tcp --expect deny").is_ok(),
        "not in force yet"
    );

    // in force when the call returns
    assert_eq!(apply(&daemon, "db", DB), "policy db created");
    assert!(!reaches(&docker, "other", &db, 6379));
    assert!(reaches(&docker, "web", &db, 6379));
    assert!(!reaches(&docker, "web", &db, 6380), "a port that no rule allows");
    let refused = docker.words(&["exec", "rude", "nc", "-w", "20", &db, "6379"]);
    assert!(refused.stderr.contains("refused"), "{refused}");
    assert!(
        reaches(&docker, "db", &page, 6379),
        "what it says itself is its own affair"
    );
    assert_eq!(apply(&daemon, "db", DB), "policy db unchanged");

    // who comes is under it before it has said or heard anything
    let second = run(&docker, "db2", "db", "shop");
    run(&docker, "web2", "web", "shop");
    eventually("the second database listens", 30, || {
        reaches(&docker, "web2", &second, 6379)
    });
    assert!(!reaches(&docker, "other", &second, 6379));

    // watched, and not done
    assert_eq!(apply(&daemon, "watch", WATCH), "policy watch created");
    assert!(reaches(&docker, "web", &db, 6379));
    let shown = daemon.sluice("policy get").ok();
    let cells = |name: &str| -> Vec<String> {
        let line = shown.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {shown}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let watch = cells("watch");
    assert_eq!(watch[..7], ["watch", "(audit)", "host", "2", "-", "1", "0"], "{shown}");
    assert!(watch[8].parse::<u64>().unwrap() > 0, "{shown}");
    let database = cells("db");
    assert_eq!(database[..3], ["db", "host", "2"], "{shown}");
    assert!(
        database[5].parse::<u64>().unwrap() > 0 && database[6].parse::<u64>().unwrap() > 0,
        "{shown}"
    );
    let drops = daemon.sluice("drops").ok();
    assert!(
        drops.contains("policy_denied") && drops.contains("policy_rejected"),
        "{drops}"
    );

    // the kernel goes on alone, and a new daemon finds it so
    let (other, web) = (
        docker.inspect("other", "{{.State.Pid}}"),
        docker.inspect("web", "{{.State.Pid}}"),
    );
    daemon.kill();
    let fetches = |pid: &str| {
        let line = format!("nsenter --net=/proc/{pid}/ns/net curl -s --max-time 3 http://{db}:6379/");
        lab.host.shell(&line).is_ok()
    };
    assert!(!fetches(&other) && fetches(&web));
    daemon.boot();
    let docker = daemon.docker();
    assert!(!reaches(&docker, "other", &db, 6379) && reaches(&docker, "web", &db, 6379));

    // and gone
    assert_eq!(daemon.sluice("policy delete db watch").ok(), "db\nwatch");
    assert!(reaches(&docker, "other", &db, 6379) && reaches(&docker, "web", &db, 6380));
    assert!(!daemon.sluice("policy delete db").is_ok());
}

#[test]
fn documents_of_a_cluster_are_in_force_on_all_of_its_hosts_by_label() {
    let cluster = Cluster::new(2);
    let daemons: Vec<Daemon> = (0..2).map(|index| cluster.start(index, "")).collect();
    let dockers: Vec<_> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    eventually("the network is on both hosts", 30, || {
        dockers[1].ok("network ls -q --filter name=wide").lines().count() == 1
    });
    let db = run(&dockers[0], "db", "db", "wide");
    run(&dockers[1], "web", "web", "wide");
    run(&dockers[1], "other", "other", "wide");
    eventually("the database is reached", 30, || {
        reaches(&dockers[1], "web", &db, 6379) && reaches(&dockers[1], "other", &db, 6379)
    });
    // said on the one host, about who lives on the other, and the other way round
    assert_eq!(apply(&daemons[1], "wide", DB), "policy db created");
    eventually("it is in force at the other host", 30, || {
        !reaches(&dockers[1], "other", &db, 6379)
    });
    assert!(reaches(&dockers[1], "web", &db, 6379));
    let shown = daemons[0].sluice("policy get db").ok();
    assert!(shown.contains("Scope: cluster") && shown.contains("db@wide"), "{shown}");
    let egress = "{name: silent, select: {name: web}, egress: []}";
    apply(&daemons[0], "silent", egress);
    eventually("who speaks is judged where it lives", 30, || {
        !reaches(&dockers[1], "web", &db, 6379)
    });
    daemons[0].sluice("policy delete silent db").ok();
    eventually("all is as it was", 30, || {
        reaches(&dockers[1], "web", &db, 6379) && reaches(&dockers[1], "other", &db, 6379)
    });
}
