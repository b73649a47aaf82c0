//! The networks that are always there: `bridge`, `host` and `none`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use sluice_model::{
    Id, Network,
    network::{Driver, Family, GatewayMode, Hold, Parent, Subnet},
};
use sluice_store::{Condition, Transaction, Write, key, record};

use crate::{
    DefaultBridge, Engine, EngineError,
    network::{
        create::{self, SubnetWish},
        pools::{self, Occupied},
    },
};

/// The default network's name.
pub(crate) const BRIDGE: &str = sluice_model::network::DEFAULT_NETWORK;
/// Networks that are always there.
const BUILT_IN: [&str; 3] = [BRIDGE, "host", "none"];

impl Engine {
    /// Makes the three networks where they are missing, and gives the default one what the daemon was told now.
    pub(crate) async fn make_default_networks(&self) -> Result<(), EngineError> {
        for (name, driver) in [("host", Driver::Host), ("none", Driver::Null)] {
            if self.networks.find(name).is_err() {
                self.write_network(bare(name, driver), None).await?;
            }
        }
        let existing = self.networks.find(BRIDGE).ok();
        if self.config.bridge == DefaultBridge::None {
            return self.remove_default_network(existing).await;
        }
        let wanted = self.default_network(existing.as_ref()).await?;
        if existing.as_ref() != Some(&wanted) {
            self.write_network(wanted, existing.as_ref()).await?;
        }
        Ok(())
    }

    /// With `--bridge none` there is no default network; who is on it stays there until it ends.
    async fn remove_default_network(&self, existing: Option<Network>) -> Result<(), EngineError> {
        let Some(network) = existing else { return Ok(()) };
        if self.networks.strike_if_empty(&network.id).is_err() {
            tracing::warn!(
                "containers run in the default network: it stays until they are stopped and the daemon starts again"
            );
            return Ok(());
        }
        let writes = vec![Write::Delete(key::network(&network.id))];
        self.commit(Transaction {
            writes,
            ..Default::default()
        })
        .await?;
        self.tell_network("destroy", &network);
        Ok(())
    }

    async fn default_network(&self, existing: Option<&Network>) -> Result<Network, EngineError> {
        let mut network = match existing {
            Some(network) => network.clone(),
            None => Network {
                number: self.networks.take_number()?,
                ..bare(BRIDGE, Driver::Bridge)
            },
        };
        let parent = match &self.config.bridge {
            DefaultBridge::On(device) => Some(Parent {
                device: device.clone(),
                made_of: None,
                hold: Hold::Port,
            }),
            DefaultBridge::Own | DefaultBridge::None => None,
        };
        let subnets = match &self.config.bridge {
            DefaultBridge::On(device) => vec![self.subnet_of_bridge(device).await?],
            // what a bridge had goes with it
            _ if network.is_on_bridge() => {
                let bare = Network {
                    subnets: vec![],
                    ..network.clone()
                };
                self.default_subnets(&bare).await?
            }
            _ => self.default_subnets(&network).await?,
        };
        let moves = !network.subnets.is_empty() && (network.subnets != subnets || network.parent != parent);
        if moves && !self.networks.in_network(&network.id).is_empty() {
            tracing::warn!(
                "containers run in the default network: it keeps its subnets and its bridge until they are stopped and the daemon starts again"
            );
        } else {
            network.subnets = subnets;
            network.parent = parent;
        }
        network.icc = self.config.icc;
        network.host_access = self.config.host_access;
        network.masquerade = self.config.masquerade;
        network.default_binding = self.config.default_binding;
        network.mtu_follows = self.config.mtu.is_none();
        network.mtu = match self.config.mtu {
            Some(mtu) => mtu,
            None => self.agent.default_mtu().await,
        };
        network.options = options(&network);
        Ok(network)
    }

    /// The subnet of a bridge that is there: containers are in it as all others on its wire.
    async fn subnet_of_bridge(&self, name: &str) -> Result<Subnet, EngineError> {
        let devices = self.agent.host_devices().await?;
        let bridge = devices
            .iter()
            .find(|device| device.name == name)
            .ok_or_else(|| EngineError::invalid(format!("--bridge {name}: the host has no device of that name")))?;
        if !bridge.is_bridge {
            return Err(EngineError::invalid(format!(
                "--bridge {name}: the device is no Linux bridge"
            )));
        }
        let own = bridge.addresses.iter().find_map(|address| match address {
            IpNet::V4(address) => Some(*address),
            IpNet::V6(_) => None,
        });
        let own = own.ok_or_else(|| {
            EngineError::invalid(format!(
                "--bridge {name}: the bridge has no IPv4 address that tells its subnet"
            ))
        })?;
        let mut subnet = subnet_of_bip(own)?;
        let router = self.agent.routers_by(name).await?;
        let inside = |address: &IpAddr| subnet.subnet.contains(address);
        let gateway = match self.config.default_gateway {
            Some(gateway) => Some(IpAddr::V4(gateway)),
            // where the host itself goes out, containers go as their neighbours on the wire
            None => router.into_iter().find(inside),
        };
        if let Some(gateway) = gateway {
            if !inside(&gateway) {
                return Err(EngineError::invalid(format!(
                    "--default-gateway {gateway} is not in the bridge's subnet {}",
                    subnet.subnet
                )));
            }
            subnet.gateway = gateway;
        }
        // the host's own address on the wire is nobody else's
        subnet.auxiliary.insert("host".to_owned(), IpAddr::V4(own.addr()));
        self.limit(&mut subnet)?;
        Ok(subnet)
    }

    /// `--fixed-cidr`
    fn limit(&self, subnet: &mut Subnet) -> Result<(), EngineError> {
        let Some(range) = self.config.fixed_cidr else {
            return Ok(());
        };
        let range = IpNet::V4(range.trunc());
        if !subnet.subnet.contains(&range) {
            return Err(EngineError::invalid(format!(
                "--fixed-cidr {range} is not in the default network's subnet {}",
                subnet.subnet
            )));
        }
        subnet.range = Some(range);
        Ok(())
    }

    /// What the daemon was told, else what the network has, else what is free.
    async fn default_subnets(&self, network: &Network) -> Result<Vec<Subnet>, EngineError> {
        let config = &self.config;
        let others = self.networks.all().into_iter().filter(|other| other.id != network.id);
        let occupied = Occupied {
            networks: others
                .flat_map(|other| other.subnets.into_iter().map(|subnet| subnet.subnet))
                .collect(),
            host: self.agent.occupied_prefixes().await?,
        };
        let has_pools = config.address_pools.iter().any(|pool| pool.base.addr().is_ipv4());
        let mut ipv4 = match (config.bip, network.subnet(Family::V4)) {
            (Some(bip), _) => subnet_of_bip(bip)?,
            (None, Some(subnet)) => Subnet {
                range: None,
                ..subnet.clone()
            },
            (None, None) if has_pools => {
                let whole = pools::choose(Family::V4, &config.address_pools, &self.identity, &occupied)?;
                create::place_in(whole, &SubnetWish::default())?
            }
            (None, None) => subnet_of_bip(free_range(&occupied)?)?,
        };
        self.limit(&mut ipv4)?;
        let mut subnets = vec![ipv4];
        if config.ipv6 {
            create::check_ipv6()?;
            let whole = match (config.fixed_cidr_v6, network.subnet(Family::V6)) {
                (Some(whole), _) => IpNet::V6(whole.trunc()),
                (None, Some(subnet)) => subnet.subnet,
                (None, None) => pools::choose(Family::V6, &config.address_pools, &self.identity, &occupied)?,
            };
            subnets.push(create::place_in(whole, &SubnetWish::default())?);
        }
        Ok(subnets)
    }

    async fn write_network(&self, network: Network, existing: Option<&Network>) -> Result<(), EngineError> {
        let place = key::network(&network.id);
        let conditions = if existing.is_none() {
            vec![Condition::Absent(place.clone())]
        } else {
            vec![]
        };
        let writes = vec![Write::Put(place, record::encode(&network)?)];
        self.commit(Transaction { conditions, writes }).await?;
        if existing.is_none() {
            self.tell_network("create", &network);
        }
        self.networks.enter(network);
        Ok(())
    }
}

/// Is it one of those that are always there?
pub(crate) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name)
}

/// `bridge`, `host` or `null`, as Docker calls the drivers.
pub(crate) fn driver_name(driver: Driver) -> &'static str {
    match driver {
        Driver::Bridge => "bridge",
        Driver::Host => "host",
        Driver::Null => "null",
        Driver::Macvlan => "macvlan",
        Driver::Ipvlan => "ipvlan",
        Driver::Overlay => "overlay",
    }
}

/// A network of which nothing is said yet.
pub(crate) fn bare(name: &str, driver: Driver) -> Network {
    Network {
        id: Id::from_bytes(rand::random()),
        name: name.to_owned(),
        driver,
        number: 0,
        subnets: vec![],
        icc: true,
        masquerade: false,
        internal: false,
        mtu: 0,
        default_binding: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        gateway_mode4: GatewayMode::default(),
        gateway_mode6: GatewayMode::default(),
        mtu_follows: false,
        parent: None,
        gateway_device: None,
        host_access: None,
        multicast: false,
        vni: 0,
        direct_routing: false,
        encrypted: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        created: Timestamp::now(),
    }
}

/// What `network inspect` shows of the default network in Docker.
fn options(network: &Network) -> BTreeMap<String, String> {
    let option = |name: &str, value: String| (format!("com.docker.network.{name}"), value);
    BTreeMap::from([
        option("bridge.default_bridge", "true".into()),
        option("bridge.enable_icc", network.icc.to_string()),
        option("bridge.enable_ip_masquerade", network.masquerade.to_string()),
        option("bridge.host_binding_ipv4", network.default_binding.to_string()),
        option("driver.mtu", network.mtu.to_string()),
    ])
}

fn subnet_of_bip(bip: Ipv4Net) -> Result<Subnet, EngineError> {
    let (gateway, whole) = (bip.addr(), bip.trunc());
    if whole.prefix_len() > 30 || gateway == whole.network() || gateway == whole.broadcast() {
        return Err(EngineError::invalid(format!(
            "--bip {bip}: the address of the gateway, with a prefix of 30 at most, is wanted"
        )));
    }
    Ok(Subnet {
        subnet: IpNet::V4(whole),
        gateway: IpAddr::V4(gateway),
        range: None,
        auxiliary: BTreeMap::new(),
    })
}

/// The first private range that nobody has: 172.17 to 172.31 of 16 bits, then 192.168 and 10 in parts, as Docker does.
fn free_range(occupied: &Occupied) -> Result<Ipv4Net, EngineError> {
    let candidate = |a: u8, b: u8, c: u8, prefix: u8| Ipv4Net::new(Ipv4Addr::new(a, b, c, 1), prefix);
    let candidates = (17..=31)
        .map(|second| candidate(172, second, 0, 16))
        .chain((0..16).map(|part| candidate(192, 168, part * 16, 20)))
        .chain((0..=255).map(|second| candidate(10, second, 0, 16)));
    let overlaps = |range: &Ipv4Net| {
        let others = occupied.host.iter().chain(&occupied.networks);
        others.into_iter().any(|other| match other {
            IpNet::V4(other) => other.contains(&range.trunc()) || range.contains(&other.trunc()),
            IpNet::V6(_) => false,
        })
    };
    candidates.flatten().find(|range| !overlaps(range)).ok_or_else(|| {
        EngineError::failed("no private IPv4 range is free for the default network: name one with --bip")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(nets: &[&str]) -> Occupied {
        Occupied {
            networks: vec![],
            host: nets.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_default_network_takes_dockers_range_or_the_next_free_one() {
        assert_eq!(free_range(&Occupied::default()).unwrap().to_string(), "172.17.0.1/16");
        assert_eq!(
            free_range(&nets(&["172.17.5.0/24"])).unwrap().to_string(),
            "172.18.0.1/16"
        );
        assert_eq!(
            free_range(&nets(&["172.16.0.0/12"])).unwrap().to_string(),
            "192.168.0.1/20"
        );
        assert_eq!(
            free_range(&nets(&["172.16.0.0/12", "192.168.0.0/16"]))
                .unwrap()
                .to_string(),
            "10.0.0.1/16"
        );
        assert!(free_range(&nets(&["0.0.0.0/0"])).is_err());
    }

    #[test]
    fn a_bip_names_the_gateway_not_the_network() {
        let subnet = subnet_of_bip("10.1.0.1/24".parse().unwrap()).unwrap();
        assert_eq!(
            (subnet.subnet.to_string(), subnet.gateway.to_string()),
            ("10.1.0.0/24".into(), "10.1.0.1".into())
        );
        for wrong in ["10.1.0.0/24", "10.1.0.255/24", "10.1.0.1/31", "10.1.0.1/32"] {
            assert!(subnet_of_bip(wrong.parse().unwrap()).is_err(), "{wrong}");
        }
    }
}
