//! `--device`, `--device-cgroup-rule` and what a privileged container has: which nodes, and which rules.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use sluice_model::{HostConfig, container::Device};
use sluice_runtime::spec::default_device_rules;

use crate::EngineError;

/// Below `/dev`, but no devices of the host's: file systems of their own, and what every container has one of.
const PASSED_OVER: [&str; 7] = ["pts", "shm", "fd", "mqueue", "hugepages", ".lxc", "console"];

/// The nodes a container gets beside the usual ones, and all its rules.
pub(crate) fn of(host: &HostConfig) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), EngineError> {
    let mut nodes = Vec::new();
    let mut rules = if host.privileged {
        let mut all = Vec::new();
        gather(Path::new("/dev"), Path::new("/dev"), &mut all)
            .map_err(|why| crate::error::io("list", Path::new("/dev"), &why))?;
        nodes.extend(all);
        vec![rule(LinuxDeviceType::A, None, None, "rwm")]
    } else {
        default_device_rules()
    };
    for device in &host.devices {
        let found = nodes_of(device)?;
        for node in &found {
            rules.push(rule(
                node.typ(),
                Some(node.major()),
                Some(node.minor()),
                &device.permissions,
            ));
        }
        nodes.extend(found);
    }
    for text in &host.device_cgroup_rules {
        rules.push(parse_rule(text)?);
    }
    Ok((nodes, rules))
}

/// Refuses what can't be understood. Whether a device is there is seen when the container starts, as it may come until then.
pub(crate) fn check(host: &HostConfig) -> Result<(), EngineError> {
    for device in &host.devices {
        let permissions = &device.permissions;
        let is_valid =
            (1..=3).contains(&permissions.len()) && permissions.bytes().all(|letter| b"rwm".contains(&letter));
        if !is_valid {
            return Err(EngineError::invalid(format!("bad mode specified: {permissions}")));
        }
        for path in [&device.on_host, &device.in_container] {
            if !path.starts_with('/') {
                return Err(EngineError::invalid(format!("{path} is not an absolute path")));
            }
        }
    }
    host.device_cgroup_rules
        .iter()
        .try_for_each(|text| parse_rule(text).map(drop))
}

/// The number of a block device.
pub(crate) fn block_device(path: &Path) -> Result<(i64, i64), EngineError> {
    let status = fs::metadata(path)
        .map_err(|why| EngineError::invalid(format!("cannot find the block device {}: {why}", path.display())))?;
    if !status.file_type().is_block_device() {
        return Err(EngineError::invalid(format!(
            "{} is not a block device",
            path.display()
        )));
    }
    Ok(number(status.rdev()))
}

fn number(device: u64) -> (i64, i64) {
    (i64::from(libc::major(device)), i64::from(libc::minor(device)))
}

fn nodes_of(device: &Device) -> Result<Vec<LinuxDevice>, EngineError> {
    let gathering = |why: String| {
        EngineError::invalid(format!(
            "error gathering device information while adding custom device \"{}\": {why}",
            device.on_host
        ))
    };
    let (on_host, in_container) = (Path::new(&device.on_host), Path::new(&device.in_container));
    let status = match fs::metadata(on_host) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return Err(gathering("no such file or directory".to_owned()));
        }
        other => other.map_err(|why| gathering(why.to_string()))?,
    };
    if let Some(node) = node(in_container, &status) {
        return Ok(vec![node]);
    }
    let mut all = Vec::new();
    if status.is_dir() {
        gather(on_host, in_container, &mut all).map_err(|why| gathering(why.to_string()))?;
    }
    if all.is_empty() {
        return Err(gathering("not a device node".to_owned()));
    }
    Ok(all)
}

/// All devices below a directory. Links are not followed: what they lead to is found where it is.
fn gather(on_host: &Path, in_container: &Path, all: &mut Vec<LinuxDevice>) -> io::Result<()> {
    for entry in fs::read_dir(on_host)? {
        let entry = entry?;
        let name = entry.file_name();
        if PASSED_OVER.iter().any(|passed_over| name == *passed_over) {
            continue;
        }
        let place = in_container.join(&name);
        match entry.metadata() {
            Ok(status) if status.is_dir() => gather(&entry.path(), &place, all)?,
            Ok(status) => all.extend(node(&place, &status)),
            // it went while we looked
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

fn node(place: &Path, status: &fs::Metadata) -> Option<LinuxDevice> {
    let kind = status.file_type();
    let typ = if kind.is_char_device() {
        LinuxDeviceType::C
    } else if kind.is_block_device() {
        LinuxDeviceType::B
    } else {
        return None;
    };
    let (major, minor) = number(status.rdev());
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from(place))
        .set_typ(typ)
        .set_major(major)
        .set_minor(minor)
        .set_file_mode(Some(status.mode() & 0o777))
        .set_uid(Some(status.uid()))
        .set_gid(Some(status.gid()));
    Some(device)
}

fn rule(typ: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(typ))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

/// `c 42:* rmw`.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, EngineError> {
    let parse = || {
        let mut words = text.split(' ');
        let (typ, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let typ = match typ {
            "a" => LinuxDeviceType::A,
            "b" => LinuxDeviceType::B,
            "c" => LinuxDeviceType::C,
            _ => return None,
        };
        let (major, minor) = numbers.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            digits if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits.parse::<u32>().ok().map(Some),
            _ => None,
        };
        let is_access = (1..=3).contains(&access.len()) && access.bytes().all(|letter| b"rwm".contains(&letter));
        let (major, minor) = (number(major)?, number(minor)?);
        (is_access && words.next().is_none()).then(|| rule(typ, major.map(i64::from), minor.map(i64::from), access))
    };
    parse().ok_or_else(|| EngineError::invalid(format!("invalid device cgroup rule format: '{text}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(on_host: &str, permissions: &str) -> HostConfig {
        HostConfig {
            devices: vec![Device {
                on_host: on_host.into(),
                in_container: "/dev/mine".into(),
                permissions: permissions.into(),
            }],
            ..HostConfig::default()
        }
    }

    #[test]
    fn a_device_gets_a_node_and_a_rule_of_its_permissions() {
        let (nodes, rules) = of(&device("/dev/zero", "r")).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].major(), nodes[0].minor()), (1, 5));
        assert_eq!(nodes[0].path(), Path::new("/dev/mine"));
        let last = rules.last().unwrap();
        assert_eq!((last.allow(), last.access().as_deref()), (true, Some("r")));
        let error = of(&device("/dev/nothing", "r")).unwrap_err().message;
        assert_eq!(
            error,
            "error gathering device information while adding custom device \"/dev/nothing\": no such file or directory"
        );
        assert!(
            of(&device("/etc/passwd", "r"))
                .unwrap_err()
                .message
                .ends_with("not a device node")
        );
    }

    #[test]
    fn a_privileged_container_has_the_hosts_devices_and_one_rule() {
        let host = HostConfig {
            privileged: true,
            ..HostConfig::default()
        };
        let (nodes, rules) = of(&host).unwrap();
        assert!(nodes.iter().any(|node| node.path() == Path::new("/dev/null")));
        assert!(!nodes.iter().any(|node| node.path().starts_with("/dev/pts")));
        assert_eq!(rules.len(), 1);
    }

    #[test]
    fn rules_are_read_as_docker_reads_them() {
        for good in ["c 42:* rmw", "a *:* rwm", "b 8:0 r"] {
            assert!(parse_rule(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "c",
            "c 1:3",
            "c 1:3 x",
            "x 1:3 r",
            "c 1 r",
            "c -1:3 r",
            "c 1:3 rwmr",
            "c 1:3 r r",
        ] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
        assert!(check(&device("/dev/null", "x")).is_err());
        assert!(check(&device("/dev/null", "rwm")).is_ok());
    }
}
