//! The world as each case finds it, and who moves in and out of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use sluice_datapath_common::overlay::PORT;

use super::place::{FAMILIES, NETWORKS, PEERS, Place, STRANGERS, Stranger, TENANTS, Tenant, VNIS};
use super::stage::SOCKETS;
use crate::reference::wire::{TCP, UDP};
use crate::reference::world::{
    Destination, Device, Endpoint, Family, Host, HostAccess, Network, Peer, Remote, Route, Uplink, World,
};
use crate::scene::{
    GATEWAY_MAC, HOST_IFINDEX, HOST_LEG, HOST_MAC, LEG_MAC, NIC, NIC_MAC, SECOND_NIC, SECOND_NIC_MAC, VM_BRIDGE,
    VM_BRIDGE_MAC,
};
use crate::twin;

/// The world as each case finds it: every IPv4 address has its twin.
pub fn world() -> World {
    let mut world = World {
        epoch: 1,
        networks: BTreeMap::new(),
        subnets: BTreeMap::new(),
        attachments: BTreeMap::new(),
        endpoints: BTreeMap::new(),
        generations: TENANTS.iter().map(|tenant| (tenant.number, 1)).collect(),
        local: BTreeMap::new(),
        uplinks: BTreeMap::new(),
        published: BTreeMap::new(),
        links: Default::default(),
        sources: BTreeMap::new(),
        host: Host {
            leg: HOST_LEG,
            mac: HOST_MAC,
            ephemeral: (32_768, 60_999),
            unwraps_other_family: is_linux((6, 3)),
        },
        devices: BTreeMap::new(),
        routes: Vec::new(),
        sockets: Default::default(),
        limits: Default::default(),
        overlay_port: None,
        peers: BTreeMap::new(),
        remotes: BTreeMap::new(),
    };
    for (number, gateway) in NETWORKS {
        world.networks.insert(
            number,
            Network {
                icc: true,
                masquerades: true,
                routed6: false,
                unprotected: false,
                internal: false,
                host_access: HostAccess::All,
                multicast: false,
                vni: 0,
                direct: false,
                broadcast: Some(broadcast(gateway.address(Family::V4))),
                mtu: 1500,
                gateway4: Some(gateway.address(Family::V4)),
                gateway6: Some(gateway.address(Family::V6)),
                gateway_mac: GATEWAY_MAC,
            },
        );
    }
    for family in FAMILIES {
        add_family(&mut world, family);
    }
    TENANTS[..5].iter().for_each(|tenant| move_in(&mut world, tenant));
    for (device, mac) in [
        (HOST_LEG, LEG_MAC),
        (NIC, NIC_MAC),
        (SECOND_NIC, SECOND_NIC_MAC),
        (VM_BRIDGE, VM_BRIDGE_MAC),
    ] {
        world.devices.insert(device, Device { mac, mtu: 1500 });
    }
    world
}

/// Is the kernel as young as that?
fn is_linux(least: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= least
}

fn add_family(world: &mut World, family: Family) {
    let at = |place: Place| place.address(family);
    let prefix = |octets: [u8; 4], bits: u8| match family {
        Family::V4 => (IpAddr::from(octets), bits),
        Family::V6 => (IpAddr::V6(twin::of(Ipv4Addr::from(octets))), bits + 96),
    };
    for ((number, gateway), octets) in NETWORKS.into_iter().zip([[10, 9, 0, 0], [10, 8, 0, 0], [10, 7, 0, 0]]) {
        world.subnets.insert(prefix(octets, 24), number);
        world.local.insert(at(gateway), number);
    }
    for place in [Place::Nic, Place::SecondNic, Place::VmBridge] {
        world.local.insert(at(place), 0);
    }
    for (device, place) in [(NIC, Place::Nic), (SECOND_NIC, Place::SecondNic)] {
        let uplink = Uplink {
            address: Some(at(place)),
            mtu: 1500,
        };
        world.uplinks.insert((device, family), uplink);
    }
    // As `scene::furnish` makes them.
    let router = prefix([192, 0, 2, 254], 32).0;
    let mut routes = vec![
        (prefix([192, 0, 2, 1], 32), Destination::None),
        (prefix([198, 51, 100, 1], 32), Destination::None),
        (prefix([172, 30, 0, 1], 32), Destination::None),
        (prefix([192, 0, 2, 0], 24), Destination::Link(NIC)),
        (prefix([198, 51, 100, 0], 24), Destination::Link(SECOND_NIC)),
        (prefix([172, 30, 0, 0], 24), Destination::Link(VM_BRIDGE)),
        (prefix([10, 9, 0, 0], 24), Destination::Link(HOST_IFINDEX)),
        (prefix([10, 8, 0, 0], 24), Destination::Link(HOST_IFINDEX)),
        (prefix([100, 64, 0, 0], 10), Destination::None),
        ((at(Place::Nobody), 0), Destination::Router(NIC, router)),
    ];
    if family == Family::V4 {
        // Broadcast.
        routes.insert(0, (prefix([192, 0, 2, 255], 32), Destination::None));
    }
    world.routes.extend(
        routes
            .into_iter()
            .map(|((prefix, bits), to)| Route { prefix, bits, to }),
    );
    let [at_nic, udp, tcp] = SOCKETS;
    world.sockets.insert((UDP, at(Place::Nic), at_nic));
    world.sockets.insert((UDP, at(Place::Nobody), udp));
    world.sockets.insert((TCP, at(Place::Nobody), tcp));
}

/// That of the 24 bits around a gateway.
fn broadcast(gateway: IpAddr) -> IpAddr {
    match gateway {
        IpAddr::V4(gateway) => IpAddr::V4(Ipv4Addr::from_bits(gateway.to_bits() | 0xff)),
        IpAddr::V6(_) => gateway,
    }
}

/// The endpoint begins to live at its addresses.
pub fn move_in(world: &mut World, tenant: &Tenant) {
    let addresses = FAMILIES.map(|family| tenant.place.address(family));
    let endpoint = Endpoint {
        number: tenant.number,
        network: tenant.network,
        device: tenant.device,
        address4: Some(addresses[0]),
        address6: Some(addresses[1]),
        mac: tenant.mac,
    };
    for address in addresses {
        world.endpoints.insert((tenant.network, address), endpoint);
    }
    world.attachments.insert(tenant.device, endpoint);
}

/// The host joins others: they are there, their endpoints too, and two networks reach over all of them.
pub fn join(world: &mut World, port: u16) {
    world.overlay_port = Some(port);
    for (network, vni) in VNIS {
        if let Some(network) = world.networks.get_mut(&network) {
            network.vni = vni;
        }
    }
    for number in 1..=PEERS.len() as u32 {
        meet(world, number, NIC, 1450, false);
    }
    for (index, stranger) in STRANGERS.iter().enumerate() {
        settle(world, stranger, 1 + (index % 2) as u32, false);
    }
}

/// Another host is reached in this way.
pub fn meet(world: &mut World, number: u32, device: u32, mtu: u32, is_neighbour: bool) {
    let (place, family, own) = PEERS[number as usize - 1];
    let peer = Peer {
        address: place.address(family),
        source: own.address(family),
        device,
        mtu,
        port: world.overlay_port.unwrap_or(PORT),
        neighbour4: is_neighbour.then(|| place.address(Family::V4)),
        neighbour6: is_neighbour.then(|| place.address(Family::V6)),
    };
    world.peers.insert(number, peer);
}

/// Somebody lives on another host from now on.
pub fn settle(world: &mut World, stranger: &Stranger, host: u32, is_linked: bool) {
    let remote = Remote {
        host,
        number: if is_linked { stranger.number } else { 0 },
        mac: stranger.mac,
    };
    for family in FAMILIES {
        world
            .remotes
            .insert((stranger.network, stranger.place.address(family)), remote);
    }
}

/// It ends, and with it all that it said.
pub fn move_out(world: &mut World, tenant: &Tenant) {
    *world.generations.entry(tenant.number).or_default() += 1;
    world.endpoints.retain(|_, endpoint| endpoint.number != tenant.number);
    world.attachments.retain(|_, endpoint| endpoint.number != tenant.number);
}
