//! Who and where: addresses by name, in either family: each IPv4 address has its twin.

use std::net::{IpAddr, Ipv4Addr};

use crate::reference::world::{Family, Mac, link_local};
use crate::twin;

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// An address of the stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Web,
    Shop,
    Lone,
    Mill,
    Barn,
    /// On other hosts: two in the network of the mill, one in that of the lone one.
    Far,
    Farther,
    Isle,
    WebGateway,
    LoneGateway,
    MillGateway,
    Nic,
    SecondNic,
    /// Other hosts on the underlay.
    Peer,
    SecondPeer,
    /// An address that the first NIC gets later.
    NewNic,
    /// An address of the host on a device that is none of ours.
    VmBridge,
    Vm,
    /// In the LAN of the first NIC, of the second, and far away.
    Client,
    SecondClient,
    Server,
    /// Where the host has no route to.
    Unrouted,
    /// In a network, but nobody lives there.
    Vacant,
    Loopback,
    Group,
    Broadcast,
    /// All of the first network, in IPv4.
    WebBroadcast,
    /// What the first endpoint calls itself on its link.
    WebLink,
    Nobody,
    Reserved,
}

use Place::*;

impl Place {
    pub const ALL: [Place; 30] = [
        Web,
        Shop,
        Lone,
        Mill,
        Barn,
        Far,
        Farther,
        Isle,
        WebGateway,
        LoneGateway,
        MillGateway,
        Nic,
        SecondNic,
        Peer,
        SecondPeer,
        NewNic,
        VmBridge,
        Vm,
        Client,
        SecondClient,
        Server,
        Unrouted,
        Vacant,
        Loopback,
        Group,
        Broadcast,
        WebBroadcast,
        WebLink,
        Nobody,
        Reserved,
    ];

    pub fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::from(self.octets4()),
            Family::V6 if self == WebLink => link_local(TENANTS[0].mac),
            Family::V6 => IpAddr::V6(twin::of(Ipv4Addr::from(self.octets4()))),
        }
    }

    fn octets4(self) -> [u8; 4] {
        match self {
            Web => [10, 9, 0, 2],
            Shop => [10, 9, 0, 3],
            Lone => [10, 8, 0, 2],
            Mill => [10, 7, 0, 2],
            Barn => [10, 7, 0, 3],
            Far => [10, 7, 0, 9],
            Farther => [10, 7, 0, 10],
            Isle => [10, 8, 0, 9],
            WebGateway => [10, 9, 0, 1],
            LoneGateway => [10, 8, 0, 1],
            MillGateway => [10, 7, 0, 1],
            Nic => [192, 0, 2, 1],
            SecondNic => [198, 51, 100, 1],
            Peer => [192, 0, 2, 60],
            SecondPeer => [198, 51, 100, 60],
            NewNic => [192, 0, 2, 9],
            VmBridge => [172, 30, 0, 1],
            Vm => [172, 30, 0, 9],
            Client => [192, 0, 2, 50],
            SecondClient => [198, 51, 100, 50],
            Server => [203, 0, 113, 7],
            Unrouted => [100, 64, 0, 1],
            Vacant => [10, 9, 0, 77],
            Loopback => [127, 0, 0, 1],
            Group => [224, 0, 0, 251],
            Broadcast => [255; 4],
            WebBroadcast => [10, 9, 0, 255],
            WebLink => [169, 254, 0, 2],
            Nobody => [0; 4],
            Reserved => [240, 0, 0, 1],
        }
    }
}

/// An endpoint that may come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tenant {
    pub number: u32,
    pub network: u32,
    pub device: u32,
    pub place: Place,
    pub mac: Mac,
}

/// The last lives where the second did, when that one has gone.
pub const TENANTS: [Tenant; 6] = [
    tenant(1, 2, 11, Web),
    tenant(2, 2, 12, Shop),
    tenant(3, 3, 13, Lone),
    tenant(4, 4, 14, Mill),
    tenant(5, 4, 15, Barn),
    tenant(6, 2, 12, Shop),
];

const fn tenant(number: u32, network: u32, device: u32, place: Place) -> Tenant {
    Tenant {
        number,
        network,
        device,
        place,
        mac: [0x02, 0x42, 0, 0, 0x10, number as u8],
    }
}

/// Number, the gateway's place and the first 24 bits' owner.
pub const NETWORKS: [(u32, Place); 3] = [(2, WebGateway), (3, LoneGateway), (4, MillGateway)];

/// An endpoint of another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stranger {
    pub network: u32,
    pub place: Place,
    pub mac: Mac,
    /// What links know it by, if one speaks of it.
    pub number: u32,
}

pub const STRANGERS: [Stranger; 3] = [stranger(4, Far, 9), stranger(4, Farther, 10), stranger(3, Isle, 11)];

const fn stranger(network: u32, place: Place, last: u8) -> Stranger {
    Stranger {
        network,
        place,
        mac: [0x02, 0x42, 0, 0, 0x20, last],
        number: 70_000 + last as u32,
    }
}

/// Other hosts by their numbers, beginning with 1: the first is on an underlay of IPv4, the second on one of IPv6.
pub const PEERS: [(Place, Family, Place); 2] = [(Peer, Family::V4, Nic), (SecondPeer, Family::V6, SecondNic)];

/// The numbers of networks between hosts, all of the 24 bits used.
pub const VNIS: [(u32, u32); 2] = [(4, 0x00ab_cdef), (3, 0x0012_3456)];
