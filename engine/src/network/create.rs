//! Makes a network: checks everything, chooses its subnets, commits it, and waits until it is real.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;
use sluice_model::{
    Network,
    network::{Driver, Family, GatewayMode, Subnet},
};
use sluice_store::{Condition, Transaction, Write, key, record};

use crate::{
    Engine, EngineError,
    network::{
        defaults, options,
        pools::{self, Occupied},
    },
    undo::Undo,
};

/// A request to make a network.
#[derive(Clone, Debug, Default)]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// The driver; empty: `bridge`.
    pub driver: String,
    /// `--internal`.
    pub internal: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// `--ipv4`; none: with it.
    pub ipv4: Option<bool>,
    /// `--ipv6`.
    pub ipv6: bool,
    /// What the user says of subnets.
    pub subnets: Vec<SubnetWish>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
}

/// What a user says of one subnet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SubnetWish {
    /// `--subnet`; none: one is chosen.
    pub subnet: Option<IpNet>,
    /// `--ip-range`.
    pub range: Option<IpNet>,
    /// `--gateway`.
    pub gateway: Option<IpAddr>,
    /// `--aux-address`.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl Engine {
    /// Makes a network and answers its id. Nothing half-made is left behind by a failure.
    pub async fn create_network(&self, request: CreateNetwork) -> Result<String, EngineError> {
        self.carry_out(|engine| async move {
            let _story = engine.networks.story.lock().await;
            let mut undo = Undo::default();
            let result = engine.make_network(request, &mut undo).await;
            if result.is_err() {
                undo.go_back().await;
            }
            result
        })
        .await
    }

    async fn make_network(self: &Arc<Self>, request: CreateNetwork, undo: &mut Undo) -> Result<String, EngineError> {
        self.check_name(&request.name)?;
        let driver = read_driver(&request.driver)?;
        let mut network = Network {
            labels: request.labels,
            internal: request.internal,
            attachable: request.attachable,
            masquerade: matches!(driver, Driver::Bridge | Driver::Overlay),
            default_binding: self.config.default_binding,
            mtu_follows: self.config.mtu.is_none(),
            ..defaults::bare(&request.name, driver)
        };
        network.mtu = match self.config.mtu {
            Some(mtu) => mtu,
            None => self.agent.default_mtu().await,
        };
        options::apply_labels(&mut network)?;
        options::apply(&mut network, request.options)?;
        if network.is_placed() {
            self.check_device_name(&network).await?;
        } else {
            self.take_parent(&mut network).await?;
        }
        let occupied = Occupied {
            networks: self.networks.subnets(),
            host: self.agent.occupied_prefixes().await?,
        };
        let families = Families {
            ipv4: request.ipv4.unwrap_or(true),
            ipv6: request.ipv6,
        };
        if families.ipv6 {
            check_ipv6()?;
        }
        // where a network stands on a wire of others, what a user names is the wire's, and the host is there too
        let checked = if network.is_placed() {
            occupied.clone()
        } else {
            occupied.without_host()
        };
        if network.is_shared() {
            network.created = Timestamp::now();
            let made = self
                .make_shared(network, |network, present| {
                    if present.networks.iter().any(|other| other.name == network.name) {
                        return Err(exists(&network.name));
                    }
                    let mut occupied = occupied.clone();
                    let theirs = present.networks.iter().flat_map(|other| &other.subnets);
                    occupied.networks.extend(theirs.map(|subnet| subnet.subnet));
                    // what is chosen is nowhere in anybody's way; what the user names must not be in a worse one
                    let mut of_all = occupied.clone();
                    present.others.iter().for_each(|host| host.add_to(&mut of_all));
                    network.subnets = self.subnets(&request.subnets, families, &occupied, &of_all, network.driver)?;
                    present.others.iter().try_for_each(|host| host.check(network))
                })
                .await?;
            self.tell_network("create", &made);
            return Ok(made.id.to_string());
        }
        network.subnets = self.subnets(&request.subnets, families, &checked, &occupied, driver)?;
        if network.is_placed() {
            network.number = self.networks.take_number()?;
        }
        network.created = Timestamp::now();

        let place = key::network(&network.id);
        let name = key::network_name(&network.name);
        undo.by("take the network away", {
            let (engine, id) = (self.clone(), network.id.clone());
            let writes = vec![Write::Delete(place.clone()), Write::Delete(name.clone())];
            async move {
                engine.networks.strike(&id);
                let transaction = Transaction {
                    writes,
                    ..Default::default()
                };
                engine.commit(transaction).await.map(drop)
            }
        });
        let revision = self
            .commit(Transaction {
                conditions: vec![Condition::Absent(place.clone()), Condition::Absent(name.clone())],
                writes: vec![
                    Write::Put(name, network.id.as_str().as_bytes().to_vec()),
                    Write::Put(place, record::encode(&network)?),
                ],
            })
            .await?;
        self.agent.settled(revision, &[network.id.as_str()]).await?;
        self.networks.enter(network.clone());
        self.prefixes_have_moved();
        self.tell_network("create", &network);
        Ok(network.id.to_string())
    }

    fn check_name(&self, name: &str) -> Result<(), EngineError> {
        if defaults::is_built_in(name) || name == "default" || name == "ingress" {
            return Err(EngineError::forbidden(format!(
                "operation is not permitted on predefined {name} network"
            )));
        }
        let usable = |c: char| !c.is_control() && !c.is_whitespace() && c != '/';
        if name.is_empty() || name.len() > 255 || !name.chars().all(usable) || name.starts_with("container:") {
            return Err(EngineError::invalid(format!("invalid network name: {name:?}")));
        }
        if self.networks.all().iter().any(|network| network.name == name) {
            return Err(exists(name));
        }
        Ok(())
    }

    fn subnets(
        &self,
        wishes: &[SubnetWish],
        families: Families,
        checked: &Occupied,
        occupied: &Occupied,
        driver: Driver,
    ) -> Result<Vec<Subnet>, EngineError> {
        let mut subnets: Vec<Subnet> = Vec::new();
        // a wish without a subnet is one about the subnet that is chosen: of the family of whatever else it says
        for (wish, family) in wishes.iter().map(|wish| (wish, wish.family())) {
            if !families.wants(family) {
                return Err(EngineError::invalid(match family {
                    Family::V4 => "IPv4 is disabled for the network, but an IPv4 subnet was named".to_owned(),
                    Family::V6 => {
                        "an IPv6 subnet was named, but IPv6 is not enabled for the network: say --ipv6".into()
                    }
                }));
            }
            if subnets.iter().any(|other| Family::of(other.gateway) == family) {
                return Err(EngineError::invalid(
                    "the bridge driver does not support several subnets of a family in one network",
                ));
            }
            subnets.push(self.subnet(wish, family, checked, occupied, driver)?);
        }
        for family in Family::BOTH {
            if families.wants(family) && !subnets.iter().any(|subnet| Family::of(subnet.gateway) == family) {
                subnets.push(self.subnet(&SubnetWish::default(), family, checked, occupied, driver)?);
            }
        }
        subnets.sort_by_key(|subnet| Family::of(subnet.gateway));
        if subnets.is_empty() {
            return Err(EngineError::invalid("IPv4 or IPv6 must be enabled"));
        }
        Ok(subnets)
    }

    /// `checked` against is a subnet that the user names, `occupied` is what keeps one from being chosen.
    fn subnet(
        &self,
        wish: &SubnetWish,
        family: Family,
        checked: &Occupied,
        occupied: &Occupied,
        driver: Driver,
    ) -> Result<Subnet, EngineError> {
        let whole = match wish.subnet {
            Some(subnet) => {
                let subnet = subnet.trunc();
                checked.check(subnet)?;
                subnet
            }
            None if driver == Driver::Overlay => {
                let pools = pools::of_all_hosts(&self.config.address_pools);
                pools::choose(family, &pools, &self.identity, occupied)?
            }
            None => pools::choose(family, &self.config.address_pools, &self.identity, occupied)?,
        };
        place_in(whole, wish)
    }
}

fn exists(name: &str) -> EngineError {
    EngineError::conflict(format!("network with name {name} already exists"))
}

/// Has the kernel IPv6 at all (it may be switched off at boot)?
pub(crate) fn check_ipv6() -> Result<(), EngineError> {
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    Err(EngineError::failed(
        "this host has no IPv6 (ipv6.disable=1 on the kernel's command line): a network cannot have it",
    ))
}

/// The subnet with all that the user says of it.
pub(crate) fn place_in(whole: IpNet, wish: &SubnetWish) -> Result<Subnet, EngineError> {
    let (bits, most) = match whole {
        IpNet::V4(_) => (32, 30),
        IpNet::V6(_) => (128, 126),
    };
    if whole.prefix_len() > most {
        return Err(EngineError::invalid(format!(
            "invalid subnet {whole}: of its {} bits none are left for a gateway and a container",
            bits
        )));
    }
    let inside = |what: &str, address: IpAddr| match whole.contains(&address) {
        true => Ok(address),
        false => Err(EngineError::invalid(format!("no matching subnet for {what} {address}"))),
    };
    let gateway = match wish.gateway {
        Some(gateway) => inside("gateway", gateway)?,
        None => pools::first_address(whole),
    };
    let edges = [whole.network(), whole.broadcast()];
    if gateway == whole.network() || (gateway.is_ipv4() && edges.contains(&gateway)) {
        return Err(EngineError::invalid(format!(
            "invalid gateway {gateway}: it is the first or the last address of {whole}"
        )));
    }
    let range = match wish.range.map(|range| range.trunc()) {
        Some(range) if !whole.contains(&range) => {
            return Err(EngineError::invalid(format!("no matching subnet for range {range}")));
        }
        range => range,
    };
    for address in wish.auxiliary.values() {
        inside("aux-address", *address)?;
        if *address == gateway {
            return Err(EngineError::forbidden(format!("Address already in use: {address}")));
        }
    }
    Ok(Subnet {
        subnet: whole,
        gateway,
        range,
        auxiliary: wish.auxiliary.clone(),
    })
}

/// Which families a network is to have.
#[derive(Clone, Copy)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    fn wants(self, family: Family) -> bool {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

impl SubnetWish {
    /// What it speaks of.
    fn family(&self) -> Family {
        let addresses = [
            self.subnet.map(|net| net.addr()),
            self.range.map(|net| net.addr()),
            self.gateway,
            self.auxiliary.values().next().copied(),
        ];
        let first = addresses.into_iter().flatten().next();
        Family::of(first.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }
}

fn read_driver(name: &str) -> Result<Driver, EngineError> {
    match name {
        "" | "bridge" | "default" => Ok(Driver::Bridge),
        "macvlan" => Ok(Driver::Macvlan),
        "ipvlan" => Ok(Driver::Ipvlan),
        "overlay" => Ok(Driver::Overlay),
        "host" | "null" => Err(EngineError::forbidden(format!(
            "only one instance of \"{name}\" network is allowed"
        ))),
        unknown => Err(EngineError::not_found(format!(
            "could not find plugin {unknown} in v2 plugin registry: plugin \"{unknown}\" not found"
        ))),
    }
}

/// An isolated network must have no way out in the first place.
pub(crate) fn check_modes(network: &Network) -> Result<(), EngineError> {
    let isolated = [network.gateway_mode4, network.gateway_mode6].contains(&GatewayMode::Isolated);
    if isolated && !network.internal {
        return Err(EngineError::invalid(
            "gateway mode 'isolated' can only be used for an internal network",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn placed(whole: &str, change: impl FnOnce(&mut SubnetWish)) -> Result<Subnet, EngineError> {
        let mut wish = SubnetWish::default();
        change(&mut wish);
        place_in(whole.parse().unwrap(), &wish)
    }

    #[test]
    fn a_subnet_has_its_first_address_as_gateway_and_what_the_user_says_of_it() {
        assert_eq!(placed("10.1.0.0/24", |_| {}).unwrap().gateway.to_string(), "10.1.0.1");
        let subnet = placed("10.1.0.0/24", |wish| {
            wish.gateway = "10.1.0.254".parse().ok();
            wish.range = "10.1.0.130/25".parse().ok();
        })
        .unwrap();
        assert_eq!(subnet.gateway.to_string(), "10.1.0.254");
        assert_eq!(subnet.range.unwrap().to_string(), "10.1.0.128/25");
    }

    #[test]
    fn what_does_not_belong_to_a_subnet_is_refused_by_name() {
        type Change = fn(&mut SubnetWish);
        let cases: [(&str, Change, &str); 6] = [
            (
                "10.1.0.0/24",
                |wish| wish.gateway = "10.2.0.1".parse().ok(),
                "no matching subnet for gateway 10.2.0.1",
            ),
            (
                "10.1.0.0/24",
                |wish| wish.gateway = "10.1.0.0".parse().ok(),
                "invalid gateway 10.1.0.0",
            ),
            (
                "10.1.0.0/24",
                |wish| wish.gateway = "10.1.0.255".parse().ok(),
                "invalid gateway 10.1.0.255",
            ),
            (
                "10.1.0.0/24",
                |wish| wish.range = "10.1.0.0/16".parse().ok(),
                "no matching subnet for range",
            ),
            ("10.1.0.0/31", |_| {}, "invalid subnet 10.1.0.0/31"),
            ("fd00::/127", |_| {}, "invalid subnet fd00::/127"),
        ];
        for (whole, change, words) in cases {
            let error = placed(whole, change).unwrap_err();
            assert!(error.kind == Kind::Invalid && error.message.contains(words), "{error}");
        }
        assert!(
            placed("fd00::/64", |wish| wish.gateway =
                "fd00::ffff:ffff:ffff:ffff".parse().ok())
            .is_ok()
        );
    }

    #[test]
    fn drivers_that_are_not_ours_are_told_apart() {
        assert_eq!(read_driver("").unwrap(), Driver::Bridge);
        assert_eq!(read_driver("macvlan").unwrap(), Driver::Macvlan);
        assert_eq!(read_driver("overlay").unwrap(), Driver::Overlay);
        for (name, kind) in [
            ("host", Kind::Forbidden),
            ("null", Kind::Forbidden),
            ("fancy", Kind::NotFound),
        ] {
            assert_eq!(read_driver(name).unwrap_err().kind, kind, "{name}");
        }
    }
}
