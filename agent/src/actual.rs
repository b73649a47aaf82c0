//! What this host has: devices, sandboxes and tables, read from the kernel. The alias of a device tells whose it is and what it was made from,
//! so nothing needs to be remembered across a restart.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use sluice_model::{Network, network::Hold};

use crate::{
    kernel::netlink::Netlink,
    link::{
        child::{self, Child},
        gateway_device::GatewayDevice,
        host_leg::HostLeg,
        listing::{self, Address, Device},
        resolver_leg, sandbox,
        uplink::{self, Route, World},
    },
    map::{contents::Tables, rules::Rules},
    names::{MadeOf, Names},
    plan::{Settled, rules::Ruling},
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
    /// Bytes.
    pub mtu: u32,
    /// The index of the bridge that it is a port of; 0: of none.
    pub controller: u32,
    /// The namespace of the other end, of one that we have made ourselves.
    pub sandbox: Option<PathBuf>,
}

fn is_link_local(address: IpNet) -> bool {
    matches!(address, IpNet::V6(address) if address.addr().is_unicast_link_local())
}

/// What a veth can have; a loopback that the default route leads to has more.
const GREATEST_MTU: u32 = 65_535;
/// What IPv4 needs (RFC 791).
const LEAST_MTU: u32 = 68;

/// How long a veth of ours stands before more is done for it than it needs to work.
pub const YOUTH: Duration = Duration::from_secs(2);

/// What is there.
#[derive(Clone, Default, Debug)]
pub struct Actual {
    /// Veths by the index of their host end.
    pub veths: BTreeMap<u32, Veth>,
    /// When veths were made, for those that still have the filter they began with.
    pub made: BTreeMap<u32, Instant>,
    /// Sandbox files, and whether a namespace is mounted on each.
    pub sandboxes: BTreeMap<PathBuf, bool>,
    /// The cookies of those that have one, by which the socket hooks know what is in them.
    pub cookies: BTreeMap<PathBuf, u64>,
    /// The host's leg.
    pub leg: HostLeg,
    /// Its MTU, the smaller of its two ends'.
    pub leg_mtu: u32,
    /// The addresses it bears.
    pub gateways: BTreeSet<IpNet>,
    /// Devices of endpoints on parents of the host.
    pub children: Vec<Child>,
    /// Devices that bear gateway addresses by a name of their own, by it.
    pub gateway_devices: BTreeMap<String, GatewayDevice>,
    /// Parents that are ours, by name: their indices.
    pub parents: BTreeMap<String, u32>,
    /// Linux bridges of others, by name.
    pub bridges: BTreeMap<String, Device>,
    /// The MTU of the way out of this host; 0: not known yet.
    pub egress_mtu: u32,
    /// The routes of the main table.
    pub routes: Vec<Route>,
    /// The MTU of networks that reach over several hosts; none: this host is in no cluster.
    pub overlay_mtu: Option<u32>,
    /// What bears the name of the VXLAN device.
    pub overlay_device: Option<Device>,
    /// The MTU of those among them that are encrypted; none: as above.
    pub sealed_mtu: Option<u32>,
    /// The device that encrypts.
    pub seal_device: Option<Device>,
    /// What bears the name of the resolver's leg.
    pub resolver_leg: Option<Device>,
    /// What of the host is not ours.
    pub world: World,
    /// The tables.
    pub tables: Tables,
    /// What those of endpoints on other hosts were made by.
    pub settled: Settled,
    /// Those of what documents say.
    pub rules: Rules,
    /// What these were made of.
    pub ruling: Ruling,
}

impl Actual {
    /// Reads devices, addresses and sandboxes, and with `routes` the way out; the tables stay as they are.
    pub fn read_devices(
        &mut self,
        netlink: &mut Netlink,
        names: &Names,
        netns_directory: &Path,
        routes: bool,
    ) -> io::Result<()> {
        let devices = listing::devices(netlink)?;
        let addresses = listing::addresses(netlink)?;
        self.take(&devices, &addresses, names);
        if routes || self.egress_mtu == 0 {
            self.routes = uplink::routes(netlink)?;
            self.egress_mtu = uplink::default_mtu(&self.routes, &devices);
        }
        self.sandboxes = sandbox::list(netns_directory)?.into_iter().collect();
        self.sandboxes.remove(&netns_directory.join(resolver_leg::FILE));
        self.read_cookies();
        Ok(())
    }

    /// A cookie stays as long as its namespace. Of one that goes at this moment there is none to be had, and none is needed.
    fn read_cookies(&mut self) {
        let sandboxes = &self.sandboxes;
        self.cookies.retain(|path, _| sandboxes.get(path) == Some(&true));
        for (path, _) in sandboxes.iter().filter(|(_, mounted)| **mounted) {
            if !self.cookies.contains_key(path)
                && let Ok(cookie) = sandbox::cookie(path)
            {
                self.cookies.insert(path.clone(), cookie);
            }
        }
    }

    fn take(&mut self, devices: &[Device], addresses: &[Address], names: &Names) {
        let known = std::mem::take(&mut self.veths);
        let sandbox_of = |ifindex: u32, endpoint: &str| {
            let veth = known.get(&ifindex).filter(|veth| veth.endpoint == endpoint)?;
            veth.sandbox.clone()
        };
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
                        mtu: device.mtu,
                        controller: device.controller,
                        sandbox: sandbox_of(device.ifindex, endpoint),
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
        self.gateway_devices = devices
            .iter()
            .filter(|device| names.is_gateway(&device.alias))
            .map(|device| {
                let borne = addresses
                    .iter()
                    .filter(|address| address.ifindex == device.ifindex && !is_link_local(address.address));
                let found = GatewayDevice {
                    ifindex: device.ifindex,
                    alias: device.alias.clone(),
                    addresses: borne.map(|address| address.address).collect(),
                };
                (device.name.clone(), found)
            })
            .collect();
        self.parents = devices
            .iter()
            .filter(|device| names.is_parent(&device.alias))
            .map(|device| (device.name.clone(), device.ifindex))
            .collect();
        self.bridges = devices
            .iter()
            .filter(|device| device.bridge && !names.is_ours(&device.alias))
            .map(|device| (device.name.clone(), device.clone()))
            .collect();
        self.overlay_device = devices.iter().find(|device| device.name == names.overlay).cloned();
        self.seal_device = devices
            .iter()
            .find(|device| device.alias == names.seal_alias())
            .cloned();
        self.resolver_leg = devices.iter().find(|device| device.name == names.resolver_leg).cloned();
        self.world = World::of(devices, addresses, names);
    }

    /// Reads which devices stand in these sandboxes, and nothing of others.
    pub fn read_children<'a>(&mut self, names: &Names, sandboxes: impl Iterator<Item = &'a PathBuf>) -> io::Result<()> {
        self.children = child::list(names, sandboxes)?;
        Ok(())
    }

    /// The MTU that devices of a network have: its own, or that of the way it goes out by.
    pub fn mtu_of(&self, network: &Network) -> u32 {
        if !network.mtu_follows {
            return network.mtu;
        }
        let followed = match &network.parent {
            Some(parent) if parent.hold == Hold::Port => {
                self.bridges.get(&parent.device).map_or(0, |bridge| bridge.mtu)
            }
            // the kernel gives them the parent's
            Some(_) => return 0,
            None if network.encrypted => self.sealed_mtu.unwrap_or(0),
            None if network.is_shared() => self.overlay_mtu.unwrap_or(0),
            None => self.egress_mtu,
        };
        match followed {
            0 => network.mtu,
            followed => followed.clamp(LEAST_MTU, GREATEST_MTU),
        }
    }

    /// Forgets when those were made that are gone.
    pub fn forget_made(&mut self) {
        self.made.retain(|ifindex, _| self.veths.contains_key(ifindex));
    }

    /// The indices of veths, by endpoint.
    pub fn veths_by_endpoint(&self) -> HashMap<&str, u32> {
        let mut veths = HashMap::with_capacity(self.veths.len());
        for (ifindex, veth) in &self.veths {
            veths.entry(veth.endpoint.as_str()).or_insert(*ifindex);
        }
        veths
    }
}
