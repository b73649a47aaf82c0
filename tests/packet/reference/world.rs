//! What the datapath is told of the host: networks, endpoints, ports, NICs. And what it would find out by asking the kernel: routes and sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A MAC address.
pub type Mac = [u8; 6];

/// The address families.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct World {
    /// Moves when anything changes that a judgement depends on.
    pub epoch: u32,
    pub networks: BTreeMap<u32, Network>,
    /// Prefix and its length in bits, to the network's number.
    pub subnets: BTreeMap<(IpAddr, u8), u32>,
    /// Who stands behind a device.
    pub attachments: BTreeMap<u32, Endpoint>,
    /// Who lives at an address of a network.
    pub endpoints: BTreeMap<(u32, IpAddr), Endpoint>,
    /// The lives of each endpoint number so far.
    pub generations: BTreeMap<u32, u32>,
    /// The host's own addresses; a gateway's is marked with its network's number, others with 0.
    pub local: BTreeMap<IpAddr, u32>,
    /// NICs by device.
    pub uplinks: BTreeMap<(u32, Family), Uplink>,
    /// Address (or "any"), first port and protocol, to who answers.
    pub published: BTreeMap<(IpAddr, u16, u8), Publication>,
    /// Endpoint that may speak, endpoint that is spoken to, port and protocol, where neighbours may not speak to each other.
    pub links: BTreeSet<(u32, u32, u16, u8)>,
    /// By endpoint: the prefixes that its published ports are for. Nothing: for all.
    pub sources: BTreeMap<u32, BTreeSet<(IpAddr, u8)>>,
    pub host: Host,
    /// Every device a packet can be on.
    pub devices: BTreeMap<u32, Device>,
    /// The host's routes, most specific first.
    pub routes: Vec<Route>,
    /// Sockets of host processes: protocol, address (or "any"), port.
    pub sockets: BTreeSet<(u8, IpAddr, u16)>,
    pub limits: Limits,
    /// Where this host takes what other hosts encapsulate, a port of UDP. None: nowhere.
    pub overlay_port: Option<u16>,
    /// The other hosts by their numbers.
    pub peers: BTreeMap<u32, Peer>,
    /// Who lives at an address of a network, on another host.
    pub remotes: BTreeMap<(u32, IpAddr), Remote>,
}

/// Another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Where it is on the underlay, and the address that we speak to it from.
    pub address: IpAddr,
    pub source: IpAddr,
    /// The device that leads there; 0: no way is known.
    pub device: u32,
    /// The longest packet that fits between the hosts when it is encapsulated, bytes.
    pub mtu: u32,
    pub port: u16,
    /// Its addresses on a link that it shares with us.
    pub neighbour4: Option<IpAddr>,
    pub neighbour6: Option<IpAddr>,
}

/// An endpoint of another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote {
    pub host: u32,
    /// What links know it by; 0: none speaks of it.
    pub number: u32,
    pub mac: Mac,
}

/// How many conversations an endpoint may hold where nobody pushes them out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// 0: any number.
    pub conversations: u32,
    /// Those that nobody has answered yet; the others of these can be pushed out.
    pub half_open: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    pub icc: bool,
    /// What leaves the host from it gets an address of the host, in either family.
    pub masquerades: bool,
    /// Its IPv6 addresses are the world's business: they leave as they are, and published ports are reached at them. Goes before masquerading.
    pub routed6: bool,
    /// As `masquerades`, and who has a route reaches every port of an endpoint at its own address, in either family.
    pub unprotected: bool,
    pub internal: bool,
    /// Where its endpoints reach the host itself.
    pub host_access: HostAccess,
    /// What an endpoint says to many is handed to the others.
    pub multicast: bool,
    /// Its number between hosts; 0: it is on this host alone.
    pub vni: u32,
    /// Between hosts of one link its packets go as they are.
    pub direct: bool,
    /// Of IPv4, the address of all of them.
    pub broadcast: Option<IpAddr>,
    pub mtu: u32,
    pub gateway4: Option<IpAddr>,
    pub gateway6: Option<IpAddr>,
    pub gateway_mac: Mac,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostAccess {
    None,
    Gateway,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub number: u32,
    pub network: u32,
    pub device: u32,
    pub address4: Option<IpAddr>,
    pub address6: Option<IpAddr>,
    pub mac: Mac,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// What masqueraded packets leave with, if it has one of the family.
    pub address: Option<IpAddr>,
    pub mtu: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publication {
    pub network: u32,
    pub endpoint: u32,
    pub address: IpAddr,
    /// The port at the endpoint; of a range: its first.
    pub port: u16,
    /// How many ports, side by side.
    pub count: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// The datapath's end of the host's leg.
    pub leg: u32,
    /// The MAC of the host's end.
    pub mac: Mac,
    /// First and last port that the host takes for itself.
    pub ephemeral: (u16, u16),
    /// A packet of one family comes out of one of the other without the kernel's VXLAN device (Linux 6.3).
    pub unwraps_other_family: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    pub mac: Mac,
    pub mtu: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub prefix: IpAddr,
    pub bits: u8,
    pub to: Destination,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// A neighbour on this device.
    Link(u32),
    /// This router on this device.
    Router(u32, IpAddr),
    /// Nowhere: the host itself, a broadcast, or refused.
    None,
}

/// What kind of address it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    Unicast,
    Multicast,
    /// On one link only.
    Link,
    Nowhere,
}

impl World {
    /// The network an address belongs to, by longest prefix.
    pub fn home(&self, address: IpAddr) -> Option<u32> {
        self.subnets
            .iter()
            .filter(|((prefix, bits), _)| within(address, *prefix, *bits))
            .max_by_key(|((_, bits), _)| *bits)
            .map(|(_, network)| *network)
    }

    /// The current life of an endpoint number; nobody (0) has but one.
    pub fn generation(&self, number: u32) -> u32 {
        self.generations.get(&number).copied().unwrap_or(0)
    }

    /// Who answers at an address and port of the host, and at which port of its own. A single port goes before a range, and one at just this address
    /// before one at any.
    pub fn publication(&self, address: IpAddr, port: u16, protocol: u8) -> Option<(Publication, u16)> {
        self.published_at(&[address, any(address)], port, protocol)
    }

    /// The same at just this address.
    pub fn publication_at(&self, address: IpAddr, port: u16, protocol: u8) -> Option<(Publication, u16)> {
        self.published_at(&[address], port, protocol)
    }

    fn published_at(&self, places: &[IpAddr], port: u16, protocol: u8) -> Option<(Publication, u16)> {
        let fits = |first: u16, publication: &Publication| port.checked_sub(first).filter(|n| *n < publication.count);
        [false, true].iter().find_map(|is_range| {
            places.iter().find_map(|address| {
                self.published
                    .iter()
                    .filter(|((at, _, of), publication)| {
                        (at, *of, publication.count > 1) == (address, protocol, *is_range)
                    })
                    .find_map(|((_, first, _), publication)| {
                        fits(*first, publication).map(|n| (*publication, publication.port.wrapping_add(n)))
                    })
            })
        })
    }

    /// Is the port published somewhere?
    pub fn is_reserved(&self, port: u16, protocol: u8, family: Family) -> bool {
        self.published.iter().any(|((address, first, of), publication)| {
            (*of, self::family(*address)) == (protocol, family)
                && port.checked_sub(*first).is_some_and(|n| n < publication.count)
        })
    }

    /// Does a socket of the host take what arrives at this address and port? None of them is connected. `listening` counts TCP's too.
    pub fn socket_owns(&self, protocol: u8, address: IpAddr, port: u16, listening: bool) -> bool {
        let may_own = protocol == super::wire::UDP || listening;
        may_own
            && [address, any(address)]
                .iter()
                .any(|address| self.sockets.contains(&(protocol, *address, port)))
    }

    /// Device and next hop to a destination, as the host's routes have it.
    pub fn way(&self, destination: IpAddr) -> Option<(u32, IpAddr)> {
        if reach(destination) != Reach::Unicast {
            return None;
        }
        let route = self
            .routes
            .iter()
            .find(|route| within(destination, route.prefix, route.bits))?;
        match route.to {
            Destination::Link(device) => Some((device, destination)),
            Destination::Router(device, router) => Some((device, router)),
            Destination::None => None,
        }
    }

    /// May this client use the endpoint's published ports?
    pub fn serves(&self, endpoint: u32, client: IpAddr) -> bool {
        let sources = self.sources.get(&endpoint);
        sources.is_none_or(|all| all.iter().any(|(prefix, bits)| within(client, *prefix, *bits)))
    }

    /// Who hears what the endpoint behind this device says to many, by device.
    pub fn others(&self, network: u32, device: u32) -> BTreeSet<u32> {
        let neighbours = self
            .attachments
            .iter()
            .filter(|(_, endpoint)| endpoint.network == network);
        neighbours
            .map(|(device, _)| *device)
            .filter(|other| *other != device)
            .collect()
    }

    /// The number of the host with this underlay address.
    pub fn peer_at(&self, address: IpAddr) -> Option<u32> {
        let mut peers = self.peers.iter();
        peers
            .find(|(_, peer)| peer.address == address)
            .map(|(number, _)| *number)
    }

    /// The network with this number between hosts.
    pub fn network_of_vni(&self, vni: u32) -> Option<u32> {
        let mut networks = self.networks.iter();
        networks
            .find(|(_, network)| network.vni == vni && vni != 0)
            .map(|(number, _)| *number)
    }

    /// The MAC of who lives at an address of a network, here or on another host.
    pub fn mac_of(&self, network: u32, address: IpAddr) -> Option<Mac> {
        let here = self.endpoints.get(&(network, address)).map(|endpoint| endpoint.mac);
        here.or(self.remotes.get(&(network, address)).map(|remote| remote.mac))
    }

    /// A way out by one of our NICs.
    pub fn uplink(&self, device: u32, family: Family) -> Option<Uplink> {
        self.uplinks.get(&(device, family)).copied()
    }
}

impl Network {
    pub fn is_routed(&self, family: Family) -> bool {
        family == Family::V6 && self.routed6
    }

    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.gateway4,
            Family::V6 => self.gateway6,
        }
    }
}

impl Peer {
    /// Its address on a link that it shares with us.
    pub fn neighbour(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.neighbour4,
            Family::V6 => self.neighbour6,
        }
    }
}

impl Endpoint {
    /// The address of the family that it was given.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.address4,
            Family::V6 => self.address6,
        }
    }
}

/// The link-local address that a device with this MAC gives itself (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

pub fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// "Any" of the address's family.
pub fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    }
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1122 3.2.1.3, RFC 4291 2.4.
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) if address.is_multicast() || address.is_broadcast() => Reach::Multicast,
        IpAddr::V4(address) if address.is_loopback() || matches!(address.octets()[0], 0 | 240..) => Reach::Nowhere,
        IpAddr::V6(address) if address.is_multicast() => Reach::Multicast,
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80 => Reach::Link,
        // Unspecified, loopback, mapped IPv4, and whatever else is inside a host only.
        IpAddr::V6(address) if address.segments()[..4] == [0; 4] => Reach::Nowhere,
        _ => Reach::Unicast,
    }
}

fn within(address: IpAddr, prefix: IpAddr, bits: u8) -> bool {
    let number = |octets: &[u8]| {
        octets
            .iter()
            .fold(0u128, |number, octet| number << 8 | u128::from(*octet))
    };
    let (address, prefix) = (octets(address), octets(prefix));
    if address.len() != prefix.len() {
        return false;
    }
    let rest = 8 * address.len() as u32 - u32::from(bits);
    number(&address).checked_shr(rest) == number(&prefix).checked_shr(rest)
}
