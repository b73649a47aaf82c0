//! Controllers in v1 hierarchies.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::set;
use crate::RuntimeError;

/// Makes a cgroup and those above it.
pub(super) fn create(hierarchy: &Path, place: &Path, is_cpuset: bool) -> io::Result<()> {
    let mut path = hierarchy.to_owned();
    for name in place.components() {
        let above = path.clone();
        path.push(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if is_cpuset {
            // A new cpuset has no CPU and no memory, so nothing could run in it.
            for setting in ["cpuset.cpus", "cpuset.mems"] {
                if fs::read_to_string(path.join(setting))?.trim().is_empty() {
                    fs::write(path.join(setting), fs::read_to_string(above.join(setting))?)?;
                }
            }
        }
    }
    Ok(())
}

/// Sets the limits whose controllers are in v1 hierarchies; `directory_of` gives the container's cgroup for a controller.
pub(super) fn limit(
    resources: &LinuxResources,
    directory_of: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<(), RuntimeError> {
    if let (Some(memory), Some(directory)) = (resources.memory(), directory_of("memory")) {
        let limit = memory.limit().filter(|limit| *limit != 0);
        let swap = memory
            .swap()
            .filter(|swap| *swap != 0 && directory.join("memory.memsw.limit_in_bytes").exists());
        if let (Some(limit), Some(swap)) = (limit, swap) {
            // The one must never be above the other, so the way to new values depends on the old ones.
            let attempt = |first: (&str, i64), second: (&str, i64)| -> Result<(), RuntimeError> {
                set(&directory, first.0, &first.1.to_string())?;
                set(&directory, second.0, &second.1.to_string())
            };
            let (plain, both) = (("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap));
            attempt(plain, both).or_else(|_| attempt(both, plain))?;
        } else if let Some(limit) = limit {
            set(&directory, "memory.limit_in_bytes", &limit.to_string())?;
        } else if let Some(swap) = swap {
            set(&directory, "memory.memsw.limit_in_bytes", &swap.to_string())?;
        }
        if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
            set(&directory, "memory.soft_limit_in_bytes", &reservation.to_string())?;
        }
        if let Some(swappiness) = memory.swappiness() {
            set(&directory, "memory.swappiness", &swappiness.to_string())?;
        }
        if memory.disable_oom_killer() == Some(true) {
            set(&directory, "memory.oom_control", "1")?;
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(directory) = directory_of("cpu") {
            if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
                set(&directory, "cpu.shares", &shares.to_string())?;
            }
            let period = || match cpu.period().filter(|period| *period != 0) {
                Some(period) => set(&directory, "cpu.cfs_period_us", &period.to_string()),
                None => Ok(()),
            };
            let quota = || match cpu.quota().filter(|quota| *quota != 0) {
                Some(quota) => set(&directory, "cpu.cfs_quota_us", &quota.to_string()),
                None => Ok(()),
            };
            // The kernel refuses either if the two together were more than is allowed, so the way to new values depends on the old ones.
            period()
                .and_then(|()| quota())
                .or_else(|_| quota().and_then(|()| period()))?;
        }
        if let Some(directory) = directory_of("cpuset") {
            if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
                set(&directory, "cpuset.cpus", cpus)?;
            }
            if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
                set(&directory, "cpuset.mems", mems)?;
            }
        }
    }
    if let (Some(pids), Some(directory)) = (resources.pids(), directory_of("pids"))
        && pids.limit() != 0
    {
        let limit = if pids.limit() < 0 {
            "max".to_owned()
        } else {
            pids.limit().to_string()
        };
        set(&directory, "pids.max", &limit)?;
    }
    if let (Some(rules), Some(directory)) = (resources.devices(), directory_of("devices")) {
        for rule in rules {
            let name = if rule.allow() { "devices.allow" } else { "devices.deny" };
            set(&directory, name, &device_rule(rule))?;
        }
    }
    if let (Some(block), Some(directory)) = (resources.block_io(), directory_of("blkio")) {
        if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
            let name = ["blkio.weight", "blkio.bfq.weight"]
                .into_iter()
                .find(|name| directory.join(name).exists());
            set(&directory, name.unwrap_or("blkio.weight"), &weight.to_string())?;
        }
        for device in block.weight_device().iter().flatten() {
            let name = ["blkio.weight_device", "blkio.bfq.weight_device"]
                .into_iter()
                .find(|name| directory.join(name).exists());
            let weight = device.weight().unwrap_or(0);
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            set(&directory, name.unwrap_or("blkio.weight_device"), &value)?;
        }
        let throttles = [
            ("blkio.throttle.read_bps_device", block.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", block.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", block.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", block.throttle_write_iops_device()),
        ];
        for (name, devices) in throttles {
            for device in devices.iter().flatten() {
                set(
                    &directory,
                    name,
                    &format!("{}:{} {}", device.major(), device.minor(), device.rate()),
                )?;
            }
        }
    }
    if let Some(directory) = directory_of("hugetlb") {
        for page in resources.hugepage_limits().iter().flatten() {
            set(
                &directory,
                &format!("hugetlb.{}.limit_in_bytes", page.page_size()),
                &page.limit().to_string(),
            )?;
        }
    }
    Ok(())
}

fn device_rule(rule: &LinuxDeviceCgroup) -> String {
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A | LinuxDeviceType::P => 'a',
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::C | LinuxDeviceType::U => 'c',
    };
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => number.to_string(),
        _ => "*".to_owned(),
    };
    let access = rule.access().as_deref().unwrap_or("rwm");
    format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_rule_is_written_as_the_kernel_reads_it() {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_typ(Some(LinuxDeviceType::C))
            .set_major(Some(136))
            .set_minor(None)
            .set_access(Some("rw".to_owned()));
        assert_eq!(device_rule(&rule), "c 136:* rw");
        assert_eq!(device_rule(&LinuxDeviceCgroup::default()), "a *:* rwm");
    }
}
