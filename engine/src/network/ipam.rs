//! Addresses: who has which, and which comes next.
//!
//! An address is given again as late as possible: behind each subnet runs a cursor, and the next address is the next free one after it. A packet
//! or a client that is late then meets nobody rather than a stranger. IPv6 goes the same way: in a row from the subnet's beginning, as Docker does,
//! which is as good as any other in a prefix that nobody else gives addresses of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use sluice_model::{
    Id,
    network::{Family, Subnet},
};

use crate::{EngineError, Kind};

/// Addresses of all networks of this host.
#[derive(Default)]
pub(crate) struct Ipam {
    networks: BTreeMap<(Id, Family), Pool>,
}

#[derive(Default)]
struct Pool {
    taken: BTreeSet<u128>,
    last: Option<u128>,
}

impl Ipam {
    /// Enters an address that somebody has already (read from the store).
    pub fn enter(&mut self, network: &Id, address: IpAddr) {
        let pool = self.pool(network, Family::of(address));
        pool.taken.insert(bits(address));
        pool.last = pool.last.max(Some(bits(address)));
    }

    /// The next free address of a subnet, taken.
    pub fn take(&mut self, network: &Id, subnet: &Subnet) -> Result<IpAddr, EngineError> {
        let family = Family::of(subnet.gateway);
        let range = subnet.range.unwrap_or(subnet.subnet);
        let (first, last) = (bits(range.network()), bits(range.broadcast()));
        let pool = self.pool(network, family);
        let after = pool
            .last
            .filter(|last_given| (first..last).contains(last_given))
            .map_or(first, |given| given + 1);
        let given = (after..=last)
            .chain(first..after)
            .find(|bits| !pool.taken.contains(bits) && refusal(subnet, *bits).is_none())
            .ok_or_else(|| {
                EngineError::failed(format!(
                    "no available {} addresses on this network's address pools: {}",
                    if family == Family::V4 { "IPv4" } else { "IPv6" },
                    subnet.subnet
                ))
            })?;
        pool.taken.insert(given);
        pool.last = Some(given);
        Ok(address(family, given))
    }

    /// This very address of a subnet, taken.
    pub fn take_wanted(&mut self, network: &Id, subnet: &Subnet, wanted: IpAddr) -> Result<(), EngineError> {
        let in_use = || EngineError::new(Kind::Forbidden, format!("Address already in use: {wanted}"));
        if !subnet.subnet.contains(&wanted) {
            return Err(EngineError::invalid(format!(
                "no configured subnet contains IP address {wanted}"
            )));
        }
        match refusal(subnet, bits(wanted)) {
            Some(Unusable::Edge) => {
                return Err(EngineError::invalid(format!(
                    "{wanted} is the first or the last address of {}, no container can have it",
                    subnet.subnet
                )));
            }
            Some(Unusable::Spoken) => return Err(in_use()),
            None => {}
        }
        // the cursor stays where it is: an address that was asked for says nothing about the next one
        if self.pool(network, Family::of(wanted)).taken.insert(bits(wanted)) {
            Ok(())
        } else {
            Err(in_use())
        }
    }

    /// Gives an address back.
    pub fn release(&mut self, network: &Id, address: IpAddr) {
        self.pool(network, Family::of(address)).taken.remove(&bits(address));
    }

    /// These addresses of a network are somebody's, and no others; what comes next is as it was.
    pub fn replace(&mut self, network: &Id, addresses: &[IpAddr]) {
        for family in Family::BOTH {
            let taken = addresses.iter().filter(|address| Family::of(**address) == family);
            self.pool(network, family).taken = taken.map(|address| bits(*address)).collect();
        }
    }

    /// Forgets a network that is gone.
    pub fn forget(&mut self, network: &Id) {
        for family in Family::BOTH {
            self.networks.remove(&(network.clone(), family));
        }
    }

    fn pool(&mut self, network: &Id, family: Family) -> &mut Pool {
        self.networks.entry((network.clone(), family)).or_default()
    }
}

/// Why an address of a subnet is no endpoint's.
enum Unusable {
    /// It is the network's own or its broadcast address (RFC 919), or that of its routers (RFC 4291, 2.6.1).
    Edge,
    /// The gateway has it, or the user said that somebody else has.
    Spoken,
}

fn refusal(subnet: &Subnet, wanted: u128) -> Option<Unusable> {
    let whole = subnet.subnet;
    let first = wanted == bits(whole.network());
    let last = wanted == bits(whole.broadcast());
    let at_the_edge = match whole {
        IpNet::V4(whole) => whole.prefix_len() < 31 && (first || last),
        IpNet::V6(whole) => whole.prefix_len() < 127 && first,
    };
    if at_the_edge {
        return Some(Unusable::Edge);
    }
    let spoken = wanted == bits(subnet.gateway) || subnet.auxiliary.values().any(|address| bits(*address) == wanted);
    spoken.then_some(Unusable::Spoken)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        // what was counted within a subnet of the family has no higher bits
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str, gateway: &str, range: Option<&str>) -> Subnet {
        Subnet {
            subnet: text.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            range: range.map(|range| range.parse().unwrap()),
            auxiliary: BTreeMap::new(),
        }
    }

    fn network() -> Id {
        Id::from_bytes([7; 32])
    }

    #[test]
    fn addresses_come_in_order_and_skip_the_gateway() {
        let mut ipam = Ipam::default();
        let subnet = subnet("172.17.0.0/16", "172.17.0.1", None);
        let mut take = || ipam.take(&network(), &subnet).unwrap().to_string();
        assert_eq!([take(), take()], ["172.17.0.2", "172.17.0.3"]);
    }

    #[test]
    fn a_released_address_is_given_again_only_when_its_turn_comes() {
        let mut ipam = Ipam::default();
        let subnet = subnet("10.0.0.0/29", "10.0.0.1", None);
        let given: Vec<IpAddr> = (0..3).map(|_| ipam.take(&network(), &subnet).unwrap()).collect();
        ipam.release(&network(), given[0]);
        assert_eq!(ipam.take(&network(), &subnet).unwrap().to_string(), "10.0.0.5");
        assert_eq!(ipam.take(&network(), &subnet).unwrap().to_string(), "10.0.0.6");
        assert_eq!(
            ipam.take(&network(), &subnet).unwrap(),
            given[0],
            "the cursor wraps around"
        );
    }

    #[test]
    fn a_full_subnet_says_so_and_never_gives_its_edges() {
        let mut ipam = Ipam::default();
        let subnet = subnet("10.0.0.0/30", "10.0.0.1", None);
        assert_eq!(ipam.take(&network(), &subnet).unwrap().to_string(), "10.0.0.2");
        assert!(
            ipam.take(&network(), &subnet)
                .unwrap_err()
                .message
                .contains("no available IPv4 addresses")
        );
    }

    #[test]
    fn a_range_bounds_what_is_given() {
        let mut ipam = Ipam::default();
        let subnet = subnet("10.0.0.0/24", "10.0.0.1", Some("10.0.0.128/30"));
        let all: Vec<String> = (0..4)
            .map(|_| ipam.take(&network(), &subnet).unwrap().to_string())
            .collect();
        assert_eq!(all, ["10.0.0.128", "10.0.0.129", "10.0.0.130", "10.0.0.131"]);
        assert!(ipam.take(&network(), &subnet).is_err());
    }

    #[test]
    fn what_the_store_knows_is_not_given_twice() {
        let mut ipam = Ipam::default();
        ipam.enter(&network(), "10.0.0.2".parse().unwrap());
        let subnet = subnet("10.0.0.0/24", "10.0.0.1", None);
        assert_eq!(ipam.take(&network(), &subnet).unwrap().to_string(), "10.0.0.3");
    }

    #[test]
    fn ipv6_goes_in_a_row_however_large_the_prefix_is() {
        let mut ipam = Ipam::default();
        let subnet = subnet("fd00:1::/64", "fd00:1::1", None);
        let mut take = || ipam.take(&network(), &subnet).unwrap().to_string();
        assert_eq!([take(), take()], ["fd00:1::2", "fd00:1::3"]);
        let small = self::subnet("fd00:2::/126", "fd00:2::1", None);
        let all: Vec<String> = (0..2)
            .map(|_| ipam.take(&Id::from_bytes([8; 32]), &small).unwrap().to_string())
            .collect();
        assert_eq!(all, ["fd00:2::2", "fd00:2::3"], "IPv6 has no broadcast address");
        let full = ipam.take(&Id::from_bytes([8; 32]), &small).unwrap_err();
        assert!(full.message.contains("no available IPv6 addresses"), "{full}");
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_when_it_is_free_and_belongs_here() {
        let mut ipam = Ipam::default();
        let mut subnet = subnet("10.0.0.0/24", "10.0.0.1", None);
        subnet.auxiliary = BTreeMap::from([("router".into(), "10.0.0.5".parse().unwrap())]);
        let mut take = |text: &str| ipam.take_wanted(&network(), &subnet, text.parse().unwrap());
        assert!(take("10.0.0.9").is_ok());
        for (wanted, kind, words) in [
            ("10.0.0.9", Kind::Forbidden, "already in use"),
            ("10.0.0.1", Kind::Forbidden, "already in use"),
            ("10.0.0.5", Kind::Forbidden, "already in use"),
            ("10.0.1.9", Kind::Invalid, "no configured subnet contains"),
            ("10.0.0.255", Kind::Invalid, "the first or the last address"),
            ("fd00::9", Kind::Invalid, "no configured subnet contains"),
        ] {
            let error = take(wanted).unwrap_err();
            assert!(error.kind == kind && error.message.contains(words), "{wanted}: {error}");
        }
        assert_eq!(ipam.take(&network(), &subnet).unwrap().to_string(), "10.0.0.2");
    }

    #[test]
    fn auxiliary_addresses_are_passed_over() {
        let mut ipam = Ipam::default();
        let mut subnet = subnet("10.0.0.0/29", "10.0.0.1", None);
        subnet.auxiliary = BTreeMap::from([("a".into(), "10.0.0.2".parse().unwrap())]);
        assert_eq!(ipam.take(&network(), &subnet).unwrap().to_string(), "10.0.0.3");
    }
}
