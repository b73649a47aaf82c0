//! What the daemon was told.

use std::{net::IpAddr, path::PathBuf};

use sluice_model::Id;

/// What the daemon was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `<data-root>`: containers live in `containers/<id>`.
    pub data_root: PathBuf,
    /// `<exec-root>`: namespace files live in `netns/<id>`.
    pub exec_root: PathBuf,
    /// `--bridge`: what the default network stands on.
    pub bridge: DefaultBridge,
    /// `--default-gateway`: where the default network's containers find everything else; none: at the host.
    pub default_gateway: Option<std::net::Ipv4Addr>,
    /// The default network's gateway and subnet (`--bip`); none: 172.17.0.1/16 when free, else another private range.
    pub bip: Option<ipnet::Ipv4Net>,
    /// `--fixed-cidr`: the part of the default network's subnet that containers get addresses of.
    pub fixed_cidr: Option<ipnet::Ipv4Net>,
    /// `--ipv6`: has the default network IPv6?
    pub ipv6: bool,
    /// `--fixed-cidr-v6`: its IPv6 subnet; none: one of this host's own unique local prefix.
    pub fixed_cidr_v6: Option<ipnet::Ipv6Net>,
    /// `--default-address-pool`: where subnets come from that nobody names; of a family without one, our defaults.
    pub address_pools: Vec<crate::AddressPool>,
    /// May containers of the default network talk to each other?
    pub icc: bool,
    /// Where published ports are bound by default (`--ip`).
    pub default_binding: IpAddr,
    /// `--publish-from`: who may use published ports of containers that do not say; empty: everybody.
    pub publish_from: Vec<ipnet::IpNet>,
    /// `--host-access`: where containers of the default network reach the host itself; none: everywhere.
    pub host_access: Option<sluice_model::network::HostAccess>,
    /// `--mtu`; none: that of the default route's device.
    pub mtu: Option<u32>,
    /// `--ip-masq`.
    pub masquerade: bool,
    /// `--dns`, `--dns-search`, `--dns-option`: what containers without their own get.
    pub dns: Vec<IpAddr>,
    /// As above.
    pub dns_search: Vec<String>,
    /// As above.
    pub dns_options: Vec<String>,
    /// `--userns-remap`: whose the users of containers are on the host; none: the host's own.
    pub id_map: Option<sluice_model::IdMap>,
    /// `--cluster-store` and `--cluster-advertise`: the hosts that share networks with this one; none: this host is alone.
    pub cluster: Option<crate::ClusterOptions>,
    /// cgroup parent of containers.
    pub cgroup_parent: String,
}

/// What the default network stands on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum DefaultBridge {
    /// On the datapath alone.
    #[default]
    Own,
    /// On this Linux bridge of the host.
    On(String),
    /// There is no default network.
    None,
}

impl Config {
    /// Where all volumes have their directories.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.data_root.join("volumes")
    }

    /// Where builds keep what they are made of, while they last.
    pub(crate) fn building(&self) -> PathBuf {
        self.data_root.join("building")
    }

    /// Where all containers have their directories.
    pub(crate) fn containers(&self) -> PathBuf {
        self.data_root.join("containers")
    }

    /// A container's directory: its bundle, log, `/etc` files and writable layer.
    pub(crate) fn container(&self, id: &Id) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// The file a container's network namespace is mounted on.
    pub(crate) fn sandbox(&self, id: &Id) -> PathBuf {
        self.exec_root.join("netns").join(id.as_str())
    }
}
