//! Real images of Debian's packages, built from the Dockerfiles in `tests/images`: the page that counts its visits is built on one host, goes through a
//! registry to another, and is reached by a third machine.

use std::{fs, path::Path};

use lab::{Cluster, Daemon, Docker, Host, Ran, Registry, eventually, patience};

/// The directory to build an image of: its own files, and the packages that setup keeps.
fn context(host: &Host, corpus: &Path, name: &str) -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("images").join(name);
    let made = host.directory().join(name);
    fs::create_dir_all(made.join("packages")).unwrap();
    for (from, to) in [(own, made.clone()), (corpus.join(name), made.join("packages"))] {
        for file in fs::read_dir(&from)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_file())
        {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    made.display().to_string()
}

/// What takes its time: layers of a hundred megabytes are compressed and unpacked.
#[track_caller]
fn at_leisure(docker: &Docker, line: &str) -> Ran {
    let words: Vec<&str> = line.split_whitespace().collect();
    Ran::command(&mut docker.command(&words), b"", patience(240))
}

#[track_caller]
fn build(docker: &Docker, directory: &str, tag: &str) {
    let mut command = docker.command(&["build", "--network", "none", "-t", tag, directory]);
    command.env("DOCKER_BUILDKIT", "0");
    Ran::command(&mut command, b"", patience(240)).ok();
}

fn visit(from: &Host, url: &str) -> Option<String> {
    let ran = from.shell(&format!("curl -sSf --max-time 20 http://{url}/"));
    ran.is_ok().then(|| ran.stdout.trim().to_owned())
}

#[test]
fn an_application_is_built_on_one_host_pushed_pulled_by_another_and_runs_across_both() {
    let Some(corpus) = lab::corpus() else {
        return lab::skipped("debootstrap has made no base (cargo xtask setup)");
    };
    if !Registry::is_installed() {
        return lab::skipped("docker-registry is not installed");
    }
    let cluster = Cluster::new(2);
    let registry = Registry::everywhere(cluster.bystander(), 5000);
    let daemons: Vec<Daemon> = (0..2)
        .map(|index| cluster.start(index, "--insecure-registry 10.88.1.0/24"))
        .collect();
    let dockers: Vec<Docker> = daemons.iter().map(Daemon::docker).collect();
    let there = |name: &str| format!("10.88.1.254:5000/corpus/{name}:1");
    dockers[0].import(&corpus.join("debian.tar"), "debian:minbase", &["CMD [\"bash\"]"]);
    // one layer for all three: it goes to the registry once, and comes from there once
    for name in ["redis", "flask", "nginx"] {
        build(&dockers[0], &context(&cluster.hosts[0], &corpus, name), &there(name));
        let said = at_leisure(&dockers[0], &format!("push {}", there(name))).ok();
        assert_eq!(
            said.contains("Layer already exists") || said.contains("Mounted from"),
            name != "redis",
            "{said}"
        );
    }
    assert_eq!(
        registry.get("/v2/_catalog"),
        r#"{"repositories":["corpus/flask","corpus/nginx","corpus/redis"]}"#
    );

    dockers[0].ok("network create -d overlay app");
    eventually("the network is on both hosts", 30, || {
        dockers[1].run("network inspect app").is_ok()
    });
    dockers[0].ok(&format!("run -d --name redis --net app {}", there("redis")));
    eventually("the store is well", 60, || {
        dockers[0].inspect("redis", "{{.State.Health.Status}}") == "healthy"
    });
    // the other host has neither built nor loaded anything
    let said = at_leisure(&dockers[1], &format!("pull {}", there("flask"))).ok();
    assert!(said.contains("Downloaded newer image"), "{said}");
    assert_eq!(
        dockers[1].inspect(&there("flask"), "{{.Id}}"),
        dockers[0].inspect(&there("flask"), "{{.Id}}")
    );
    dockers[1].ok(&format!("run -d --name web --net app -p 5000:5000 {}", there("flask")));
    let said = at_leisure(&dockers[1], &format!("run -d --name front -p 80:80 {}", there("nginx")));
    assert!(said.is_ok() && said.stderr.contains("Already exists"), "{said}");

    let web = format!("{}:5000", Cluster::address(1));
    let mut visits = 0;
    // the hosts, and a machine that is none of theirs
    for from in [cluster.bystander(), &cluster.hosts[0], &cluster.hosts[1]] {
        let mut said = None;
        eventually("the page answers", 60, || {
            said = visit(from, &web);
            said.is_some()
        });
        visits += 1;
        let said = said.unwrap_or_default();
        assert!(
            said.starts_with(&format!("visit {visits},")),
            "{said}: {}",
            dockers[1].run("logs web")
        );
    }
    let front = format!("{}:80", Cluster::address(1));
    assert_eq!(
        visit(cluster.bystander(), &front).as_deref(),
        Some("<h1>hello from Debian</h1>")
    );
    assert_eq!(dockers[1].ok("exec web id -un"), "www-data");
    assert!(
        dockers[1]
            .ok("exec front dpkg --list nginx-light")
            .contains("ii  nginx-light")
    );
}
