//! Options of `create` and `run` that say what a container may use, and with whom it shares.

use std::{collections::BTreeSet, str::FromStr};

use bollard_stubs::models::{DeviceMapping, HostConfig, ResourcesBlkioWeightDevice, ResourcesUlimits, ThrottleDevice};
use clap::Args;

use crate::{failure::Failure, measure::parse_bytes};

/// All capabilities there are.
const ALL: &str = "ALL";

/// What it may use, and with whom it shares.
#[derive(Args, Debug)]
pub struct Limits {
    /// Relative weight of its block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// The same for one device, as DEVICE:WEIGHT
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Its cgroup namespace: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// The period of its CPU quota, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<i64>,
    /// CPU time in each period, microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The CPUs it may use, as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// A device of the host: DEVICE[:PATH][:PERMISSIONS]
    #[arg(long)]
    device: Vec<String>,
    /// A rule for devices, as "c 42:* rmw"
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Bytes a second read from a device, as DEVICE:1mb
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<String>,
    /// Reads a second from a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_iops: Vec<String>,
    /// Bytes a second written to a device, as DEVICE:1mb
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<String>,
    /// Writes a second to a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_iops: Vec<String>,
    /// A further group of its user
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Its IPC namespace: private, shareable, none, host or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Memory it shrinks to when the host runs short
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// How gladly it swaps, 0 to 100
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Have it wait rather than be killed when memory is short
    #[arg(long)]
    oom_kill_disable: bool,
    /// How much sooner it is killed than others when memory is short, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i64>,
    /// Its PID namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// A limit of its processes: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// The cgroup below which its own is [default: the daemon's]
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Its user namespace: host
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Its UTS namespace: host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
}

impl Limits {
    /// What was asked for, on top of `wish`.
    pub fn add_to(&self, wish: HostConfig) -> Result<HostConfig, Failure> {
        let rate = |text: &String| {
            let (path, rate) = of_device(text)?;
            Ok(ThrottleDevice {
                path: Some(path.to_owned()),
                rate: Some(parse_bytes(rate)?),
            })
        };
        let weight = |text: &String| {
            let (path, weight) = of_device(text)?;
            Ok(ResourcesBlkioWeightDevice {
                path: Some(path.to_owned()),
                weight: Some(number(weight, text)?),
            })
        };
        let cgroupns = self.cgroupns.clone().map(serde_json::Value::String);
        Ok(HostConfig {
            blkio_weight: self.blkio_weight,
            cgroup_parent: self.cgroup_parent.clone(),
            blkio_weight_device: all(&self.blkio_weight_device, weight)?,
            blkio_device_read_bps: all(&self.device_read_bps, rate)?,
            blkio_device_write_bps: all(&self.device_write_bps, rate)?,
            blkio_device_read_iops: all(&self.device_read_iops, rate)?,
            blkio_device_write_iops: all(&self.device_write_iops, rate)?,
            cgroupns_mode: cgroupns
                .map(|mode| serde_json::from_value(mode.clone()).map_err(|_| usage("--cgroupns", &mode.to_string())))
                .transpose()?,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            devices: all(&self.device, |text| device(text))?,
            device_cgroup_rules: all(&self.device_cgroup_rule, |rule| Ok(rule.clone()))?,
            group_add: all(&self.group_add, |group| Ok(group.clone()))?,
            ipc_mode: self.ipc.clone(),
            memory_reservation: self.memory_reservation.as_deref().map(parse_bytes).transpose()?,
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            oom_score_adj: self.oom_score_adj,
            pid_mode: self.pid.clone(),
            ulimits: all(&self.ulimit, |text| ulimit(text))?.map(|mut limits| {
                limits.sort_by(|one, other| one.name.cmp(&other.name));
                limits
            }),
            userns_mode: self.userns.clone(),
            uts_mode: self.uts.clone(),
            ..wish
        })
    }
}

/// `seccomp=FILE` as the daemon wants it: with the content of the file.
pub fn security_options(options: &[String]) -> Result<Vec<String>, Failure> {
    let read = |option: &String| match option.split_once(['=', ':']) {
        Some(("seccomp", "unconfined" | "builtin" | "")) => Ok(option.clone()),
        Some(("seccomp", file)) => std::fs::read_to_string(file)
            .map(|profile| format!("seccomp={profile}"))
            .map_err(|why| Failure::Usage(format!("opening seccomp profile ({file}) failed: {why}"))),
        _ => Ok(option.clone()),
    };
    options.iter().map(read).collect()
}

fn all<T>(texts: &[String], each: impl Fn(&String) -> Result<T, Failure>) -> Result<Option<Vec<T>>, Failure> {
    let all = texts.iter().map(each).collect::<Result<Vec<_>, _>>()?;
    Ok((!all.is_empty()).then_some(all))
}

fn usage(what: &str, text: &str) -> Failure {
    Failure::Usage(format!("bad format for {what}: {text}"))
}

fn number<T: FromStr>(text: &str, whole: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| usage("number", whole))
}

fn of_device(text: &str) -> Result<(&str, &str), Failure> {
    text.rsplit_once(':')
        .filter(|(path, _)| path.starts_with('/'))
        .ok_or_else(|| usage("path", text))
}

/// `DEVICE[:PATH][:PERMISSIONS]`.
fn device(text: &str) -> Result<DeviceMapping, Failure> {
    let is_mode = |word: &str| (1..=3).contains(&word.len()) && word.bytes().all(|letter| b"rwm".contains(&letter));
    let parts: Vec<&str> = text.split(':').collect();
    let (on_host, in_container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, container] => (host, container, "rwm"),
        [host, container, mode] => (host, container, mode),
        _ => return Err(Failure::Usage(format!("invalid device specification: {text}"))),
    };
    Ok(DeviceMapping {
        path_on_host: Some(on_host.to_owned()),
        path_in_container: Some(in_container.to_owned()),
        cgroup_permissions: Some(permissions.to_owned()),
    })
}

/// `NAME=SOFT[:HARD]`.
/// Capabilities to add and to drop as docker sends them: by their whole names, in order, each once; to add one goes before to drop it.
pub fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let whole = |name: &String| match name.to_ascii_uppercase() {
        all if all == ALL => all,
        name if name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    let chosen = |names: &[String]| -> BTreeSet<String> {
        let names: BTreeSet<String> = names.iter().map(whole).collect();
        match names.contains(ALL) {
            true => [ALL.to_owned()].into(),
            false => names,
        }
    };
    let (add, drop) = (chosen(add), chosen(drop));
    let drop = drop.difference(&add).cloned().collect();
    (add.into_iter().collect(), drop)
}

fn ulimit(text: &str) -> Result<ResourcesUlimits, Failure> {
    let invalid = || Failure::Usage(format!("invalid ulimit argument: {text}"));
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Ok(ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft.parse().map_err(|_| invalid())?),
        hard: Some(hard.parse().map_err(|_| invalid())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_up_to_three_parts() {
        let parts = |text: &str| {
            let device = device(text).unwrap();
            let of = |part: Option<String>| part.unwrap();
            (
                of(device.path_on_host),
                of(device.path_in_container),
                of(device.cgroup_permissions),
            )
        };
        let expected = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(parts("/dev/a"), expected("/dev/a", "/dev/a", "rwm"));
        assert_eq!(parts("/dev/a:r"), expected("/dev/a", "/dev/a", "r"));
        assert_eq!(parts("/dev/a:/dev/b"), expected("/dev/a", "/dev/b", "rwm"));
        assert_eq!(parts("/dev/a:/dev/b:rw"), expected("/dev/a", "/dev/b", "rw"));
    }

    #[test]
    fn capabilities_are_named_as_docker_names_them() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (add, drop) = capabilities(&words(&["sys_time", "CAP_CHOWN", "CHOWN"]), &words(&["ALL", "mknod"]));
        assert_eq!((add, drop), (words(&["CAP_CHOWN", "CAP_SYS_TIME"]), words(&["ALL"])));
        let (add, drop) = capabilities(&words(&["CHOWN"]), &words(&["chown", "mknod"]));
        assert_eq!((add, drop), (words(&["CAP_CHOWN"]), words(&["CAP_MKNOD"])));
    }

    #[test]
    fn a_ulimit_of_one_number_is_both() {
        let limit = ulimit("nofile=1024").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(1024), Some(1024)));
        let limit = ulimit("core=0:-1").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(0), Some(-1)));
        assert!(ulimit("nofile").is_err());
    }
}
