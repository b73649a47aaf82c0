//! Files of containers: copied, exported, compared, made images of.

use std::{
    ffi::{CStr, CString},
    io::Write,
    path::PathBuf,
    time::Duration,
};

use lab::{Docker, Lab, eventually, start};

/// A place of the host for this test.
fn place(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.host.directory().join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// The names in a tar that a client got on its standard output.
fn names_in(lab: &Lab, docker: &Docker, words: &str) -> Vec<String> {
    let name = lab.host.directory().join("out.tar");
    let address = docker_line(docker, words);
    lab.host.run(&format!("{address} > {}", name.display()));
    let listed = lab.host.run(&format!("tar tf {} 2>/dev/null", name.display()));
    listed.lines().map(str::to_owned).collect()
}

fn docker_line(docker: &Docker, words: &str) -> String {
    let command = docker.command(&[]);
    let host = command
        .get_envs()
        .find_map(|(name, value)| (name == "DOCKER_HOST").then(|| value.unwrap().to_string_lossy().into_owned()));
    format!("DOCKER_HOST={} docker {words}", host.unwrap())
}

#[test]
fn files_and_folders_are_copied_both_ways_running_or_not() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let here = place(&lab, "here");
    std::fs::create_dir_all(here.join("tree/sub")).unwrap();
    std::fs::write(here.join("tree/a"), "one\n").unwrap();
    std::fs::write(here.join("tree/sub/b"), "two\n").unwrap();
    std::os::unix::fs::symlink("a", here.join("tree/link")).unwrap();
    docker.ok("run -d --name running -v data:/vol busybox sleep 1000");
    docker.ok("create --name created -v data2:/vol busybox ls -R /into /vol");
    let here = here.display();
    for name in ["running", "created"] {
        docker.ok(&format!("cp {here}/tree {name}:/into"));
        docker.ok(&format!("cp {here}/tree {name}:/into"));
        docker.ok(&format!("cp {here}/tree/a {name}:/vol/file"));
        docker.ok(&format!("cp {name}:/into {here}/{name}"));
        assert_eq!(lab.host.run(&format!("cat {here}/{name}/tree/sub/b")), "two");
        assert_eq!(lab.host.run(&format!("readlink {here}/{name}/link")), "a");
        docker.ok(&format!("cp {name}:/vol/file {here}/{name}.file"));
        assert_eq!(lab.host.run(&format!("cat {here}/{name}.file")), "one");
        docker.ok(&format!("cp -L {name}:/into/link {here}/{name}.followed"));
        assert_eq!(
            lab.host.run(&format!("stat -c %F {here}/{name}.followed")),
            "regular file"
        );
        docker.ok(&format!("cp {name}:/into/link {here}/{name}.link"));
        assert_eq!(lab.host.run(&format!("readlink {here}/{name}.link")), "a");
        docker
            .run(&format!("cp {name}:/no/such {here}/x"))
            .fails(1, &format!("Could not find the file /no/such in container {name}"));
        docker
            .run(&format!("cp {here}/tree {name}:/no/such/place"))
            .fails(1, "");
        docker.run(&format!("cp {here}/tree {name}:/into/a")).fails(1, "cannot");
    }
    assert_eq!(
        docker.ok("exec running cat /into/sub/b /into/tree/a /vol/file"),
        "two\none\none"
    );
    let listed = docker.ok("start -a created");
    assert!(
        listed.contains("/into/tree/sub:\nb") && listed.contains("/vol:\nfile"),
        "{listed}"
    );
}

#[test]
fn tars_go_in_and_out_through_standard_streams() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh(
            "-d --name box",
            "mkdir -p /d/s; echo x > /d/a; ln -s /d /l; touch /d/s/b; sleep 1000",
        )
        .ok();
    lab::eventually("the files are there", 10, || docker.run("exec box ls /d/s/b").is_ok());
    assert_eq!(names_in(&lab, &docker, "cp box:/d -"), ["d/", "d/a", "d/s/", "d/s/b"]);
    assert_eq!(names_in(&lab, &docker, "cp box:/d/. -"), ["./", "./a", "./s/", "./s/b"]);
    assert_eq!(names_in(&lab, &docker, "cp box:/l -"), ["l"]);
    assert_eq!(names_in(&lab, &docker, "cp box:/l/ -"), ["l/", "l/a", "l/s/", "l/s/b"]);
    assert_eq!(names_in(&lab, &docker, "cp box:/d/a -"), ["a"]);
    let tar = lab.host.directory().join("in.tar");
    let from = place(&lab, "from");
    std::fs::write(from.join("f"), "in\n").unwrap();
    lab.host.run(&format!(
        "cd {} && tar --owner=1234 --group=1235 -cf {} f",
        from.display(),
        tar.display()
    ));
    let bytes = std::fs::read(&tar).unwrap();
    docker.fed(&["cp", "-", "box:/d/s"], &bytes).ok();
    assert_eq!(docker.ok("exec box stat -c %u:%g /d/s/f"), "1234:1235");
    docker.fed(&["cp", "-", "box:/l"], &bytes).ok();
    assert_eq!(docker.ok("exec box cat /d/f"), "in");
    docker
        .fed(&["cp", "-", "box:/d/a"], &bytes)
        .fails(1, "must be a directory");
    docker
        .fed(&["cp", "-", "box:/nope"], &bytes)
        .fails(1, "must be a directory");
    docker.fed(&["cp", "-", "box:/d"], &[b'x'; 2000]).fails(1, "");
    docker.ok("run -d --name sealed --read-only -v shut:/shut:ro -v open:/open busybox sleep 1000");
    docker
        .fed(&["cp", "-", "sealed:/tmp"], &bytes)
        .fails(1, "rootfs is marked read-only");
    docker
        .fed(&["cp", "-", "sealed:/shut"], &bytes)
        .fails(1, "volume is marked read-only");
    docker.fed(&["cp", "-", "sealed:/open"], &bytes).ok();
}

#[test]
fn a_path_is_looked_at_without_being_followed() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh("-d --name box", "ln -s ../../../etc/passwd /tmp/l; sleep 1000")
        .ok();
    lab::eventually("the link is there", 10, || docker.run("exec box ls /tmp/l").is_ok());
    let head = |path: &str| {
        let line = format!(
            "curl -sI --unix-socket {} 'http://x/v1.41/containers/box/archive?path={path}'",
            daemon.socket().display()
        );
        let headers = lab.host.run(&line);
        let stat = headers.lines().find_map(|line| {
            line.to_lowercase()
                .starts_with("x-docker-container-path-stat")
                .then(|| line.split(' ').nth(1).unwrap().trim().to_owned())
        });
        stat.map(|stat| lab.host.run(&format!("echo {stat} | base64 -d")))
    };
    let link: serde_json::Value = serde_json::from_str(&head("/tmp/l").unwrap()).unwrap();
    assert_eq!(
        (&link["linkTarget"], &link["name"]),
        (&"/etc/passwd".into(), &"l".into())
    );
    assert_eq!(link["mode"], 134_218_239);
    let directory: serde_json::Value = serde_json::from_str(&head("/tmp/").unwrap()).unwrap();
    assert!(directory["mode"].as_u64().unwrap() & (1 << 31) != 0, "{directory}");
    assert_eq!(head("/nope"), None);
}

#[test]
fn no_link_leads_a_copy_out_of_the_container_not_even_one_that_changes() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let outside = place(&lab, "outside");
    std::fs::write(outside.join("secret"), "of the host\n").unwrap();
    let shown = outside.display();
    // a link that points to a path of the host, one upwards, and one that is now a directory and now a link
    let script = format!(
        "mkdir -p /real/d /host; ln -s {shown} /abs; ln -s ../../../../../../../..{shown} /up; echo inside > /real/secret; \
         while true; do ln -sfn /real /swap; ln -sfn {shown} /swap; rm -rf /t; mkdir /t; rm -rf /t; ln -s {shown} /t; done"
    );
    docker.sh("-d --name enemy", &script).ok();
    lab::eventually("the links are there", 10, || docker.run("exec enemy ls /swap").is_ok());
    let from = place(&lab, "from");
    std::fs::write(from.join("mark"), "mark\n").unwrap();
    let (from, to) = (from.display(), lab.host.directory().join("got"));
    for link in ["abs", "up"] {
        docker
            .run(&format!("cp enemy:/{link}/secret {}", to.display()))
            .fails(1, "Could not find the file");
        docker.run(&format!("cp {from}/mark enemy:/{link}/mark")).fails(1, "");
    }
    for _ in 0..25 {
        let _ = docker.run(&format!("cp {from}/mark enemy:/t/mark"));
        let _ = docker.run(&format!("cp {from}/mark enemy:/swap/mark"));
        if docker.run(&format!("cp enemy:/swap/secret {}", to.display())).is_ok() {
            assert_eq!(std::fs::read_to_string(&to).unwrap(), "inside\n");
        }
    }
    assert!(!outside.join("mark").exists(), "a copy escaped");
    assert!(daemon.is_alive());
}

#[test]
fn an_archive_that_wants_out_is_refused_or_stays_inside() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    let make = lab.host.directory().join("make.py");
    std::fs::File::create(&make)
        .unwrap()
        .write_all(
            b"import tarfile,io,sys\n\
              t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|')\n\
              def f(n,k=None,l=''):\n\
              \x20i=tarfile.TarInfo(n); i.linkname=l\n\
              \x20if k: i.type=k\n\
              \x20else: i.size=4\n\
              \x20t.addfile(i,io.BytesIO(b'mark'))\n\
              S=tarfile.SYMTYPE; H=tarfile.LNKTYPE; D=tarfile.DIRTYPE\n\
              {'dots':lambda:f('../../../../../../../sluice-mark'),\n\
              'link':lambda:[f('l',S,'/'),f('l/sluice-mark')],\n\
              'hard':lambda:[f('h',H,'../../../../../etc/hostname'),f('h')],\n\
              'through':lambda:[f('e',S,'/etc'),f('h',H,'e/hostname'),f('h')],\n\
              'swap':lambda:[f('d',D),f('d',S,'/tmp'),f('d/sluice-mark')],\n\
              'long':lambda:f('a'*70000),\n\
              'deep':lambda:f('d/'*3000+'x'),\n\
              }[sys.argv[1]]()\n\
              t.close()\n",
        )
        .unwrap();
    let name_of_host = lab.host.run("cat /etc/hostname");
    for what in ["dots", "link", "hard", "through", "swap", "long", "deep"] {
        let line = format!(
            "python3 {} {what} | {}",
            make.display(),
            docker_line(&docker, "cp - box:/tmp")
        );
        let ran = lab.host.shell(&line);
        assert!(daemon.is_alive(), "{what}: {ran}");
        for path in ["/sluice-mark", "/tmp/sluice-mark"] {
            assert!(
                !lab.host.inside(|| std::path::Path::new(path).exists()),
                "{what} escaped to {path}: {ran}"
            );
        }
        assert_eq!(lab.host.run("cat /etc/hostname"), name_of_host, "{what}: {ran}");
    }
    assert_eq!(docker.ok("exec box echo alive"), "alive");
}

#[test]
fn changes_are_told_as_docker_tells_them() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh("--name base", "mkdir -p /opq/x; touch /opq/f /opq/g /opq/x/k")
        .ok();
    docker.ok("commit base changed");
    docker
        .words(&[
            "run",
            "--name",
            "box",
            "changed",
            "sh",
            "-c",
            "rm -r /opq; mkdir /opq; echo new > /opq/n; rm /etc/group; echo x >> /etc/passwd; mkdir -p /n/e; touch /n/e/f; mkfifo /ff",
        ])
        .ok();
    let told = docker.ok("diff box");
    assert_eq!(
        lines(&told),
        [
            "A /ff",
            "A /n",
            "A /n/e",
            "A /n/e/f",
            "A /opq/n",
            "C /etc",
            "C /etc/passwd",
            "C /opq",
            "D /etc/group",
            "D /opq/f",
            "D /opq/g",
            "D /opq/x"
        ]
    );
    docker.ok("create --name untouched busybox true");
    assert_eq!(docker.ok("diff untouched"), "");
    docker.ok("run --name idle busybox true");
    assert_eq!(docker.ok("diff idle"), "", "what is made for mounts is nobody's change");
    docker.ok("commit idle idle:1");
    assert_eq!(
        docker.inspect("idle:1", "{{len .RootFS.Layers}}"),
        docker.inspect("busybox", "{{len .RootFS.Layers}}")
    );
}

#[test]
fn an_export_is_the_whole_tree_without_what_is_mounted() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh(
            "-d --name box -v data:/vol",
            "echo x > /vol/a; echo y > /kept; rm /etc/group; sleep 1000",
        )
        .ok();
    lab::eventually("the files are there", 10, || docker.run("exec box cat /kept").is_ok());
    let names = names_in(&lab, &docker, "export box");
    let has = |name: &str| names.iter().any(|other| other == name);
    assert!(
        has("kept") && has("etc/passwd") && has("vol/") && has("bin/busybox"),
        "{names:?}"
    );
    assert!(
        !has("etc/group") && !has("vol/a") && !names.iter().any(|name| name.len() > 5 && name.starts_with("proc/")),
        "{names:?}"
    );
    docker.ok("stop -t 0 box");
    let stopped = names_in(&lab, &docker, "export box");
    assert_eq!(stopped.len(), names.len());
    docker.run("export nobody").fails(1, "");
    docker.import(&lab.host.directory().join("out.tar"), "again", &[]);
    assert_eq!(docker.ok("run --rm again cat /kept"), "y");
}

#[test]
fn an_image_is_made_of_a_container_with_what_it_changed() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.sh("--name box -e COLOUR=blue", "echo new > /new; rm /etc/group; ln /new /same; mkfifo /pipe; chmod 4755 /new; truncate -s 20M /sparse; mkdir /d; chown 7:8 /d")
        .ok();
    let id = docker
        .words(&[
            "commit",
            "-a",
            "me",
            "-m",
            "a word",
            "-c",
            "CMD [\"cat\",\"/new\"]",
            "-c",
            "ENV SHAPE=round",
            "-c",
            "LABEL who=me",
            "-c",
            "EXPOSE 80",
            "-c",
            "WORKDIR /d",
            "-c",
            "USER 1000",
            "box",
            "made:1",
        ])
        .ok();
    assert_eq!(docker.inspect("made:1", "{{.Id}}"), id);
    assert_eq!(
        docker.inspect(
            "made:1",
            "{{.Author}},{{.Comment}},{{.Config.WorkingDir}},{{.Config.User}}"
        ),
        "me,a word,/d,1000"
    );
    assert!(
        docker
            .inspect("made:1", "{{json .Config.Env}}")
            .contains("\"COLOUR=blue\"")
    );
    assert_eq!(docker.inspect("made:1", "{{len .RootFS.Layers}}"), "2");
    assert_eq!(docker.ok("run --rm made:1"), "new");
    let seen = docker.words(&["run", "--rm", "-u", "0", "made:1", "sh", "-c", "stat -c '%a %h' /new; ls /etc/group 2>/dev/null; stat -c %F /pipe; stat -c %u:%g /d; stat -c %s /sparse; echo $COLOUR $SHAPE"]).ok();
    assert_eq!(seen, "4755 2\nfifo\n7:8\n20971520\nblue round");
    let steps = docker.ok("history --format {{.Comment}} made:1");
    assert!(steps.starts_with("a word"), "{steps}");
    docker.run("commit -c RUN box").fails(1, "");
    docker.run("commit box BAD").fails(1, "must be lowercase");
    docker.run("commit nobody").fails(1, "No such container: nobody");
    docker.ok("rm box");
    assert_eq!(docker.ok("run --rm made:1"), "new");
    // one that runs is frozen for it, and goes on
    docker.ok("run -d --name live busybox sleep 1000");
    docker.ok("commit live live:1");
    assert_eq!(docker.inspect("live", "{{.State.Status}}"), "running");
    assert_eq!(docker.ok("exec live echo on"), "on");
}

#[test]
fn a_reader_who_goes_away_in_the_middle_holds_nobody_up() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.sh("--name big", "head -c 50000000 /dev/urandom > /big").ok();
    for what in ["export big", "cp big:/big -"] {
        lab.host
            .shell(&format!("{} | head -c 1000 > /dev/null", docker_line(&docker, what)));
    }
    std::thread::sleep(Duration::from_millis(10));
    docker.ok("start big");
    docker.ok("wait big");
    docker.ok("rm big");
    assert_eq!(docker.ok("ps -aq"), "");
}

#[test]
fn owners_go_along_when_asked_and_large_files_come_whole() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let here = place(&lab, "here");
    std::fs::write(here.join("f"), "mine\n").unwrap();
    std::os::unix::fs::symlink("f", here.join("link")).unwrap();
    lab.host.run(&format!("chown 77:78 {}/f", here.display()));
    let script =
        "echo x > /f; chown 1234:1235 /f; truncate -s 100M /sparse; echo end >> /sparse; touch /ready; sleep 1000";
    docker.sh("-d --name box", script).ok();
    docker.sh("-d --name user -u ada", "sleep 1000").ok();
    eventually("the files are there", 30, || docker.run("exec box ls /ready").is_ok());
    let here = here.display();
    let of_host = |name: &str, what: &str| lab.host.run(&format!("stat -c {what} {here}/{name}"));

    docker.ok(&format!("cp box:/f {here}/plain"));
    docker.ok(&format!("cp -a box:/f {here}/kept"));
    assert_eq!(
        (of_host("plain", "%u:%g"), of_host("kept", "%u:%g")),
        ("0:0".into(), "0:0".into())
    );
    docker.ok(&format!("cp {here}/f box:/plain"));
    docker.ok(&format!("cp -a {here}/f box:/kept"));
    if daemon.is_ours() {
        // Docker looks for the container's user on the host
        docker.ok(&format!("cp {here}/f user:/plain"));
        docker.ok(&format!("cp -a {here}/f user:/kept"));
        assert_eq!(docker.ok("exec user stat -c %u:%g /plain /kept"), "77:78\n1000:1000");
    }
    assert_eq!(docker.ok("exec box stat -c %u:%g /plain /kept"), "77:78\n77:78");
    docker.ok(&format!("cp {here}/link box:/link"));
    docker.ok(&format!("cp -L {here}/link box:/followed"));
    assert_eq!(
        docker.ok("exec box stat -c %F /link /followed"),
        "symbolic link\nregular file"
    );

    docker.ok(&format!("cp box:/sparse {here}/sparse"));
    assert_eq!(of_host("sparse", "%s"), "104857604");
    assert_eq!(lab.host.run(&format!("tail -c 4 {here}/sparse")), "end");
    docker.ok(&format!("cp {here}/sparse box:/back"));
    docker.ok("exec box cmp /sparse /back");
}

#[test]
fn what_a_program_may_stays_with_it_in_an_image() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .sh(
            "-d --name box",
            "cp /bin/busybox /bin/busybox-able; touch /ready; sleep 1000",
        )
        .ok();
    eventually("the file is there", 30, || docker.run("exec box ls /ready").is_ok());
    let able = |name: &str| CString::new(format!("/proc/{}/root/bin/busybox-able", docker.pid(name))).unwrap();
    // CAP_NET_RAW, permitted and effective: capabilities(7), revision 2
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_attribute(&able("box"), c"security.capability", &capability);
    set_attribute(&able("box"), c"user.colour", b"blue");
    docker.ok("commit box able:1");
    docker.ok("run -d --name again able:1 sleep 1000");
    assert_eq!(
        attribute(&able("again"), c"security.capability").as_deref(),
        Some(&capability[..])
    );
    if daemon.is_ours() {
        // Docker forgets these
        assert_eq!(attribute(&able("again"), c"user.colour").as_deref(), Some(&b"blue"[..]));
    }
    let said = docker
        .ok("run --rm -u 1000 --cap-drop ALL --cap-add NET_RAW able:1 busybox-able grep CapEff /proc/self/status");
    assert!(said.ends_with("0000000000002000"), "{said}");
}

fn set_attribute(path: &CStr, name: &CStr, value: &[u8]) {
    // SAFETY: both are C strings, the value has the length given; all outlive the call.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(done, 0, "{path:?}: {}", std::io::Error::last_os_error());
}

fn attribute(path: &CStr, name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    // SAFETY: both are C strings, the buffer has the length given; all outlive the call.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}
