//! What a container may use: checked, completed, and in the words of the runtime.

use std::path::Path;

use oci_spec::{
    OciSpecError,
    runtime::{
        LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
        LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    },
};
use sluice_model::{
    HostConfig,
    container::{DeviceFigure, Ulimit},
};
use sluice_runtime::Features;

use crate::{EngineError, container::devices};

/// Docker's least memory, bytes.
pub(crate) const LEAST_MEMORY: i64 = 6 * 1024 * 1024;
/// The period of the CPU quota for `--cpus`, microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Fills what follows from other wishes, so that `inspect` tells what is done.
pub(crate) fn complete(host: &mut HostConfig) {
    // twice the memory by default, so that as much swap as memory
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
}

/// Takes away what the kernel of this host can't do, and says so in Docker's words.
pub(crate) fn discard(host: &mut HostConfig, features: &Features) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut lacks = |wished: bool, offered: bool, words: &str| {
        let lacking = wished && !offered;
        if lacking {
            warnings.push(words.to_owned());
        }
        lacking
    };
    if lacks(
        host.memory > 0,
        features.memory,
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ) {
        (host.memory, host.memory_swap) = (0, -1);
    }
    if lacks(
        host.memory > 0 && host.memory_swap != -1,
        features.swap,
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
    ) {
        host.memory_swap = -1;
    }
    if lacks(
        host.memory_swappiness.is_some(),
        features.swappiness,
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    ) {
        host.memory_swappiness = None;
    }
    if lacks(
        host.memory_reservation > 0,
        features.memory_reservation,
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ) {
        host.memory_reservation = 0;
    }
    if lacks(
        host.oom_kill_disable,
        features.oom_kill_disable,
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
    ) {
        host.oom_kill_disable = false;
    }
    if lacks(
        host.pids_limit > 0,
        features.pids,
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ) {
        host.pids_limit = 0;
    }
    if lacks(
        host.cpu_shares > 0,
        features.cpu_shares,
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    ) {
        host.cpu_shares = 0;
    }
    if lacks(
        host.cpu_period > 0 || host.cpu_quota > 0,
        features.cpu_quota,
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
    ) {
        (host.cpu_period, host.cpu_quota) = (0, 0);
    }
    if lacks(
        !host.cpuset_cpus.is_empty() || !host.cpuset_mems.is_empty(),
        features.cpuset,
        "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
    ) {
        host.cpuset_cpus.clear();
        host.cpuset_mems.clear();
    }
    if lacks(
        host.blkio_weight > 0,
        features.blkio_weight,
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ) {
        host.blkio_weight = 0;
    }
    if lacks(
        !host.blkio_weight_device.is_empty(),
        features.blkio_weight_device,
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    ) {
        host.blkio_weight_device.clear();
    }
    for (rates, kind, name) in [
        (
            &mut host.blkio_device_read_bps,
            "BPS Block I/O read",
            "Block I/O BPS read",
        ),
        (
            &mut host.blkio_device_write_bps,
            "BPS Block I/O write",
            "Block I/O BPS write",
        ),
        (
            &mut host.blkio_device_read_iops,
            "IOPS Block read",
            "Block I/O IOPS read",
        ),
        (
            &mut host.blkio_device_write_iops,
            "IOPS Block write",
            "Block I/O IOPS write",
        ),
    ] {
        let words =
            format!("Your kernel does not support {kind} limit or the cgroup is not mounted. {name} limit discarded.");
        if lacks(!rates.is_empty(), features.blkio_throttle, &words) {
            rates.clear();
        }
    }
    warnings
}

/// Refuses what makes no sense, in Docker's words; returns what the user should know.
pub(crate) fn check(host: &HostConfig, warnings: &mut Vec<String>) -> Result<(), EngineError> {
    memory(host, warnings)?;
    cpu(host)?;
    if host.shm_size < 0 {
        return Err(EngineError::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(EngineError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    let weights = host.blkio_weight_device.iter().map(|entry| entry.figure);
    if weights
        .chain([u64::from(host.blkio_weight)])
        .any(|weight| weight != 0 && !(10..=1000).contains(&weight))
    {
        return Err(EngineError::invalid("Range of blkio weight is from 10 to 1000"));
    }
    host.ulimits.iter().try_for_each(|limit| rlimit(limit).map(drop))
}

fn memory(host: &HostConfig, warnings: &mut Vec<String>) -> Result<(), EngineError> {
    let invalid = |words: &str| Err(EngineError::invalid(words));
    if host.memory != 0 && host.memory < LEAST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if host.memory_swap > 0 && host.memory_swap < host.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory_swap < -1 {
        return Err(EngineError::invalid(format!(
            "invalid memory and swap limit: {}",
            host.memory_swap
        )));
    }
    if let Some(swappiness) = host.memory_swappiness
        && !(0..=100).contains(&swappiness)
    {
        return Err(EngineError::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if host.memory_reservation != 0 && host.memory_reservation < LEAST_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > 0 && host.memory < host.memory_reservation {
        return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.oom_kill_disable && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .to_owned(),
        );
    }
    Ok(())
}

fn cpu(host: &HostConfig) -> Result<(), EngineError> {
    let invalid = |words: &str| Err(EngineError::invalid(words));
    if host.nano_cpus != 0 && host.cpu_period != 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set.");
    }
    if host.nano_cpus != 0 && host.cpu_quota != 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set.");
    }
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    let most = i64::try_from(here).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return Err(EngineError::invalid(format!(
            "range of CPUs is from 0.01 to {here}.00, as there are only {here} CPUs available"
        )));
    }
    if host.cpu_shares < 0 {
        return Err(EngineError::invalid(format!(
            "shares must be positive, not {}",
            host.cpu_shares
        )));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (list, what) in [(&host.cpuset_cpus, "cpuset cpus"), (&host.cpuset_mems, "cpuset mems")] {
        if numbers(list).is_none() {
            return Err(EngineError::invalid(format!("Invalid value {list} for {what}")));
        }
    }
    Ok(())
}

/// Refuses processors and memory nodes that are not there.
pub(crate) fn check_availability(host: &HostConfig, features: &Features) -> Result<(), EngineError> {
    for (asked, here, what) in [
        (&host.cpuset_cpus, &features.cpus, "CPUs"),
        (&host.cpuset_mems, &features.mems, "memory nodes"),
    ] {
        let (Some(asked_numbers), Some(here_numbers)) = (numbers(asked), numbers(here)) else {
            continue;
        };
        if !here_numbers.is_empty() && !asked_numbers.iter().all(|number| here_numbers.contains(number)) {
            return Err(EngineError::invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {here}"
            )));
        }
    }
    Ok(())
}

/// `0-2,7` as numbers; none: it is no such list.
fn numbers(list: &str) -> Option<Vec<u32>> {
    /// More processors than any kernel is built for.
    const MOST: u32 = 8192;
    let mut all = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > MOST {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// The limits that can be set and changed while it runs. Device rules are not among them.
pub(crate) fn resources(host: &HostConfig) -> Result<LinuxResources, EngineError> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(memory_resources(host))
        .set_cpu(cpu_resources(host))
        .set_block_io(block_resources(host)?);
    if host.pids_limit != 0 {
        let mut pids = LinuxPids::default();
        pids.set_limit(host.pids_limit);
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

fn memory_resources(host: &HostConfig) -> Option<LinuxMemory> {
    let mut memory = LinuxMemory::default();
    let limit = (host.memory > 0).then_some(host.memory);
    let swap = match host.memory_swap {
        // twice the memory by default, so that as much swap as memory
        0 => limit.map(|limit| limit.saturating_mul(2)),
        swap => limit.map(|_| swap),
    };
    memory
        .set_limit(limit)
        .set_swap(swap)
        .set_reservation((host.memory_reservation > 0).then_some(host.memory_reservation))
        .set_swappiness(host.memory_swappiness.and_then(|value| u64::try_from(value).ok()))
        .set_disable_oom_killer(host.oom_kill_disable.then_some(true));
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu_resources(host: &HostConfig) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let list = |list: &String| (!list.is_empty()).then(|| list.clone());
    if host.nano_cpus > 0 {
        cpu.set_period(Some(CPU_PERIOD))
            .set_quota(Some(host.nano_cpus / 10_000));
    } else {
        cpu.set_period(positive(host.cpu_period))
            .set_quota((host.cpu_quota != 0).then_some(host.cpu_quota));
    }
    cpu.set_shares(positive(host.cpu_shares))
        .set_cpus(list(&host.cpuset_cpus))
        .set_mems(list(&host.cpuset_mems));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn block_resources(host: &HostConfig) -> Result<Option<LinuxBlockIo>, EngineError> {
    let number = |entry: &DeviceFigure| devices::block_device(Path::new(&entry.path));
    let undescribed = |error: OciSpecError| EngineError::failed(format!("cannot describe a block device: {error}"));
    let rates = |entries: &[DeviceFigure]| -> Result<Option<Vec<LinuxThrottleDevice>>, EngineError> {
        let rate = |entry: &DeviceFigure| {
            let (major, minor) = number(entry)?;
            let device = LinuxThrottleDeviceBuilder::default().major(major).minor(minor);
            device.rate(entry.figure).build().map_err(undescribed)
        };
        let all = entries.iter().map(rate).collect::<Result<Vec<_>, EngineError>>()?;
        Ok((!all.is_empty()).then_some(all))
    };
    let weight = |entry: &DeviceFigure| {
        let (major, minor) = number(entry)?;
        let device = LinuxWeightDeviceBuilder::default().major(major).minor(minor);
        let weight = u16::try_from(entry.figure).unwrap_or(u16::MAX);
        device.weight(weight).build().map_err(undescribed)
    };
    let weights: Vec<_> = host
        .blkio_weight_device
        .iter()
        .map(weight)
        .collect::<Result<_, EngineError>>()?;
    let mut block = LinuxBlockIo::default();
    block
        .set_weight((host.blkio_weight > 0).then_some(host.blkio_weight))
        .set_weight_device((!weights.is_empty()).then_some(weights))
        .set_throttle_read_bps_device(rates(&host.blkio_device_read_bps)?)
        .set_throttle_write_bps_device(rates(&host.blkio_device_write_bps)?)
        .set_throttle_read_iops_device(rates(&host.blkio_device_read_iops)?)
        .set_throttle_write_iops_device(rates(&host.blkio_device_write_iops)?);
    Ok((block != LinuxBlockIo::default()).then_some(block))
}

/// The limits of each process, as the spec has them.
pub(crate) fn rlimits(host: &HostConfig) -> Result<Option<Vec<PosixRlimit>>, EngineError> {
    if host.ulimits.is_empty() {
        return Ok(None);
    }
    host.ulimits.iter().map(rlimit).collect::<Result<_, _>>().map(Some)
}

fn rlimit(limit: &Ulimit) -> Result<PosixRlimit, EngineError> {
    let typ = match limit.name.as_str() {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        other => return Err(EngineError::invalid(format!("invalid ulimit type: {other}"))),
    };
    // -1 is "no limit", the highest of all
    let value = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    if value(limit.soft) > value(limit.hard) || limit.soft < -1 || limit.hard < -1 {
        return Err(EngineError::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft, limit.hard
        )));
    }
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(value(limit.soft))
        .hard(value(limit.hard))
        .build()
        .map_err(|error: OciSpecError| EngineError::failed(format!("cannot describe ulimit {}: {error}", limit.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(host: HostConfig) -> String {
        check(&host, &mut Vec::new()).unwrap_err().message
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        let with = |change: &dyn Fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            change(&mut host);
            refusal(host)
        };
        assert_eq!(
            with(&|host| host.memory = LEAST_MEMORY - 1),
            "Minimum memory limit allowed is 6MB"
        );
        assert!(with(&|host| host.memory_swap = 1 << 30).starts_with("You should always set the Memory limit"));
        assert!(with(&|host| host.memory_swappiness = Some(101)).contains("valid memory swappiness range is 0-100"));
        assert!(with(&|host| host.oom_score_adj = 1001).contains("range for oom score adj is [-1000, 1000]"));
        assert!(with(&|host| (host.nano_cpus, host.cpu_quota) = (1, 1)).starts_with("Conflicting options"));
        assert!(with(&|host| host.cpu_period = 999).contains("CPU cfs period"));
        assert!(with(&|host| host.cpuset_cpus = "3-1".into()).contains("Invalid value 3-1 for cpuset cpus"));
        assert!(with(&|host| host.blkio_weight = 9).contains("from 10 to 1000"));
        let ulimit = |name: &str, soft, hard| Ulimit {
            name: name.into(),
            soft,
            hard,
        };
        assert_eq!(
            with(&|host| host.ulimits = vec![ulimit("as", 1, 1)]),
            "invalid ulimit type: as"
        );
        assert!(with(&|host| host.ulimits = vec![ulimit("nofile", 20, 10)]).contains("20 > 10"));
        assert!(with(&|host| host.ulimits = vec![ulimit("nofile", -1, 10)]).contains("-1 > 10"));
    }

    #[test]
    fn what_the_kernel_lacks_is_discarded_with_a_warning() {
        let mut host = HostConfig {
            memory: 64 << 20,
            cpu_shares: 5,
            blkio_weight: 300,
            oom_kill_disable: true,
            ..HostConfig::default()
        };
        let features = Features {
            memory: true,
            swap: true,
            cpu_shares: true,
            ..Features::default()
        };
        let warnings = discard(&mut host, &features);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].starts_with("Your kernel does not support Block I/O weight"));
        assert_eq!(
            (host.blkio_weight, host.oom_kill_disable, host.cpu_shares),
            (0, false, 5)
        );
        assert!(discard(&mut host, &features).is_empty());
    }

    #[test]
    fn processors_that_are_not_there_are_refused() {
        let features = Features {
            cpus: "0-1".into(),
            mems: "0".into(),
            ..Features::default()
        };
        let with = |cpus: &str| HostConfig {
            cpuset_cpus: cpus.into(),
            ..HostConfig::default()
        };
        assert!(check_availability(&with("0,1"), &features).is_ok());
        assert_eq!(
            check_availability(&with("0-2"), &features).unwrap_err().message,
            "Requested CPUs are not available - requested 0-2, available: 0-1"
        );
    }

    #[test]
    fn swap_and_quota_are_written_as_the_runtime_reads_them() {
        let host = HostConfig {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            pids_limit: -1,
            ..HostConfig::default()
        };
        let resources = resources(&host).unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().swap(), Some(128 << 20));
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), -1);
        assert!(resources.devices().is_none() && resources.block_io().is_none());
    }
}
