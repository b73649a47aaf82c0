//! `docker run` and its flags.

use lab::{Lab, start};

#[test]
fn run_shows_the_output_and_passes_on_the_exit_code() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    assert_eq!(docker.ok("run --rm busybox echo hello"), "hello");
    let ran = docker.sh("--rm", "echo out; echo err >&2; exit 7");
    assert_eq!(
        (ran.code(), ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(7), "out\n", "err\n"),
        "{ran}"
    );
    assert_eq!(docker.ok("ps -aq"), "");
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_may_not_run_is_126_and_a_mistake_is_125() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker
        .run("run --rm busybox /no/such/program")
        .fails(127, "no such file or directory");
    docker
        .run("run --rm busybox no-such-program")
        .fails(127, "executable file not found in $PATH");
    docker
        .run("run --rm busybox /etc/passwd")
        .fails(126, "permission denied");
    docker
        .run("run --rm --no-such-flag busybox true")
        .fails(125, "unknown flag");
    docker.run("run --rm -p 99999:80 busybox true").fails(125, "");
    assert_eq!(docker.ok("ps -aq"), "", "nothing half-made is left behind");
}

#[test]
fn what_is_typed_reaches_the_program_and_its_end_too() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let ran = docker.fed(&["run", "--rm", "-i", "busybox", "sort"], b"pear\napple\n");
    assert_eq!(ran.ok(), "apple\npear");
    let many: Vec<u8> = (0..200_000_u32)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    let counted = docker.fed(&["run", "--rm", "-i", "busybox", "wc", "-c"], &many);
    assert_eq!(counted.ok(), many.len().to_string());
}

#[test]
fn a_large_output_comes_whole() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let ran = docker.run("run --rm busybox seq 1 200000");
    assert!(
        ran.stdout.len() == 1_288_895 && ran.stdout.ends_with("200000\n"),
        "{} bytes",
        ran.stdout.len()
    );
    docker.ok("run -d --name talker busybox seq 1 20000");
    docker.ok("wait talker");
    assert_eq!(docker.run("logs talker").stdout.lines().count(), 20000);
}

#[test]
fn environment_directory_user_host_name_and_entry_point_are_as_told() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let environment = docker.ok("run --rm -e COLOUR=blue -e EMPTY= busybox env");
    assert!(environment.lines().any(|line| line == "COLOUR=blue"), "{environment}");
    assert!(environment.lines().any(|line| line == "EMPTY="), "{environment}");
    assert!(
        environment
            .lines()
            .any(|line| line.starts_with("PATH=/usr/local/sbin:")),
        "{environment}"
    );
    assert!(environment.lines().any(|line| line == "HOME=/root"), "{environment}");
    assert_eq!(docker.ok("run --rm -w /var/tmp busybox pwd"), "/var/tmp");
    assert_eq!(docker.ok("run --rm -w /made/on/demand busybox pwd"), "/made/on/demand");
    assert_eq!(
        docker.ok("run --rm -u ada busybox id"),
        "uid=1000(ada) gid=1000(ada) groups=1000(ada),2000(engineers)"
    );
    assert_eq!(
        docker.ok("run --rm -u 1234:4321 busybox id"),
        "uid=1234 gid=4321 groups=4321"
    );
    docker
        .run("run --rm -u nobody-knows busybox id")
        .fails(125, "unable to find user nobody-knows");
    assert_eq!(docker.ok("run --rm -h box busybox hostname"), "box");
    assert_eq!(
        docker.ok("run --rm --entrypoint echo busybox given as arguments"),
        "given as arguments"
    );
    let id = docker.ok("run -d busybox sleep 1000");
    assert_eq!(docker.ok(&format!("exec {id} hostname")), id[..12]);
}

#[test]
fn the_files_about_names_are_the_containers_own() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box -h box busybox sleep 1000");
    let address = docker.address("box");
    let hosts = docker.ok("exec box cat /etc/hosts");
    assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    assert!(hosts.contains(&format!("{address}\tbox")), "{hosts}");
    assert_eq!(docker.ok("exec box cat /etc/hostname"), "box");
    let mounts = docker.ok("exec box cat /proc/mounts");
    for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        assert!(
            mounts.lines().any(|line| line.split_whitespace().nth(1) == Some(file)),
            "{file} is bind-mounted:\n{mounts}"
        );
    }
}

#[test]
fn directories_of_the_host_are_bound_for_reading_or_writing() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let shared = lab.host.directory().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("note"), "from the host\n").unwrap();
    let shared = shared.display();
    assert_eq!(
        docker.ok(&format!("run --rm -v {shared}:/shared busybox cat /shared/note")),
        "from the host"
    );
    docker
        .words(&[
            "run",
            "--rm",
            "-v",
            &format!("{shared}:/shared"),
            "busybox",
            "sh",
            "-c",
            "echo back > /shared/answer",
        ])
        .ok();
    assert_eq!(lab.host.run(&format!("cat {shared}/answer")), "back");
    let refused = docker.run(&format!("run --rm -v {shared}:/shared:ro busybox touch /shared/more"));
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
}

#[test]
fn a_detached_container_runs_on_under_its_name() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let id = docker.ok("run -d --name sleeper busybox sleep 1000");
    assert_eq!(id.len(), 64);
    assert_eq!(docker.ok("ps --no-trunc -q"), id);
    assert_eq!(docker.ok("ps --format {{.Names}}"), "sleeper");
    docker
        .run("run -d --name sleeper busybox sleep 1000")
        .fails(125, "is already in use");
    let unnamed = docker.ok("run -d busybox sleep 1000");
    let name = docker.inspect(&unnamed, "{{.Name}}");
    assert!(name.starts_with('/') && name.contains('_'), "a name is made up: {name}");
}
