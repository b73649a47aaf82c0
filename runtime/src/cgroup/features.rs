//! Which limits the kernel of this host can set, and on what.

use std::{fs, path::Path};

use super::{Hierarchies, v1, v2};

/// What the kernel offers here. A limit that is not offered can't be set: asking for it fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Memory.
    pub memory: bool,
    /// Memory and swap.
    pub swap: bool,
    /// A soft limit.
    pub memory_reservation: bool,
    /// How gladly it swaps.
    pub swappiness: bool,
    /// Waiting instead of being killed.
    pub oom_kill_disable: bool,
    /// A weight.
    pub cpu_shares: bool,
    /// A quota in a period.
    pub cpu_quota: bool,
    /// Chosen processors and memory nodes.
    pub cpuset: bool,
    /// The processors there are, as a list of ranges.
    pub cpus: String,
    /// The memory nodes there are, as a list of ranges.
    pub mems: String,
    /// Processes and threads.
    pub pids: bool,
    /// A weight for block devices.
    pub blkio_weight: bool,
    /// A weight for single block devices.
    pub blkio_weight_device: bool,
    /// Rates for single block devices: bytes and operations, reading and writing.
    pub blkio_throttle: bool,
    /// All controllers are in the unified tree.
    pub is_unified: bool,
}

pub(super) fn find(hierarchies: &Hierarchies, parent: &str) -> Features {
    // The root of the unified tree has no settings to look at, its children have.
    let place = Path::new(parent.trim_matches('/'));
    let unified = hierarchies.unified.join(place);
    let _ = v2::create(&hierarchies.unified, &place.join(super::SHIMS));
    let is_in_tree = |controller: &str| {
        let enabled = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        enabled.split_ascii_whitespace().any(|known| known == controller)
    };
    // Nor has that of a v1 hierarchy the weights of BFQ.
    if let Some(blocks) = hierarchies.v1_with("blkio") {
        let _ = v1::create(&blocks.mounted_at, place, false);
    }
    let here = |controller: &str, v1: &[&str], v2: &[&str]| match hierarchies.v1_with(controller) {
        Some(hierarchy) => v1.iter().any(|name| {
            let root = &hierarchy.mounted_at;
            root.join(name).exists() || root.join(place).join(name).exists()
        }),
        None => v2.iter().any(|name| unified.join(name).exists()),
    };
    let list = |v1: &str, v2: &str| {
        let directory = hierarchies
            .v1_with("cpuset")
            .map(|hierarchy| hierarchy.mounted_at.join(v1));
        let path = directory.unwrap_or_else(|| hierarchies.unified.join(v2));
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    };
    let throttle = "blkio.throttle.read_bps_device";
    Features {
        memory: here("memory", &["memory.limit_in_bytes"], &["memory.max"]),
        swap: here("memory", &["memory.memsw.limit_in_bytes"], &["memory.swap.max"]),
        memory_reservation: here("memory", &["memory.soft_limit_in_bytes"], &["memory.low"]),
        swappiness: here("memory", &["memory.swappiness"], &[]),
        oom_kill_disable: here("memory", &["memory.oom_control"], &[]),
        cpu_shares: here("cpu", &["cpu.shares"], &["cpu.weight"]),
        cpu_quota: here("cpu", &["cpu.cfs_quota_us"], &["cpu.max"]),
        cpuset: here("cpuset", &["cpuset.cpus"], &["cpuset.cpus"]),
        cpus: list("cpuset.cpus", "cpuset.cpus.effective"),
        mems: list("cpuset.mems", "cpuset.mems.effective"),
        pids: hierarchies.v1_with("pids").is_some() || is_in_tree("pids"),
        blkio_weight: here(
            "blkio",
            &["blkio.weight", "blkio.bfq.weight"],
            &["io.weight", "io.bfq.weight"],
        ),
        blkio_weight_device: here(
            "blkio",
            &["blkio.weight_device", "blkio.bfq.weight_device"],
            &["io.weight", "io.bfq.weight"],
        ),
        blkio_throttle: here("blkio", &[throttle], &["io.max"]),
        is_unified: hierarchies.v1_with("memory").is_none(),
    }
}
