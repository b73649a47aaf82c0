//! Containers: what a user asked for, and what became of it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Id, IdMap, MacAddress, PortBinding, PortSpec, health::Healthcheck, port::runs_of_ports};

/// The part of the wish that an image can hold too.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// The host name; none: the short id.
    pub hostname: Option<String>,
    /// The NIS domain.
    pub domainname: Option<String>,
    /// `user[:group]`, names or numbers; empty: root.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The command, or the arguments of the entrypoint.
    pub cmd: Vec<String>,
    /// The entrypoint; none: the image's.
    pub entrypoint: Option<Vec<String>>,
    /// The directory it starts in; empty: the image's, else `/`.
    pub working_dir: String,
    /// The image as the user named it.
    pub image: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports that `-P` publishes.
    #[serde(with = "runs_of_ports")]
    pub exposed_ports: Vec<PortSpec>,
    /// Mount points that get a volume of their own.
    pub volumes: Vec<String>,
    /// A terminal.
    pub tty: bool,
    /// Keep stdin open.
    pub open_stdin: bool,
    /// Close it after the first client.
    pub stdin_once: bool,
    /// Streams a client said it attaches to (shown, not acted on).
    pub attach_stdin: bool,
    /// As above.
    pub attach_stdout: bool,
    /// As above.
    pub attach_stderr: bool,
    /// The signal `stop` sends first; none: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds `stop` waits before it kills; none: 10.
    pub stop_timeout: Option<i64>,
    /// How its health is found out; none: the image's way, if it has one.
    pub healthcheck: Option<Healthcheck>,
    /// What runs the shell form of commands; empty: `/bin/sh -c`.
    pub shell: Vec<String>,
}

/// The network a container wants.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "mode", content = "name", rename_all = "lowercase")]
pub enum NetworkMode {
    /// The daemon's default network.
    #[default]
    Default,
    /// The host's namespace.
    Host,
    /// Only loopback.
    None,
    /// A network by name or id.
    Network(String),
    /// The namespace of another container, by name or id.
    Container(String),
}

/// `--link`: another container, and what it is to be called here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Link {
    /// The other container, by name or id.
    pub target: String,
    /// What it is called from here.
    pub alias: String,
    /// What it was called itself when the link was made, for those who are told that it is gone.
    #[serde(default)]
    pub name: String,
}

/// What a user wants of a container's place in one network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkWish {
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<Ipv6Addr>,
    /// `--mac-address`.
    pub mac: Option<MacAddress>,
    /// Further names in the network.
    pub aliases: Vec<String>,
    /// Others of the network, by names that are known to this container alone.
    pub links: Vec<Link>,
    /// Of several networks the one with the greatest leads everywhere else.
    pub gateway_priority: i64,
    /// Options of the driver, kept for those who look.
    pub driver_options: BTreeMap<String, String>,
    /// The name of the device; none: the next free `eth`.
    pub interface: Option<String>,
}

/// When an ended container starts again.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped` or `on-failure`; empty is `no`.
    pub name: String,
    /// Tries of `on-failure`; 0: no limit.
    pub maximum_retry_count: i64,
}

/// What is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A directory or file of the host.
    #[default]
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// The files of an image below a writable layer, which goes with the container.
    Image,
}

/// Something mounted in the container: a wish (`-v`, `--mount`), or what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// A bind's path on the host, absolute; a volume's name, which only a wish may leave empty: one of its own; an image's name.
    pub source: String,
    /// The container's path, absolute.
    pub target: String,
    /// Read only?
    pub read_only: bool,
    /// Read only without what is mounted below it.
    pub read_only_non_recursive: bool,
    /// The options of `-v` as they were written.
    pub mode: String,
    /// `rprivate` (default), `rslave`, `rshared`, `private`, `slave`, `shared`; of binds.
    pub propagation: String,
    /// Without what is mounted below the source; of binds.
    pub non_recursive: bool,
    /// A source that is not there is made, as a directory; of binds.
    pub make_source: bool,
    /// The volume is not filled with what the image has there.
    pub no_copy: bool,
    /// A directory of the volume or image instead of all of it, relative.
    pub subpath: String,
    /// Labels of a volume that has to be made.
    pub labels: BTreeMap<String, String>,
    /// The driver of a volume that has to be made; empty: `local`.
    pub driver: String,
    /// Its options.
    pub driver_options: BTreeMap<String, String>,
    /// The volume was made for this container alone and goes with it (`rm -v`).
    pub anonymous: bool,
    /// Size of memory, bytes; 0: half of the machine's.
    pub tmpfs_size: i64,
    /// Mode of memory's root; 0: 1777.
    pub tmpfs_mode: u32,
    /// Further options of memory: `exec`, `noexec`.
    pub tmpfs_options: Vec<String>,
    /// The id of an image; of what became of a wish.
    pub image_id: String,
    /// Which of the container's writable layers lies over the image.
    pub layer: u32,
}

/// A limit of the kernel's on each process (`--ulimit`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`…
    pub name: String,
    /// The soft limit; -1: none.
    pub soft: i64,
    /// The hard limit; -1: none.
    pub hard: i64,
}

/// A device of the host in the container (`--device`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    /// The host's path: a device, or a directory with devices.
    pub on_host: String,
    /// The container's path.
    pub in_container: String,
    /// Of `r`, `w` and `m` (mknod).
    pub permissions: String,
}

/// A figure for one block device: a weight, or a rate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceFigure {
    /// The host's path of the device.
    pub path: String,
    /// The weight (10 to 1000), or bytes or operations a second.
    pub figure: u64,
}

/// The part of the wish that concerns this host. A record of an earlier version lacks what that version did not know: it is then as if nobody had asked.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `-v source:/path[:options]`.
    #[serde(default)]
    pub binds: Vec<Mount>,
    /// `--mount`.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Containers whose mounts it gets too, as `name[:ro]`.
    #[serde(default)]
    pub volumes_from: Vec<String>,
    /// The network.
    pub network_mode: NetworkMode,
    /// `--link` on the default network.
    pub links: Vec<Link>,
    /// Ports to publish.
    pub port_bindings: Vec<PortBinding>,
    /// Publish every exposed port (`-P`).
    pub publish_all_ports: bool,
    /// Remove the container when it ends (`--rm`).
    pub auto_remove: bool,
    /// When it starts again.
    pub restart_policy: RestartPolicy,
    /// Servers for `/etc/resolv.conf`; none: the daemon's, else the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// `name:address` for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// All rights of the host.
    pub privileged: bool,
    /// The root file system can't be written.
    pub read_only_rootfs: bool,
    /// tmpfs mounts, target to options.
    pub tmpfs: BTreeMap<String, String>,
    /// Size of /dev/shm, bytes; 0: 64 MiB.
    pub shm_size: i64,
    /// `seccomp=unconfined`, `no-new-privileges`…
    pub security_opt: Vec<String>,
    /// `name=value` of sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Memory limit, bytes; 0: none.
    pub memory: i64,
    /// Memory and swap, bytes; 0: twice the memory; -1: no limit.
    pub memory_swap: i64,
    /// Memory it shall shrink to when the host runs short, bytes; 0: none.
    pub memory_reservation: i64,
    /// How gladly the kernel swaps (0 to 100); none: the host's way.
    pub memory_swappiness: Option<i64>,
    /// The kernel makes it wait rather than kill when memory is short.
    pub oom_kill_disable: bool,
    /// Added to the badness of its processes when the host runs out of memory (-1000 to 1000).
    pub oom_score_adj: i64,
    /// CPUs in billionths; 0: no limit.
    pub nano_cpus: i64,
    /// Relative weight; 0: 1024.
    pub cpu_shares: i64,
    /// The period of the CPU quota, microseconds; 0: the kernel's.
    pub cpu_period: i64,
    /// CPU time in each period, microseconds; 0: no limit.
    pub cpu_quota: i64,
    /// Memory nodes it may use, e.g. `0`.
    pub cpuset_mems: String,
    /// CPUs it may use, e.g. `0-1`.
    pub cpuset_cpus: String,
    /// Processes; 0 or -1: no limit.
    pub pids_limit: i64,
    /// Limits on each process.
    pub ulimits: Vec<Ulimit>,
    /// Share of the block devices (10 to 1000); 0: the kernel's.
    pub blkio_weight: u16,
    /// The same for single devices.
    pub blkio_weight_device: Vec<DeviceFigure>,
    /// Bytes a second read from a device.
    pub blkio_device_read_bps: Vec<DeviceFigure>,
    /// Bytes a second written to a device.
    pub blkio_device_write_bps: Vec<DeviceFigure>,
    /// Reads a second from a device.
    pub blkio_device_read_iops: Vec<DeviceFigure>,
    /// Writes a second to a device.
    pub blkio_device_write_iops: Vec<DeviceFigure>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// `c 42:* rmw`: devices it may use if it has or makes their nodes.
    pub device_cgroup_rules: Vec<String>,
    /// Further groups of the first process, names or numbers.
    pub group_add: Vec<String>,
    /// IPC namespace: empty or `private`, `shareable`, `none`, `host`, `container:<id>`.
    pub ipc_mode: String,
    /// PID namespace: empty for its own, `host`, `container:<id>`.
    pub pid_mode: String,
    /// UTS namespace: empty for its own, `host`.
    pub uts_mode: String,
    /// User namespace: empty for the daemon's way, `host`.
    pub userns_mode: String,
    /// Cgroup namespace: `private` or `host`; empty: private on pure cgroup2 hosts.
    pub cgroupns_mode: String,
    /// The cgroup below which its own is; empty: the daemon's.
    pub cgroup_parent: String,
    /// Paths that are covered; none: the default ones.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that can't be written; none: the default ones.
    pub readonly_paths: Option<Vec<String>>,
    /// The log driver: `json-file` (default), `local` or `none`.
    pub log_driver: String,
    /// `--log-opt`: `max-size`, `max-file`, `compress`, `labels`, `env`, `tag`…
    pub log_options: BTreeMap<String, String>,
    /// Run an init that reaps.
    pub init: bool,
    /// What a client sent and this version does not act on, for `inspect` (JSON object as text).
    pub unhandled: String,
}

/// What a container is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Never started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended, and about to be started again by its restart policy.
    Restarting,
    /// Ended.
    Exited,
    /// Being removed.
    Removing,
    /// Could not be removed whole.
    Dead,
}

impl Phase {
    /// As users and clients know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// What it is doing.
    pub phase: Phase,
    /// The host's pid of its first process; 0: none.
    pub pid: u32,
    /// Its last exit code.
    pub exit_code: i32,
    /// The OOM killer ended it.
    pub oom_killed: bool,
    /// Why the last start failed; empty: it did not.
    pub error: String,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How often the restart policy has started it.
    pub restart_count: u32,
    /// The user stopped it: `unless-stopped` and `always` leave it alone until then.
    pub stopped_by_user: bool,
}

/// A container's place in a network, for those who look.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointView {
    /// The endpoint's id.
    pub endpoint: Id,
    /// The network's name.
    pub network_name: String,
    /// The network's id.
    pub network: Id,
    /// Addresses with prefix.
    pub addresses: Vec<IpNet>,
    /// The network's gateways.
    pub gateways: Vec<IpAddr>,
    /// The MAC.
    pub mac: MacAddress,
    /// The device in the container.
    pub interface: String,
}

/// A container.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: Id,
    /// Its name, unique, without a slash.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The wish, merged with the image's configuration.
    pub config: ContainerConfig,
    /// The wish as to this host.
    pub host_config: HostConfig,
    /// The image's id.
    pub image_id: String,
    /// The networks it is on when it runs, by name, from its making on: that of its mode, until it is taken off it, and others.
    #[serde(default)]
    pub networks: BTreeMap<String, NetworkWish>,
    /// What is mounted in it: the wishes, those of other containers, the image's volumes.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Whose its users are on the host, from its making on; none: the host's own.
    #[serde(default)]
    pub id_map: Option<IdMap>,
    /// What became of it.
    pub state: ContainerState,
}

/// What a phase allows.
impl ContainerState {
    /// Is there a process (running or frozen)?
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused)
    }

    /// Does it count as running? One that is about to be started again does, as in Docker: it is stopped before it is removed.
    pub fn is_up(&self) -> bool {
        self.is_alive() || self.phase == Phase::Restarting
    }
}

impl Container {
    /// The names of the networks it is on when it runs.
    pub fn network_names(&self) -> Vec<String> {
        match &self.host_config.network_mode {
            NetworkMode::Default | NetworkMode::Network(_) => self.networks.keys().cloned().collect(),
            NetworkMode::Container(_) => Vec::new(),
            mode @ (NetworkMode::Host | NetworkMode::None) => vec![mode.to_string()],
        }
    }
}

/// As Docker's users write it.
impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("bridge"),
            Self::Host => f.write_str("host"),
            Self::None => f.write_str("none"),
            Self::Network(name) => f.write_str(name),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}
