//! The host's leg in the datapath: a veth pair whose host end bears every gateway address.
//!
//! The host reaches containers through it by the routes that the addresses' prefixes make, with the gateway as its own address; what containers
//! send to the host arrives at it. To rp_filter and to the host's firewall it is one device like any other.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, LinkUnspec, LinkVeth,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::LinkMessage,
        neighbour::{NeighbourAttribute, NeighbourMessage},
    },
};

use super::{listing::Device, veth};
use crate::{
    AgentError, Tried,
    kernel::{
        netlink::{Netlink, Request},
        netns::ifindex,
        sysctl::{set, with_ipv6, without_ipv6},
    },
    names::Names,
};

/// Both ends by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostLeg {
    /// The host's end.
    pub host: u32,
    /// The datapath's end.
    pub datapath: u32,
}

/// Makes the pair, or sets right what of it is there.
pub fn ensure(
    netlink: &mut Netlink,
    devices: &[Device],
    names: &Names,
    forwarding: bool,
) -> Result<HostLeg, AgentError> {
    let what = || format!("making the host's leg {}", names.host_leg);
    let present = |name: &str| devices.iter().find(|device| device.name == name);
    for name in [&names.host_leg, &names.datapath_leg] {
        if let Some(device) = present(name).filter(|device| device.alias != names.leg_alias()) {
            let whose = if device.alias.is_empty() {
                "it bears no alias"
            } else {
                &device.alias
            };
            return Err(AgentError::Failed(format!(
                "the device {name} is in the way: it is not of this instance ({whose})"
            )));
        }
    }
    let both = present(&names.host_leg).zip(present(&names.datapath_leg));
    if both.is_none() {
        make(netlink, names).tried(what)?;
        // until a network wants it; one that is there may have it, and must not lose it for a moment
        without_ipv6(&names.host_leg).tried(what)?;
    }
    let leg = HostLeg {
        host: ifindex(&names.host_leg).tried(what)?,
        datapath: ifindex(&names.datapath_leg).tried(what)?,
    };
    settle(names, forwarding).tried(what)?;
    let mac = names.gateway_mac().0;
    let mut requests = Vec::new();
    if both.is_none_or(|(host, _)| host.mac != mac) {
        requests.push(LinkUnspec::new_with_index(leg.host).address(mac.to_vec()).build());
    }
    // The datapath's end first: the end that goes up last has its queue at once, the other hears of it a moment later.
    if both.is_none_or(|(_, datapath)| !datapath.up) {
        requests.push(LinkUnspec::new_with_index(leg.datapath).up().build());
    }
    if both.is_none_or(|(host, _)| !host.up) {
        requests.push(LinkUnspec::new_with_index(leg.host).up().build());
    }
    set_links(netlink, requests).tried(what)?;
    Ok(leg)
}

fn make(netlink: &mut Netlink, names: &Names) -> io::Result<()> {
    let pair = LinkVeth::new(&names.host_leg, &names.datapath_leg)
        .address(names.gateway_mac().0.to_vec())
        .build();
    let alias = |name: &str| LinkUnspec::new_with_name(name).alias(names.leg_alias()).build();
    let requests = vec![
        (RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL),
        (RouteNetlinkMessage::SetLink(alias(&names.host_leg)), 0),
        (RouteNetlinkMessage::SetLink(alias(&names.datapath_leg)), 0),
    ];
    netlink.carry_out(requests)?.into_iter().collect()
}

/// The settings of these two devices, and of no other.
fn settle(names: &Names, forwarding: bool) -> io::Result<()> {
    let (host, datapath) = (names.host_leg.as_str(), names.datapath_leg.as_str());
    without_ipv6(datapath)?;
    // The datapath asks for routes as if packets came from here, and ICMP errors are the host stack's. That IPv6's switch for all devices stays
    // as it is matters: with it on, the host would listen to no router any more and lose its own way out.
    set("ipv4", host, "forwarding", if forwarding { "1" } else { "0" })?;
    set("ipv6", host, "forwarding", if forwarding { "1" } else { "0" })?;
    set("ipv4", datapath, "forwarding", "0")?;
    // Loose, also where the host's own default is strict: a container may answer by another way than it was asked.
    set("ipv4", host, "rp_filter", "2")?;
    // Containers have one way out. Nobody shall tell them of a better one, and they shall not tell us.
    set("ipv4", host, "send_redirects", "0")?;
    set("ipv4", host, "accept_redirects", "0")?;
    Ok(())
}

/// Gives both ends this MTU.
pub fn set_mtu(netlink: &mut Netlink, leg: HostLeg, mtu: u32) -> io::Result<()> {
    let set = |ifindex| LinkUnspec::new_with_index(ifindex).mtu(mtu).build();
    set_links(netlink, vec![set(leg.host), set(leg.datapath)])
}

/// IPv6 on the host's end, or none.
pub fn set_ipv6(names: &Names, wanted: bool) -> io::Result<()> {
    match wanted {
        true => with_ipv6(&names.host_leg),
        false => without_ipv6(&names.host_leg),
    }
}

/// Gives the host's end a gateway address. Its prefix makes the host's route to the network.
pub fn add_gateway(netlink: &mut Netlink, leg: HostLeg, gateway: IpNet) -> io::Result<()> {
    let message = address(leg, gateway);
    match netlink.carry_out_one(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        outcome => outcome,
    }
}

/// Takes a gateway address away.
pub fn remove_gateway(netlink: &mut Netlink, leg: HostLeg, gateway: IpNet) -> io::Result<()> {
    match netlink.carry_out_one(RouteNetlinkMessage::DelAddress(address(leg, gateway)), 0) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        outcome => outcome,
    }
}

fn address(leg: HostLeg, gateway: IpNet) -> rtnetlink::packet_route::address::AddressMessage {
    match gateway {
        IpNet::V4(gateway) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(leg.host)
            .address(gateway.addr(), gateway.prefix_len())
            .build(),
        IpNet::V6(gateway) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                .index(leg.host)
                .address(gateway.addr(), gateway.prefix_len())
                .build();
            veth::without_waiting(&mut message);
            message
        }
    }
}

/// What makes the host forget who has an address; ENOENT when it did not know.
pub fn forget_neighbour(leg: u32, address: IpAddr) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = leg;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    (RouteNetlinkMessage::DelNeighbour(message), 0)
}

fn set_links(netlink: &mut Netlink, messages: Vec<LinkMessage>) -> io::Result<()> {
    let requests = messages
        .into_iter()
        .map(|message| (RouteNetlinkMessage::SetLink(message), 0))
        .collect();
    netlink.carry_out(requests)?.into_iter().collect()
}

/// A gateway address with the prefix of its network.
pub fn gateway_of(gateway: IpAddr, subnet: IpNet) -> Option<IpNet> {
    IpNet::new(gateway, subnet.prefix_len()).ok()
}
