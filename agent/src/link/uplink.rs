//! Where the world begins: the devices that lead to it, and the host's own addresses.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType},
};

use super::listing::{Address, Device};
use crate::{kernel::netlink::Netlink, names::Names};

/// A device that leads to the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub mtu: u32,
    /// It lends its addresses to masqueraded flows. One that leads to the networks of another Sluice does not: whoever spoke from there would be taken
    /// for this host.
    pub lends: bool,
    /// The IPv4 address that masqueraded flows leave with: its primary one.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that masqueraded flows leave with: one that will stay.
    pub ipv6: Option<Ipv6Addr>,
}

/// What of the host is not ours.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct World {
    /// Devices that programs are attached to.
    pub uplinks: Vec<Uplink>,
    /// The host's own addresses and the devices that bear them; not among them are loopback's, those of one link only, and our gateways.
    pub addresses: Vec<(IpAddr, u32)>,
}

impl World {
    /// Picks from what is there. Ours is a device by its alias or name (events about one may come before its alias).
    pub fn of(devices: &[Device], addresses: &[Address], names: &Names) -> Self {
        let ours = |device: &Device| {
            names.is_ours(&device.alias)
                || [&names.host_leg, &names.datapath_leg, &names.resolver_leg].contains(&&device.name)
        };
        let foreign: HashSet<u32> = devices
            .iter()
            .filter(|device| !ours(device))
            .map(|device| device.ifindex)
            .collect();
        // The programs read Ethernet headers: tunnels without one (tun, ppp, wireguard) are the host stack's affair.
        let leads_out = |device: &&Device| device.ethernet && !device.loopback && !ours(device);
        let uplinks = devices
            .iter()
            .filter(leads_out)
            .map(|device| Uplink {
                ifindex: device.ifindex,
                name: device.name.clone(),
                mtu: device.mtu,
                lends: !names.leads_to_another(&device.alias),
                ipv4: primary(addresses, device.ifindex),
                ipv6: lasting(addresses, device.ifindex),
            })
            .filter(|uplink| uplink.ipv4.is_some() || uplink.ipv6.is_some())
            .collect();
        let addresses = addresses
            .iter()
            .filter(|address| is_everywhere(address.address.addr()) && foreign.contains(&address.ifindex))
            .map(|address| (address.address.addr(), address.ifindex))
            .collect();
        Self { uplinks, addresses }
    }
}

/// Is it known beyond a link and this host? (An IPv4 address of one link only, 169.254/16, is an address like another: clouds route them.)
fn is_everywhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// A device's first IPv4 address that is neither secondary nor only for its link, if there is one; else its first.
fn primary(addresses: &[Address], ifindex: u32) -> Option<Ipv4Addr> {
    addresses
        .iter()
        .filter(|address| address.ifindex == ifindex)
        .filter_map(|address| match address.address.addr() {
            IpAddr::V4(bare) => Some((address, bare)),
            IpAddr::V6(_) => None,
        })
        .min_by_key(|(address, _)| (!address.universal, address.secondary))
        .map(|(_, bare)| bare)
}

/// A device's best IPv6 address to speak from: a global one before a unique local one, of these one that will be there tomorrow. One that is
/// deprecated is better than none: what speaks from it is heard.
fn lasting(addresses: &[Address], ifindex: u32) -> Option<Ipv6Addr> {
    addresses
        .iter()
        .filter(|address| address.ifindex == ifindex && !address.unusable)
        .filter_map(|address| match address.address.addr() {
            IpAddr::V6(bare) if is_everywhere(bare.into()) => Some((address, bare)),
            _ => None,
        })
        .min_by_key(|(address, bare)| (address.deprecated, bare.is_unique_local(), address.secondary))
        .map(|(_, bare)| bare)
}

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where to; of no bits is the default.
    pub destination: IpNet,
    /// By which device, of several the first; 0: by none.
    pub ifindex: u32,
    /// By which router.
    pub gateway: Option<IpAddr>,
    /// Smaller is preferred.
    pub priority: u32,
    /// Its own MTU, bytes; 0: its device's.
    pub mtu: u32,
}

/// The unicast routes of the main table, of both families.
pub fn routes(netlink: &mut Netlink) -> io::Result<Vec<Route>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        netlink.dump(RouteNetlinkMessage::GetRoute(request), |answer| {
            if let RouteNetlinkMessage::NewRoute(message) = answer {
                routes.extend(route(&message));
            }
        })?;
    }
    Ok(routes)
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut route = Route {
        destination: match header.address_family {
            AddressFamily::Inet => IpNet::V4(Ipv4Net::default()),
            AddressFamily::Inet6 => IpNet::V6(Ipv6Net::default()),
            _ => return None,
        },
        ifindex: 0,
        gateway: None,
        priority: 0,
        mtu: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.destination = IpNet::new(plain(address)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(address) => route.gateway = plain(address),
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Priority(priority) => route.priority = *priority,
            RouteAttribute::Metrics(metrics) => {
                let mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                route.mtu = mtu.unwrap_or(0);
            }
            RouteAttribute::MultiPath(hops) => route.ifindex = hops.first().map_or(0, |hop| hop.interface_index),
            _ => {}
        }
    }
    Some(route)
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The ways to everywhere.
pub fn default_routes(routes: &[Route]) -> impl Iterator<Item = &Route> {
    routes.iter().filter(|route| route.destination.prefix_len() == 0)
}

/// The MTU of the default route, or of its device, IPv4's before IPv6's; 1500 without one.
pub fn default_mtu(routes: &[Route], devices: &[Device]) -> u32 {
    default_routes(routes)
        .min_by_key(|route| (route.destination.addr().is_ipv6(), route.priority))
        .and_then(|route| {
            let device = devices.iter().find(|device| device.ifindex == route.ifindex);
            let mtu = device.map_or(route.mtu, |device| match route.mtu {
                0 => device.mtu,
                own => own.min(device.mtu),
            });
            (mtu > 0).then_some(mtu)
        })
        .unwrap_or(1500)
}

/// Does it keep others from its addresses? Not the way to everywhere, not what is meant for one link or for many.
pub fn takes_place(prefix: &IpNet) -> bool {
    let for_many = matches!(prefix, IpNet::V6(prefix) if prefix.addr().is_multicast());
    prefix.prefix_len() > 0 && is_everywhere(prefix.addr()) && !for_many
}

/// What addresses and routes of others occupy, the default route not counted.
pub fn occupied(devices: &[Device], addresses: &[Address], routes: &[Route], names: &Names) -> Vec<IpNet> {
    let ours: HashSet<u32> = devices
        .iter()
        .filter(|device| names.is_ours(&device.alias) || device.name == names.host_leg)
        .map(|device| device.ifindex)
        .collect();
    let by_address = addresses
        .iter()
        .filter(|address| !ours.contains(&address.ifindex))
        .map(|address| address.address.trunc());
    let by_route = routes
        .iter()
        .filter(|route| !ours.contains(&route.ifindex))
        .map(|route| route.destination.trunc());
    let mut occupied: Vec<IpNet> = by_address.chain(by_route).filter(takes_place).collect();
    occupied.sort();
    occupied.dedup();
    occupied
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn names() -> Names {
        Names::new("default", Path::new("/sys/fs/bpf")).unwrap()
    }

    fn device(ifindex: u32, name: &str) -> Device {
        Device {
            ifindex,
            name: name.into(),
            mtu: 1500,
            up: true,
            ethernet: true,
            ..Device::default()
        }
    }

    fn address(ifindex: u32, address: &str) -> Address {
        Address {
            ifindex,
            address: address.parse().unwrap(),
            universal: true,
            secondary: false,
            deprecated: false,
            unusable: false,
        }
    }

    #[test]
    fn a_device_with_an_address_that_is_not_ours_leads_to_the_world() {
        let lo = Device {
            loopback: true,
            ethernet: false,
            ..device(1, "lo")
        };
        let tunnel = Device {
            ethernet: false,
            ..device(4, "wg0")
        };
        let leg = Device {
            alias: names().leg_alias(),
            ..device(5, "sluice0")
        };
        let other = Device {
            alias: "sluice/other/host".into(),
            ..device(6, "sl-other")
        };
        let devices = [lo, device(2, "eth0"), device(3, "eth1"), tunnel, leg, other];
        let addresses = [
            address(1, "127.0.0.1/8"),
            address(1, "10.9.9.9/32"),
            address(2, "192.0.2.1/24"),
            address(4, "10.8.0.1/24"),
            address(5, "172.17.0.1/16"),
            address(6, "172.18.0.1/16"),
        ];
        let world = World::of(&devices, &addresses, &names());
        let uplinks: Vec<_> = world.uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
        assert_eq!(
            uplinks,
            ["eth0", "sl-other"],
            "no loopback, no address, no Ethernet, ours: none of these"
        );
        let lends: Vec<_> = world.uplinks.iter().map(|uplink| uplink.lends).collect();
        assert_eq!(lends, [true, false], "another instance's networks are closed to ours");
        let local: Vec<_> = world.addresses.iter().map(|(address, _)| address.to_string()).collect();
        assert_eq!(local, ["10.9.9.9", "192.0.2.1", "10.8.0.1", "172.18.0.1"]);
    }

    #[test]
    fn masqueraded_flows_leave_with_the_address_that_the_world_can_answer() {
        let link_local = Address {
            universal: false,
            ..address(2, "169.254.1.1/16")
        };
        let secondary = Address {
            secondary: true,
            ..address(2, "192.0.2.7/24")
        };
        let world = World::of(
            &[device(2, "eth0")],
            &[link_local.clone(), secondary, address(2, "192.0.2.1/24")],
            &names(),
        );
        assert_eq!(world.uplinks[0].ipv4, Some(Ipv4Addr::new(192, 0, 2, 1)));
        let world = World::of(&[device(2, "eth0")], &[link_local], &names());
        assert_eq!(world.uplinks[0].ipv4, Some(Ipv4Addr::new(169, 254, 1, 1)));
    }

    #[test]
    fn of_its_ipv6_addresses_a_device_speaks_from_the_one_that_stays() {
        let link_local = Address {
            universal: false,
            ..address(2, "fe80::1/64")
        };
        let temporary = Address {
            secondary: true,
            ..address(2, "2001:db8::7/64")
        };
        let deprecated = Address {
            deprecated: true,
            ..address(2, "2001:db8::8/64")
        };
        let tentative = Address {
            unusable: true,
            ..address(2, "2001:db8::9/64")
        };
        let (local, global) = (address(2, "fd00::1/64"), address(2, "2001:db8::1/64"));
        let chosen = |addresses: &[&Address]| {
            let addresses: Vec<Address> = addresses.iter().map(|address| (*address).clone()).collect();
            let world = World::of(&[device(2, "eth0")], &addresses, &names());
            world
                .uplinks
                .first()
                .and_then(|uplink| uplink.ipv6)
                .map(|address| address.to_string())
        };
        let all = [&link_local, &tentative, &deprecated, &local, &temporary, &global];
        for (left, wanted) in [
            (&all[..], Some("2001:db8::1")),
            (&all[..5], Some("2001:db8::7")),
            (&all[..4], Some("fd00::1")),
            (&all[..3], Some("2001:db8::8")),
            (&all[..2], None),
            (&all[..1], None),
        ] {
            assert_eq!(chosen(left).as_deref(), wanted);
        }
    }

    #[test]
    fn the_default_mtu_is_that_of_the_preferred_default_route() {
        let devices = [
            Device {
                mtu: 1400,
                ..device(2, "vpn")
            },
            Device {
                mtu: 9000,
                ..device(3, "eth0")
            },
        ];
        let default = |ifindex, priority| Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            ifindex,
            gateway: None,
            priority,
            mtu: 0,
        };
        assert_eq!(default_mtu(&[default(3, 100), default(2, 50)], &devices), 1400);
        assert_eq!(default_mtu(&[], &devices), 1500);
    }

    #[test]
    fn what_our_own_leg_bears_is_not_occupied() {
        let leg = Device {
            alias: names().leg_alias(),
            ..device(5, "sluice0")
        };
        let route = |destination: &str, ifindex| Route {
            destination: destination.parse().unwrap(),
            ifindex,
            gateway: None,
            priority: 0,
            mtu: 0,
        };
        let occupied = occupied(
            &[device(2, "eth0"), leg],
            &[address(2, "192.0.2.1/24"), address(5, "172.17.0.1/16")],
            &[
                route("0.0.0.0/0", 2),
                route("10.0.0.0/8", 2),
                route("172.17.0.0/16", 5),
                route("192.0.2.0/24", 2),
                route("fe80::/64", 2),
                route("fd00:1::/48", 2),
            ],
            &names(),
        );
        let expected: Vec<IpNet> = ["10.0.0.0/8", "192.0.2.0/24", "fd00:1::/48"]
            .iter()
            .map(|prefix| prefix.parse().unwrap())
            .collect();
        assert_eq!(occupied, expected);
    }
}
