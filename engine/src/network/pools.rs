//! Subnets: which are free, and which a new network gets when its user names none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_model::network::Family;

use crate::{EngineError, Kind};

/// A range that subnets are cut from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressPool {
    /// The range.
    pub base: IpNet,
    /// The prefix length of the subnets.
    pub size: u8,
}

/// Of 24 bits each, so that thousands of networks find one; Docker's are so large that there are 31.
/// The default network's 172.17.0.0/16 is not among them, nor 10.0.0.0/16, where so many hosts live.
const DEFAULTS: [(Ipv4Addr, u8); 6] = [
    (Ipv4Addr::new(172, 18, 0, 0), 15),
    (Ipv4Addr::new(172, 20, 0, 0), 14),
    (Ipv4Addr::new(172, 24, 0, 0), 13),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(10, 128, 0, 0), 9),
    (Ipv4Addr::new(10, 64, 0, 0), 10),
];
const DEFAULT_SIZE: u8 = 24;
/// Networks on several hosts are made where none of the networks of one host are: each host chooses these without asking the others.
const OF_ALL_HOSTS: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::new(10, 32, 0, 0), 11), (Ipv4Addr::new(10, 16, 0, 0), 12)];
/// The subnets of the unique local prefix that this host makes up (RFC 4193, 3.1: 40 random bits, then 16 of the subnet).
const LOCAL_SIZE: u8 = 64;

/// What has its place already.
#[derive(Clone, Default, Debug)]
pub(crate) struct Occupied {
    /// Subnets of our networks.
    pub networks: Vec<IpNet>,
    /// Prefixes that the host has addresses in or routes to.
    pub host: Vec<IpNet>,
}

impl Occupied {
    /// May a user have this subnet? It must not overlap with that of another network. What the host routes may contain it, as a more
    /// specific route goes before; but what the host has in the subnet itself would be lost.
    pub fn check(&self, wanted: IpNet) -> Result<(), EngineError> {
        let overlaps = |by: String| {
            let words = format!("Pool overlaps with other one on this address space: {wanted} overlaps with {by}");
            EngineError::new(Kind::Forbidden, words)
        };
        if let Some(other) = self.networks.iter().find(|other| overlap(wanted, **other)) {
            return Err(overlaps(format!("{other} of another network")));
        }
        if let Some(other) = self.host.iter().find(|other| wanted.contains(*other)) {
            return Err(overlaps(format!(
                "{other}, which the host has an address in or a route to"
            )));
        }
        Ok(())
    }

    /// Of our networks alone.
    pub fn without_host(&self) -> Self {
        Self {
            networks: self.networks.clone(),
            host: vec![],
        }
    }

    /// Everything that has a place in this family, first and last address, in order.
    fn spans(&self, family: Family) -> Vec<(u128, u128)> {
        let mut spans: Vec<(u128, u128)> = self
            .networks
            .iter()
            .chain(&self.host)
            .filter(|taken| Family::of(taken.addr()) == family)
            .map(|taken| (bits(taken.network()), bits(taken.broadcast())))
            .collect();
        spans.sort_unstable();
        spans
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The first free subnet of a family. `pools` are the user's; a family that these say nothing of has its defaults. `identity` is the daemon's.
pub(crate) fn choose(
    family: Family,
    pools: &[AddressPool],
    identity: &str,
    occupied: &Occupied,
) -> Result<IpNet, EngineError> {
    let mut own: Vec<AddressPool> = pools
        .iter()
        .filter(|pool| Family::of(pool.base.addr()) == family)
        .copied()
        .collect();
    if own.is_empty() {
        own = defaults(family, identity);
    }
    let taken = occupied.spans(family);
    own.iter()
        .find_map(|pool| pool.first_free(&taken))
        .ok_or_else(|| {
            EngineError::new(
                Kind::Forbidden,
                "all predefined address pools have been fully subnetted: name a subnet, or give the daemon more with --default-address-pool",
            )
        })
}

/// Where the subnets of networks on several hosts come from.
pub(crate) fn of_all_hosts(pools: &[AddressPool]) -> Vec<AddressPool> {
    let mut all = pools.to_vec();
    if !all.iter().any(|pool| pool.base.addr().is_ipv4()) {
        all.extend(cut(&OF_ALL_HOSTS));
    }
    all
}

fn cut(bases: &[(Ipv4Addr, u8)]) -> Vec<AddressPool> {
    bases
        .iter()
        .filter_map(|(base, length)| Ipv4Net::new(*base, *length).ok())
        .map(|base| AddressPool {
            base: IpNet::V4(base),
            size: DEFAULT_SIZE,
        })
        .collect()
}

fn defaults(family: Family, identity: &str) -> Vec<AddressPool> {
    match family {
        Family::V4 => cut(&DEFAULTS),
        Family::V6 => vec![AddressPool {
            base: IpNet::V6(unique_local(identity)),
            size: LOCAL_SIZE,
        }],
    }
}

/// The /48 of unique local addresses that belongs to a daemon: the same on each of its starts, another than any other daemon's.
fn unique_local(identity: &str) -> Ipv6Net {
    // FNV-1a, 64 bit: it must not change with the compiler, as std's hashers may
    let hash = identity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // folded, so that all bits have a say
    let [.., a, b, c, d, e] = (hash ^ (hash >> 40)).to_be_bytes();
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&[0xfd, a, b, c, d, e]);
    Ipv6Net::new_assert(Ipv6Addr::from(octets), 48)
}

impl AddressPool {
    /// The first of its subnets that overlaps with nothing of `taken`, whose spans are in the order of their first addresses.
    fn first_free(&self, taken: &[(u128, u128)]) -> Option<IpNet> {
        let (width, last) = (u32::from(self.base.max_prefix_len()), bits(self.base.broadcast()));
        if self.size < self.base.prefix_len() {
            return None;
        }
        let size = 1_u128.checked_shl(width.checked_sub(u32::from(self.size))?)?;
        let mut candidate = bits(self.base.network());
        for (first, end) in taken {
            // what begins behind the candidate leaves it free, and so does all that comes after
            if *first > candidate + (size - 1) {
                break;
            }
            if *end >= candidate {
                // the next one that begins behind this span
                candidate = (end & !(size - 1)).checked_add(size)?;
            }
        }
        let address = match self.base {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(candidate).ok()?)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(candidate)),
        };
        IpNet::new(address, self.size).ok().filter(|_| candidate <= last)
    }
}

/// The first address of a subnet that can be a gateway's.
pub(crate) fn first_address(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(subnet) => IpAddr::V4(Ipv4Addr::from_bits(subnet.network().to_bits() + 1)),
        IpNet::V6(subnet) => IpAddr::V6(Ipv6Addr::from_bits(subnet.network().to_bits() + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(nets: &[&str]) -> Vec<IpNet> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn occupied(networks: &[&str], host: &[&str]) -> Occupied {
        Occupied {
            networks: nets(networks),
            host: nets(host),
        }
    }

    fn chosen(family: Family, pools: &[AddressPool], occupied: &Occupied) -> Result<String, EngineError> {
        choose(family, pools, "one", occupied).map(|net| net.to_string())
    }

    #[test]
    fn networks_get_the_first_subnet_that_nobody_has() {
        let with = |networks: &[&str], host: &[&str]| chosen(Family::V4, &[], &occupied(networks, host)).unwrap();
        assert_eq!(with(&["172.17.0.0/16"], &[]), "172.18.0.0/24");
        assert_eq!(with(&["172.18.0.0/24"], &["172.18.1.128/25"]), "172.18.2.0/24");
        assert_eq!(with(&["172.16.0.0/12"], &["192.168.0.0/24"]), "192.168.1.0/24");
        assert!(chosen(Family::V4, &[], &occupied(&[], &["0.0.0.0/0"])).is_err());
    }

    #[test]
    fn the_first_free_subnet_is_what_a_look_at_one_after_the_other_finds() {
        let pool = AddressPool {
            base: "10.1.0.0/20".parse().unwrap(),
            size: 24,
        };
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut full = 0;
        for _ in 0..2_000 {
            let networks: Vec<IpNet> = (0..next(24))
                .map(|_| {
                    let (third, fourth, length) = (next(18), next(256), 20 + next(13));
                    let net: IpNet = format!("10.1.{third}.{fourth}/{length}").parse().unwrap();
                    net.trunc()
                })
                .collect();
            let occupied = Occupied { networks, host: vec![] };
            let IpNet::V4(base) = pool.base else { unreachable!() };
            let overlap = |one: IpNet, other: &IpNet| one.contains(other) || other.contains(&one);
            let one_by_one = base
                .subnets(24)
                .unwrap()
                .map(IpNet::V4)
                .find(|subnet| !occupied.networks.iter().any(|taken| overlap(*subnet, taken)));
            full += usize::from(one_by_one.is_none());
            assert_eq!(pool.first_free(&occupied.spans(Family::V4)), one_by_one, "{occupied:?}");
        }
        assert!((1..2_000).contains(&full), "both ends occur");
    }

    #[test]
    fn there_is_room_for_more_networks_than_the_datapath_has_numbers() {
        let all: usize = defaults(Family::V4, "one")
            .iter()
            .map(|pool| 1_usize << (pool.size - pool.base.prefix_len()))
            .sum();
        assert!(all > 4096, "{all}");
        let pools = defaults(Family::V4, "one");
        for (index, one) in pools.iter().enumerate() {
            assert!(pools.iter().skip(index + 1).all(|other| !overlap(one.base, other.base)));
        }
    }

    #[test]
    fn the_users_pools_take_the_place_of_the_defaults_of_their_family() {
        let pools = [AddressPool {
            base: "10.9.0.0/16".parse().unwrap(),
            size: 17,
        }];
        assert_eq!(chosen(Family::V4, &pools, &occupied(&[], &[])).unwrap(), "10.9.0.0/17");
        let error = chosen(Family::V4, &pools, &occupied(&["10.9.0.0/24"], &["10.9.200.0/24"])).unwrap_err();
        assert!(error.message.contains("have been fully subnetted"), "{error}");
        assert!(
            chosen(Family::V6, &pools, &occupied(&[], &[]))
                .unwrap()
                .starts_with("fd")
        );
    }

    #[test]
    fn a_daemon_has_a_unique_local_prefix_of_its_own() {
        let prefix = unique_local("one");
        assert_eq!(prefix, unique_local("one"));
        assert_ne!(prefix, unique_local("two"));
        assert_eq!((prefix.addr().octets()[0], prefix.prefix_len()), (0xfd, 48));
        let first = choose(Family::V6, &[], "one", &Occupied::default()).unwrap();
        let second = choose(
            Family::V6,
            &[],
            "one",
            &Occupied {
                networks: vec![first],
                host: vec![],
            },
        );
        assert_ne!(first, second.unwrap());
        assert_eq!(first.prefix_len(), 64);
    }

    #[test]
    fn a_subnet_of_the_users_choice_may_lie_in_a_route_of_the_hosts_but_not_hide_one() {
        let here = occupied(&["172.18.0.0/24"], &["10.0.0.0/8", "192.168.7.0/24"]);
        for (wanted, fine) in [
            ("10.1.0.0/16", true),
            ("10.0.0.0/8", false),
            ("192.168.0.0/16", false),
            ("192.168.7.0/24", false),
            ("192.168.7.128/25", true),
            ("172.18.0.128/25", false),
            ("172.16.0.0/12", false),
            ("172.19.0.0/16", true),
        ] {
            let outcome = here.check(wanted.parse().unwrap());
            assert_eq!(outcome.is_ok(), fine, "{wanted}");
            if let Err(error) = outcome {
                assert!(
                    error
                        .message
                        .starts_with("Pool overlaps with other one on this address space")
                );
            }
        }
    }

    #[test]
    fn a_gateway_is_the_first_address_when_nobody_says_otherwise() {
        let first = |net: &str| first_address(net.parse().unwrap()).to_string();
        assert_eq!(first("10.0.0.0/24"), "10.0.0.1");
        assert_eq!(first("fd00::/64"), "fd00::1");
    }
}
