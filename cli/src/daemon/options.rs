//! Options: flags, and the same names as keys of a TOML file.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{ArgAction, Args, Parser};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use sluice_model::network::HostAccess;

use crate::value::{Bip, Host, Instance, LogLevel, Pool, boolean, host_access, server, source, sources};

/// Runs containers on an eBPF network; speaks Docker's API.
#[derive(Debug, Parser)]
#[command(name = "sluiced", version, about, max_term_width = 120)]
pub(crate) struct Flags {
    /// The file with options (/etc/sluice/sluiced.toml when it exists); flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,

    /// Remove all containers and everything else of this instance from the machine (devices, programs, mounts, cgroups), and end. Images stay
    #[arg(long)]
    pub(crate) cleanup: bool,

    /// With --cleanup: remove the data root's content too, images among it
    #[arg(long, requires = "cleanup")]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// What can be said in both places.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Where clients come in: unix:///path or tcp://address:port; may be said more than once [default: unix://<exec-root>/sluice.sock]
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    pub(crate) host: Vec<Host>,

    /// Allow tcp:// hosts that are not loopback. Whoever reaches them is root on this machine
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    pub(crate) allow_insecure_tcp: Option<bool>,

    /// Where figures for Prometheus are told besides, at /metrics, and nothing else is; whoever reaches it may read them
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_addr: Option<SocketAddr>,

    /// Keep drops and conversations in this file, a line of JSON each as `sluice monitor --flows --json` shows them
    #[arg(long, value_name = "FILE")]
    pub(crate) flow_log: Option<PathBuf>,

    /// Only those, as container=web or event=drop: what `sluice monitor` has options for; may be said more than once
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) flow_log_filter: Vec<String>,

    /// How large the file becomes before it is turned over, megabytes [default: 100]
    #[arg(long, value_name = "MEGABYTES")]
    pub(crate) flow_log_max_size: Option<u64>,

    /// How many files are kept [default: 5]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) flow_log_max_files: Option<u32>,

    /// Where images, containers and records are kept [default: /var/lib/sluice]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data_root: Option<PathBuf>,

    /// Where the state of running things is kept [default: /run/sluice]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) exec_root: Option<PathBuf>,

    /// The file that holds the daemon's process id [default: <exec-root>/sluiced.pid]
    #[arg(short = 'p', long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Tells several daemons on one machine apart: part of the names of devices and directories [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<Instance>,

    /// Address and prefix of the default network's gateway [default: 172.17.0.1/16, or another private range when that is in use]
    #[arg(long, value_name = "CIDR")]
    pub(crate) bip: Option<Bip>,

    /// Put the default network's containers on this Linux bridge of the host (one with a LAN card in it: they get addresses of the LAN); none: no
    /// default network
    #[arg(short = 'b', long, value_name = "NAME")]
    pub(crate) bridge: Option<String>,

    /// Where containers on the bridge find everything else [default: the router that the host itself uses there, else the bridge]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) default_gateway: Option<Ipv4Addr>,

    /// The part of the default network's subnet that containers get addresses of [default: all of it]
    #[arg(long, value_name = "CIDR")]
    pub(crate) fixed_cidr: Option<Ipv4Net>,

    /// Has the default network IPv6? [default: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub(crate) ipv6: Option<bool>,

    /// IPv6 subnet of the default network [default: one of this host's own unique local prefix]
    #[arg(long, value_name = "CIDR")]
    pub(crate) fixed_cidr_v6: Option<Ipv6Net>,

    /// Where networks get subnets from that nobody names: base=CIDR,size=BITS; may be said more than once [default: /24 of private ranges]
    #[arg(long, value_name = "POOL")]
    pub(crate) default_address_pool: Vec<Pool>,

    /// May containers of the default network talk to each other? [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub(crate) icc: Option<bool>,

    /// Where published ports are bound when the user names no address [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<IpAddr>,

    /// Where containers of the default network reach this host's own services: all of its addresses, the gateway's, none [default: all]
    #[arg(long, value_name = "WHERE", value_parser = host_access)]
    pub(crate) host_access: Option<HostAccess>,

    /// Who may use published ports of containers that do not say (--publish-from); may be said more than once [default: everybody]
    #[arg(long, value_name = "CIDR", value_parser = source)]
    #[serde(deserialize_with = "sources")]
    pub(crate) publish_from: Vec<IpNet>,

    /// May containers reach the world? [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub(crate) ip_forward: Option<bool>,

    /// How many connections of containers there may be at a time, in each address family [default: 65536]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) flows: Option<u32>,

    /// How many of them one container may have [default: three quarters of them]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) flows_per_container: Option<u32>,

    /// Does what containers send to the world bear an address of the host? [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub(crate) ip_masq: Option<bool>,

    /// Accepted for the sake of old command lines; there are no iptables rules to manage
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub(crate) iptables: Option<bool>,

    /// Accepted for the sake of old command lines; there are no ip6tables rules to manage
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub(crate) ip6tables: Option<bool>,

    /// MTU of networks [default: that of the default route's device]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,

    /// Server of names for containers; may be said more than once [default: the host's]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    pub(crate) dns: Vec<IpAddr>,

    /// Search domain for containers; may be said more than once
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,

    /// Resolver option for containers; may be said more than once
    #[arg(long, value_name = "OPTION", visible_alias = "dns-opt")]
    pub(crate) dns_option: Vec<String>,

    /// The store of the hosts that share networks: etcd://HOST[:PORT][,...][/PREFIX], version 3.4 or newer
    #[arg(long, value_name = "URL")]
    pub(crate) cluster_store: Option<String>,

    /// The address or the device by which the other hosts reach this one; may be said more than once, the best first
    #[arg(long, value_name = "IP|DEVICE")]
    pub(crate) cluster_advertise: Vec<String>,

    /// How the store is spoken to: kv.cacertfile=FILE, kv.certfile=FILE, kv.keyfile=FILE, kv.path=PREFIX; discovery.ttl=SECONDS is how long a host is
    /// taken for alive of which nothing is heard [default: 30]
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) cluster_store_opt: Vec<String>,

    /// Who this host is to the store, where that wants to know
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster_user: Option<String>,

    /// The file with its password
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_password_file: Option<PathBuf>,

    /// The UDP port at which the other hosts send to this one's containers [default: 4789]
    #[arg(long, value_name = "PORT")]
    pub(crate) cluster_vxlan_port: Option<u16>,

    /// The UDP port at which they send what is encrypted (WireGuard) [default: 51820]
    #[arg(long, value_name = "PORT")]
    pub(crate) cluster_wireguard_port: Option<u16>,

    /// For how long this host's key for that is used, seconds [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) cluster_key_life: Option<u64>,

    /// cgroup below which containers live [default: sluice]
    #[arg(long, value_name = "NAME")]
    pub(crate) cgroup_parent: Option<String>,

    /// Users of containers are subordinate ones of this user and group: default, USER or USER:GROUP [default: the host's own]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) userns_remap: Option<String>,

    /// A registry that may be spoken to without TLS, or whose certificate is not looked at: host[:port] or a subnet; may be said more than once
    /// [default: addresses of this machine]
    #[arg(long, value_name = "HOST|CIDR")]
    pub(crate) insecure_registry: Vec<String>,

    /// A mirror of Docker's own registry, asked before it: https://host[:port]; may be said more than once
    #[arg(long, value_name = "URL")]
    pub(crate) registry_mirror: Vec<String>,

    /// Where certificates of registries are: <directory>/<host:port>/{*.crt, *.cert, *.key}; may be said more than once [default:
    /// /etc/docker/certs.d and /etc/sluice/certs.d]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) registry_certs: Vec<PathBuf>,

    /// Layers that come at a time while an image is pulled [default: 3]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent_downloads: Option<usize>,

    /// Layers that go at a time while an image is pushed [default: 5]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent_uploads: Option<usize>,

    /// The program that watches over a container [default: sluice-shim beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,

    /// How much is logged: debug, info, warn, error [default: info]
    #[arg(short = 'l', long, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,

    /// The same as --log-level debug
    #[arg(short = 'D', long, action = ArgAction::SetTrue)]
    pub(crate) debug: bool,
}

impl Options {
    /// These, and what only `below` says. A list is taken whole from one of both.
    pub(crate) fn over(self, below: Self) -> Self {
        let list = |above: Vec<_>, below| if above.is_empty() { below } else { above };
        Self {
            host: if self.host.is_empty() { below.host } else { self.host },
            allow_insecure_tcp: self.allow_insecure_tcp.or(below.allow_insecure_tcp),
            metrics_addr: self.metrics_addr.or(below.metrics_addr),
            flow_log: self.flow_log.or(below.flow_log),
            flow_log_filter: list(self.flow_log_filter, below.flow_log_filter),
            flow_log_max_size: self.flow_log_max_size.or(below.flow_log_max_size),
            flow_log_max_files: self.flow_log_max_files.or(below.flow_log_max_files),
            data_root: self.data_root.or(below.data_root),
            exec_root: self.exec_root.or(below.exec_root),
            pidfile: self.pidfile.or(below.pidfile),
            instance: self.instance.or(below.instance),
            bip: self.bip.or(below.bip),
            bridge: self.bridge.or(below.bridge),
            default_gateway: self.default_gateway.or(below.default_gateway),
            fixed_cidr: self.fixed_cidr.or(below.fixed_cidr),
            ipv6: self.ipv6.or(below.ipv6),
            fixed_cidr_v6: self.fixed_cidr_v6.or(below.fixed_cidr_v6),
            default_address_pool: if self.default_address_pool.is_empty() {
                below.default_address_pool
            } else {
                self.default_address_pool
            },
            icc: self.icc.or(below.icc),
            ip: self.ip.or(below.ip),
            host_access: self.host_access.or(below.host_access),
            publish_from: if self.publish_from.is_empty() {
                below.publish_from
            } else {
                self.publish_from
            },
            ip_forward: self.ip_forward.or(below.ip_forward),
            flows: self.flows.or(below.flows),
            flows_per_container: self.flows_per_container.or(below.flows_per_container),
            ip_masq: self.ip_masq.or(below.ip_masq),
            iptables: self.iptables.or(below.iptables),
            ip6tables: self.ip6tables.or(below.ip6tables),
            mtu: self.mtu.or(below.mtu),
            dns: if self.dns.is_empty() { below.dns } else { self.dns },
            dns_search: list(self.dns_search, below.dns_search),
            dns_option: list(self.dns_option, below.dns_option),
            cluster_store: self.cluster_store.or(below.cluster_store),
            cluster_advertise: list(self.cluster_advertise, below.cluster_advertise),
            cluster_store_opt: list(self.cluster_store_opt, below.cluster_store_opt),
            cluster_user: self.cluster_user.or(below.cluster_user),
            cluster_password_file: self.cluster_password_file.or(below.cluster_password_file),
            cluster_vxlan_port: self.cluster_vxlan_port.or(below.cluster_vxlan_port),
            cluster_wireguard_port: self.cluster_wireguard_port.or(below.cluster_wireguard_port),
            cluster_key_life: self.cluster_key_life.or(below.cluster_key_life),
            cgroup_parent: self.cgroup_parent.or(below.cgroup_parent),
            userns_remap: self.userns_remap.or(below.userns_remap),
            insecure_registry: list(self.insecure_registry, below.insecure_registry),
            registry_mirror: list(self.registry_mirror, below.registry_mirror),
            registry_certs: if self.registry_certs.is_empty() {
                below.registry_certs
            } else {
                self.registry_certs
            },
            max_concurrent_downloads: self.max_concurrent_downloads.or(below.max_concurrent_downloads),
            max_concurrent_uploads: self.max_concurrent_uploads.or(below.max_concurrent_uploads),
            shim: self.shim.or(below.shim),
            log_level: self.log_level.or(if self.debug { None } else { below.log_level }),
            debug: self.debug || below.debug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Result<Flags, String> {
        Flags::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn booleans_come_in_dockers_forms() {
        let options = flags("sluiced --icc=false --ip-masq --iptables=0").unwrap().options;
        assert_eq!(
            (options.icc, options.ip_masq, options.iptables, options.ip_forward),
            (Some(false), Some(true), Some(false), None)
        );
        assert!(
            flags("sluiced --icc=maybe")
                .unwrap_err()
                .contains("true or false is wanted")
        );
    }

    #[test]
    fn hosts_may_be_said_more_than_once() {
        assert_eq!(
            flags("sluiced -H unix:///a -H unix:///b --host=tcp://127.0.0.1:1")
                .unwrap()
                .options
                .host
                .len(),
            3
        );
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_wanted() {
        let error = flags("sluiced --bip 172.17.0.1").unwrap_err();
        assert!(
            error.contains("172.17.0.1") && error.contains("--bip") && error.contains("as in 172.17.0.1/16"),
            "{error}"
        );
    }

    #[test]
    fn flags_win_over_the_file() {
        let file: Options =
            toml::from_str("icc = false\nmtu = 1400\ndns = ['9.9.9.9', '1.1.1.1']\nbip = '10.1.0.1/24'").unwrap();
        let options = flags("sluiced --mtu 9000 --dns 8.8.8.8").unwrap().options.over(file);
        assert_eq!(
            (options.icc, options.mtu, options.dns.len()),
            (Some(false), Some(9000), 1)
        );
        assert_eq!(options.bip, Some("10.1.0.1/24".parse().unwrap()));
    }

    #[test]
    fn who_may_use_published_ports_is_said_by_prefix_or_address() {
        let options = flags("sluiced --publish-from 10.0.0.0/8 --publish-from ::1 --host-access=gateway")
            .unwrap()
            .options;
        let sources: Vec<String> = options.publish_from.iter().map(ToString::to_string).collect();
        assert_eq!(sources, ["10.0.0.0/8", "::1/128"]);
        assert_eq!(options.host_access, Some(HostAccess::Gateway));
        let file: Options = toml::from_str("publish-from = ['192.0.2.1']\nhost-access = 'none'").unwrap();
        assert_eq!(file.publish_from[0].to_string(), "192.0.2.1/32");
        assert_eq!(file.host_access, Some(HostAccess::None));
        assert!(flags("sluiced --publish-from lan").is_err() && flags("sluiced --host-access some").is_err());
    }

    #[test]
    fn an_unknown_key_of_the_file_is_named() {
        let error = toml::from_str::<Options>("colour = 'red'").unwrap_err().to_string();
        assert!(error.contains("colour"), "{error}");
        let error = toml::from_str::<Options>("bip = '10.1.0.1'").unwrap_err().to_string();
        assert!(
            error.contains("10.1.0.1") && error.contains("as in 172.17.0.1/16"),
            "{error}"
        );
    }

    #[test]
    fn the_example_in_dist_says_the_defaults() {
        let text = include_str!("../../../dist/sluiced.toml");
        assert_eq!(
            toml::from_str::<Options>(text).unwrap(),
            Options::default(),
            "everything in it is commented out"
        );
        let uncommented: String = text
            .lines()
            .map(|line| {
                line.strip_prefix("#")
                    .filter(|line| line.contains(" = "))
                    .unwrap_or(line)
                    .to_owned()
                    + "\n"
            })
            .collect();
        let options: Options = toml::from_str(&uncommented).unwrap();
        assert_eq!((options.icc, options.bip.is_some()), (Some(true), true));
    }
}
