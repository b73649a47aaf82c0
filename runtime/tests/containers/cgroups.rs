//! Limits, and the container's place in every hierarchy.

use std::{collections::HashMap, fs, path::Path};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids};

use crate::lab::{Lab, unified};

#[tokio::test]
async fn limits_are_to_be_seen_in_the_cgroup() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle("a", &["sleep", "1000"]);
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(64 << 20)).set_swap(Some(96 << 20));
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(512))
        .set_quota(Some(50_000))
        .set_period(Some(100_000))
        .set_cpus(Some("0".to_owned()));
    let mut pids = LinuxPids::default();
    pids.set_limit(50);
    bundle
        .resources()
        .set_memory(Some(memory))
        .set_cpu(Some(cpu))
        .set_pids(Some(pids));
    bundle
        .resources()
        .set_unified(Some(HashMap::from([("cgroup.max.depth".to_owned(), "7".to_owned())])));
    let pid = lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    let read = |controller: &str, v1: &str, v2: &str| {
        let directory = lab.cgroup(controller, "a");
        let name = if directory.join(v1).exists() { v1 } else { v2 };
        fs::read_to_string(directory.join(name)).unwrap().trim().to_owned()
    };
    assert_eq!(
        read("memory", "memory.limit_in_bytes", "memory.max"),
        (64 << 20).to_string()
    );
    assert_eq!(read("pids", "pids.max", "pids.max"), "50");
    assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert!(["512", "20"].contains(&read("cpu", "cpu.shares", "cpu.weight").as_str()));
    assert!(["50000", "50000 100000"].contains(&read("cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    let depth = unified().join(&lab.parent).join("a/cgroup.max.depth");
    assert_eq!(fs::read_to_string(depth).unwrap(), "7\n");
    let joined = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        joined.lines().all(|line| line.ends_with(&format!("/{}/a", lab.parent))),
        "{joined}"
    );
    let mut less = oci_spec::runtime::LinuxResources::default();
    less.set_devices(None).set_pids(Some({
        let mut pids = LinuxPids::default();
        pids.set_limit(20);
        pids
    }));
    lab.runtime.update("a", &less).await.unwrap();
    assert_eq!(read("pids", "pids.max", "pids.max"), "20");
}

#[tokio::test]
async fn a_limit_that_makes_no_sense_is_refused_and_leaves_nothing_behind() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle("a", &["true"]);
    let mut cpu = LinuxCpu::default();
    cpu.set_cpus(Some("no-cpu".to_owned()));
    bundle.resources().set_cpu(Some(cpu));
    let error = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(error.contains("cpuset.cpus to no-cpu"), "{error}");
    assert!(!lab.cgroup("cpuset", "a").exists() && lab.runtime.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_container_that_eats_too_much_is_killed_and_that_is_told() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle("a", &["sh", "-c", "head -c 200m /dev/zero | tail"]);
    let _ = std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/tail"));
    bundle
        .process()
        .set_args(Some(vec!["tail".to_owned(), "/dev/zero".to_owned()]));
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(16 << 20)).set_swap(Some(16 << 20));
    bundle.resources().set_memory(Some(memory));
    let (_, _, exit) = lab.run(&bundle).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

#[tokio::test]
async fn the_containers_root_can_not_change_its_cgroups() {
    let Some(lab) = Lab::new() else { return };
    let said = lab
        .sh(
            "a",
            "for file in $(find /sys/fs/cgroup -name '*.max' -o -name '*limit_in_bytes' -o -name cgroup.procs); do
               echo 1 > $file && echo \"wrote $file\"
             done 2>/dev/null
             for dir in $(find /sys/fs/cgroup -maxdepth 1 -type d); do mkdir $dir/sub && echo \"made $dir/sub\"; done 2>/dev/null
             find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs | wc -l",
        )
        .await;
    let (wrote, count) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    assert_eq!(wrote, "");
    assert!(count.parse::<u32>().unwrap() >= 1, "there is something to be tried");
}

#[tokio::test]
async fn cgroups_made_within_are_removed_with_the_container() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sleep", "1000"]);
    let pid = lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    for controller in ["pids", "memory", "cpu"] {
        let nested = lab.cgroup(controller, "a").join("x/y");
        fs::create_dir_all(&nested).unwrap();
        let _ = fs::write(nested.join("cgroup.procs"), pid.to_string());
    }
    fs::create_dir_all(unified().join(&lab.parent).join("a/z")).unwrap();
    lab.runtime.delete("a").await.unwrap();
    for controller in ["pids", "memory", "cpu"] {
        assert!(!lab.cgroup(controller, "a").exists());
    }
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn devices_that_are_not_allowed_can_be_made_but_not_opened() {
    let Some(lab) = Lab::new() else { return };
    let said = lab
        .sh("a", "mknod /tmp/mem c 1 1 && echo made; head -c 1 /tmp/mem >/dev/null 2>&1 || echo refused; head -c 1 /dev/zero | wc -c")
        .await;
    assert_eq!(said, "made\nrefused\n1\n");
}

#[tokio::test]
async fn what_a_container_uses_is_counted() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle(
        "a",
        &["sh", "-c", "head -c 20m /dev/zero | tail -c 1 > /dev/null; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sleep 1000"],
    );
    let _ = std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/tail"));
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(64 << 20)).set_swap(Some(64 << 20));
    let mut pids = LinuxPids::default();
    pids.set_limit(77);
    bundle.resources().set_memory(Some(memory)).set_pids(Some(pids));
    lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    let mut stats = lab.runtime.stats("a").await.unwrap();
    for _ in 0..500 {
        if stats.cpu.total.as_millis() > 0 && stats.memory.usage > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        stats = lab.runtime.stats("a").await.unwrap();
    }
    assert!(stats.cpu.total.as_millis() > 0, "{stats:?}");
    assert!(
        stats.memory.usage > 0 && stats.memory.limit == Some(64 << 20),
        "{stats:?}"
    );
    assert!(stats.memory.detail.len() > 10, "{stats:?}");
    assert!(stats.pids.current >= 1 && stats.pids.limit == Some(77), "{stats:?}");
    let features = lab.runtime.features();
    assert!(
        features.memory && features.cpu_quota && features.pids && features.cpuset,
        "{features:?}"
    );
    assert_eq!(features.is_unified, stats.is_unified);
}

#[tokio::test]
async fn memory_is_raised_and_lowered_while_it_runs() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle("a", &["sleep", "1000"]);
    let limits = |limit: i64, swap: i64| {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit)).set_swap(Some(swap));
        let mut resources = oci_spec::runtime::LinuxResources::default();
        resources.set_devices(None).set_memory(Some(memory));
        resources
    };
    bundle
        .resources()
        .set_memory(limits(64 << 20, 64 << 20).memory().to_owned());
    lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    for (limit, swap) in [(256 << 20, 512 << 20), (32 << 20, 32 << 20), (128 << 20, -1)] {
        lab.runtime.update("a", &limits(limit, swap)).await.unwrap();
        let stats = lab.runtime.stats("a").await.unwrap();
        assert_eq!(stats.memory.limit, Some(limit as u64));
    }
    let mut cpu = LinuxCpu::default();
    let mut resources = oci_spec::runtime::LinuxResources::default();
    resources.set_devices(None);
    for (quota, period) in [(50_000, 100_000), (2_000, 1_000), (300_000, 1_000_000)] {
        cpu.set_quota(Some(quota)).set_period(Some(period));
        resources.set_cpu(Some(cpu.clone()));
        lab.runtime.update("a", &resources).await.unwrap();
    }
}
