//! Where the world begins: the devices that lead to it, and the host's own addresses.

use std::{io, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
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
    /// The address that masqueraded flows leave with: its primary one.
    pub address: Ipv4Addr,
}

/// What of the host is not ours.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct World {
    /// Devices that programs are attached to.
    pub uplinks: Vec<Uplink>,
    /// The host's own addresses, 127/8 and our gateways not among them, and the devices that bear them.
    pub addresses: Vec<(Ipv4Addr, u32)>,
}

impl World {
    /// Picks from what is there. Ours is a device by its alias or name (events about one may come before its alias).
    pub fn of(devices: &[Device], addresses: &[Address], names: &Names) -> Self {
        let ours = |device: &Device| {
            names.is_ours(&device.alias) || device.name == names.host_leg || device.name == names.datapath_leg
        };
        let foreign = |ifindex: u32| {
            devices
                .iter()
                .find(|device| device.ifindex == ifindex)
                .filter(|device| !ours(device))
        };
        // The programs read Ethernet headers: tunnels without one (tun, ppp, wireguard) are the host stack's affair.
        let leads_out = |device: &&Device| device.ethernet && !device.loopback && !ours(device);
        let uplinks = devices
            .iter()
            .filter(leads_out)
            .filter_map(|device| {
                Some(Uplink {
                    ifindex: device.ifindex,
                    name: device.name.clone(),
                    mtu: device.mtu,
                    address: primary(addresses, device.ifindex)?,
                })
            })
            .collect();
        let addresses = addresses
            .iter()
            .filter(|address| !address.address.addr().is_loopback() && foreign(address.ifindex).is_some())
            .map(|address| (address.address.addr(), address.ifindex))
            .collect();
        Self { uplinks, addresses }
    }
}

/// A device's first address that is neither secondary nor only for its link, if there is one; else its first.
fn primary(addresses: &[Address], ifindex: u32) -> Option<Ipv4Addr> {
    addresses
        .iter()
        .filter(|address| address.ifindex == ifindex)
        .min_by_key(|address| (!address.universal, address.secondary))
        .map(|address| address.address.addr())
}

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where to; 0.0.0.0/0 is the default.
    pub destination: Ipv4Net,
    /// By which device; 0 where there are several or none.
    pub ifindex: u32,
    /// Smaller is preferred.
    pub priority: u32,
}

/// The IPv4 unicast routes of the main table.
pub fn routes(netlink: &mut Netlink) -> io::Result<Vec<Route>> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    let mut routes = Vec::new();
    netlink.dump(RouteNetlinkMessage::GetRoute(request), |answer| {
        if let RouteNetlinkMessage::NewRoute(message) = answer {
            routes.extend(route(&message));
        }
    })?;
    Ok(routes)
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.address_family != AddressFamily::Inet
        || header.kind != RouteType::Unicast
        || header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let mut route = Route {
        destination: Ipv4Net::default(),
        ifindex: 0,
        priority: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.destination = Ipv4Net::new(*address, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Priority(priority) => route.priority = *priority,
            _ => {}
        }
    }
    Some(route)
}

/// The MTU of the default route's device, 1500 without one.
pub fn default_mtu(routes: &[Route], devices: &[Device]) -> u32 {
    routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .min_by_key(|route| route.priority)
        .and_then(|route| devices.iter().find(|device| device.ifindex == route.ifindex))
        .map_or(1500, |device| device.mtu)
}

/// What addresses and routes of others occupy, the default route not counted.
pub fn occupied(devices: &[Device], addresses: &[Address], routes: &[Route], names: &Names) -> Vec<IpNet> {
    let ours: Vec<u32> = devices
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
    let mut occupied: Vec<IpNet> = by_address
        .chain(by_route)
        .filter(|prefix| prefix.prefix_len() > 0 && !prefix.addr().is_loopback())
        .map(IpNet::V4)
        .collect();
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
        assert_eq!(world.uplinks[0].address, Ipv4Addr::new(192, 0, 2, 1));
        let world = World::of(&[device(2, "eth0")], &[link_local], &names());
        assert_eq!(world.uplinks[0].address, Ipv4Addr::new(169, 254, 1, 1));
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
            destination: Ipv4Net::default(),
            ifindex,
            priority,
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
            priority: 0,
        };
        let occupied = occupied(
            &[device(2, "eth0"), leg],
            &[address(2, "192.0.2.1/24"), address(5, "172.17.0.1/16")],
            &[
                route("0.0.0.0/0", 2),
                route("10.0.0.0/8", 2),
                route("172.17.0.0/16", 5),
                route("192.0.2.0/24", 2),
            ],
            &names(),
        );
        let expected: Vec<IpNet> = ["10.0.0.0/8", "192.0.2.0/24"]
            .iter()
            .map(|prefix| prefix.parse().unwrap())
            .collect();
        assert_eq!(occupied, expected);
    }
}
