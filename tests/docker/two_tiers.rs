//! The classic application: a page that counts its visits in a store, first by a link, then by names with a server in front. Of Debian's packages.

use lab::{Cluster, Daemon, Docker, Engine, HOST, Host, LAN, Lab, eventually, start};

use crate::cluster::daemons;

/// Imports `redis` and `flask`, unless their packages are not installed.
fn import(docker: &Docker) -> bool {
    let (Some(redis), Some(flask)) = (lab::redis(), lab::flask()) else {
        lab::skipped("redis-tools, python3-flask or python3-redis is not installed");
        return false;
    };
    let serve = "CMD [\"redis-server\", \"--dir\", \"/data\", \"--appendonly\", \"yes\", \"--protected-mode\", \"no\"]";
    docker.import(&redis, "redis", &[serve, "EXPOSE 6379", "VOLUME /data"]);
    docker.import(&flask, "flask", &["CMD [\"python3\", \"/app.py\"]", "EXPOSE 5000"]);
    true
}

fn visit(from: &Host, url: &str) -> Option<String> {
    let ran = from.shell(&format!("curl -sSf --max-time 20 http://{url}/"));
    ran.is_ok().then(|| ran.stdout.trim().to_owned())
}

/// The first visit that is answered.
fn first_visit(docker: &Docker, from: &Host, url: &str) -> String {
    let mut said = None;
    eventually("the application answers", 60, || {
        said = visit(from, url);
        said.is_some()
    });
    said.unwrap_or_else(|| panic!("{}", docker.run("logs web")))
}

#[test]
fn an_application_and_its_store_are_linked_and_reached_from_everywhere() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    if !import(&docker) {
        return;
    }
    docker.ok("run -d --name redis redis");
    docker.ok("run -d --name web --link redis -e REDIS_HOST=redis -p 5000:5000 flask");
    let first = first_visit(&docker, &lab.host, "127.0.0.1:5000");
    assert!(first.starts_with("visit 1,"), "{first}");
    // the page knows who comes
    assert_eq!(
        visit(&lab.lan, &format!("{HOST}:5000")),
        Some(format!("visit 2, of {LAN}"))
    );
    let third = visit(&lab.host, &format!("{HOST}:5000")).unwrap();
    assert!(third.starts_with("visit 3,"), "{third}");
    assert!(
        visit(&lab.lan, &format!("{HOST}:6379")).is_none(),
        "the store is not published"
    );
    let env = docker.ok("exec web env");
    assert!(env.contains("REDIS_PORT_6379_TCP_PORT=6379"), "{env}");

    // By names, the store's data kept by a volume, and a server in front that alone is published.
    docker.ok("rm -f -v web redis");
    docker.import_web();
    docker.ok("network create app");
    docker.ok("run -d --name redis --network app -v hits:/data redis");
    docker.ok("run -d --name web --network app -e REDIS_HOST=redis flask");
    let front = "events {} http { server { listen 80; location / { proxy_pass http://web:5000; proxy_set_header X-Real-IP $remote_addr; } } }";
    let script = format!("echo '{front}' >/etc/nginx/nginx.conf; exec nginx -g 'daemon off;'");
    let words = [
        "run",
        "-d",
        "--name",
        "front",
        "--network",
        "app",
        "-p",
        "8080:80",
        "web",
        "sh",
        "-c",
        &script,
    ];
    docker.words(&words).ok();
    let first = first_visit(&docker, &lab.lan, &format!("{HOST}:8080"));
    assert_eq!(first, format!("visit 1, of {LAN}"));
    assert!(visit(&lab.host, "127.0.0.1:8080").unwrap().starts_with("visit 2,"));
    // The store goes and comes with its data, at whatever address.
    docker.ok("rm -f redis");
    docker.ok("run -d --name filler --network app busybox sleep 1000");
    docker.ok("run -d --name redis --network app -v hits:/data redis");
    let next = first_visit(&docker, &lab.lan, &format!("{HOST}:8080"));
    assert_eq!(next, format!("visit 3, of {LAN}"));
}

#[test]
fn on_two_hosts_the_application_is_reached_from_both_and_from_a_third_machine() {
    if !Engine::is_ours() {
        // a swarm is another matter
        return;
    }
    let cluster = Cluster::new(2);
    let daemons = daemons(&cluster);
    let dockers: Vec<Docker> = daemons.iter().map(Daemon::docker).collect();
    if !dockers.iter().all(import) {
        return;
    }
    dockers[0].ok("network create -d overlay my-overlay");
    eventually("the network is on both", 30, || {
        dockers[1].run("network inspect my-overlay").is_ok()
    });
    dockers[0].ok("run -d --name redis --net my-overlay redis");
    dockers[1]
        .ok("run -d --name web --net my-overlay -e REDIS_HOST=redis -p 5000:5000 --label sluice.publish=mesh flask");
    let at = |index: usize| format!("{}:5000", Cluster::address(index));
    let (third, hosts) = (cluster.bystander(), &cluster.hosts);
    let first = first_visit(&dockers[1], third, &at(1));
    // who comes is seen as who he is, by whichever host he comes
    assert_eq!(first, "visit 1, of 10.88.1.254");
    eventually("the other host takes visitors, too", 30, || {
        visit(third, &at(0)).is_some()
    });
    let later = visit(third, &at(0)).unwrap();
    assert!(later.ends_with("of 10.88.1.254"), "{later}");
    for host in hosts {
        for index in 0..2 {
            eventually("both hosts visit it at either address", 30, || {
                visit(host, &at(index)).is_some()
            });
        }
        assert!(visit(host, "127.0.0.1:5000").is_some(), "and at their own");
    }
}
