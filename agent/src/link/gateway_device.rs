//! Devices that bear a network's gateway addresses by a name that its user wants (`com.docker.network.bridge.name`), beside the host's leg.
//!
//! Packets go by the leg as those of every network: who listens at such an address or looks for it by the device's name finds it.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::InfoKind,
    },
};

use super::veth;
use crate::kernel::{
    netlink::{Netlink, Request},
    netns::ifindex,
    sysctl,
};

/// What such a device is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The network's id, for reports.
    pub network: String,
    /// The device's name.
    pub name: String,
    /// Its alias.
    pub alias: String,
    /// The addresses, with the network's prefix.
    pub addresses: BTreeSet<IpNet>,
}

/// One that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayDevice {
    /// Its index.
    pub ifindex: u32,
    /// Its alias.
    pub alias: String,
    /// What it bears.
    pub addresses: BTreeSet<IpNet>,
}

/// Makes it, a bridge without ports, and answers its index.
pub fn make(netlink: &mut Netlink, wish: &Wish) -> io::Result<u32> {
    let new = vec![
        (
            RouteNetlinkMessage::NewLink(
                LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge)
                    .name(wish.name.clone())
                    .build(),
            ),
            NLM_F_CREATE | NLM_F_EXCL,
        ),
        (
            RouteNetlinkMessage::SetLink(LinkUnspec::new_with_name(&wish.name).alias(wish.alias.clone()).build()),
            0,
        ),
    ];
    netlink.carry_out(new)?.into_iter().collect::<io::Result<()>>()?;
    let index = ifindex(&wish.name)?;
    match wish.addresses.iter().any(|address| address.addr().is_ipv6()) {
        true => sysctl::with_ipv6(&wish.name)?,
        false => sysctl::without_ipv6(&wish.name)?,
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let mut requests: Vec<Request> = vec![(RouteNetlinkMessage::SetLink(up), 0)];
    requests.extend(wish.addresses.iter().map(|net| {
        (
            RouteNetlinkMessage::NewAddress(address(index, *net)),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }));
    netlink.carry_out(requests)?.into_iter().collect::<io::Result<()>>()?;
    Ok(index)
}

/// The way there is by the host's leg, so the prefix makes no route.
fn address(index: u32, net: IpNet) -> AddressMessage {
    let mut message = match net.addr() {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(address, net.prefix_len())
            .build(),
        IpAddr::V6(address) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(address, net.prefix_len())
                .build();
            veth::without_waiting(&mut message);
            message
        }
    };
    let mut flags = AddressFlags::Noprefixroute;
    message.attributes.retain(|attribute| match attribute {
        AddressAttribute::Flags(present) => {
            flags |= *present;
            false
        }
        _ => true,
    });
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}
