//! Volumes: who has them, what is in them, and when they go.

use lab::{Daemon, Docker, Lab, eventually, start};

/// An image with a directory that is worth copying, and one that is declared a volume.
fn furnished(docker: &Docker) {
    docker
        .words(&[
            "run",
            "--name",
            "furnisher",
            "busybox",
            "sh",
            "-c",
            "mkdir -p /data/sub /empty && echo one > /data/a && echo two > /data/sub/b && chmod 600 /data/a && ln -s a /data/link \
             && chmod 750 /data && chown -R 1000:1000 /data/sub /data /empty && ln /data/a /data/same",
        ])
        .ok();
    let tar = docker.words(&["export", "furnisher", "-o", "/run/furnished.tar"]);
    tar.ok();
    docker.ok("rm furnisher");
    docker.import(
        std::path::Path::new("/run/furnished.tar"),
        "furnished",
        &["VOLUME /data"],
    );
}

fn volume_names(docker: &Docker) -> Vec<String> {
    let mut names: Vec<String> = docker.ok("volume ls -q").lines().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_volume_outlives_its_containers_and_is_removed_only_when_nobody_has_it() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    assert_eq!(docker.ok("volume create --label tier=front data"), "data");
    assert_eq!(docker.ok("volume create data"), "data", "it is there already");
    docker.sh("--rm -v data:/d", "echo kept > /d/note").ok();
    docker.ok("create --name user -v data:/d busybox cat /d/note");
    let id = docker.inspect("user", "{{.Id}}");
    docker
        .run("volume rm data")
        .fails(1, &format!("remove data: volume is in use - [{id}]"));
    docker.run("volume rm -f data").fails(1, "volume is in use");
    assert_eq!(docker.ok("start -a user"), "kept");
    docker.ok("rm -v user");
    assert_eq!(volume_names(&docker), ["data"], "a volume with a name stays");
    let mountpoint = docker.ok("volume inspect -f {{.Mountpoint}} data");
    assert_eq!(lab.host.run(&format!("cat {mountpoint}/note")), "kept");
    assert_eq!(
        docker.ok("volume inspect -f {{.Driver}},{{.Scope}},{{.Labels.tier}} data"),
        "local,local,front"
    );
    assert_eq!(docker.ok("volume rm data"), "data");
    docker.run("volume inspect data").fails(1, "get data: no such volume");
    docker.run("volume rm data").fails(1, "get data: no such volume");
}

#[test]
fn a_new_volume_is_filled_once_with_what_the_image_has_there() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    furnished(&docker);
    let list = "ls -lan /d | awk '{print $1,$3,$4,$9}'";
    let shown = docker
        .words(&[
            "run",
            "--rm",
            "-v",
            "named:/data",
            "furnished",
            "sh",
            "-c",
            &list.replace("/d ", "/data "),
        ])
        .ok();
    assert!(shown.contains("drwxr-x--- 1000 1000 ."), "{shown}");
    assert!(
        shown.contains("-rw------- 1000 1000 a") && shown.contains(" same"),
        "{shown}"
    );
    assert!(shown.contains("drwxr-xr-x 1000 1000 sub"), "{shown}");
    assert_eq!(docker.ok("run --rm -v named:/data busybox cat /data/sub/b"), "two");
    assert_eq!(docker.ok("run --rm -v named:/data busybox readlink /data/link"), "a");
    assert_eq!(
        docker.ok("run --rm -v named:/data busybox stat -c %h /data/a"),
        "2",
        "hard links too"
    );
    docker.ok("run --rm -v named:/data busybox rm -r /data/sub");
    docker
        .run("run --rm -v named:/data furnished ls /data/sub")
        .fails(1, "");
    // owner and mode also where there is nothing to copy
    assert_eq!(
        docker.ok("run --rm -v bare:/empty furnished stat -c %u:%g /empty"),
        "1000:1000"
    );
    docker
        .words(&[
            "run",
            "--rm",
            "-v",
            "plain:/data:nocopy",
            "furnished",
            "sh",
            "-c",
            "ls /data | wc -l",
        ])
        .ok();
    assert_eq!(docker.ok("run --rm -v plain:/d busybox ls /d"), "");
    let mount = "type=volume,source=plainer,target=/data,volume-nocopy,volume-label=who=me";
    docker.ok(&format!("run --rm --mount {mount} furnished true"));
    assert_eq!(docker.ok("volume inspect -f {{.Labels.who}} plainer"), "me");
    assert_eq!(docker.ok("run --rm -v plainer:/d busybox ls /d"), "");
}

#[test]
fn a_volume_without_a_name_goes_with_its_container_when_asked() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    furnished(&docker);
    assert_eq!(docker.ok("run --rm -v /other furnished cat /data/a"), "one");
    assert_eq!(volume_names(&docker), Vec::<String>::new(), "--rm takes them along");
    docker.ok("create --name one -v /other furnished true");
    assert_eq!(volume_names(&docker).len(), 2);
    docker.ok("rm one");
    assert_eq!(volume_names(&docker).len(), 2, "rm alone does not");
    docker.ok("create --name two furnished true");
    docker.ok("rm -v two");
    assert_eq!(volume_names(&docker).len(), 2, "rm -v does");
    assert_eq!(volume_names(&docker)[0].len(), 64);
    docker.ok("volume prune -f");
    assert_eq!(volume_names(&docker), Vec::<String>::new());
}

#[test]
fn volumes_of_others_come_along_read_only_when_asked() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh("--name source -v data:/d -v /own", "echo x > /d/a; echo y > /own/b")
        .ok();
    assert_eq!(
        docker.ok("run --rm --volumes-from source busybox cat /d/a /own/b"),
        "x\ny"
    );
    let refused = docker.run("run --rm --volumes-from source:ro busybox touch /d/new");
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    docker
        .run("run --rm --volumes-from nobody busybox true")
        .fails(125, "No such container: nobody");
    docker
        .run("run --rm --volumes-from source:zz busybox true")
        .fails(125, "invalid mode: zz");
    // backup and restore, as everybody does it
    docker
        .words(&[
            "run",
            "--rm",
            "--volumes-from",
            "source",
            "-v",
            "backup:/backup",
            "busybox",
            "tar",
            "cf",
            "/backup/b.tar",
            "-C",
            "/d",
            ".",
        ])
        .ok();
    docker
        .words(&[
            "run",
            "--rm",
            "-v",
            "fresh:/d",
            "-v",
            "backup:/backup",
            "busybox",
            "tar",
            "xf",
            "/backup/b.tar",
            "-C",
            "/d",
        ])
        .ok();
    assert_eq!(docker.ok("run --rm -v fresh:/d busybox cat /d/a"), "x");
    assert_eq!(docker.inspect("source", "{{len .Mounts}}"), "2");
}

#[test]
fn volumes_are_listed_by_filters_and_their_events_are_told() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("volume create --label tier=front alpha");
    docker.ok("volume create beta");
    docker.ok("run --rm -v beta:/b busybox true");
    docker.ok("create --name user -v beta:/b busybox true");
    let names = |filter: &str| docker.ok(&format!("volume ls -q -f {filter}"));
    assert_eq!(names("name=alp"), "alpha");
    assert_eq!(names("dangling=true"), "alpha");
    assert_eq!(names("dangling=false"), "beta");
    assert_eq!(names("label=tier=front"), "alpha");
    assert_eq!(names("driver=other"), "");
    docker.run("volume ls -f colour=red").fails(1, "nvalid filter 'colour'");
    docker.ok("volume rm alpha");
    let soon = lab.host.run("echo $(( $(date +%s) + 2 ))");
    let format = "{{.Action}}:{{.Actor.ID}}";
    let events = docker.ok(&format!(
        "events --since 1h --until {soon} --filter type=volume --format {format}"
    ));
    // Docker tells of a volume that is made when it is there already, too
    let mut told: Vec<&str> = Vec::new();
    for line in events.lines() {
        if !told.contains(&line) {
            told.push(line);
        }
    }
    assert_eq!(
        told,
        [
            "create:alpha",
            "create:beta",
            "mount:beta",
            "unmount:beta",
            "destroy:alpha"
        ]
    );
}

#[test]
fn names_of_volumes_are_no_paths() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let create = |name: &str| docker.words(&["volume", "create", name]);
    for name in ["../outside", "a/b", "-x", ".hidden", "a b", "..", "x\ny"] {
        let ran = create(name);
        assert!(!ran.is_ok(), "{name:?}: {ran}");
    }
    create("x").fails(1, "volume name is too short");
    for method in ["GET", "DELETE"] {
        let (status, answer) = daemon.request(method, "/volumes/..%2f..%2fetc", "");
        assert!(matches!(status, 301 | 404), "{status}: {answer}");
    }
    assert!(volume_names(&docker).is_empty());
    still_works(&daemon);
}

fn still_works(daemon: &Daemon) {
    assert_eq!(daemon.docker().ok("run --rm busybox echo alive"), "alive");
}

#[test]
fn volumes_are_there_again_after_the_daemon_was_killed() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return; // that containers outlive their daemon without being asked to is ours
    }
    let docker = daemon.docker();
    docker
        .sh("-d --name user -v data:/d -v /own", "echo x > /d/a; sleep 1000")
        .ok();
    docker
        .words(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"])
        .ok();
    let before = volume_names(&docker);
    assert_eq!(before.len(), 3);
    daemon.kill();
    daemon.boot();
    eventually("the daemon answers again", 30, || docker.run("version").is_ok());
    assert_eq!(volume_names(&docker), before);
    docker.run("volume rm data").fails(1, "volume is in use");
    docker.ok("rm -fv user");
    assert_eq!(volume_names(&docker), ["data", "memory"]);
    assert_eq!(docker.ok("run --rm -v data:/d busybox cat /d/a"), "x");
}

#[test]
fn a_volume_that_was_being_filled_when_the_daemon_was_killed_is_filled_again() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    docker
        .words(&[
            "run",
            "--name",
            "furnisher",
            "busybox",
            "sh",
            "-c",
            "mkdir -p /data/sub && for i in $(seq 400); do echo $i >/data/sub/$i; done",
        ])
        .ok();
    docker.ok("commit furnisher furnished");
    for round in 0..6_u64 {
        let line = format!(
            "DOCKER_HOST=unix://{} docker create --name c{round} -v v{round}:/data furnished true",
            daemon.socket().display()
        );
        let client = lab.host.spawn(&format!("create-{round}.log"), &line);
        std::thread::sleep(std::time::Duration::from_millis(40 + 17 * round));
        daemon.kill();
        drop(client);
        daemon.boot();
        let count = format!("run --rm -v v{round}:/data furnished sh -c");
        let mut words: Vec<&str> = count.split_whitespace().collect();
        words.push("cat /data/sub/* | wc -l");
        assert_eq!(docker.words(&words).ok(), "400", "round {round}");
        let left = lab.host.run(&format!(
            "find {}/volumes -maxdepth 2 '(' -name '_fill*' -o -name _copying -o -name '.?*' ')'",
            daemon.data_root().display()
        ));
        assert_eq!(left, "", "round {round}");
    }
    docker.ok("rm -f furnisher");
    let all = docker.ok("ps -aq");
    for id in all.lines() {
        docker.ok(&format!("rm -f {id}"));
    }
    docker.ok("volume prune -af");
    assert_eq!(docker.ok("volume ls -q"), "");
}
