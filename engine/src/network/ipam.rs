//! Addresses: who has which, and which comes next.
//!
//! An address is given again as late as possible: behind each subnet runs a cursor, and the next address is the next free one after it. A packet
//! or a client that is late then meets nobody rather than a stranger.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use sluice_model::{Id, network::Subnet};

use crate::EngineError;

/// Addresses of all networks of this host.
#[derive(Default)]
pub(crate) struct Ipam {
    networks: BTreeMap<Id, Pool>,
}

#[derive(Default)]
struct Pool {
    taken: BTreeSet<IpAddr>,
    last: Option<u32>,
}

impl Ipam {
    /// Enters an address that somebody has already (read from the store).
    pub fn enter(&mut self, network: &Id, address: IpAddr) {
        let pool = self.networks.entry(network.clone()).or_default();
        pool.taken.insert(address);
        if let IpAddr::V4(address) = address {
            pool.last = pool.last.max(Some(address.to_bits()));
        }
    }

    /// The next free address of a subnet, taken.
    pub fn take(&mut self, network: &Id, subnet: &Subnet) -> Result<IpAddr, EngineError> {
        let none_left = || {
            EngineError::failed(format!(
                "no available IPv4 addresses on this network's address pools: {}",
                subnet.subnet
            ))
        };
        let IpNet::V4(whole) = subnet.subnet else {
            return Err(EngineError::not_offered("IPv6 subnets are not offered by this version"));
        };
        let range = match subnet.range {
            Some(IpNet::V4(range)) => range,
            _ => whole,
        };
        let pool = self.networks.entry(network.clone()).or_default();
        let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
        let usable = |bits: u32| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
            let at_the_edge =
                whole.prefix_len() < 31 && (bits == whole.network().to_bits() || bits == whole.broadcast().to_bits());
            !at_the_edge && address != subnet.gateway && !pool.taken.contains(&address)
        };
        let after = pool
            .last
            .filter(|last_given| (first..last).contains(last_given))
            .map_or(first, |given| given + 1);
        let bits = (after..=last)
            .chain(first..after)
            .find(|bits| usable(*bits))
            .ok_or_else(none_left)?;
        let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
        pool.taken.insert(address);
        pool.last = Some(bits);
        Ok(address)
    }

    /// Gives an address back.
    pub fn release(&mut self, network: &Id, address: IpAddr) {
        if let Some(pool) = self.networks.get_mut(network) {
            pool.taken.remove(&address);
        }
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
}
