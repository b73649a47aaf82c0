//! With whom a container shares, and what it is kept from or let to.

use std::fs;

use lab::{Docker, Lab, start};

fn inside(docker: &Docker, name: &str, command: &str) -> String {
    docker.words(&["exec", name, "sh", "-c", command]).ok()
}

fn of_host(namespace: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{namespace}"))
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

/// A test may run where some are missing.
fn bounding_set_of_host() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.unwrap().trim().to_owned()
}

fn link(namespace: &str) -> String {
    format!("readlink /proc/self/ns/{namespace}")
}

#[test]
fn namespaces_are_its_own_the_hosts_or_anothers() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name donor --ipc shareable --shm-size 2m busybox sleep 1000");
    docker.ok("run -d --name guest --ipc container:donor --pid container:donor busybox sleep 999");
    docker.ok("run -d --name hosted --ipc host --pid host --uts host busybox sleep 998");
    docker.ok("run -d --name alone --ipc none busybox sleep 997");
    for namespace in ["ipc", "pid"] {
        let donors = inside(&docker, "donor", &link(namespace));
        assert_ne!(donors, of_host(namespace));
        assert_eq!(inside(&docker, "guest", &link(namespace)), donors);
        assert_eq!(inside(&docker, "hosted", &link(namespace)), of_host(namespace));
        assert_ne!(inside(&docker, "alone", &link(namespace)), of_host(namespace));
    }
    let another = docker.ok("run --rm --uts host busybox readlink /proc/self/ns/uts");
    assert_eq!(inside(&docker, "hosted", &link("uts")), another);
    assert_ne!(inside(&docker, "donor", &link("uts")), another);
    assert!(inside(&docker, "guest", "ps").contains("sleep 1000"), "sees the donor");
    inside(&docker, "donor", "echo hello > /dev/shm/x");
    assert_eq!(inside(&docker, "guest", "cat /dev/shm/x"), "hello");
    assert_eq!(
        inside(&docker, "alone", "test -d /dev/shm && ls /dev/shm | wc -l || echo none"),
        "none"
    );
    let donor = docker.inspect("donor", "{{.Id}}");
    assert_eq!(
        docker.inspect("guest", "{{.HostConfig.IpcMode}}"),
        format!("container:{donor}")
    );
    assert_eq!(docker.inspect("alone", "{{.HostConfig.IpcMode}}"), "none");
    docker
        .run("run --rm --ipc container:guest busybox true")
        .fails(125, "non-shareable IPC");
    docker.ok("stop -t 0 donor");
    docker
        .run("run --rm --pid container:donor busybox true")
        .fails(125, "cannot join PID");
    docker
        .run("run --rm --pid container:nobody busybox true")
        .fails(125, "No such container");
    docker
        .run("run --rm --ipc colour busybox true")
        .fails(125, "invalid IPC mode");
    docker.ok("start donor");
    assert_eq!(inside(&docker, "donor", "ls /dev/shm"), "", "new memory for a new life");
    docker.ok("rm -f donor guest hosted alone");
}

#[test]
fn a_cgroup_namespace_of_its_own_hides_where_it_is() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let private = docker.ok("run --rm --cgroupns private busybox cat /proc/self/cgroup");
    assert!(private.lines().all(|line| line.ends_with(":/")), "{private}");
    let hosts = docker.ok("run --rm --cgroupns host busybox cat /proc/self/cgroup");
    assert!(hosts.lines().any(|line| !line.ends_with(":/")), "{hosts}");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let set = |options: &str| docker.ok(&format!("run --rm {options} busybox grep CapEff /proc/self/status"));
    assert_eq!(set("--cap-drop ALL"), "CapEff:\t0000000000000000");
    assert_eq!(set("--cap-drop ALL --cap-add CHOWN"), "CapEff:\t0000000000000001");
    assert_eq!(set("--cap-add NET_ADMIN"), "CapEff:\t00000000a80435fb");
    docker
        .run("run --rm --cap-add FLY busybox true")
        .fails(125, "unknown capability");
}

#[test]
fn a_seccomp_profile_of_ones_own_decides() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let profile = std::env::temp_dir().join(format!("sluice-profile-{}.json", std::process::id()));
    fs::write(
        &profile,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_NET_ADMIN"]}}]}"#,
    )
    .unwrap();
    let option = format!("seccomp={}", profile.display());
    let run = |more: &[&str], command: &str| {
        let words = [
            &["run", "--rm", "--security-opt", option.as_str()],
            more,
            &["busybox", "sh", "-c", command],
        ]
        .concat();
        docker.words(&words)
    };
    let refused = run(&[], "mkdir /x");
    // the C library's words for ENOSYS (38), which this profile answers with
    assert!(
        !refused.is_ok() && refused.stderr.contains("not implemented"),
        "{refused}"
    );
    assert!(!run(&[], "chmod 700 /tmp").is_ok());
    assert!(run(&["--cap-add", "NET_ADMIN"], "chmod 700 /tmp").is_ok());
    let status = run(&[], "grep Seccomp: /proc/self/status").ok();
    assert_eq!(status, "Seccomp:\t2");
    fs::write(&profile, r#"{"defaultAction": "SCMP_ACT_PLAY"}"#).unwrap();
    run(&[], "true").fails(125, "ecoding seccomp profile failed");
    fs::remove_file(&profile).unwrap();
    let status = docker.ok("run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status");
    assert_eq!(status, "Seccomp:\t0");
}

#[test]
fn no_new_privileges_and_a_read_only_root_are_real() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let command = "grep NoNewPrivs /proc/self/status; echo x > /x || echo refused; echo x > /tmp/x && echo wrote";
    let said = docker
        .sh(
            "--rm --read-only --security-opt no-new-privileges --tmpfs /tmp:size=1m,mode=1777",
            command,
        )
        .ok();
    assert_eq!(said, "NoNewPrivs:\t1\nrefused\nwrote");
    docker
        .run("run --rm --tmpfs /tmp:colour=red busybox true")
        .fails(125, "invalid tmpfs option");
}

#[test]
fn a_device_is_there_with_its_permissions_and_only_those() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let run = |options: &str, command: &str| {
        let words: Vec<&str> = ["run", "--rm"]
            .into_iter()
            .chain(options.split_whitespace())
            .chain(["busybox", "sh", "-c", command])
            .collect();
        docker.words(&words)
    };
    // a device that is not among the default ones, and that to open changes nothing
    let read = "head -c 0 /dev/mine && echo read; (: > /dev/mine) 2>/dev/null && echo wrote || true";
    assert_eq!(run("--device /dev/loop-control:/dev/mine:r", read).ok(), "read");
    assert_eq!(run("--device /dev/loop-control:/dev/mine:rw", read).ok(), "read\nwrote");
    // the CLI takes "no such file or directory" for a command that is not there
    run("--device /dev/nothing", "true").fails(127, "/dev/nothing");
    let words = [
        "run",
        "--rm",
        "--device-cgroup-rule",
        "c 10:237 r",
        "busybox",
        "sh",
        "-c",
    ];
    let made = [&words[..], &["mknod /tmp/k c 10 237 && head -c 0 /tmp/k && echo read"]].concat();
    assert_eq!(docker.words(&made).ok(), "read");
    let words = ["run", "--rm", "--device-cgroup-rule", "nonsense", "busybox", "true"];
    docker.words(&words).fails(125, "invalid device cgroup");
}

#[test]
fn settings_of_its_own_namespaces_can_be_changed_and_no_others() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let said = docker.ok(
        "run --rm --sysctl net.core.somaxconn=1234 --sysctl kernel.shmmax=70000 busybox \
         cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax",
    );
    assert_eq!(said, "1234\n70000");
    // the CLI refuses by itself what it knows; this it lets through
    docker
        .run("run --rm --net host --sysctl net.core.somaxconn=1 busybox true")
        .fails(125, "not allowed in host network namespace");
}

#[test]
fn further_groups_hold_for_the_first_process_and_for_others() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box --group-add 777 --group-add 0 busybox sleep 1000");
    let groups = inside(&docker, "box", "id -G");
    assert!(groups.split(' ').any(|group| group == "777"), "{groups}");
    let first = inside(&docker, "box", "grep Groups /proc/1/status");
    assert!(first.contains("777"), "{first}");
    docker
        .run("run --rm --group-add nobodys busybox true")
        .fails(125, "nobodys");
}

#[test]
fn an_init_reaps_forwards_and_passes_the_code_on() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let said = docker.sh("--rm --init", "ps -o pid,args; exit 7");
    assert_eq!(said.code(), Some(7), "{said}");
    assert!(said.stdout.contains("1 /sbin/docker-init -- sh -c"), "{said}");
    // an orphan that ends is gone, not a zombie
    docker
        .words(&["run", "-d", "--name", "box", "--init", "busybox", "sleep", "1000"])
        .ok();
    inside(&docker, "box", "(sleep 0.1 &) ; sleep 0.5");
    assert!(!inside(&docker, "box", "ps -o stat,args").contains('Z'));
    assert_eq!(docker.inspect("box", "{{.HostConfig.Init}}"), "true");
    // sleep has no handler of TERM: as pid 1 it would be deaf, as a child of an init it ends
    docker.ok("stop -t 60 box");
    assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "143");
    docker
        .run("run --rm --init busybox no-such-program")
        .fails(127, "no-such-program");
}

#[test]
fn a_privileged_exec_may_what_its_container_may_not() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box --security-opt seccomp=unconfined busybox sleep 1000");
    let mount = "mount -t tmpfs none /tmp && echo mounted";
    assert!(!docker.words(&["exec", "box", "sh", "-c", mount]).is_ok());
    let words = ["exec", "--privileged", "box", "sh", "-c", mount];
    assert_eq!(docker.words(&words).ok(), "mounted");
    let words = [
        "exec",
        "-u",
        "1000:1001",
        "-e",
        "A=b",
        "-w",
        "/proc",
        "box",
        "sh",
        "-c",
        "id -u; id -g; echo $A; pwd",
    ];
    assert_eq!(docker.words(&words).ok(), "1000\n1001\nb\n/proc");
}

#[test]
fn a_privileged_container_has_the_hosts_devices_and_may_write_its_cgroup() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box --privileged busybox sleep 1000");
    assert!(inside(&docker, "box", "ls /dev").lines().any(|name| name == "kmsg"));
    assert_eq!(inside(&docker, "box", "head -c 0 /dev/kmsg && echo read"), "read");
    assert_eq!(
        inside(
            &docker,
            "box",
            "grep -E 'Seccomp:|CapBnd' /proc/self/status | tr '\\t\\n' '  '"
        ),
        format!("CapBnd: {} Seccomp: 0", bounding_set_of_host())
    );
    let made = "for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do mkdir $d/sub 2>/dev/null && rmdir $d/sub && echo made && break; done";
    assert_eq!(inside(&docker, "box", made), "made");
    assert_eq!(inside(&docker, "box", "test -w /proc/sys && echo yes"), "yes");
}
