//! The tables of networks that reach over several hosts.

use std::net::IpAddr;

use sluice_datapath_common::endpoint::EndpointKey;
use sluice_datapath_common::overlay::{Host, Remote};
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6, Ipv6Address};

use super::{Carried, write, write_array};
use crate::datapath::Datapath;
use crate::random::place::PEERS;
use crate::reference::world::{Peer, World};

/// What lies in them.
#[derive(Default)]
pub struct Overlay {
    hosts: Vec<(u32, Host)>,
    senders: Vec<(Ipv6Address, u32)>,
    vnis: Vec<(u32, u32)>,
    remotes4: Vec<(EndpointKey<Ipv4>, Remote)>,
    remotes6: Vec<(EndpointKey<Ipv6>, Remote)>,
}

impl Overlay {
    /// Writes what differs from the world written last.
    pub fn write(&mut self, datapath: &mut Datapath, world: &World) {
        let hosts =
            (1..=PEERS.len() as u32).map(|number| (number, world.peers.get(&number).map(host).unwrap_or_default()));
        write_array(datapath, "HOSTS", &mut self.hosts, hosts.collect());
        let senders = world.peers.iter().map(|(number, peer)| (mapped(peer.address), *number));
        write(datapath, "SENDERS", &mut self.senders, senders.collect());
        let networks = world.networks.iter().filter(|(_, network)| network.vni != 0);
        let vnis = networks.map(|(number, network)| (network.vni, *number));
        write(datapath, "VNIS", &mut self.vnis, vnis.collect());
        write(datapath, "REMOTES4", &mut self.remotes4, remotes(world));
        write(datapath, "REMOTES6", &mut self.remotes6, remotes(world));
    }
}

fn host(peer: &Peer) -> Host {
    Host {
        address: mapped(peer.address),
        source: mapped(peer.source),
        next_hop: mapped(peer.address),
        neighbour4: peer.neighbour4.and_then(Ipv4::address).unwrap_or_default(),
        neighbour6: peer.neighbour6.and_then(Ipv6::address).unwrap_or_default(),
        ifindex: peer.device,
        mtu: peer.mtu,
        port: peer.port.to_be(),
        sealed: 0,
    }
}

fn mapped(address: IpAddr) -> Ipv6Address {
    match address {
        IpAddr::V4(address) => Ipv6Address::mapped(Ipv4Address::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

fn remotes<F: Carried>(world: &World) -> Vec<(EndpointKey<F>, Remote)> {
    let each = world.remotes.iter().filter_map(|((network, address), remote)| {
        let key = EndpointKey {
            network: *network,
            address: F::address(*address)?,
        };
        let entry = Remote {
            host: remote.host,
            endpoint: remote.number,
            mac: remote.mac,
            padding: [0; 2],
        };
        Some((key, entry))
    });
    each.collect()
}
