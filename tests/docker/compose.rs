//! Compose, as people have it: version 2 (the plugin in Go, `docker compose`) and 1.29 (the Python program of Debian 12, which speaks by docker-py), and the
//! requests of version 2 written down, for machines that have neither.

use std::process::Command;

use lab::{Daemon, Lab, Ran, eventually, patience, start};

const FILE: &str = r#"
version: "3"
services:
  web:
    image: web
    ports: ["8080:80"]
    environment:
      STORE: store
    depends_on: [store]
    volumes: ["data:/data:ro"]
    labels:
      tier: front
  store:
    image: store
    command: sh -c "echo ready; echo kept > /data/note; exec redis-server --protected-mode no"
    stop_grace_period: 1s
    volumes: ["data:/data", "/own"]
    restart: unless-stopped
volumes:
  data:
"#;

/// A client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compose {
    First,
    Second,
}

impl Compose {
    /// Those that are installed. Where there is none the test is skipped.
    pub fn installed() -> Vec<Self> {
        let mut found = Vec::new();
        if std::path::Path::new("/usr/bin/docker-compose").exists() {
            found.push(Self::First);
        }
        if Self::plugin().is_some() {
            found.push(Self::Second);
        }
        if found.is_empty() {
            lab::skipped("no docker-compose is installed");
        }
        found
    }

    /// Where the packages put the plugin of the docker CLI, which is a program by itself too.
    fn plugin() -> Option<String> {
        ["/usr/libexec", "/usr/lib", "/usr/local/lib"]
            .map(|directory| format!("{directory}/docker/cli-plugins/docker-compose"))
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
    }

    /// Runs it with the words of the line, on the file of this text.
    fn run(self, daemon: &Daemon, file: &str, line: &str) -> Ran {
        self.run_at(daemon, &daemon.socket(), file, line)
    }

    /// The same by way of another socket.
    pub fn run_at(self, daemon: &Daemon, socket: &std::path::Path, file: &str, line: &str) -> Ran {
        let path = daemon.host().directory().join("compose.yml");
        std::fs::write(&path, file).unwrap();
        let program = match self {
            Self::First => "/usr/bin/docker-compose".to_owned(),
            Self::Second => Self::plugin().unwrap(),
        };
        let mut command: Command = daemon.host().command(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("PYTHONWARNINGS", "ignore")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("COMPOSE_PROJECT_NAME", "app")
            .env("COMPOSE_INTERACTIVE_NO_CLI", "1")
            .arg("-f")
            .arg(&path)
            .args(line.split_whitespace());
        Ran::command(&mut command, &[], patience(120))
    }

    #[track_caller]
    fn ok(self, daemon: &Daemon, file: &str, line: &str) -> String {
        self.run(daemon, file, line).ok()
    }

    /// What it calls the first container of a service.
    fn name(self, service: &str) -> String {
        match self {
            Self::First => format!("app_{service}_1"),
            Self::Second => format!("app-{service}-1"),
        }
    }
}

#[test]
fn an_application_of_two_services_comes_up_is_looked_at_and_goes() {
    let clients = Compose::installed();
    if clients.is_empty() {
        return;
    }
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let Some(redis) = lab::redis() else {
        lab::skipped("redis-tools is not installed");
        return;
    };
    daemon.docker().import_web();
    daemon.docker().import(&redis, "store", &[]);
    for compose in clients {
        two_services(&lab, &daemon, compose);
    }
}

fn two_services(lab: &Lab, daemon: &Daemon, compose: Compose) {
    let docker = daemon.docker();
    let (web, store) = (compose.name("web"), compose.name("store"));
    let ok = |line: &str| compose.ok(daemon, FILE, line);
    ok("up -d");
    assert_eq!(
        docker.ok("network ls -q --filter name=^app_default$").lines().count(),
        1
    );
    assert_eq!(docker.ok("volume ls -q --filter name=^app_data$"), "app_data");
    let names = docker.ok("ps --format {{.Names}} --filter label=com.docker.compose.project=app");
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, [store.as_str(), web.as_str()]);
    docker.wait_for_web(&web);
    assert_eq!(
        lab.lan.run(&format!("curl -sS -m 10 http://{}:8080/", lab::HOST)),
        "hello"
    );
    let shown = ok("ps");
    assert!(
        shown.contains(&web) && shown.contains("0.0.0.0:8080->80/tcp"),
        "{shown}"
    );
    eventually("the store has said that it is ready", 30, || {
        ok("logs store").contains("ready")
    });
    assert_eq!(ok("exec -T web cat /data/note").trim(), "kept");
    assert_eq!(ok("port web 80"), "0.0.0.0:8080");
    assert!(ok("top store").contains("redis-server"));
    let ping = [
        "exec",
        &web,
        "sh",
        "-c",
        "printf 'PING\\r\\nQUIT\\r\\n' | nc -w 5 store 6379",
    ];
    eventually("the store answers by its name", 30, || {
        docker.words(&ping).stdout.contains("+PONG")
    });

    // nothing changed: nothing is made again
    let before = docker.inspect(&web, "{{.Id}}");
    ok("up -d");
    assert_eq!(docker.inspect(&web, "{{.Id}}"), before);
    // more of one, and back
    let stores = || {
        docker
            .ok("ps -q --filter label=com.docker.compose.service=store")
            .lines()
            .count()
    };
    ok("up -d --scale store=2");
    assert_eq!(stores(), 2);
    ok("up -d --scale store=1");
    assert_eq!(stores(), 1);
    // one that is not of the services, beside them
    assert_eq!(ok("run --rm -T store cat /data/note").trim(), "kept");
    ok("restart -t 1 store");
    ok("stop -t 1");
    assert_eq!(docker.ok("ps -q"), "");
    ok("start");
    // what changed is made again, with its volumes
    let changed = FILE.replace("tier: front", "tier: back");
    compose.ok(daemon, &changed, "up -d");
    assert_ne!(docker.inspect(&web, "{{.Id}}"), before);
    assert_eq!(
        compose.ok(daemon, &changed, "exec -T web cat /data/note").trim(),
        "kept"
    );

    compose.ok(daemon, &changed, "down -v -t 1");
    assert_eq!(docker.ok("ps -aq"), "");
    assert_eq!(docker.ok("volume ls -q --filter name=^app_"), "");
    assert_eq!(docker.ok("network ls -q --filter type=custom"), "");
}

/// Three tiers on two networks, one of which leads nowhere, beside a network that others have made.
pub const TIERS: &str = r#"
services:
  proxy:
    image: busybox
    command: sh -c "mkdir /www; echo proxy >/www/index.html; exec httpd -f -p 80 -h /www"
    stop_signal: SIGKILL
    ports: ["8080:80", "127.0.0.1:8081:80"]
    networks: [front]
    depends_on:
      app:
        condition: service_healthy
  app:
    image: busybox
    command: sh -c "sleep 1; touch /ready; exec sleep 1000"
    stop_signal: SIGKILL
    environment:
      STAGE: one
    expose: ["9000"]
    networks:
      front:
        aliases: [backend]
      back: {}
      outside: {}
    depends_on: [db]
    healthcheck:
      test: ["CMD", "test", "-e", "/ready"]
      interval: 1s
      retries: 60
  db:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    networks:
      back:
        ipv4_address: 10.99.0.10
        ipv6_address: fd99::10
networks:
  front:
    driver_opts:
      com.docker.network.driver.mtu: "1400"
  back:
    internal: true
    enable_ipv6: true
    ipam:
      config:
        - subnet: 10.99.0.0/24
          gateway: 10.99.0.1
        - subnet: fd99::/64
  outside:
    external: true
"#;

#[test]
fn three_tiers_on_two_networks_start_by_their_health_and_keep_their_addresses() {
    let clients = Compose::installed();
    if clients.is_empty() {
        return;
    }
    let lab = Lab::new();
    let daemon = start(&lab, "");
    daemon.docker().ok("network create outside");
    // the newest there is: each command of the older one costs a second
    if let Some(compose) = clients.last() {
        three_tiers(&lab, &daemon, *compose);
    }
}

fn three_tiers(lab: &Lab, daemon: &Daemon, compose: Compose) {
    let docker = daemon.docker();
    let [proxy, app, db] = ["proxy", "app", "db"].map(|service| compose.name(service));
    let ok = |line: &str| compose.ok(daemon, TIERS, line);
    let answers = |from: &str, name: &str| docker.run(&format!("exec {from} ping -c 1 -W 2 {name}")).is_ok();
    ok("up -d");
    assert_eq!(
        docker.inspect(&app, "{{.State.Health.Status}}"),
        "healthy",
        "the proxy waits for it"
    );
    let networks = "{{range $name, $of := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(docker.inspect(&app, networks).trim(), "app_back app_front outside");
    let of_db =
        "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{.GlobalIPv6PrefixLen}}{{end}}";
    assert_eq!(docker.inspect(&db, of_db), "10.99.0.10 fd99::10 64");
    assert_eq!(
        docker.ok("network inspect -f {{.Internal}}{{.EnableIPv6}} app_back"),
        "truetrue"
    );
    // each tier sees the next and no other, and the last one nothing else
    for (from, name, expected) in [
        (&proxy, "app", true),
        (&proxy, "backend", true),
        (&proxy, "db", false),
        (&app, "db", true),
        (&app, "10.99.0.10", true),
        (&app, "fd99::10", true),
        (&app, "proxy", true),
        (&db, "app", true),
        (&db, "proxy", false),
        (&app, lab::LAN, true),
        (&db, lab::LAN, false),
    ] {
        assert_eq!(answers(from, name), expected, "{compose:?}: from {from} to {name}");
    }
    let mtu = |container: &str, device: &str| docker.ok(&format!("exec {container} cat /sys/class/net/{device}/mtu"));
    assert_eq!(mtu(&proxy, "eth0"), "1400");
    let page = |host: &lab::Host, at: &str| host.run(&format!("curl -sS -m 10 http://{at}/"));
    assert_eq!(page(&lab.lan, &format!("{}:8080", lab::HOST)), "proxy");
    assert_eq!(page(&lab.host, "127.0.0.1:8081"), "proxy");

    // two of the middle one under one name
    ok("up -d --scale app=2");
    let ids = docker.ok("ps -q --filter label=com.docker.compose.service=app");
    assert_eq!(ids.lines().count(), 2);
    let found = docker.ok(&format!("exec {proxy} nslookup -type=a backend 127.0.0.11"));
    for id in ids.lines() {
        let address = docker.inspect(id, "{{.NetworkSettings.Networks.app_front.IPAddress}}");
        assert!(found.contains(&address), "{address}: {found}");
    }
    // what changed is made again, and nothing else
    let (before_db, before_app) = (docker.inspect(&db, "{{.Id}}"), docker.inspect(&app, "{{.Id}}"));
    let changed = TIERS.replace("STAGE: one", "STAGE: two");
    compose.ok(daemon, &changed, "up -d");
    assert_eq!(docker.inspect(&db, "{{.Id}}"), before_db);
    assert_ne!(docker.inspect(&app, "{{.Id}}"), before_app);
    assert!(docker.ok(&format!("exec {app} env")).contains("STAGE=two"));
    assert!(answers(&app, "db") && answers(&proxy, "backend"));
    assert!(
        docker
            .ok(&format!("exec {app} cat /etc/resolv.conf"))
            .contains("127.0.0.11")
    );

    compose.ok(daemon, &changed, "down -t 1");
    assert_eq!(docker.ok("ps -aq"), "");
    assert_eq!(
        docker.ok("network ls --filter type=custom --format {{.Name}}"),
        "outside"
    );
}
