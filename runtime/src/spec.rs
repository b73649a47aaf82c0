//! What a container gets unless its maker says otherwise: the pieces of an OCI spec as Docker sets them.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount};

pub use crate::security::{
    capabilities::DEFAULT_CAPABILITIES,
    seccomp_profile::{default_seccomp, default_seccomp_for},
};

/// The annotation that asks for an init of ours as the container's first process (`true`): it starts the spec's process as its child, passes
/// signals on to it, and reaps what is orphaned.
pub const INIT: &str = "dev.sluice.init";

/// Covered, so that nothing can be read there.
pub const DEFAULT_MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Can be read, not changed.
pub const DEFAULT_READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Docker's default size of /dev/shm, in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// `/proc`, `/dev` and what is in it, `/sys`, the cgroups (read-only), and a `/dev/shm` of `shm_size` bytes.
pub fn default_mounts(shm_size: u64) -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = Mount::default();
        mount
            .set_destination(PathBuf::from(destination))
            .set_typ(Some(kind.to_owned()))
            .set_source(Some(PathBuf::from(source)))
            .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        mount
    };
    let shm_size = format!("size={shm_size}");
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["ro", "nosuid", "noexec", "nodev"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm_size],
        ),
    ]
}

/// The device nodes every container has. The runtime makes them by itself; the spec's own come on top.
pub fn default_devices() -> Vec<LinuxDevice> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ]
    .into_iter()
    .map(|(name, major, minor)| {
        let mut device = LinuxDevice::default();
        device
            .set_path(PathBuf::from(format!("/dev/{name}")))
            .set_typ(LinuxDeviceType::C)
            .set_major(major)
            .set_minor(minor)
            .set_file_mode(Some(0o666))
            .set_uid(Some(0))
            .set_gid(Some(0));
        device
    })
    .collect()
}

/// The rules for `linux.resources.devices`: none may be opened but the default ones, terminals and what the list of
/// [`default_devices`] holds; nodes may be made, as without access to them they are harmless.
pub fn default_device_rules() -> Vec<LinuxDeviceCgroup> {
    let rule = |allow: bool, typ: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow)
            .set_typ(Some(typ))
            .set_major(major)
            .set_minor(minor)
            .set_access(Some(access.to_owned()));
        rule
    };
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
        // The terminals of the container's own devpts, and its console.
        rule(true, LinuxDeviceType::C, Some(136), None, "rwm"),
        rule(true, LinuxDeviceType::C, Some(5), Some(2), "rwm"),
        rule(true, LinuxDeviceType::C, Some(5), Some(1), "rwm"),
    ];
    for device in default_devices() {
        rules.push(rule(
            true,
            LinuxDeviceType::C,
            Some(device.major()),
            Some(device.minor()),
            "rwm",
        ));
    }
    rules
}
