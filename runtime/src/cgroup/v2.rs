//! Controllers in the unified tree.

use std::{fs, io, path::Path};

use oci_spec::runtime::LinuxResources;

use super::{device_program, set};
use crate::RuntimeError;

/// Controllers that limits may be asked of.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// Makes a cgroup and those above it, with the controllers that are there for it.
pub(super) fn create(root: &Path, place: &Path) -> io::Result<()> {
    let mut path = root.to_owned();
    for name in place.components() {
        let available = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        let enabled = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
        let is_in = |list: &str, controller: &str| list.split_ascii_whitespace().any(|known| known == controller);
        for controller in CONTROLLERS {
            if is_in(&available, controller) && !is_in(&enabled, controller) {
                // One that can't be enabled (processes live here) is missed when a limit is asked of it, not before.
                let _ = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        path.push(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Sets the limits for which `is_here` says that the controller is not in a v1 hierarchy.
pub(super) fn limit(
    cgroup: &Path,
    resources: &LinuxResources,
    is_here: &dyn Fn(&str) -> bool,
) -> Result<(), RuntimeError> {
    if let Some(memory) = resources.memory().as_ref().filter(|_| is_here("memory")) {
        let limit = memory.limit().filter(|limit| *limit != 0);
        if let Some(limit) = limit {
            set(cgroup, "memory.max", &or_max(limit))?;
        }
        // The spec counts memory and swap together, the unified tree swap alone.
        if let Some(swap) = memory.swap().filter(|swap| *swap != 0)
            && cgroup.join("memory.swap.max").exists()
        {
            let alone = if swap < 0 {
                -1
            } else {
                (swap - limit.unwrap_or(0).max(0)).max(0)
            };
            set(cgroup, "memory.swap.max", &or_max(alone))?;
        }
        if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
            set(cgroup, "memory.low", &or_max(reservation))?;
        }
    }
    if let Some(cpu) = resources.cpu() {
        if is_here("cpu") {
            if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
                set(cgroup, "cpu.weight", &weight_of(shares).to_string())?;
            }
            let (quota, period) = (
                cpu.quota().filter(|quota| *quota != 0),
                cpu.period().filter(|period| *period != 0),
            );
            if quota.is_some() || period.is_some() {
                let quota = quota.map_or("max".to_owned(), or_max);
                set(cgroup, "cpu.max", &format!("{quota} {}", period.unwrap_or(100_000)))?;
            }
        }
        if is_here("cpuset") {
            if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
                set(cgroup, "cpuset.cpus", cpus)?;
            }
            if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
                set(cgroup, "cpuset.mems", mems)?;
            }
        }
    }
    if let Some(pids) = resources.pids().filter(|pids| pids.limit() != 0 && is_here("pids")) {
        set(cgroup, "pids.max", &or_max(pids.limit()))?;
    }
    if let Some(rules) = resources
        .devices()
        .as_ref()
        .filter(|rules| !rules.is_empty() && is_here("devices"))
    {
        device_program::attach(cgroup, rules)?;
    }
    if let Some(block) = resources.block_io().as_ref().filter(|_| is_here("blkio")) {
        if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
            let (name, weight) = io_weight(cgroup, weight);
            set(cgroup, name, &weight.to_string())?;
        }
        for device in block.weight_device().iter().flatten() {
            let (name, weight) = io_weight(cgroup, device.weight().unwrap_or(0));
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            set(cgroup, name, &value)?;
        }
        let throttles = [
            ("rbps", block.throttle_read_bps_device()),
            ("wbps", block.throttle_write_bps_device()),
            ("riops", block.throttle_read_iops_device()),
            ("wiops", block.throttle_write_iops_device()),
        ];
        for (key, devices) in throttles {
            for device in devices.iter().flatten() {
                // zero takes a limit away, as it does on v1
                let rate = match device.rate() {
                    0 => "max".to_owned(),
                    rate => rate.to_string(),
                };
                let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
                set(cgroup, "io.max", &value)?;
            }
        }
    }
    if is_here("hugetlb") {
        for page in resources.hugepage_limits().iter().flatten() {
            set(
                cgroup,
                &format!("hugetlb.{}.max", page.page_size()),
                &page.limit().to_string(),
            )?;
        }
    }
    for (name, value) in resources.unified().iter().flatten() {
        if name.contains('/') {
            return Err(RuntimeError::Failed(format!(
                "unified resource {name:?} is no file name"
            )));
        }
        set(cgroup, name, value)?;
    }
    Ok(())
}

/// Which of two schedulers takes the weight (10 to 1000), and in what figures: BFQ as it is, the other from 1 to 10000.
fn io_weight(cgroup: &Path, weight: u16) -> (&'static str, u64) {
    let weight = u64::from(weight).max(10);
    match cgroup.join("io.bfq.weight").exists() {
        true => ("io.bfq.weight", weight),
        false => ("io.weight", 1 + (weight - 10) * 9999 / 990),
    }
}

/// CPU shares (2 to 262144) as a weight (1 to 10000), the way all runtimes convert.
fn weight_of(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight_of(2), weight_of(1024), weight_of(262_144)), (1, 39, 10_000));
    }
}
