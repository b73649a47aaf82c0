//! Images in registries: brought, sent, shared with others.

use lab::{Daemon, Engine, Guard, Lab, Registry, start};

/// A registry in the host of the lab; none where there is no program for it.
fn registry(lab: &Lab, guard: Guard) -> Option<Registry> {
    if !Registry::is_installed() {
        lab::skipped("docker-registry is not installed");
        return None;
    }
    Some(Registry::start(&lab.host, 5000, guard))
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let lab = Lab::new();
    let Some(registry) = registry(&lab, Guard::Open) else {
        return;
    };
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let (one, other) = (registry.name("team/box:1"), registry.name("else/box:2"));
    docker.ok(&format!("tag busybox {one}"));
    let id = docker.inspect("busybox", "{{.Id}}");

    let said = docker.ok(&format!("push {one}"));
    assert!(
        said.contains(&format!(
            "The push refers to repository [{}]",
            one.trim_end_matches(":1")
        )),
        "{said}"
    );
    assert!(
        said.contains(": Pushed") && said.contains("1: digest: sha256:"),
        "{said}"
    );
    assert!(registry.get("/v2/_catalog").contains("team/box"));
    let said = docker.ok(&format!("push {one}"));
    assert!(said.contains(": Layer already exists"), "{said}");
    docker.ok(&format!("tag busybox {other}"));
    let said = docker.ok(&format!("push {other}"));
    assert!(said.contains(": Mounted from team/box"), "{said}");
    let known = docker.inspect(&one, "{{json .RepoDigests}}");
    let digest = known.split("team/box@").nth(1).unwrap()[..71].to_owned();

    docker.ok(&format!("rmi {one} {other} busybox"));
    let said = docker.ok(&format!("pull {one}"));
    assert!(
        said.contains("1: Pulling from team/box") && said.contains(": Pull complete"),
        "{said}"
    );
    assert!(said.contains(&format!("Digest: {digest}")), "{said}");
    assert!(
        said.contains(&format!("Status: Downloaded newer image for {one}")),
        "{said}"
    );
    assert_eq!(docker.inspect(&one, "{{.Id}}"), id);
    let said = docker.ok(&format!("pull {one}"));
    assert!(
        said.contains(&format!("Status: Image is up to date for {one}")),
        "{said}"
    );
    // what is not here is brought when it is run; the same layers are here already
    assert_eq!(docker.ok(&format!("run --rm {other} echo ran")), "ran");
    let by_digest = format!("{}@{digest}", one.trim_end_matches(":1"));
    docker.ok(&format!("pull {by_digest}"));
    assert_eq!(docker.inspect(&by_digest, "{{.Id}}"), id);
    assert!(docker.ok("images --digests").contains(&digest));

    docker.run(&format!("pull {}", registry.name("team/box:none"))).fails(
        1,
        "manifest for 127.0.0.1:5000/team/box:none not found: manifest unknown",
    );
    docker.run(&format!("push {}", registry.name("not/here:1"))).fails(
        1,
        "An image does not exist locally with the tag: 127.0.0.1:5000/not/here",
    );
    docker.run("pull 127.0.0.1:1/nobody:1").fails(1, "connection refused");
    let (status, found) = daemon.request("GET", &format!("/distribution/{one}/json"), "");
    assert!(
        status == 200 && found.contains(&digest) && found.contains("\"linux\""),
        "{found}"
    );
    docker.ok(&format!("pull -a {}", one.trim_end_matches(":1")));
    if daemon.is_ours() {
        docker.run("search nginx").fails(1, "searching for images");
        docker.ok(&format!("rmi -f {id}"));
        let said = daemon.sluice(&format!("pull {one}")).ok();
        assert!(said.contains(&format!("Downloaded newer image for {one}")), "{said}");
        assert!(
            daemon
                .sluice(&format!("push {one}"))
                .ok()
                .contains("Layer already exists")
        );
        assert_eq!(
            daemon.sluice(&format!("run --rm --pull always {other} echo ours")).ok(),
            "ours"
        );
    }
}

#[test]
fn an_image_goes_by_name_by_digest_and_by_its_id_as_docker_lets_it() {
    let lab = Lab::new();
    let Some(registry) = registry(&lab, Guard::Open) else {
        return;
    };
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import(&lab::busybox(), "mine:1", &["ENV A=1", "CMD [\"sleep\", \"1000\"]"]);
    let id = docker.inspect("mine:1", "{{.Id}}");
    let short = &id["sha256:".len()..][..12];
    // two tags, be they of one repository
    docker.ok("tag mine:1 mine:2");
    docker
        .run(&format!("rmi {short}"))
        .fails(1, "image is referenced in multiple repositories");
    assert_eq!(docker.ok("rmi mine:2"), "Untagged: mine:2");

    docker.ok("create --name user mine:1");
    docker.run("rmi mine:1").fails(1, "is using its referenced image");
    docker
        .run(&format!("rmi {short}"))
        .fails(1, "(must be forced) - image is being used by stopped container");
    docker.ok("start user");
    docker
        .run(&format!("rmi -f {short}"))
        .fails(1, "(cannot be forced) - image is being used by running container");
    docker.ok("tag mine:1 other:1");
    assert_eq!(docker.ok("rmi mine:1"), "Untagged: mine:1", "another name is left");
    assert_eq!(
        docker.ok("rmi -f other:1"),
        "Untagged: other:1",
        "the container is left"
    );
    assert_eq!(docker.ok("images -q --no-trunc --filter dangling=true"), id);
    docker.ok("rm -f user");

    let name = registry.name("team/mine:1");
    docker.ok(&format!("tag {short} {name}"));
    docker.ok(&format!("push {name}"));
    let by_digest = docker.inspect(&name, "{{index .RepoDigests 0}}");
    assert_eq!(docker.ok(&format!("rmi {by_digest}")), format!("Untagged: {by_digest}"));
    assert_eq!(docker.inspect(&name, "{{.RepoDigests}}"), "[]");
    // a tag, and the digest of the same repository: they go together
    docker.ok(&format!("pull {by_digest}"));
    let gone = docker.ok(&format!("rmi {short}"));
    for line in [
        format!("Untagged: {name}"),
        format!("Untagged: {by_digest}"),
        format!("Deleted: {id}"),
    ] {
        assert!(gone.contains(&line), "{gone}");
    }
    // only a digest, then that and the tag of another repository
    docker.ok(&format!("pull {by_digest}"));
    let gone = docker.ok(&format!("rmi {by_digest}"));
    assert!(gone.contains(&format!("Deleted: {id}")), "{gone}");
    docker.ok(&format!("pull {by_digest}"));
    docker.ok(&format!("tag {short} other:1"));
    docker
        .run(&format!("rmi {short}"))
        .fails(1, "image is referenced in multiple repositories");
    assert_eq!(
        docker.ok("rmi other:1"),
        "Untagged: other:1",
        "the digest is a name, too"
    );
    assert_eq!(docker.inspect(&by_digest, "{{.Id}}"), id);
    let gone = docker.ok(&format!("rmi {}", &short[..8]));
    assert!(gone.contains(&format!("Deleted: {id}")), "{gone}");
    docker
        .run(&format!("rmi {short}"))
        .fails(1, &format!("No such image: {short}"));
}

#[test]
fn what_one_engine_pushes_others_pull() {
    let (lab, other_lab) = (Lab::new(), Lab::new());
    let Some(registry) = registry(&lab, Guard::Open) else {
        return;
    };
    let stock = start(&lab, "");
    if stock.is_ours() {
        return between(
            &lab,
            &registry,
            &stock,
            &Daemon::start_engine(&lab.host, Engine::Docker, "stock", "--bridge=none --iptables=false"),
        );
    }
    drop(other_lab);
}

/// Each reads what the other pushed, and both what skopeo writes.
fn between(lab: &Lab, registry: &Registry, ours: &Daemon, stock: &Daemon) {
    let (ours, stock) = (ours.docker(), stock.docker());
    let name = registry.name("shared/box:1");
    let made = registry.name("shared/made:1");
    ours.ok(&format!("tag busybox {name}"));
    let id = ours.inspect("busybox", "{{.Id}}");
    ours.ok(&format!("push {name}"));
    stock.ok(&format!("pull {name}"));
    assert_eq!(stock.inspect(&name, "{{.Id}}"), id);

    // a second layer of the stock engine's: a container that is never run
    let tar = lab.host.directory().join("more.tar");
    lab.host.run(&format!(
        "cd {} && echo more > more && tar -cf more.tar more",
        lab.host.directory().display()
    ));
    stock.ok(&format!("create --name maker --network none {name}"));
    stock.fed(&["cp", "-", "maker:/"], &std::fs::read(&tar).unwrap()).ok();
    stock.ok(&format!("commit maker {made}"));
    stock.ok(&format!("push {made}"));
    let said = ours.ok(&format!("pull {made}"));
    assert!(
        said.contains(": Already exists") && said.contains(": Pull complete"),
        "{said}"
    );
    assert_eq!(ours.inspect(&made, "{{.Id}}"), stock.inspect(&made, "{{.Id}}"));
    assert_eq!(ours.ok(&format!("run --rm {made} cat /more")), "more");

    if !std::path::Path::new("/usr/bin/skopeo").exists() {
        return lab::skipped("skopeo is not installed");
    }
    let skopeo = |line: &str| {
        let directory = lab.host.directory().display().to_string();
        lab.host
            .run(&format!("skopeo --insecure-policy --tmpdir {directory} {line}"))
    };
    let about = skopeo(&format!("inspect --tls-verify=false docker://{name}"));
    assert!(about.contains("\"Layers\""), "{about}");
    for (kind, more) in [
        ("oci", "--format oci"),
        ("zstd", "--format oci --dest-compress-format zstd"),
    ] {
        let there = registry.name(&format!("skopeo/{kind}:1"));
        skopeo(&format!(
            "copy -q --src-tls-verify=false --dest-tls-verify=false {more} docker://{made} docker://{there}"
        ));
        ours.ok(&format!("rmi -f {}", ours.inspect(&made, "{{.Id}}")));
        ours.ok(&format!("pull {there}"));
        assert_eq!(ours.ok(&format!("run --rm {there} cat /more")), "more", "{kind}");
        ours.ok(&format!("tag {there} {made}"));
        ours.ok(&format!("rmi {there}"));
    }
}

#[test]
fn a_registry_that_dies_in_the_middle_is_asked_again() {
    let lab = Lab::new();
    let Some(registry) = registry(&lab, Guard::Open) else {
        return;
    };
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    // a layer that does not shrink
    docker
        .sh("--name maker", "head -c 3000000 /dev/urandom > /noise; md5sum /noise")
        .ok();
    docker.ok("commit maker noise");
    let sum = docker.ok("run --rm noise md5sum /noise");
    docker.ok("rm maker");
    docker.ok(&format!("tag noise {}", registry.name("noise:1")));
    docker.ok(&format!("push {}", registry.name("noise:1")));
    docker.ok(&format!("rmi -f {}", docker.inspect("noise", "{{.Id}}")));

    let _dying = registry.dying(5001, 1_000_000, 2);
    docker.ok("pull 127.0.0.1:5001/noise:1");
    assert_eq!(docker.ok("run --rm 127.0.0.1:5001/noise:1 md5sum /noise"), sum);

    docker.ok("rmi 127.0.0.1:5001/noise:1");
    let _dead = registry.dying(5002, 1_000_000, 1_000_000);
    let pulled = docker.run("pull 127.0.0.1:5002/noise:1");
    // each attempt goes on where the one before broke: even so it gets there, or says why not
    if !pulled.is_ok() {
        assert!(docker.run("inspect 127.0.0.1:5002/noise:1").code() != Some(0));
    }
}

#[test]
fn a_guarded_registry_wants_a_certificate_and_a_login() {
    if Engine::under_test() == Engine::Docker {
        return lab::skipped("the stock engine's certificates are in /etc, which belongs to the machine");
    }
    let lab = Lab::new();
    let Some(registry) = registry(&lab, Guard::Tls) else {
        return;
    };
    let certificates = lab.host.directory().join("certs.d");
    let server = registry.name("");
    let server = server.trim_end_matches('/');
    let daemon = start(&lab, &format!("--registry-certs {}", certificates.display()));
    let name = registry.name("secret/box:1");
    let config = lab.host.directory().join("docker-config");
    let docker = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = daemon.docker().command(&words);
        command.env("DOCKER_CONFIG", &config);
        lab::Ran::command(&mut command, b"", lab::patience(60))
    };
    docker(&format!("tag busybox {name}")).ok();
    docker(&format!("push {name}")).fails(1, "certificate signed by unknown authority");
    let own = certificates.join(server);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(registry.certificate(), own.join("ca.crt")).unwrap();
    docker(&format!("push {name}")).fails(1, "no basic auth credentials");
    docker(&format!("login -u ada -p wrong {server}")).fails(1, "401 Unauthorized");
    let said = docker(&format!("login -u ada -p secret {server}")).ok();
    assert!(said.contains("Login Succeeded"), "{said}");
    docker(&format!("push {name}")).ok();
    docker("rmi -f busybox").ok();
    docker(&format!("pull {name}")).ok();
    docker(&format!("logout {server}")).ok();
    docker(&format!("pull {name}")).fails(1, "no basic auth credentials");

    let ours = format!("DOCKER_CONFIG={}", lab.host.directory().join("sluice-config").display());
    let sluice = |line: &str| {
        lab.host.shell(&format!(
            "{ours} {} -H unix://{} {line}",
            lab::binary("sluice").display(),
            daemon.socket().display()
        ))
    };
    sluice(&format!("pull {name}")).fails(1, "no basic auth credentials");
    let login =
        format!("login -u ada --password-stdin {server} <<< secret").replace("<<< secret", "<<EOF\nsecret\nEOF");
    assert!(sluice(&login).ok().contains("Login Succeeded"));
    sluice(&format!("pull {name}")).ok();
    sluice(&format!("logout {server}")).ok();
    sluice(&format!("pull {name}")).fails(1, "no basic auth credentials");
}
