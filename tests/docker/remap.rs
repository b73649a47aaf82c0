//! Containers whose users are others on the host: `--userns-remap`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lab::{Daemon, Docker, Guard, Lab, Ran, Registry, start};

use crate::builds::{build, context};

/// First user and group of the host that containers get in these tests.
const USER: u32 = 231_072;
const GROUP: u32 = 331_072;

/// A daemon that remaps, in a host with ids to give.
fn remapping(lab: &Lab) -> Daemon {
    lab.host.run(
        "mount -t tmpfs tmpfs /mnt && echo nobody:231072:65536 >/mnt/subuid && echo nobody:331072:65536 >/mnt/subgid",
    );
    lab.host
        .run("mount --bind /mnt/subuid /etc/subuid && mount --bind /mnt/subgid /etc/subgid");
    start(lab, "--userns-remap nobody:nogroup")
}

fn sh(docker: &Docker, options: &str, script: &str) -> Ran {
    let mut words: Vec<&str> = vec!["run", "--rm"];
    words.extend(options.split_whitespace());
    words.extend(["busybox", "sh", "-c", script]);
    docker.words(&words)
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let path = path.as_ref();
    let found = std::fs::symlink_metadata(path).unwrap_or_else(|why| panic!("look at {}: {why}", path.display()));
    (found.uid(), found.gid())
}

#[test]
fn containers_with_users_of_their_own_find_each_other_by_name() {
    let lab = Lab::new();
    let daemon = remapping(&lab);
    let docker = daemon.docker();
    docker.ok("network create mine");
    docker.ok("run -d --name web --network mine --network-alias www busybox sleep 1000");
    docker.ok("run -d --name asker --network mine busybox sleep 1000");
    for name in ["web", "www.mine"] {
        docker.ok(&format!("exec asker ping -c 1 -W 5 {name}"));
    }
    // as a user without any rights, too
    let web = docker.inspect("web", "{{.NetworkSettings.Networks.mine.IPAddress}}");
    let told = docker.run("exec -u ada asker nslookup -type=a www 127.0.0.11");
    assert!(told.stdout.contains(&web), "{told}");
}

#[test]
fn root_of_a_container_is_nobody_of_the_host() {
    let lab = Lab::new();
    let daemon = remapping(&lab);
    let docker = daemon.docker();
    assert!(docker.ok("info --format {{.SecurityOptions}}").contains("name=userns"));
    docker
        .words(&[
            "run",
            "-d",
            "--name",
            "box",
            "-v",
            "data:/data",
            "--mount",
            "type=tmpfs,dst=/memory",
            "busybox",
            "sh",
            "-c",
            "touch /made; sleep 1000",
        ])
        .ok();
    let said = docker
        .words(&[
            "exec",
            "box",
            "sh",
            "-c",
            "id -u; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map",
        ])
        .ok();
    assert_eq!(said, "0\n 0 231072 65536\n 0 331072 65536");

    let pid = docker.inspect("box", "{{.State.Pid}}");
    assert_eq!(owner(format!("/proc/{pid}")), (USER, GROUP), "its processes");
    let upper = docker.inspect("box", "{{.GraphDriver.Data.UpperDir}}");
    let made = || owner(Path::new(&upper).join("made"));
    lab::eventually("the file is made", 20, || Path::new(&upper).join("made").exists());
    assert_eq!(made(), (USER, GROUP), "what it makes");
    let data = docker.inspect("data", "{{.Mountpoint}}");
    assert_eq!(owner(&data), (USER, GROUP), "its volumes");

    // all that it has is its own, from within
    let places = "/ /bin/busybox /home/ada /made /data /memory /dev /dev/pts /dev/shm /etc/hosts /proc/1 /var/tmp";
    let owners = docker.ok(&format!("exec box stat -c %u:%g {places}"));
    assert!(owners.lines().all(|owner| owner == "0:0"), "{owners}");
    docker
        .words(&[
            "exec",
            "box",
            "sh",
            "-c",
            "echo 10.9.8.7 friend >>/etc/hosts && chown ada /made && mkdir -m 700 /data/own",
        ])
        .ok();
    assert_eq!(made(), (USER + 1000, GROUP));
    assert_eq!(docker.ok("exec -u ada box id -un"), "ada");
    assert_eq!(
        docker
            .words(&[
                "exec",
                "-u",
                "ada",
                "box",
                "sh",
                "-c",
                "echo out; echo err >/dev/stderr; echo again >/dev/stdout"
            ])
            .ok(),
        "out\nagain"
    );
    assert_eq!(docker.ok("exec -t -u ada box stat -c %u /dev/pts/0"), "1000");

    if daemon.is_ours() {
        // under the stock engine devices are the host's
        assert_eq!(docker.ok("exec box stat -c %u:%g /dev/null"), "0:0");
    }

    // the host's things stay the host's
    lab.host
        .run("mkdir /mnt/bound && echo secret >/mnt/bound/file && chmod 600 /mnt/bound/file && chmod 755 /mnt/bound");
    let bound = sh(
        &docker,
        "-v /mnt/bound:/bound",
        "stat -c %u:%g /bound/file; cat /bound/file || touch /bound/x || echo refused",
    );
    assert_eq!(bound.ok(), "65534:65534\nrefused");
    assert!(
        !docker
            .words(&["exec", "box", "sh", "-c", "echo 1 >/proc/sys/kernel/panic"])
            .is_ok()
    );
    docker.ok("rm -f box");
    assert_eq!(docker.ok("ps -aq"), "");
}

#[test]
fn a_remapped_container_configures_its_own_network_and_no_other() {
    let lab = Lab::new();
    let daemon = remapping(&lab);
    let docker = daemon.docker();
    docker.ok("run -d --name box --cap-add NET_ADMIN busybox sleep 1000");
    docker.ok("exec box ip link set eth0 mtu 1300");
    docker.ok("exec box ip addr add 10.66.0.1/24 dev lo");
    assert!(docker.ok("exec box ip addr show dev lo").contains("10.66.0.1/24"));
    docker.ok("run -d --name server busybox sleep 1000");
    let server = docker.address("server");
    docker.ok(&format!("exec box ping -c 1 -W 5 {server}"));
    // who shares another's network or processes shares its users too
    let shared = sh(
        &docker,
        "--net container:box --cap-add NET_ADMIN",
        "ip addr del 10.66.0.1/24 dev lo && ls /sys/class/net && id -u",
    );
    assert_eq!(shared.ok(), "eth0\nlo\n0");
    let shared = sh(
        &docker,
        "--pid container:box",
        "ps | grep -c 'sleep 1000' && readlink /proc/self/ns/user",
    );
    let user = docker.ok("exec box readlink /proc/self/ns/user");
    assert!(shared.ok().ends_with(&user), "{user}");
    // at a restart it is all there again
    docker.ok("restart -t 0 box");
    docker.ok("exec box ip link set eth0 mtu 1280");
    if daemon.is_ours() {
        // nobody but root may ping under the stock engine
        let groups = docker.ok("exec -u ada box cat /proc/sys/net/ipv4/ping_group_range");
        assert_eq!(groups, "0\t65535");
    }
}

#[test]
fn files_go_in_and_out_of_a_remapped_container_with_its_own_owners() {
    let lab = Lab::new();
    let daemon = remapping(&lab);
    let docker = daemon.docker();
    docker
        .words(&[
            "run", "--name", "box", "-v", "vol:/home/ada", "busybox", "sh", "-c",
            "mkdir -p /own/deep && echo x >/own/deep/f && chown -R ada:engineers /own && rm /var/tmp -r && chown ada /etc/passwd",
        ])
        .ok();
    let filled = docker.inspect("vol", "{{.Mountpoint}}");
    assert_eq!(owner(&filled), (USER, GROUP), "a volume filled from the image");
    // out
    let listing = |tar: &str| {
        lab.host.run(&format!(
            "tar --numeric-owner -tvf {tar} | awk '{{print $2, $6}}' | sort"
        ))
    };
    lab.host.run(&format!(
        "DOCKER_HOST=unix://{} docker cp box:/own - >/mnt/out.tar",
        daemon.socket().display()
    ));
    // the stock engine names the host's owners
    if daemon.is_ours() {
        assert_eq!(
            listing("/mnt/out.tar"),
            "1000/2000 own/\n1000/2000 own/deep/\n1000/2000 own/deep/f"
        );
    }
    docker.ok("export box -o /mnt/export.tar");
    let exported = listing("/mnt/export.tar");
    assert!(
        exported.contains("0/0 bin/busybox") && exported.contains("1000/2000 own/deep/f"),
        "{exported}"
    );
    // in
    lab.host
        .run("mkdir -p /mnt/in/sub && echo y >/mnt/in/sub/g && chown -R 7:8 /mnt/in");
    docker.ok("cp -a /mnt/in box:/in");
    docker.ok("cp /mnt/in/sub/g box:/home/ada/g");
    docker.ok("start box");
    docker.ok("wait box");
    let upper = docker.inspect("box", "{{.GraphDriver.Data.UpperDir}}");
    assert_eq!(owner(Path::new(&upper).join("in/sub/g")), (USER + 7, GROUP + 8));
    let changes = docker.ok("diff box");
    assert!(
        changes.contains("C /etc/passwd") && changes.contains("D /var/tmp") && changes.contains("A /own"),
        "{changes}"
    );
    assert!(!changes.contains("/bin"), "{changes}");
    // an image has the container's owners, whoever makes a container of it
    docker.ok("commit box made");
    // under the stock engine the host's users see the host's ids
    let users = if daemon.is_ours() {
        &["", "--userns host"][..]
    } else {
        &[""]
    };
    for options in users {
        let words = format!("run --rm {options} made stat -c %u:%g /own/deep/f /in/sub/g /etc/passwd /bin/busybox");
        assert_eq!(docker.ok(&words), "1000:2000\n7:8\n1000:0\n0:0", "{options}");
    }
}

#[test]
fn images_are_built_pushed_pulled_and_loaded_with_the_owners_that_containers_see() {
    if !Registry::is_installed() {
        return lab::skipped("docker-registry is not installed");
    }
    let lab = Lab::new();
    let registry = Registry::start(&lab.host, 5000, Guard::Open);
    let daemon = remapping(&lab);
    if !daemon.is_ours() {
        return lab::skipped("with --userns-remap the stock engine copies only root's files from stage to stage");
    }
    let docker = daemon.docker();
    let made = context(
        &lab,
        "remapped",
        &[
            (
                "Dockerfile",
                "FROM busybox AS one\n\
                 RUN tr -s ' ' </proc/self/uid_map && touch /by-root && mkdir -m 700 /own && chown ada:engineers /own\n\
                 USER ada\n\
                 RUN echo x > /own/by-ada && ! touch /etc/by-ada 2>/dev/null && ! cat /proc/1/environ 2>/dev/null | grep -q SECRET\n\
                 FROM busybox\n\
                 WORKDIR /new/work\n\
                 COPY --from=one /by-root /own/by-ada /taken/\n\
                 COPY --from=one --chown=ada:engineers /own /given\n\
                 COPY file /copied/\n\
                 COPY --chown=7:8 file /chosen/\n\
                 ADD tree.tar /added/\n\
                 RUN stat -c 'in the next step: %u:%g' /given/by-ada && chown 9:10 /added/tree/file && chmod 700 /given\n",
            ),
            ("file", "f"),
            ("tree/file", "t"),
        ],
    );
    lab.host.run(&format!(
        "cd {} && chmod 644 tree/file && tar --owner=5 --group=6 -cf tree.tar tree && chown 3:4 file",
        made.display()
    ));
    let name = registry.name("remapped:1");
    let said = build(&daemon, &made, &format!("--network none -t {name}")).ok();
    assert!(
        said.contains(" 0 231072 65536"),
        "steps have users of their own: {said}"
    );
    assert!(said.contains("in the next step: 1000:2000"), "{said}");

    let places = "/new/work /taken/by-root /taken/by-ada /given /given/by-ada /copied/file /chosen/file /added/tree /added/tree/file /bin/busybox";
    let owners = "0:0\n0:0\n0:0\n1000:2000\n1000:2000\n0:0\n7:8\n5:6\n9:10\n0:0";
    let look = |when: &str| {
        for options in ["", "--userns host"] {
            let line = format!("run --rm --network none {options} {name} stat -c %u:%g {places}");
            assert_eq!(docker.ok(&line), owners, "{when}, {options}");
        }
        // and its user may do there what he may
        let line = format!("run --rm --network none -u ada {name} cat /given/by-ada");
        assert_eq!(docker.ok(&line), "x", "{when}");
        assert!(
            !docker
                .run(&format!("run --rm --network none -u nobody {name} ls /given"))
                .is_ok(),
            "{when}"
        );
    };
    look("built");
    let built = docker.inspect(&name, "{{.Id}} {{.RootFS.Layers}}");
    let again = build(&daemon, &made, "--network none -t again").ok();
    assert!(!again.contains("Running in"), "the cache holds: {again}");
    docker.ok("rmi again");

    docker.ok(&format!("push {name}"));
    let tar = lab.host.directory().join("remapped.tar").display().to_string();
    docker.ok(&format!("save -o {tar} {name}"));
    for (when, bring) in [("pulled", format!("pull {name}")), ("loaded", format!("load -i {tar}"))] {
        docker.ok(&format!("rmi {name}"));
        docker.ok("image prune -f");
        docker.ok(&bring);
        assert_eq!(docker.inspect(&name, "{{.Id}} {{.RootFS.Layers}}"), built, "{when}");
        look(when);
    }
    // what others read of it has no owner of this host
    lab.host
        .run(&format!("mkdir /mnt/saved && tar -C /mnt/saved -xf {tar}"));
    let owners = lab.host.run(
        "for layer in $(find /mnt/saved -type f -size +0); do tar --numeric-owner -tvf $layer 2>/dev/null; done | awk '{print $2}' | sort -u",
    );
    assert!(
        owners.lines().any(|owner| owner == "1000/2000") && !owners.contains("231072") && !owners.contains("331072"),
        "{owners}"
    );
}

#[test]
fn what_root_of_a_user_namespace_cannot_have_is_refused_unless_it_is_the_hosts() {
    let lab = Lab::new();
    let daemon = remapping(&lab);
    let docker = daemon.docker();
    for (options, words) in [
        (
            "--privileged",
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ),
        (
            "--net host",
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (
            "--pid host",
            "cannot share the host PID namespace when user namespaces are enabled",
        ),
    ] {
        docker
            .run(&format!("run --rm {options} busybox true"))
            .fails(125, words);
        if !daemon.is_ours() {
            continue;
        }
        let map = docker.ok(&format!(
            "run --rm --userns host {options} busybox cat /proc/self/uid_map"
        ));
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"]);
    }
    assert!(!docker.run("run --rm --ipc host busybox true").is_ok());
    docker
        .run("run --rm --userns mine busybox true")
        .fails(125, "invalid USER mode");
}
