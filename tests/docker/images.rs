//! Images: brought in, listed, looked at, removed.

use lab::{Lab, Ran, patience, start};

#[test]
fn an_imported_tar_is_an_image_with_the_changes_asked_for() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import(
        &lab::busybox(),
        "mine:1",
        &[
            "ENV COLOUR=blue",
            "WORKDIR /tmp",
            "CMD [\"pwd\"]",
            "USER ada",
            "EXPOSE 80/tcp",
            "LABEL who=me",
        ],
    );
    assert_eq!(docker.ok("run --rm mine:1"), "/tmp");
    assert_eq!(docker.ok("run --rm mine:1 id -un"), "ada");
    assert_eq!(
        docker.inspect("mine:1", "{{json .Config.ExposedPorts}}"),
        "{\"80/tcp\":{}}"
    );
    assert_eq!(
        docker.inspect("mine:1", "{{.Config.Labels.who}} {{.Os}} {{.Architecture}}"),
        "me linux amd64"
    );
    docker.run("import --change NONSENSE /dev/null bad").fails(1, "");
}

#[test]
fn an_archive_may_come_through_the_standard_input_and_compressed() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let packed = Ran::command(
        lab.host
            .command("sh")
            .arg("-c")
            .arg(format!("gzip -1 < {} > /run/packed.gz", lab::busybox().display())),
        &[],
        patience(30),
    );
    packed.ok();
    let bytes = lab.host.inside(|| std::fs::read("/run/packed.gz").unwrap());
    let id = docker.fed(&["import", "-", "packed"], &bytes).ok();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(docker.ok("run --rm packed echo hello"), "hello");
}

/// An archive as `docker save` writes it, made of one layer.
fn archive(lab: &Lab, name: &str) -> std::path::PathBuf {
    let directory = lab.host.directory().join("archive");
    let tar = lab.host.directory().join("archive.tar");
    lab.host.run(&format!(
        "mkdir -p {0}/layer && cp {1} {0}/layer/layer.tar",
        directory.display(),
        lab::busybox().display()
    ));
    let sum = lab
        .host
        .run(&format!("sha256sum {}/layer/layer.tar", directory.display()));
    let sum = sum.split_whitespace().next().unwrap();
    let configuration = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["echo", "loaded"], "Env": ["COLOUR=green"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "a test"}], "created": "2024-01-02T03:04:05Z",
    });
    std::fs::write(directory.join("config.json"), configuration.to_string()).unwrap();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer/layer.tar"]}]);
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    lab.host
        .run(&format!("tar -C {} -cf {} .", directory.display(), tar.display()));
    tar
}

#[test]
fn a_saved_archive_is_loaded_and_runs() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let tar = archive(&lab, "loaded:2");
    assert_eq!(
        docker.ok(&format!("load -i {}", tar.display())),
        "Loaded image: loaded:2"
    );
    assert_eq!(docker.ok("run --rm loaded:2"), "loaded");
    assert_eq!(docker.inspect("loaded:2", "{{json .Config.Env}}"), "[\"COLOUR=green\"]");
}

#[test]
fn images_lists_what_is_there_and_rmi_takes_it_away() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import(&lab::busybox(), "mine:1", &["ENV NUMBER=1"]);
    let list = docker.ok("images --format {{.Repository}}:{{.Tag}}");
    let mut names: Vec<&str> = list.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["busybox:latest", "mine:1"]);
    let id = docker.inspect("mine:1", "{{.Id}}");
    assert_eq!(docker.ok("images --no-trunc -q mine"), id);
    let short = &id["sha256:".len()..][..12];
    assert_eq!(docker.inspect(short, "{{.Id}}"), id);
    docker.ok(&format!("run --name user {short} true"));
    let refused = docker.run("rmi mine:1");
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("conflict"), "{refused}");
    docker.ok("rm user");
    let removed = docker.ok("rmi mine:1");
    assert!(
        removed.contains("Untagged: mine:1") && removed.contains(&format!("Deleted: {id}")),
        "{removed}"
    );
    docker.run("rmi mine:1").fails(1, "No such image: mine:1");
    docker.words(&["inspect", "mine:1"]).fails(1, "No such object: mine:1");
}

#[test]
fn layers_are_shared_and_containers_do_not_write_into_them() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh("--name one", "echo changed > /etc/group; rm /etc/passwd; mkdir /new")
        .ok();
    assert_eq!(
        docker
            .sh("--rm", "head -n 1 /etc/group; ls -d /etc/passwd /new 2>/dev/null")
            .stdout,
        "root:x:0:\n/etc/passwd\n"
    );
    docker.ok("start one");
}

#[test]
fn what_is_saved_is_loaded_as_the_same_image() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh(
            "--name maker",
            "echo x > /x; ln /x /y; rm /etc/group; truncate -s 5M /sparse",
        )
        .ok();
    docker.ok("commit maker made:1");
    docker.ok("rm maker");
    docker.ok("tag made:1 quay.io/team/made:2");
    let (made, base) = (
        docker.inspect("made:1", "{{.Id}}"),
        docker.inspect("busybox", "{{.Id}}"),
    );
    let tar = lab.host.directory().join("saved.tar");
    docker.ok(&format!("save -o {} made:1 quay.io/team/made:2 busybox", tar.display()));
    docker.ok("rmi -f made:1 quay.io/team/made:2 busybox");
    assert_eq!(docker.ok("images -q"), "");
    let loaded = docker.ok(&format!("load -i {}", tar.display()));
    for name in ["made:1", "quay.io/team/made:2", "busybox:latest"] {
        assert!(loaded.contains(&format!("Loaded image: {name}")), "{loaded}");
    }
    assert_eq!(docker.inspect("made:1", "{{.Id}}"), made);
    assert_eq!(docker.inspect("busybox", "{{.Id}}"), base);
    assert_eq!(docker.ok("run --rm made:1 cat /y"), "x");
    docker.run("save nobody").fails(1, "No such image: nobody");
    docker.ok(&format!("save -o {} {}", tar.display(), &base["sha256:".len()..][..12]));
    let names = lab.host.run(&format!("tar xOf {} manifest.json", tar.display()));
    assert!(names.contains("\"RepoTags\":null"), "{names}");
}

#[test]
fn prune_takes_images_without_a_name_and_all_unused_ones_when_told() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import(&lab::busybox(), "one:1", &["ENV A=1"]);
    let first = docker.inspect("one:1", "{{.Id}}");
    docker.import(&lab::busybox(), "one:1", &["ENV A=2"]);
    docker.ok("create --name user busybox true");
    let pruned = docker.ok("image prune -f");
    assert!(pruned.contains(&first), "{pruned}");
    assert_eq!(docker.ok("images -q").lines().count(), 2);
    let pruned = docker.ok("image prune -f -a");
    assert!(
        pruned.contains("ntagged: one:1") && !pruned.contains("busybox"),
        "{pruned}"
    );
    assert_eq!(docker.ok("images --format {{.Repository}}"), "busybox");
    assert!(docker.ok("image prune -f -a").contains("Total reclaimed space: 0B"));
}

#[test]
fn system_df_tells_what_takes_how_much_room() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh(
            "--name user -v data:/d",
            "head -c 3000000 /dev/zero > /own; head -c 1000 /dev/zero > /d/a",
        )
        .ok();
    docker.ok("volume create unused");
    let line = |kind: &str| {
        let format = "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}";
        let all = docker.words(&["system", "df", "--format", format]).ok();
        all.lines()
            .find(|line| line.starts_with(kind))
            .unwrap_or_else(|| panic!("{all}"))
            .to_owned()
    };
    assert!(line("Images").starts_with("Images|1|1|"), "{}", line("Images"));
    assert_eq!(line("Containers"), "Containers|1|0|3MB");
    assert_eq!(line("Local Volumes"), "Local Volumes|2|1|1kB");
    docker.sh("--rm -v data:/d", "head -c 5000 /dev/zero > /d/b").ok();
    assert_eq!(line("Local Volumes"), "Local Volumes|2|1|6kB");
    let verbose = docker.ok("system df -v");
    assert!(verbose.contains("data") && verbose.contains("user"), "{verbose}");
}
