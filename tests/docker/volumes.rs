//! Volumes and mounts.

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
fn what_is_asked_of_mounts_is_shown_and_done() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let shared = lab.host.directory().join("bound");
    std::fs::create_dir_all(shared.join("sub")).unwrap();
    let shared = shared.display();
    docker
        .words(&[
            "create",
            "--name",
            "mounted",
            "--mount",
            "type=volume,source=data,target=/v,readonly",
            "--mount",
            &format!("type=bind,source={shared},target=/b,readonly"),
            "--mount",
            "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700",
            "--tmpfs",
            "/t2:size=64k",
            "-v",
            &format!("{shared}:/c:ro"),
            "busybox",
            "sh",
            "-c",
            "touch /v/x /b/x /c/x; grep -c 'size=1024k.*mode=700' /proc/mounts; grep -c ' /t2 ' /proc/mounts; cp /proc/mounts /t/",
        ])
        .ok();
    let ran = docker.run("start -a mounted");
    assert_eq!(ran.stderr.matches("Read-only file system").count(), 3, "{ran}");
    assert!(ran.stdout.starts_with("1\n1"), "{ran}");
    let each = "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}} {{.Mode}};{{end}}";
    let shown = docker.inspect("mounted", each);
    for line in [
        "volume /v false z;",
        "bind /b false ;",
        "tmpfs /t true ;",
        "bind /c false ro;",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert_eq!(
        docker.inspect("mounted", "{{json .HostConfig.Binds}}"),
        format!("[\"{shared}:/c:ro\"]")
    );
    assert_eq!(docker.inspect("mounted", "{{len .HostConfig.Mounts}}"), "3");
    for (words, trouble) in [
        ("-v data:/x:zz", "invalid mode: zz"),
        (
            "-v relative/path:/x",
            "includes invalid characters for a local volume name",
        ),
        ("-v one:/x -v two:/x", "Duplicate mount point: /x"),
        ("-v name:/x:rshared", "field BindOptions must not be specified"),
        ("-v /:/", "destination can't be '/'"),
        (
            "--mount type=bind,source=/no/such,target=/x",
            "bind source path does not exist: /no/such",
        ),
        ("--mount type=nonsense,target=/x", "mount type unknown"),
    ] {
        docker
            .run(&format!("run --rm {words} busybox true"))
            .fails(125, trouble);
    }
}

#[test]
fn options_of_the_driver_mount_something_on_the_volume_while_it_is_used() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let device = lab.host.directory().join("device");
    std::fs::create_dir(&device).unwrap();
    std::fs::write(device.join("note"), "from the host\n").unwrap();
    let option = format!("device={}", device.display());
    docker
        .words(&[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            &option,
            "bound",
        ])
        .ok();
    docker
        .words(&[
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "-o",
            "o=size=1m,uid=1000",
            "memory",
        ])
        .ok();
    assert_eq!(docker.ok("run --rm -v bound:/d busybox cat /d/note"), "from the host");
    assert_eq!(docker.ok("run --rm -v memory:/d busybox stat -c %u /d"), "1000");
    let mounted = |name: &str| {
        let point = docker.ok(&format!("volume inspect -f {{{{.Mountpoint}}}} {name}"));
        lab.host
            .run(&format!("grep -c ' {point} ' /proc/self/mountinfo || true"))
            != "0"
    };
    assert!(!mounted("bound") && !mounted("memory"));
    docker.ok("run -d --name one -v memory:/d busybox sleep 1000");
    docker.ok("exec one touch /d/seen");
    docker.ok("run -d --name two -v memory:/d busybox sleep 1000");
    assert_eq!(docker.ok("exec two ls /d"), "seen", "one mount for both");
    docker.ok("rm -f one");
    assert_eq!(docker.ok("exec two ls /d"), "seen");
    docker.ok("rm -f two");
    docker.ok("volume rm memory bound");
    assert!(device.join("note").exists(), "what was mounted on it stays where it is");
    for (options, trouble) in [
        ("-o foo=bar", "invalid option: \"foo\""),
        ("-o type=tmpfs", "missing required option: \"device\""),
        ("-o device=x", "missing required option: \"type\""),
        ("-d nonsense", "plugin \"nonsense\" not found"),
    ] {
        docker.run(&format!("volume create {options} bad")).fails(1, trouble);
    }
    docker
        .words(&[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            "device=/no/such",
            "late",
        ])
        .ok();
    // what mount(2) is told: names of servers are addresses by then, and flags are no words any more
    let words = "volume create -o type=nfs -o device=:/x -o o=addr=localhost,ro,nolock,vers=4 remote";
    docker.ok(words);
    let refused = docker.run("run --rm -v remote:/d busybox true");
    assert!(!refused.is_ok(), "{refused}");
    for words in [
        "failed to mount local volume: mount :/x:",
        "data: addr=127.0.0.1,nolock,vers=4",
    ] {
        assert!(refused.stderr.contains(words), "{words} in {refused}");
    }
    let refused = docker.run("run --rm -v late:/d busybox true");
    assert!(
        !refused.is_ok() && refused.stderr.contains("no such file or directory"),
        "{refused}"
    );
    assert_eq!(docker.ok("ps -aq"), "");
}

#[test]
fn mounts_of_the_host_arrive_where_propagation_was_asked_for() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let tree = lab.host.directory().join("tree");
    std::fs::create_dir_all(tree.join("late")).unwrap();
    std::fs::create_dir_all(tree.join("inner")).unwrap();
    let tree = tree.display();
    docker
        .run(&format!("run --rm -v {tree}:/t:rshared busybox true"))
        .fails(125, "but it is not a shared mount");
    lab.host
        .run(&format!("mount --bind {tree} {tree} && mount --make-rshared {tree}"));
    docker.ok(&format!("run -d --name slave -v {tree}:/t:rslave busybox sleep 1000"));
    docker.ok(&format!("run -d --name private -v {tree}:/t busybox sleep 1000"));
    docker.ok(&format!("run -d --name shared --cap-add SYS_ADMIN --security-opt seccomp=unconfined -v {tree}:/t:rshared busybox sleep 1000"));
    lab.host
        .run(&format!("mount -t tmpfs tmpfs {tree}/late && touch {tree}/late/here"));
    assert_eq!(docker.ok("exec slave ls /t/late"), "here");
    assert_eq!(docker.ok("exec shared ls /t/late"), "here");
    assert_eq!(docker.ok("exec private ls /t/late"), "");
    docker.ok("exec shared mount -t tmpfs tmpfs /t/inner");
    docker.ok("exec shared touch /t/inner/back");
    assert_eq!(lab.host.run(&format!("ls {tree}/inner")), "back");
    docker.ok("rm -f slave private shared");
    lab.host
        .run(&format!("umount {tree}/inner {tree}/late && umount {tree}"));
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

#[test]
fn images_parts_of_volumes_and_executable_memory_are_mounted() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        return lab::skipped("Docker mounts images since 28, parts of volumes since 26");
    }
    let docker = daemon.docker();
    docker
        .sh(
            "--name maker",
            "mkdir -p /tools/deep && echo tool > /tools/deep/file && echo top > /tools/top",
        )
        .ok();
    docker.ok("commit maker tools:1");
    docker.ok("rm maker");

    let image = "type=image,source=tools:1,target=/i";
    docker
        .sh(
            &format!(
                "-d --name one --mount {image} --mount {image}2,image-subpath=tools/deep --mount {image}3,readonly"
            ),
            "cat /i/tools/top /i2/file; touch /i/mine /i3/mine; ls /i/mine /i2; sleep 1000",
        )
        .ok();
    docker.sh(&format!("-d --name two --mount {image}"), "sleep 1000").ok();
    eventually("it has said all", 30, || {
        docker.run("logs one").stdout.contains("/i2:\nfile")
    });
    let said = docker.run("logs one");
    assert_eq!(said.stdout, "top\ntool\n/i/mine\n\n/i2:\nfile\n", "{said}");
    assert!(said.stderr.contains("/i3/mine: Read-only file system"), "{said}");
    assert!(!docker.run("exec two ls /i/mine").is_ok(), "each has its own layer");
    let shown = docker.inspect("one", "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}");
    assert_eq!(shown, "image /i true;image /i2 true;image /i3 false;");
    docker.run("rmi tools:1").fails(1, "container");
    docker.ok("stop -t 0 one");
    docker.ok(&format!(
        "cp one:/i/mine {}",
        lab.host.directory().join("mine").display()
    ));
    docker.ok("start one");
    docker.ok("exec one ls /i/mine");
    docker
        .sh("--rm --volumes-from one", "cat /i/tools/top && ! ls /i/mine")
        .ok();
    docker.ok("rm -f one two");
    docker.ok("rmi tools:1");
    let left = lab.host.run(&format!(
        "grep -c {}/containers /proc/self/mountinfo || true",
        daemon.data_root().display()
    ));
    assert_eq!(left, "0");
    docker
        .run("run --rm --mount type=image,source=nosuch,target=/i busybox true")
        .fails(125, "No such image: nosuch");

    docker
        .sh(
            "--rm -v parts:/v",
            "mkdir -p /v/a/b; echo part > /v/a/b/file; ln -s /etc /v/out; ln -s a/b /v/in",
        )
        .ok();
    let part = |path: &str| format!("--rm --mount type=volume,source=parts,target=/p,volume-subpath={path}");
    assert_eq!(docker.sh(&part("a/b"), "cat /p/file").ok(), "part");
    assert_eq!(docker.sh(&part("in"), "cat /p/file").ok(), "part");
    for (path, words) in [("../x", "subpath must be a relative path"), ("nosuch", ""), ("out", "")] {
        docker.sh(&part(path), "true").fails(125, words);
    }

    let wish = |options: &str| {
        format!(
            r#"{{"Image":"busybox","Cmd":["sh","-c","cp /bin/busybox /t/true && /t/true && grep -c ' /t .*nosuid' /proc/mounts"],
                "HostConfig":{{"Mounts":[{{"Type":"tmpfs","Target":"/t","TmpfsOptions":{{"Options":{options}}}}}]}}}}"#
        )
    };
    for (name, options, outcome) in [("may", r#"[["exec"]]"#, "0"), ("maynt", "[]", "126")] {
        let (status, body) = daemon.request("POST", &format!("/containers/create?name={name}"), &wish(options));
        assert_eq!(status, 201, "{body}");
        docker.ok(&format!("start {name}"));
        assert_eq!(docker.ok(&format!("wait {name}")), outcome);
    }
    let (status, body) = daemon.request("POST", "/containers/create", &wish(r#"[["suid"]]"#));
    assert!(
        status == 400 && body.contains("invalid option: suid"),
        "{status} {body}"
    );
}
