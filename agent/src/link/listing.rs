//! All devices and addresses of the namespace, as little of them as we need.

use std::{collections::BTreeSet, io, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};

use crate::kernel::netlink::Netlink;

/// A device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Device {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its alias; empty: none.
    pub alias: String,
    /// Its MAC; zeros where it has none.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// It is loopback.
    pub loopback: bool,
    /// Its frames begin with an Ethernet header.
    pub ethernet: bool,
    /// It is a Linux bridge.
    pub bridge: bool,
    /// The index of the device that it is a port of; 0: of none.
    pub controller: u32,
}

/// An address of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The device that bears it.
    pub ifindex: u32,
    /// The address and its prefix.
    pub address: IpNet,
    /// It is good for the whole network, not only on its link or host.
    pub universal: bool,
    /// It stands behind another: in IPv4 of its subnet; in IPv6 it is temporary (RFC 8981) and will be another tomorrow.
    pub secondary: bool,
    /// IPv6: it is not to be used for anything new any more.
    pub deprecated: bool,
    /// IPv6: nobody knows yet that it is nobody else's, or it is somebody else's.
    pub unusable: bool,
}

/// All devices.
pub fn devices(netlink: &mut Netlink) -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewLink(message) = answer {
            devices.push(device(message));
        }
    })?;
    Ok(devices)
}

/// The devices with these indices, those that are there. Beside hundreds of others this is far cheaper than a list of all: for each of a pair the
/// kernel looks through the namespaces it knows for that of the other end (`peernet2id`).
pub fn those(netlink: &mut Netlink, indices: &BTreeSet<u32>) -> io::Result<Vec<Device>> {
    let mut devices = Vec::with_capacity(indices.len());
    for index in indices {
        let mut request = LinkMessage::default();
        request.header.index = *index;
        if let Some(RouteNetlinkMessage::NewLink(message)) = netlink.ask(RouteNetlinkMessage::GetLink(request))? {
            devices.push(device(message));
        }
    }
    Ok(devices)
}

/// A device as a message tells it.
pub fn device(message: LinkMessage) -> Device {
    let header = message.header;
    let mut device = Device {
        ifindex: header.index,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        ..Device::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::IfAlias(alias) => device.alias = alias,
            LinkAttribute::Mtu(mtu) => device.mtu = mtu,
            LinkAttribute::Address(bytes) => device.mac = bytes.try_into().unwrap_or_default(),
            LinkAttribute::Controller(controller) => device.controller = controller,
            LinkAttribute::LinkInfo(infos) => device.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            _ => {}
        }
    }
    device
}

/// All addresses, in the kernel's order: a device's primary IPv4 address first.
pub fn addresses(netlink: &mut Netlink) -> io::Result<Vec<Address>> {
    let request = AddressMessage::default();
    let mut addresses = Vec::new();
    netlink.dump(RouteNetlinkMessage::GetAddress(request), |answer| {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            addresses.extend(address(&message));
        }
    })?;
    Ok(addresses)
}

fn address(message: &AddressMessage) -> Option<Address> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    // On a point-to-point device `Address` is the other side's.
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let other = find(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let has = |flag: AddressHeaderFlags| message.header.flags.contains(flag);
    Some(Address {
        ifindex: message.header.index,
        address: IpNet::new(local.or(other)?, message.header.prefix_len).ok()?,
        universal: message.header.scope == AddressScope::Universe,
        secondary: has(AddressHeaderFlags::Secondary),
        deprecated: has(AddressHeaderFlags::Deprecated),
        unusable: has(AddressHeaderFlags::Dadfailed)
            || has(AddressHeaderFlags::Tentative) && !has(AddressHeaderFlags::Optimistic),
    })
}
