//! What a container may use: to be seen by `inspect`, within, and when it is too much.

use lab::{Lab, start};

/// Prints a limit by its name in a v1 hierarchy, else by that in the unified tree.
fn limit(v1: &str, v2: &str) -> String {
    format!("for f in {v1} {v2}; do cat /sys/fs/cgroup/$f 2>/dev/null && break; done")
}

#[test]
fn limits_are_to_be_seen_by_inspect_and_within() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok(
        "run -d --name box -m 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 -c 512 --cpuset-cpus 0 \
         --cpuset-mems 0 --pids-limit 50 --shm-size 1m --oom-score-adj 77 --ulimit nofile=100:200 --ulimit core=0 \
         busybox sleep 1000",
    );
    let shown = docker.inspect(
        "box",
        "{{with .HostConfig}}{{.Memory}}/{{.MemorySwap}}/{{.MemoryReservation}}/{{.NanoCpus}}/{{.CpuShares}}/{{.CpusetCpus}}/\
         {{.PidsLimit}}/{{.ShmSize}}/{{.OomScoreAdj}}{{end}}",
    );
    assert_eq!(shown, "67108864/100663296/33554432/500000000/512/0/50/1048576/77");
    let inside = |command: &str| docker.words(&["exec", "box", "sh", "-c", command]).ok();
    assert_eq!(inside(&limit("memory/memory.limit_in_bytes", "memory.max")), "67108864");
    assert_eq!(
        inside(&limit("memory/memory.soft_limit_in_bytes", "memory.low")),
        "33554432"
    );
    assert_eq!(inside(&limit("pids/pids.max", "pids.max")), "50");
    assert_eq!(inside(&limit("cpuset/cpuset.cpus", "cpuset.cpus")), "0");
    let quota = inside(&limit("cpu/cpu.cfs_quota_us", "cpu.max"));
    assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{quota}");
    let shares = inside(&limit("cpu/cpu.shares", "cpu.weight"));
    assert!(["512", "20"].contains(&shares.as_str()), "{shares}");
    assert_eq!(inside("ulimit -n; ulimit -H -n; ulimit -c"), "100\n200\n0");
    assert_eq!(inside("cat /proc/1/oom_score_adj"), "77");
    let memory = inside("df -k /dev/shm | tail -n 1");
    assert!(memory.split_whitespace().nth(1) == Some("1024"), "{memory}");
}

#[test]
fn a_container_that_eats_too_much_is_reported_as_killed_for_that() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let ran = docker.run("run --name hungry -m 16m --memory-swap 16m busybox tail /dev/zero");
    assert_eq!(ran.code(), Some(137), "{ran}");
    assert_eq!(docker.inspect("hungry", "{{.State.OOMKilled}}"), "true");
    let now: u64 = lab.host.run("date +%s").trim().parse().unwrap();
    let events = docker.ok(&format!(
        "events --since 0 --until {} --filter container=hungry --format {{{{.Action}}}}",
        now + 1
    ));
    assert!(events.lines().any(|action| action == "oom"), "{events}");
}

#[test]
fn limits_that_make_no_sense_are_refused_in_dockers_words() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    for (options, words) in [
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
        ("-m 64m --memory-swap 32m", "should be larger than memory limit"),
        ("-m 64m --memory-reservation 128m", "less than memory reservation limit"),
        ("--cpus 1 --cpu-quota 5000", "Conflicting options"),
        ("--cpuset-cpus 99", "Requested CPUs are not available"),
        ("--oom-score-adj 2000", "range for oom score adj is [-1000, 1000]"),
    ] {
        docker.run(&format!("create {options} busybox")).fails(1, words);
    }
    assert_eq!(docker.ok("ps -aq"), "");
}

#[test]
fn block_devices_have_rates() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let Some(disk) = disk() else {
        eprintln!("passed over: this machine has no disk");
        return;
    };
    docker.ok(&format!(
        "run -d --name box --device-write-bps {disk}:1mb --device-read-iops {disk}:77 busybox sleep 1000"
    ));
    let command = limit("blkio/blkio.throttle.write_bps_device", "io.max");
    let shown = docker.words(&["exec", "box", "sh", "-c", &command]).ok();
    assert!(shown.contains("1048576"), "{shown}");
    let shown = docker.inspect("box", "{{json .HostConfig.BlkioDeviceReadIOps}}");
    assert_eq!(shown, format!("[{{\"Path\":\"{disk}\",\"Rate\":77}}]"));
}

fn disk() -> Option<String> {
    ["vda", "sda", "nvme0n1"]
        .into_iter()
        .map(|name| format!("/dev/{name}"))
        .find(|path| std::path::Path::new(path).exists())
}

#[test]
fn limits_are_changed_while_it_runs() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box -m 64m --memory-swap 64m --pids-limit 50 busybox sleep 1000");
    docker
        .run("update -m 512m box")
        .fails(1, "Memory limit should be smaller than already set memoryswap limit");
    docker.ok(
        "update -m 96m --memory-swap 128m --memory-reservation 48m --pids-limit 77 -c 256 --cpus 0.75 --cpuset-cpus 0 box",
    );
    let shown = "{{with .HostConfig}}{{.Memory}}/{{.MemorySwap}}/{{.MemoryReservation}}/{{.PidsLimit}}/{{.CpuShares}}/\
                 {{.NanoCpus}}/{{.CpusetCpus}}{{end}}";
    let wanted = "100663296/134217728/50331648/77/256/750000000/0";
    assert_eq!(docker.inspect("box", shown), wanted);
    let inside = |command: &str| docker.words(&["exec", "box", "sh", "-c", command]).ok();
    let memory = limit("memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(inside(&memory), "100663296");
    assert_eq!(inside(&limit("pids/pids.max", "pids.max")), "77");
    let reserved = limit("memory/memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(inside(&reserved), "50331648");
    assert_eq!(inside(&limit("cpuset/cpuset.cpus", "cpuset.cpus")), "0");
    let quota = limit("cpu/cpu.cfs_quota_us", "cpu.max");
    let quarters = ["75000", "75000 100000"];
    assert!(quarters.contains(&inside(&quota).as_str()), "{}", inside(&quota));
    docker.ok("restart -t 0 box");
    assert_eq!(inside(&memory), "100663296");
    docker.ok("rm -f box");
}

#[test]
fn a_container_is_below_the_cgroup_that_was_asked_for_and_takes_away_what_it_brought() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let group = format!("{}-group", lab.host.name());
    let places = |name: &str| lab.host.run(&format!("find /sys/fs/cgroup -type d -path '*/{name}'"));
    docker.ok(&format!(
        "run -d --name box --cgroup-parent /{group}/part -m 64m --pids-limit 50 busybox sleep 1000"
    ));
    let id = docker.inspect("box", "{{.Id}}");
    let pid = docker.inspect("box", "{{.State.Pid}}");
    assert_eq!(
        docker.inspect("box", "{{.HostConfig.CgroupParent}}"),
        format!("/{group}/part")
    );
    let own = lab.host.run(&format!("cat /proc/{pid}/cgroup"));
    assert!(
        own.lines().any(|line| line.ends_with(&format!("/{group}/part/{id}"))),
        "{own}"
    );
    let limit = lab.host.run(&format!(
        "cat /sys/fs/cgroup/memory/{group}/part/{id}/memory.limit_in_bytes /sys/fs/cgroup/{group}/part/{id}/memory.max 2>/dev/null; true"
    ));
    assert_eq!(limit, (64 << 20).to_string());
    docker.ok("update --pids-limit 60 box");
    docker.ok("pause box");
    docker.ok("unpause box");
    let line = docker.ok("stats --no-stream --format {{.PIDs}} box");
    assert_eq!(line, "1");
    docker.ok("rm -f box");
    assert_eq!(places(&id), "");
    if daemon.is_ours() {
        assert_eq!(places(&group), "", "what was made for it goes with it");
    }
    if daemon.is_ours() {
        docker
            .run("run --rm --cgroup-parent ../../out busybox true")
            .fails(125, "invalid cgroup parent");
    }
    // what somebody else made is his
    let theirs = format!("{group}-theirs");
    lab.host.run(&format!("for tree in /sys/fs/cgroup/pids /sys/fs/cgroup/unified /sys/fs/cgroup; do mkdir -p $tree/{theirs} 2>/dev/null && made=1; done; [ -n \"$made\" ]"));
    docker.ok(&format!("run --rm --cgroup-parent {theirs} busybox true"));
    assert!(!places(&theirs).is_empty());
    lab.host.run(&format!(
        "find /sys/fs/cgroup -depth -type d -path '*/{theirs}' -exec rmdir {{}} +"
    ));
}
