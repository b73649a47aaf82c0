//! `--cluster-store` and what belongs to it, checked and made whole.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use sluice_engine::{Advertise, ClusterOptions};
use sluice_model::host::{SEAL_PORT, VXLAN_PORT};
use sluice_store::etcd::{Credentials, Encryption, EtcdOptions};

use crate::{Trouble, options::Options};

/// Where etcd listens when nothing else is said.
const ETCD_PORT: u16 = 2379;
/// How long a host is taken for alive of which nothing is heard.
const LEASE: u64 = 30;
/// For how long a key is used, seconds: a day.
const KEY_LIFE: u64 = 86_400;
/// For how long an answer of etcd is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The cluster that the options speak of; none: they speak of none.
pub(crate) fn options(options: &Options) -> Result<Option<ClusterOptions>, Trouble> {
    let Some(store) = options.cluster_store.as_deref().filter(|store| !store.is_empty()) else {
        let others = [
            (!options.cluster_advertise.is_empty(), "--cluster-advertise"),
            (!options.cluster_store_opt.is_empty(), "--cluster-store-opt"),
            (options.cluster_user.is_some(), "--cluster-user"),
            (options.cluster_vxlan_port.is_some(), "--cluster-vxlan-port"),
            (options.cluster_wireguard_port.is_some(), "--cluster-wireguard-port"),
            (options.cluster_key_life.is_some(), "--cluster-key-life"),
        ];
        return match others.into_iter().find(|(said, _)| *said) {
            Some((_, flag)) => Err(Trouble(format!("{flag} has a meaning with --cluster-store only"))),
            None => Ok(None),
        };
    };
    let (members, path) = members(store)?;
    let mut wishes = Wishes::of(&options.cluster_store_opt)?;
    let encryption = match (wishes.authority.take(), wishes.certificate.take(), wishes.key.take()) {
        (None, None, None) => None,
        (Some(authority), None, None) => Some(Encryption {
            authority,
            identity: None,
        }),
        (Some(authority), Some(certificate), Some(key)) => Some(Encryption {
            authority,
            identity: Some((certificate, key)),
        }),
        _ => {
            return Err(Trouble(
                "--cluster-store-opt: kv.cacertfile is wanted, and kv.certfile and kv.keyfile both or none".to_owned(),
            ));
        }
    };
    let scheme = if encryption.is_some() { "https" } else { "http" };
    let advertise = advertise(&options.cluster_advertise)?;
    Ok(Some(ClusterOptions {
        etcd: EtcdOptions {
            members: members.iter().map(|member| format!("{scheme}://{member}")).collect(),
            prefix: prefix(wishes.path.or(path).as_deref()),
            credentials: credentials(options)?,
            encryption,
            patience: PATIENCE,
        },
        advertise,
        vxlan_port: options.cluster_vxlan_port.unwrap_or(VXLAN_PORT),
        seal_port: options.cluster_wireguard_port.unwrap_or(SEAL_PORT),
        key_life: Duration::from_secs(key_life(options)?),
        lease: Duration::from_secs(wishes.lease.unwrap_or(LEASE)),
    }))
}

/// Each new key makes the others wait for a moment: not too often.
fn key_life(options: &Options) -> Result<u64, Trouble> {
    match options.cluster_key_life {
        None => Ok(KEY_LIFE),
        Some(seconds @ 2..=31_536_000) => Ok(seconds),
        Some(seconds) => Err(Trouble(format!(
            "invalid --cluster-key-life {seconds}: 2 seconds to a year are wanted"
        ))),
    }
}

/// `etcd://host:port,host:port/prefix`.
fn members(store: &str) -> Result<(Vec<String>, Option<String>), Trouble> {
    let invalid = |why: &str| {
        Trouble(format!(
            "invalid --cluster-store {store}: {why}; etcd://HOST[:PORT][,…][/PREFIX] is wanted"
        ))
    };
    let rest = store
        .strip_prefix("etcd://")
        .ok_or_else(|| invalid("it is no etcd, version 3.4 or newer"))?;
    let (hosts, path) = match rest.split_once('/') {
        Some((hosts, path)) => (hosts, Some(path.to_owned()).filter(|path| !path.is_empty())),
        None => (rest, None),
    };
    let member = |host: &str| {
        let has_port = match host.strip_prefix('[') {
            Some(v6) => v6.split_once(']').map(|(_, port)| port.starts_with(':')),
            None => Some(host.contains(':')),
        };
        match has_port {
            _ if host.is_empty() => Err(invalid("a member has no name")),
            None => Err(invalid("a bracket is open")),
            Some(true) => Ok(host.to_owned()),
            Some(false) => Ok(format!("{host}:{ETCD_PORT}")),
        }
    };
    Ok((hosts.split(',').map(member).collect::<Result<_, _>>()?, path))
}

/// What stands before every key.
fn prefix(path: Option<&str>) -> String {
    let path = path.unwrap_or_default().trim_matches('/');
    match path.is_empty() {
        true => String::new(),
        false => format!("/{path}"),
    }
}

/// `IP`, `DEVICE`, each perhaps with a port; as many as there are underlays.
fn advertise(given: &[String]) -> Result<Vec<Advertise>, Trouble> {
    let mut all = Vec::new();
    for text in given
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|text| !text.is_empty())
    {
        // the port is that of the daemon's API in old command lines; nobody asks there
        let host = match text.parse::<IpAddr>() {
            Ok(_) => text,
            Err(_) => text.rsplit_once(':').map_or(text, |(host, _)| host),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let one = match host.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() || address.is_unspecified() || address.is_multicast() => {
                return Err(Trouble(format!(
                    "invalid --cluster-advertise {text}: no other host reaches this one there"
                )));
            }
            Ok(address) => Advertise::Address(address),
            Err(_) if host.is_empty() || host.len() > 15 || host.contains(['/', ' ']) => {
                return Err(Trouble(format!(
                    "invalid --cluster-advertise {text}: an address or the name of a device is wanted"
                )));
            }
            Err(_) => Advertise::Device(host.to_owned()),
        };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    match all.is_empty() {
        true => Err(Trouble(
            "--cluster-store wants --cluster-advertise: the address or the device by which the other hosts reach this one"
                .to_owned(),
        )),
        false => Ok(all),
    }
}

fn credentials(options: &Options) -> Result<Option<Credentials>, Trouble> {
    match (&options.cluster_user, &options.cluster_password_file) {
        (None, None) => Ok(None),
        (Some(user), Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|why| Trouble::new(format_args!("read {}", file.display()), why))?;
            Ok(Some(Credentials {
                user: user.clone(),
                password: text.trim_end_matches(['\n', '\r']).to_owned(),
            }))
        }
        _ => Err(Trouble(
            "--cluster-user and --cluster-password-file: one has a meaning with the other only".to_owned(),
        )),
    }
}

/// `--cluster-store-opt`, by the names that Docker's users know.
#[derive(Default)]
struct Wishes {
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    path: Option<String>,
    lease: Option<u64>,
}

impl Wishes {
    fn of(given: &[String]) -> Result<Self, Trouble> {
        let mut wishes = Self::default();
        for text in given {
            let invalid = |why: &str| Trouble(format!("invalid --cluster-store-opt {text}: {why}"));
            let (name, value) = text.split_once('=').ok_or_else(|| invalid("NAME=VALUE is wanted"))?;
            match name {
                "kv.cacertfile" => wishes.authority = Some(value.into()),
                "kv.certfile" => wishes.certificate = Some(value.into()),
                "kv.keyfile" => wishes.key = Some(value.into()),
                "kv.path" => wishes.path = Some(value.to_owned()),
                "discovery.ttl" => {
                    let lease = value.trim_end_matches('s').parse().ok();
                    let lease = lease.filter(|seconds| (2..=3600).contains(seconds));
                    wishes.lease = Some(lease.ok_or_else(|| invalid("2 to 3600 seconds are wanted"))?);
                }
                _ => {
                    return Err(invalid(
                        "one of kv.cacertfile, kv.certfile, kv.keyfile, kv.path, discovery.ttl is wanted",
                    ));
                }
            }
        }
        Ok(wishes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> Result<Option<ClusterOptions>, String> {
        let read: Options = toml::from_str(text).unwrap();
        options(&read).map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn nothing_said_is_no_cluster() {
        assert!(cluster("").unwrap().is_none());
        let refused = cluster("cluster-advertise = ['eth0']").unwrap_err();
        assert!(refused.contains("with --cluster-store only"), "{refused}");
    }

    #[test]
    fn the_command_lines_of_old_tutorials_are_understood() {
        let cluster = cluster(
            "cluster-store = 'etcd://10.0.0.1:2379,h2,[fd00::1]:99/site'\ncluster-advertise = ['10.0.0.5:2376']",
        )
        .unwrap()
        .unwrap();
        assert_eq!(
            cluster.etcd.members,
            ["http://10.0.0.1:2379", "http://h2:2379", "http://[fd00::1]:99"]
        );
        assert_eq!(cluster.etcd.prefix, "/site");
        assert_eq!(cluster.advertise, [Advertise::Address("10.0.0.5".parse().unwrap())]);
        assert_eq!((cluster.vxlan_port, cluster.lease.as_secs()), (4789, 30));
        assert_eq!((cluster.seal_port, cluster.key_life.as_secs()), (51820, 86_400));
    }

    #[test]
    fn several_underlays_encryption_and_a_shorter_lease_may_be_asked_for() {
        let cluster = cluster(
            "cluster-store = 'etcd://h1'\ncluster-advertise = ['eth0:2376,fd00::5', 'eth1']\ncluster-vxlan-port = 8472\n\
             cluster-store-opt = ['kv.cacertfile=/ca', 'kv.certfile=/c', 'kv.keyfile=/k', 'kv.path=a/b/', 'discovery.ttl=10s']",
        )
        .unwrap()
        .unwrap();
        assert_eq!(cluster.etcd.members, ["https://h1:2379"]);
        assert_eq!(cluster.etcd.prefix, "/a/b");
        let encryption = cluster.etcd.encryption.unwrap();
        assert_eq!(encryption.identity.unwrap().1, PathBuf::from("/k"));
        assert_eq!(
            cluster.advertise,
            [
                Advertise::Device("eth0".to_owned()),
                Advertise::Address("fd00::5".parse().unwrap()),
                Advertise::Device("eth1".to_owned())
            ]
        );
        assert_eq!((cluster.vxlan_port, cluster.lease.as_secs()), (8472, 10));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_wanted() {
        let base = "cluster-store = 'etcd://h1'\ncluster-advertise = ['eth0']\n";
        for (text, words) in [
            (
                "cluster-store = 'consul://h1'\ncluster-advertise = ['eth0']",
                "it is no etcd",
            ),
            (
                "cluster-store = 'etcd://h1,'\ncluster-advertise = ['eth0']",
                "a member has no name",
            ),
            ("cluster-store = 'etcd://h1'", "wants --cluster-advertise"),
            (
                "cluster-store = 'etcd://h1'\ncluster-advertise = ['127.0.0.1']",
                "no other host reaches",
            ),
            (
                &format!("{base}cluster-store-opt = ['kv.certfile=/c']"),
                "kv.cacertfile is wanted",
            ),
            (
                &format!("{base}cluster-store-opt = ['kv.fast=1']"),
                "one of kv.cacertfile",
            ),
            (&format!("{base}cluster-store-opt = ['discovery.ttl=1']"), "2 to 3600"),
            (&format!("{base}cluster-key-life = 1"), "2 seconds to a year"),
            (&format!("{base}cluster-user = 'me'"), "--cluster-password-file"),
        ] {
            let refused = cluster(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
