//! What the daemon was told, checked and made whole.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use sluice_engine::DefaultBridge;
use sluice_image::RegistryOptions;

use crate::{
    Trouble, cluster,
    flow_log::FlowLog,
    options::{Flags, Options},
    remap,
    value::{Host, LogLevel},
};

/// Read when it is there and no other file is named.
const DEFAULT_FILE: &str = "/etc/sluice/sluiced.toml";
/// Where bpffs is, or will be mounted.
const BPFFS: &str = "/sys/fs/bpf";
/// Where packages put programs that are not for users.
const LIBEXEC: &[&str] = &["/usr/libexec/sluice", "/usr/lib/sluice", "/usr/local/libexec/sluice"];

/// Everything that is needed to start the rooms.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) hosts: Vec<Host>,
    /// Where figures alone are told.
    pub(crate) metrics_addr: Option<SocketAddr>,
    /// What is kept of drops and conversations; none: nothing.
    pub(crate) flow_log: Option<FlowLog>,
    pub(crate) pidfile: PathBuf,
    pub(crate) log_level: LogLevel,
    pub(crate) instance: String,
    pub(crate) says_iptables: bool,
    pub(crate) registries: RegistryOptions,
    pub(crate) engine: sluice_engine::Config,
    pub(crate) agent: sluice_agent::Config,
    pub(crate) runtime: sluice_runtime::Config,
}

// === impl Settings ===

impl Settings {
    /// Flags, over the file, over the defaults.
    pub(crate) fn new(flags: Flags) -> Result<Self, Trouble> {
        let file = read_file(flags.config_file.as_deref())?;
        Self::of(flags.options.over(file))
    }

    fn of(mut options: Options) -> Result<Self, Trouble> {
        let bridge = bridge(&options)?;
        let registries = registries(&mut options)?;
        let cluster = cluster::options(&options)?;
        let flow_log = FlowLog::of(&options)?;
        let instance = options
            .instance
            .map_or_else(|| "default".to_owned(), |instance| instance.0);
        // Instances keep out of each other's way unless they are told to share.
        let named = |name: &str| {
            if instance == "default" {
                name.to_owned()
            } else {
                format!("{name}-{instance}")
            }
        };
        let data_root = absolute(
            "--data-root",
            options.data_root.unwrap_or_else(|| named("/var/lib/sluice").into()),
        )?;
        let exec_root = absolute(
            "--exec-root",
            options.exec_root.unwrap_or_else(|| named("/run/sluice").into()),
        )?;
        let cgroup_parent = cgroup(options.cgroup_parent.unwrap_or_else(|| named("sluice")))?;
        if let Some(mtu) = options.mtu.filter(|mtu| !(68..=65535).contains(mtu)) {
            return Err(Trouble(format!("invalid --mtu {mtu}: 68 to 65535 bytes are wanted")));
        }
        if let Some(subnet) = options.fixed_cidr_v6 {
            if options.ipv6 == Some(false) {
                return Err(Trouble(format!(
                    "--fixed-cidr-v6 {subnet} has no effect with --ipv6=false"
                )));
            }
            options.ipv6 = Some(true);
        }
        let hosts = if options.host.is_empty() {
            vec![Host::Unix(exec_root.join("sluice.sock"))]
        } else {
            options.host
        };
        check_reach(&hosts, options.allow_insecure_tcp.unwrap_or(false))?;
        let id_map = options
            .userns_remap
            .as_deref()
            .filter(|given| !given.is_empty())
            .map(remap::ids)
            .transpose()?;
        let log_level = options.log_level.unwrap_or(LogLevel(match options.debug {
            true => tracing::level_filters::LevelFilter::DEBUG,
            false => tracing::level_filters::LevelFilter::INFO,
        }));
        Ok(Self {
            registries,
            hosts,
            metrics_addr: options.metrics_addr,
            flow_log,
            pidfile: options.pidfile.unwrap_or_else(|| exec_root.join("sluiced.pid")),
            log_level,
            says_iptables: options.iptables.is_some() || options.ip6tables.is_some(),
            agent: sluice_agent::Config {
                instance: instance.clone(),
                bpffs: BPFFS.into(),
                netns_dir: exec_root.join("netns"),
                ip_forward: options.ip_forward.unwrap_or(true),
                limits: limits(options.flows, options.flows_per_container)?,
            },
            runtime: sluice_runtime::Config {
                state_root: exec_root.join("containers"),
                shim: shim(options.shim)?,
                cgroup_parent: cgroup_parent.clone(),
            },
            engine: sluice_engine::Config {
                data_root,
                exec_root,
                bridge,
                default_gateway: options.default_gateway,
                bip: options.bip.map(|bip| bip.0),
                fixed_cidr: options.fixed_cidr,
                ipv6: options.ipv6.unwrap_or(false),
                fixed_cidr_v6: options.fixed_cidr_v6,
                address_pools: options.default_address_pool.into_iter().map(|pool| pool.0).collect(),
                icc: options.icc.unwrap_or(true),
                default_binding: options.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                publish_from: options.publish_from,
                host_access: options.host_access,
                mtu: options.mtu,
                masquerade: options.ip_masq.unwrap_or(true),
                dns: options.dns,
                dns_search: options.dns_search,
                dns_options: options.dns_option,
                id_map,
                cluster,
                cgroup_parent,
            },
            instance,
        })
    }
}

/// Which registries are reached how.
fn registries(options: &mut Options) -> Result<RegistryOptions, Trouble> {
    let default = RegistryOptions::default();
    let at_least_one = |flag: &str, number: Option<usize>, default: usize| match number {
        Some(0) => Err(Trouble(format!("invalid {flag} 0: at least 1 is wanted"))),
        number => Ok(number.unwrap_or(default)),
    };
    let certificates = std::mem::take(&mut options.registry_certs);
    let registries = RegistryOptions {
        insecure: std::mem::take(&mut options.insecure_registry),
        mirrors: std::mem::take(&mut options.registry_mirror),
        certificates: if certificates.is_empty() {
            default.certificates
        } else {
            certificates
        },
        downloads: at_least_one(
            "--max-concurrent-downloads",
            options.max_concurrent_downloads,
            default.downloads,
        )?,
        uploads: at_least_one(
            "--max-concurrent-uploads",
            options.max_concurrent_uploads,
            default.uploads,
        )?,
    };
    registries.check().map_err(Trouble)?;
    Ok(registries)
}

/// What the default network stands on, and that nothing else is said that contradicts it.
fn bridge(options: &Options) -> Result<DefaultBridge, Trouble> {
    let bridge = match options.bridge.as_deref() {
        None | Some("") => DefaultBridge::Own,
        Some("none") => DefaultBridge::None,
        Some(name) if name.len() > 15 || name.contains(['/', ' ']) => {
            return Err(Trouble(format!(
                "invalid --bridge {name}: the name of a device is wanted"
            )));
        }
        Some(name) => DefaultBridge::On(name.to_owned()),
    };
    if bridge != DefaultBridge::Own && options.bip.is_some() {
        return Err(Trouble(
            "You specified -b & --bip, mutually exclusive options. Please specify only one".to_owned(),
        ));
    }
    if matches!(bridge, DefaultBridge::On(_)) && options.ipv6 == Some(true) {
        return Err(Trouble(
            "--ipv6 with --bridge NAME: the default network has IPv4 only on a bridge of the host; make a network with --ipv6 beside it".to_owned(),
        ));
    }
    if let Some(gateway) = options.default_gateway
        && !matches!(bridge, DefaultBridge::On(_))
    {
        return Err(Trouble(format!(
            "--default-gateway {gateway} has a meaning with --bridge NAME only: elsewhere the gateway is the host (name its address with --bip)"
        )));
    }
    Ok(bridge)
}

/// How many connections there may be. One container may have three quarters of them when nothing else is said.
fn limits(flows: Option<u32>, per_container: Option<u32>) -> Result<sluice_agent::Limits, Trouble> {
    /// Beyond this the tables of both families would take more than 15 GB.
    const MOST: u32 = 16_000_000;
    let connections = flows.unwrap_or(sluice_agent::Limits::default().connections);
    if !(1024..=MOST).contains(&connections) {
        return Err(Trouble(format!(
            "invalid --flows {connections}: 1024 to {MOST} are wanted"
        )));
    }
    let connections_per_endpoint = per_container.unwrap_or(connections / 4 * 3);
    if !(1..=connections).contains(&connections_per_endpoint) {
        return Err(Trouble(format!(
            "invalid --flows-per-container {connections_per_endpoint}: 1 to {connections} (--flows) are wanted"
        )));
    }
    Ok(sluice_agent::Limits {
        connections,
        connections_per_endpoint,
    })
}

fn read_file(named: Option<&Path>) -> Result<Options, Trouble> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|why| Trouble(format!("{} makes no sense: {why}", path.display()))),
        Err(why) if named.is_none() && why.kind() == std::io::ErrorKind::NotFound => Ok(Options::default()),
        Err(why) => Err(Trouble::new(format_args!("read {}", path.display()), why)),
    }
}

fn absolute(flag: &str, path: PathBuf) -> Result<PathBuf, Trouble> {
    std::path::absolute(&path).map_err(|why| Trouble(format!("invalid {flag} {}: {why}", path.display())))
}

/// A name below each hierarchy's root. Docker's users also write it with a slash before it.
fn cgroup(given: String) -> Result<String, Trouble> {
    let name = given.trim_matches('/');
    if name.is_empty() || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Trouble(format!(
            "invalid --cgroup-parent '{given}': a name such as sluice is wanted"
        )));
    }
    Ok(name.to_owned())
}

/// There is no login on this API: who reaches it is root.
fn check_reach(hosts: &[Host], allowed: bool) -> Result<(), Trouble> {
    for host in hosts {
        if let Host::Tcp(address) = host
            && !address.ip().is_loopback()
            && !allowed
        {
            return Err(Trouble(format!(
                "tcp://{address} can be reached from other machines, and whoever reaches it is root here: \
                 use a loopback address, or say --allow-insecure-tcp"
            )));
        }
    }
    Ok(())
}

/// Beside this program, where packages put it, or in PATH.
fn shim(named: Option<PathBuf>) -> Result<PathBuf, Trouble> {
    if let Some(path) = named {
        let path = absolute("--shim", path)?;
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Trouble(format!("--shim {}: there is no such file", path.display())))
        };
    }
    let beside = env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(Path::to_path_buf));
    let libexec = LIBEXEC.iter().map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = beside.into_iter().chain(libexec).chain(env::split_paths(&path));
    directories
        .map(|directory| directory.join("sluice-shim"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Trouble(
                "cannot find sluice-shim beside this program, in /usr/libexec/sluice or in PATH: name it with --shim"
                    .to_owned(),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let mut options: Options = toml::from_str(text).unwrap();
        options.shim = env::current_exe().ok();
        Settings::of(options).map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn nothing_said_is_the_default_instance() {
        let settings = settings("").unwrap();
        assert_eq!(settings.hosts, ["unix:///run/sluice/sluice.sock".parse().unwrap()]);
        assert_eq!(settings.engine.data_root, Path::new("/var/lib/sluice"));
        assert_eq!(settings.runtime.state_root, Path::new("/run/sluice/containers"));
        assert_eq!(settings.agent.netns_dir, Path::new("/run/sluice/netns"));
        assert!(settings.engine.icc && settings.engine.masquerade && settings.agent.ip_forward);
    }

    #[test]
    fn another_instance_keeps_to_itself() {
        let settings = settings("instance = 'blue'").unwrap();
        assert_eq!(settings.engine.data_root, Path::new("/var/lib/sluice-blue"));
        assert_eq!(settings.engine.exec_root, Path::new("/run/sluice-blue"));
        assert_eq!(settings.engine.cgroup_parent, "sluice-blue");
    }

    #[test]
    fn a_port_that_others_reach_has_to_be_asked_for() {
        assert!(settings("host = ['tcp://127.0.0.1:2375', 'tcp://[::1]:2375']").is_ok());
        let refused = settings("host = ['tcp://0.0.0.0:2375']").unwrap_err();
        assert!(refused.contains("--allow-insecure-tcp"), "{refused}");
        assert!(settings("host = ['tcp://0.0.0.0:2375']\nallow-insecure-tcp = true").is_ok());
    }

    #[test]
    fn an_ipv6_subnet_means_ipv6() {
        let engine = |text| settings(text).map(|settings| settings.engine);
        assert!(!engine("").unwrap().ipv6);
        assert!(engine("ipv6 = true").unwrap().ipv6);
        let engine = settings("fixed-cidr-v6 = 'fd00:9::/64'\ndefault-address-pool = ['base=10.9.0.0/16,size=24']")
            .unwrap()
            .engine;
        assert!(engine.ipv6 && engine.address_pools[0].size == 24);
        assert!(
            settings("ipv6 = false\nfixed-cidr-v6 = 'fd00:9::/64'")
                .unwrap_err()
                .contains("has no effect")
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(settings("mtu = 12").unwrap_err().contains("--mtu 12"));
        assert!(
            settings("cgroup-parent = '../x'")
                .unwrap_err()
                .contains("--cgroup-parent '../x'")
        );
        assert_eq!(settings("cgroup-parent = '/x'").unwrap().engine.cgroup_parent, "x");
    }
}
