//! What a container may not.

use lab::{Lab, start};

#[test]
fn a_container_has_dockers_capabilities_filter_and_hidden_paths() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    let status = docker.ok("exec box cat /proc/1/status");
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    assert_eq!(field("CapEff:"), "00000000a80425fb", "the fourteen of Docker");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2", "calls are filtered");
    assert!(
        docker.words(&["exec", "box", "unshare", "-m", "true"]).code() != Some(0),
        "no new namespaces"
    );
    assert!(!docker.run("exec box mount -t tmpfs none /mnt").is_ok());
    assert_eq!(
        docker
            .words(&[
                "exec",
                "box",
                "sh",
                "-c",
                "cat /proc/kcore | head -c 1; cat /proc/timer_list 2>/dev/null"
            ])
            .stdout,
        ""
    );
    assert!(
        !docker
            .words(&["exec", "box", "sh", "-c", "echo 1 > /proc/sys/kernel/panic"])
            .is_ok(),
        "/proc/sys is read-only"
    );
    assert!(
        !docker
            .words(&["exec", "box", "sh", "-c", "echo b > /proc/sysrq-trigger"])
            .is_ok()
    );
    assert!(
        !docker
            .words(&[
                "exec",
                "box",
                "sh",
                "-c",
                "mknod /tmp/vda b 254 0 && head -c 1 /tmp/vda"
            ])
            .is_ok(),
        "devices are out of reach"
    );
    let devices = docker.ok("exec box ls /dev");
    for device in [
        "null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "ptmx", "fd", "stdin", "stdout",
        "stderr",
    ] {
        assert!(
            devices.lines().any(|line| line == device),
            "/dev/{device} is missing:\n{devices}"
        );
    }
}

#[test]
fn processes_of_the_host_and_of_neighbours_are_out_of_sight() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name neighbour busybox sleep 4321");
    docker.ok("run -d --name box busybox sleep 1000");
    let processes = docker.ok("exec box ps");
    assert!(
        !processes.contains("4321") && !processes.contains("sluiced"),
        "{processes}"
    );
    let own = docker.ok("exec box ls /proc/1/ns -l");
    let hosts = lab.host.run("ls /proc/self/ns -l");
    for kind in ["pid", "mnt", "net", "uts", "ipc"] {
        let of = |list: &str| {
            list.split_whitespace()
                .find(|word| word.starts_with(&format!("{kind}:[")))
                .map(str::to_owned)
        };
        assert!(of(&own).is_some() && of(&own) != of(&hosts), "{kind}: {own} {hosts}");
    }
}
