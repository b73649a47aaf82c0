//! Containers: what a user asked for, and what became of it.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Id, MacAddress, PortBinding, PortSpec};

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
}

/// How a container's health is found out. Times are nanoseconds; 0 is Docker's default.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `[]`: the image's; `["NONE"]`: none; `["CMD", …]`: a command; `["CMD-SHELL", …]`: a line for the shell.
    pub test: Vec<String>,
    /// Between two probes; default 30 s.
    pub interval: i64,
    /// A probe that takes longer has failed; default 30 s.
    pub timeout: i64,
    /// After the start failures do not count for so long; default none.
    pub start_period: i64,
    /// Between two probes during the start period; default 5 s.
    pub start_interval: i64,
    /// So many failures in a row are ill health; default 3.
    pub retries: i64,
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
}

/// When an ended container starts again.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped` or `on-failure`; empty is `no`.
    pub name: String,
    /// Tries of `on-failure`; 0: no limit.
    pub maximum_retry_count: i64,
}

/// A directory or file of the host in the container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// The host's path, absolute.
    pub source: String,
    /// The container's path, absolute.
    pub target: String,
    /// Read only?
    pub read_only: bool,
    /// `rprivate` (default), `rslave`, `rshared`, `private`, `slave`, `shared`.
    pub propagation: String,
}

/// The part of the wish that concerns this host.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `-v /host:/path[:options]`.
    pub binds: Vec<Bind>,
    /// The network.
    pub network_mode: NetworkMode,
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
    /// CPUs in billionths; 0: no limit.
    pub nano_cpus: i64,
    /// Relative weight; 0: 1024.
    pub cpu_shares: i64,
    /// CPUs it may use, e.g. `0-1`.
    pub cpuset_cpus: String,
    /// Processes; 0 or -1: no limit.
    pub pids_limit: i64,
    /// The log driver: `json-file` (default) or `none`.
    pub log_driver: String,
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
    /// The gateway (IPv4).
    pub gateway: Option<IpAddr>,
    /// The MAC.
    pub mac: MacAddress,
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
