//! Archives of images that others read, and those that others write.

use lab::{Daemon, Engine, Lab, start};

/// An image of two layers with a hard link, a removed file and a configuration, by the name `made:1`.
fn make(daemon: &Daemon) {
    let docker = daemon.docker();
    docker
        .sh(
            "--name maker",
            "echo x > /x; ln /x /y; rm /etc/group; truncate -s 5M /sparse",
        )
        .ok();
    docker
        .words(&[
            "commit",
            "-c",
            "ENV A=b",
            "-c",
            "CMD [\"cat\", \"/y\"]",
            "maker",
            "made:1",
        ])
        .ok();
    docker.ok("rm maker");
}

/// Is it the same, and does it run?
#[track_caller]
fn check(daemon: &Daemon, name: &str) {
    let docker = daemon.docker();
    assert_eq!(docker.ok(&format!("run --rm {name}")), "x");
    assert_eq!(
        docker
            .words(&[
                "run",
                "--rm",
                name,
                "sh",
                "-c",
                "echo $A; ls /etc/group; stat -c %s /sparse"
            ])
            .stdout,
        "b\n5242880\n"
    );
}

#[test]
fn what_one_engine_saves_the_other_loads() {
    let (lab, other_lab) = (Lab::new(), Lab::new());
    let stock = start(&lab, "");
    if stock.is_ours() {
        return; // asked of the stock engine, when the tests run against that
    }
    let ours = Daemon::start_engine(&other_lab.host, Engine::Sluice, "default", "");
    ours.docker().import(&lab::busybox(), "busybox", &["CMD [\"sh\"]"]);
    let tar = lab.host.directory().join("saved.tar").display().to_string();
    for (from, to) in [(&ours, &stock), (&stock, &ours)] {
        make(from);
        from.docker().ok(&format!("save -o {tar} made:1 busybox"));
        let id = from.docker().inspect("made:1", "{{.Id}}");
        from.docker().ok("rmi made:1");
        let said = to.docker().ok(&format!("load -i {tar}"));
        assert!(said.contains("Loaded image: made:1"), "{said}");
        assert_eq!(to.docker().inspect("made:1", "{{.Id}}"), id);
        check(to, "made:1");
        to.docker().ok("rmi made:1");
    }
}

#[test]
fn skopeo_reads_what_we_save_and_we_load_what_it_writes() {
    if !std::path::Path::new("/usr/bin/skopeo").exists() {
        return lab::skipped("skopeo is not installed");
    }
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    make(&daemon);
    let at = |name: &str| lab.host.directory().join(name).display().to_string();
    let skopeo = |line: &str| {
        lab.host.run(&format!(
            "skopeo --insecure-policy --tmpdir {} {line}",
            lab.host.directory().display()
        ))
    };
    docker.ok(&format!("save -o {} made:1", at("saved.tar")));
    let about = skopeo(&format!("inspect --config docker-archive:{}:made:1", at("saved.tar")));
    assert!(about.contains("A=b"), "{about}");
    // an archive of OCI, one of Docker made of that, and one whose layers are compressed
    skopeo(&format!(
        "copy -q docker-archive:{}:made:1 oci-archive:{}:there:2",
        at("saved.tar"),
        at("oci.tar")
    ));
    skopeo(&format!(
        "copy -q oci-archive:{}:there:2 docker-archive:{}:back:3",
        at("oci.tar"),
        at("docker.tar")
    ));
    docker.ok("rmi made:1");
    docker.ok(&format!("load -i {}", at("docker.tar")));
    check(&daemon, "back:3");
    docker.ok("rmi back:3");
    if daemon.is_ours() {
        // the stock engine of that time reads no archive of OCI
        let said = docker.ok(&format!("load -i {}", at("oci.tar")));
        let name = said.rsplit(": ").next().unwrap_or_default().trim().to_owned();
        check(&daemon, &name);
        docker.ok(&format!("import {} flat", at("oci.tar")));
    }
}
