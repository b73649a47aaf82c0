//! From an OCI spec to a plan. What can't be done is refused here, before anything is made.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hooks, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, PosixRlimitType, Spec,
};

use crate::{
    RuntimeError,
    cgroup::Cgroups,
    plan::{Device, IdMap, IdRange, Limit, Mount, Namespace, Plan, Process},
    security::{apparmor::check_apparmor, capabilities::Sets},
    spec,
};

/// The plan for a spec. `seccomp_flags` go with the filter compiled from its profile.
pub(crate) fn plan(
    id: &str,
    bundle: &Path,
    spec: &Spec,
    cgroups: Cgroups,
    seccomp_flags: Option<u64>,
) -> Result<Plan, RuntimeError> {
    let missing = |what: &str| RuntimeError::Failed(format!("the spec names no {what}"));
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    let first = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux section"))?;
    refuse_what_would_be_passed_over(spec, first)?;
    // A device the spec names replaces the default one of that path: it comes last.
    let devices = spec::default_devices();
    let devices = devices.iter().chain(linux.devices().iter().flatten()).map(device);
    Ok(Plan {
        id: id.to_owned(),
        root: bundle.join(root.path()),
        root_is_read_only: root.readonly().unwrap_or(false),
        root_propagation: linux.rootfs_propagation().clone().filter(|word| !word.is_empty()),
        cgroup2: cgroups.unified,
        cgroup1: cgroups.v1,
        namespaces: namespaces(linux.namespaces().as_deref().unwrap_or_default())?,
        mounts: spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| self::mount(mount, bundle))
            .collect(),
        devices: devices.collect::<Result<_, _>>()?,
        sysctls: linux
            .sysctl()
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        read_only_paths: linux.readonly_paths().clone().unwrap_or_default(),
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        host_name: spec.hostname().clone().filter(|name| !name.is_empty()),
        domain_name: spec.domainname().clone().filter(|name| !name.is_empty()),
        seccomp_flags,
        ids: ids(linux)?,
        init: is_true(spec, spec::INIT),
        process: process(first),
    })
}

/// Who asks for confinement or a hook must not get a container without.
fn refuse_what_would_be_passed_over(spec: &Spec, first: &oci_spec::runtime::Process) -> Result<(), RuntimeError> {
    let is_set = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    let unsupported = [
        (
            spec.hooks().as_ref().is_some_and(|hooks| *hooks != Hooks::default()),
            "hooks",
        ),
        (is_set(first.selinux_label()), "SELinux labels"),
    ];
    match unsupported.into_iter().find(|(is_asked_for, _)| *is_asked_for) {
        Some((_, what)) => Err(RuntimeError::Failed(format!("{what} are not supported"))),
        None => match first.apparmor_profile() {
            Some(profile) if !profile.is_empty() => check_apparmor(profile),
            _ => Ok(()),
        },
    }
}

fn is_true(spec: &Spec, annotation: &str) -> bool {
    let annotations = spec.annotations().as_ref();
    annotations
        .and_then(|all| all.get(annotation))
        .is_some_and(|value| value == "true")
}

fn namespaces(wanted: &[oci_spec::runtime::LinuxNamespace]) -> Result<Vec<Namespace>, RuntimeError> {
    let mut namespaces = Vec::new();
    for namespace in wanted {
        let kind = namespace.typ();
        if kind == LinuxNamespaceType::Time {
            return Err(RuntimeError::Failed(format!("{kind} namespaces are not supported")));
        }
        let path = namespace.path().clone().filter(|path| !path.as_os_str().is_empty());
        if path.is_some() && matches!(kind, LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup) {
            return Err(RuntimeError::Failed(format!(
                "joining a {kind} namespace is not supported"
            )));
        }
        namespaces.push(Namespace {
            kind: kind as i32,
            path,
        });
    }
    if !namespaces.iter().any(|namespace| namespace.kind == libc::CLONE_NEWNS) {
        return Err(RuntimeError::Failed(
            "a container needs a mount namespace of its own".to_owned(),
        ));
    }
    Ok(namespaces)
}

/// The mapping of its user namespace. One that is joined has it already, and we must know it all the same.
fn ids(linux: &oci_spec::runtime::Linux) -> Result<Option<IdMap>, RuntimeError> {
    let mut namespaces = linux.namespaces().iter().flatten();
    if !namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        return Ok(None);
    }
    let ranges = |mappings: &Option<Vec<LinuxIdMapping>>| -> Vec<IdRange> {
        let mappings = mappings.iter().flatten();
        mappings
            .map(|mapping| IdRange {
                container: mapping.container_id(),
                host: mapping.host_id(),
                count: mapping.size(),
            })
            .collect()
    };
    let ids = IdMap {
        users: ranges(linux.uid_mappings()),
        groups: ranges(linux.gid_mappings()),
    };
    if ids.user_on_host(0).is_none() || ids.group_on_host(0).is_none() {
        return Err(RuntimeError::Failed(
            "a user namespace needs uidMappings and gidMappings with a root in them".to_owned(),
        ));
    }
    Ok(Some(ids))
}

fn mount(mount: &oci_spec::runtime::Mount, bundle: &Path) -> Mount {
    let options = mount.options().clone().unwrap_or_default();
    let kind = mount.typ().clone().unwrap_or_else(|| "none".to_owned());
    let is_bind = kind == "bind" || options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
    // A relative source of a bind is relative to the bundle; of a file system it is but a name.
    let place = |source: &PathBuf| if is_bind { bundle.join(source) } else { source.clone() };
    Mount {
        destination: mount.destination().clone(),
        kind,
        source: mount.source().as_ref().map(place),
        options,
    }
}

fn device(device: &LinuxDevice) -> Result<Device, RuntimeError> {
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            let path = device.path().display();
            return Err(RuntimeError::Failed(format!(
                "device {path}: type 'a' is for rules, not for nodes"
            )));
        }
    };
    Ok(Device {
        path: device.path().clone(),
        mode: kind | (device.file_mode().unwrap_or(0o666) & 0o7777),
        major: device.major() as u32,
        minor: device.minor() as u32,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// A process of a spec, or one to be executed.
pub(crate) fn process(process: &oci_spec::runtime::Process) -> Process {
    let user = process.user();
    Process {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        terminal_size: process
            .console_size()
            .map(|size| (size.height() as u16, size.width() as u16)),
        capabilities: process.capabilities().as_ref().map(Sets::from).unwrap_or_default(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        limits: process.rlimits().iter().flatten().map(limit).collect(),
        oom_score_adj: process.oom_score_adj(),
        apparmor: process.apparmor_profile().clone().filter(|profile| !profile.is_empty()),
    }
}

fn limit(limit: &oci_spec::runtime::PosixRlimit) -> Limit {
    let resource = match limit.typ() {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    (resource, limit.soft(), limit.hard())
}
