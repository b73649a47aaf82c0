//! What this host has: devices, sandboxes and tables, read from the kernel. The alias of a device tells whose it is and what it was made from,
//! so nothing needs to be remembered across a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{
    kernel::netlink::Netlink,
    link::{
        host_leg::HostLeg,
        listing::{self, Address, Device},
        sandbox,
        uplink::World,
    },
    map::contents::Tables,
    names::{MadeOf, Names},
};

/// The host's end of an endpoint's veth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Veth {
    /// Whose it is.
    pub endpoint: String,
    /// What it was made from.
    pub made_of: MadeOf,
    /// Administratively up.
    pub up: bool,
}

fn is_link_local(address: IpNet) -> bool {
    matches!(address, IpNet::V6(address) if address.addr().is_unicast_link_local())
}

/// How long a veth of ours stands before more is done for it than it needs to work.
pub const YOUTH: Duration = Duration::from_secs(2);

/// What is there.
#[derive(Clone, Default, Debug)]
pub struct Actual {
    /// Veths by the index of their host end.
    pub veths: BTreeMap<u32, Veth>,
    /// When veths were made, for those that are young.
    pub made: BTreeMap<u32, Instant>,
    /// Sandbox files, and whether a namespace is mounted on each.
    pub sandboxes: BTreeMap<PathBuf, bool>,
    /// The host's leg.
    pub leg: HostLeg,
    /// Its MTU, the smaller of its two ends'.
    pub leg_mtu: u32,
    /// The addresses it bears.
    pub gateways: BTreeSet<IpNet>,
    /// What of the host is not ours.
    pub world: World,
    /// The tables.
    pub tables: Tables,
}

impl Actual {
    /// Reads devices, addresses and sandboxes; the tables stay as they are.
    pub fn read_devices(&mut self, netlink: &mut Netlink, names: &Names, netns_directory: &Path) -> io::Result<()> {
        let devices = listing::devices(netlink)?;
        let addresses = listing::addresses(netlink)?;
        self.take(&devices, &addresses, names);
        self.sandboxes = sandbox::list(netns_directory)?.into_iter().collect();
        Ok(())
    }

    fn take(&mut self, devices: &[Device], addresses: &[Address], names: &Names) {
        self.veths = devices
            .iter()
            .filter_map(|device| {
                let (endpoint, made_of) = names.read_alias(&device.alias)?;
                Some((
                    device.ifindex,
                    Veth {
                        endpoint: endpoint.to_owned(),
                        made_of,
                        up: device.up,
                    },
                ))
            })
            .collect();
        let leg = |name: &str| {
            devices
                .iter()
                .find(|device| device.name == name && device.alias == names.leg_alias())
        };
        let (host, datapath) = (leg(&names.host_leg), leg(&names.datapath_leg));
        self.leg = HostLeg {
            host: host.map_or(0, |device| device.ifindex),
            datapath: datapath.map_or(0, |device| device.ifindex),
        };
        self.leg_mtu = host
            .into_iter()
            .chain(datapath)
            .map(|device| device.mtu)
            .min()
            .unwrap_or(0);
        self.gateways = addresses
            .iter()
            .filter(|address| address.ifindex == self.leg.host && !is_link_local(address.address))
            .map(|address| address.address)
            .collect();
        self.world = World::of(devices, addresses, names);
    }

    /// Forgets the youth of those who have outgrown it or are gone.
    pub fn grow(&mut self, now: Instant) {
        self.made
            .retain(|ifindex, made| now.duration_since(*made) < YOUTH && self.veths.contains_key(ifindex));
    }

    /// The index of an endpoint's veth.
    pub fn veth_of(&self, endpoint: &str) -> Option<u32> {
        self.veths
            .iter()
            .find(|(_, veth)| veth.endpoint == endpoint)
            .map(|(ifindex, _)| *ifindex)
    }
}
