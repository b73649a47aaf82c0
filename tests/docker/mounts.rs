//! Mounts: of the host's directories, of memory, of images, of parts of volumes, and what a volume's driver mounts.

use lab::{Lab, eventually, start};

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
