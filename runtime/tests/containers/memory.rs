//! What a shim costs.

use std::fs;

use crate::lab::{Lab, unified, until};

fn rollup(pid: u32, name: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Memory that is the process's own and no file's, in KiB.
pub fn own_kib(pid: u32) -> u64 {
    rollup(pid, "Anonymous:")
}

#[tokio::test]
async fn a_shim_takes_less_than_half_a_mebibyte() {
    let Some(lab) = Lab::new() else { return };
    // The one cargo made for the test is large; of that only what is not a file's counts.
    let kind = if std::env::var("SLUICE_SHIM").is_ok() {
        "Pss:"
    } else {
        "Anonymous:"
    };
    for (id, count) in [("a", 1), ("b", 2), ("c", 3)] {
        let bundle = lab.bundle(id, &["sleep", "1000"]);
        lab.create(&bundle).await;
        lab.runtime.start(id).await.unwrap();
        lab.runtime.state(id).await.unwrap();
        let shims = fs::read_to_string(unified().join(&lab.parent).join("shims/cgroup.procs")).unwrap();
        let sizes = || -> Vec<u64> { shims.lines().map(|pid| rollup(pid.parse().unwrap(), kind)).collect() };
        assert_eq!(sizes().len(), count);
        // A moment after the last it had to do.
        until("a small shim", || sizes().iter().all(|size| *size < 512)).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        eprintln!("{kind} {:?} KiB", sizes());
    }
}
