//! `sluice create`, and what it shares with `run`: the description of a container.

mod variables;

use std::{collections::HashMap, path::PathBuf};

use bollard_stubs::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum,
};
use clap::{ArgAction, Args, ValueEnum};

pub use variables::environment;

use self::variables::{lines, pairs};
use super::{
    care::Care,
    limits::{Limits, capabilities, security_options},
    mounts::Mounts,
    registry,
};
use crate::{daemon::Daemon, failure::Failure, measure::parse_bytes, output::print, publish::Published, query::query};

/// `sluice create`
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Create {
    #[command(flatten)]
    container: Container,
}

/// When an image is brought from its registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Pulling {
    Always,
    Missing,
    Never,
}

/// A container, as its options describe it.
#[derive(Args, Debug)]
pub struct Container {
    /// Another line of /etc/hosts, as NAME:ADDRESS
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Connect to STDIN, STDOUT or STDERR only
    #[arg(short, long, value_name = "STREAM")]
    pub attach: Vec<String>,
    /// Bring the image from its registry: when it is not here, always, or never
    #[arg(long, value_enum, default_value_t = Pulling::Missing, value_name = "WHEN")]
    pull: Pulling,
    /// Add a capability
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Write the container's id to this file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Relative weight of its CPU time
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// How many CPUs it may use, as 1.5
    #[arg(long)]
    cpus: Option<f64>,
    /// A DNS server
    #[arg(long)]
    dns: Vec<String>,
    /// An option of DNS
    #[arg(long)]
    dns_option: Vec<String>,
    /// A search domain of DNS
    #[arg(long)]
    dns_search: Vec<String>,
    /// Its NIS domain
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Instead of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// An environment variable, NAME=VALUE or NAME
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// A file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A port that is used, without publishing it
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Print help
    #[arg(long, action = ArgAction::HelpLong)]
    help: Option<bool>,
    /// Its host name
    #[arg(short, long)]
    hostname: Option<String>,
    /// An init inside that forwards signals and reaps
    #[arg(long)]
    init: bool,
    /// Keep its input open
    #[arg(short, long)]
    pub interactive: bool,
    /// A label, NAME=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// A file of labels
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// A link to another container, as NAME:ALIAS
    #[arg(long)]
    link: Vec<String>,
    /// How much memory it may use, as 64m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory and swap together; -1 for any
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Its name
    #[arg(long)]
    name: Option<String>,
    /// Who may use its published ports: a prefix or an address; may be said more than once
    #[arg(long, value_name = "CIDR")]
    publish_from: Vec<String>,
    /// Its network: bridge, none, host, container:NAME or a network's name
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    /// Its IPv4 address in a network of the user's
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Its IPv6 address in a network of the user's
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// The MAC address of its device
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// A further name in its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Its platform, os/architecture
    #[arg(long)]
    platform: Option<String>,
    /// How many processes it may have
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// All capabilities and devices
    #[arg(long)]
    privileged: bool,
    /// Publish a port: [[ADDRESS:]PORT:]CONTAINER-PORT[/PROTOCOL]
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish every exposed port at a free one
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Its root file system cannot be written
    #[arg(long)]
    read_only: bool,
    /// When it starts again: no, on-failure[:NUMBER], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Remove it when it ends
    #[arg(long)]
    pub rm: bool,
    /// A security option
    #[arg(long)]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// The signal that stops it
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds from that signal to the kill
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<i64>,
    /// A kernel parameter, NAME=VALUE
    #[arg(long)]
    sysctl: Vec<String>,
    /// A file system in memory, PATH[:OPTIONS]
    #[arg(long)]
    tmpfs: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Its user, name or id, maybe :group
    #[arg(short, long)]
    user: Option<String>,
    /// Its working directory
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    mounts: Mounts,
    #[command(flatten)]
    care: Care,
    /// The image, and what to run in it instead of its own command
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image: Vec<String>,
}

impl Create {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let id = self.container.create(daemon, true).await.map_err(|why| match why {
            // docker's create ends with 1
            Failure::BeforeStart(why) => *why,
            other => other,
        })?;
        print(&format!("{id}\n"))
    }
}

impl Container {
    /// Makes it, and tells its id. Every failure counts as one before the start.
    pub async fn create(&self, daemon: &Daemon, attached: bool) -> Result<String, Failure> {
        let made = async {
            let body = self.body(attached)?;
            let image = body.image.as_deref().unwrap_or_default();
            if let Some(file) = &self.cidfile
                && file.exists()
            {
                let why = "make sure the other container isn't running or delete it";
                return Err(Failure::Usage(format!(
                    "container ID file found, {why}: {}",
                    file.display()
                )));
            }
            let name = self.name.as_deref().map(|name| ("name", name));
            let platform = self.platform.as_deref().map(|platform| ("platform", platform));
            let pairs: Vec<_> = name.into_iter().chain(platform).collect();
            let path = format!("/containers/create{}", query(&pairs));
            if self.pull == Pulling::Always {
                registry::fetch(daemon, image, self.platform.as_deref()).await?;
            }
            let made = match daemon.post_json(&path, &body).await {
                Err(failure) if failure.is_missing() && failure.to_string().contains("No such image") => {
                    if self.pull == Pulling::Never {
                        return Err(failure);
                    }
                    eprintln!("Unable to find image '{}' locally", with_tag(image));
                    registry::fetch(daemon, image, self.platform.as_deref()).await?;
                    daemon.post_json(&path, &body).await?
                }
                made => made?,
            };
            let id = made["Id"]
                .as_str()
                .ok_or_else(|| Failure::Broken("the daemon did not tell the id".into()))?;
            for warning in made["Warnings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|warning| warning.as_str())
            {
                eprintln!("WARNING: {warning}");
            }
            if let Some(file) = &self.cidfile {
                std::fs::write(file, id)
                    .map_err(|why| Failure::Usage(format!("cannot write {}: {why}", file.display())))?;
            }
            Ok(id.to_owned())
        };
        made.await.map_err(|why| Failure::BeforeStart(Box::new(why)))
    }

    fn body(&self, attached: bool) -> Result<ContainerCreateBody, Failure> {
        let (image, command) = self
            .image
            .split_first()
            .ok_or_else(|| Failure::Usage("no image".into()))?;
        let published = Published::parse(&self.publish, &self.expose)?;
        let (_, volumes) = self.mounts.volumes()?;
        let attaches = |stream: &str, without_a_word: bool| match self.attach.is_empty() {
            true => attached && without_a_word,
            false => self.attach.iter().any(|name| name.eq_ignore_ascii_case(stream)),
        };
        let attach_stdin = attaches("stdin", self.interactive);
        Ok(ContainerCreateBody {
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            user: self.user.clone(),
            attach_stdin: Some(attach_stdin),
            attach_stdout: Some(attaches("stdout", true)),
            attach_stderr: Some(attaches("stderr", true)),
            exposed_ports: some(published.exposed),
            tty: Some(self.tty),
            open_stdin: Some(self.interactive),
            stdin_once: Some(self.interactive && attach_stdin),
            env: some(environment(&self.env_file, &self.env)?),
            cmd: some(command.to_vec()),
            image: Some(image.clone()),
            volumes: some(volumes),
            working_dir: self.workdir.clone(),
            entrypoint: self.entrypoint.as_ref().map(|entrypoint| match entrypoint.is_empty() {
                true => vec![String::new()], // none at all, not even the image's
                false => vec![entrypoint.clone()],
            }),
            labels: some_map(self.labels()?),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            networking_config: self.networking(),
            healthcheck: self.care.health()?,
            host_config: Some(HostConfig {
                port_bindings: some_map(published.bindings),
                log_config: self.care.log()?,
                ..self.mounts.add_to(self.host_config()?)?
            }),
            ..ContainerCreateBody::default()
        })
    }

    fn host_config(&self) -> Result<HostConfig, Failure> {
        if self.rm && self.restart.as_deref().is_some_and(|policy| policy != "no") {
            return Err(Failure::Usage(
                "conflicting options: cannot specify both --restart and --rm".into(),
            ));
        }
        let bytes = |text: &Option<String>| text.as_deref().map(parse_bytes).transpose();
        let (cap_add, cap_drop) = capabilities(&self.cap_add, &self.cap_drop);
        self.limits.add_to(HostConfig {
            auto_remove: Some(self.rm),
            cap_add: some(cap_add),
            cap_drop: some(cap_drop),
            cpu_shares: self.cpu_shares,
            dns: some(self.dns.clone()),
            dns_options: some(self.dns_option.clone()),
            dns_search: some(self.dns_search.clone()),
            extra_hosts: some(self.add_host.clone()),
            init: self.init.then_some(true),
            links: some(self.link.clone()),
            memory: bytes(&self.memory)?,
            memory_swap: match self.memory_swap.as_deref() {
                Some("-1") => Some(-1),
                _ => bytes(&self.memory_swap)?,
            },
            nano_cpus: self.cpus.map(|cpus| (cpus * 1e9) as i64),
            network_mode: Some(self.network.clone().unwrap_or_else(|| "default".into())),
            pids_limit: self.pids_limit,
            privileged: self.privileged.then_some(true),
            publish_all_ports: Some(self.publish_all),
            readonly_rootfs: self.read_only.then_some(true),
            restart_policy: self.restart.as_deref().map(restart_policy).transpose()?,
            security_opt: some(security_options(&self.security_opt)?),
            shm_size: bytes(&self.shm_size)?,
            sysctls: some_map(pairs(&self.sysctl)),
            tmpfs: some_map(self.tmpfs.iter().map(|text| {
                let (path, options) = text.split_once(':').unwrap_or((text, ""));
                (path.to_owned(), options.to_owned())
            })),
            ..HostConfig::default()
        })
    }

    fn networking(&self) -> Option<NetworkingConfig> {
        let asks = [&self.ip, &self.ip6, &self.mac_address]
            .into_iter()
            .any(Option::is_some);
        // on the default network, and where there is none, links are not the network's
        let is_of_user = !matches!(
            self.network.as_deref(),
            None | Some("default" | "bridge" | "host" | "none")
        ) && !self
            .network
            .as_deref()
            .is_some_and(|network| network.starts_with("container:"));
        let links = some(self.link.clone()).filter(|_| is_of_user);
        if self.network_alias.is_empty() && links.is_none() && !asks {
            return None;
        }
        let network = self.network.clone().unwrap_or_else(|| "default".into());
        let addresses = EndpointIpamConfig {
            ipv4_address: self.ip.clone(),
            ipv6_address: self.ip6.clone(),
            link_local_ips: None,
        };
        let endpoint = EndpointSettings {
            ipam_config: (self.ip.is_some() || self.ip6.is_some()).then_some(addresses),
            mac_address: self.mac_address.clone(),
            links,
            aliases: (!self.network_alias.is_empty()).then(|| self.network_alias.clone()),
            ..EndpointSettings::default()
        };
        Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network, endpoint)])),
        })
    }

    fn labels(&self) -> Result<HashMap<String, String>, Failure> {
        let mut all = Vec::new();
        for file in &self.label_file {
            all.extend(lines(file)?);
        }
        all.extend(self.label.iter().cloned());
        if !self.publish_from.is_empty() {
            all.push(format!("sluice.publish-from={}", self.publish_from.join(",")));
        }
        Ok(pairs(&all))
    }
}

/// `latest` is what no tag means.
fn with_tag(image: &str) -> String {
    let is_whole = image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if is_whole {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

fn restart_policy(text: &str) -> Result<RestartPolicy, Failure> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    let name = match name {
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => return Err(Failure::Usage(format!("invalid restart policy '{text}'"))),
    };
    let maximum_retry_count = match count {
        "" => None,
        count => Some(
            count
                .parse()
                .map_err(|_| Failure::Usage("maximum retry count must be an integer".into()))?,
        ),
    };
    Ok(RestartPolicy {
        name: Some(name),
        maximum_retry_count,
    })
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn some_map<V>(pairs: impl IntoIterator<Item = (String, V)>) -> Option<HashMap<String, V>> {
    let map: HashMap<String, V> = pairs.into_iter().collect();
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests;
