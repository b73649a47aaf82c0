//! The veth of an endpoint: one end on the host under our program, the other in the sandbox with its final name from the start.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::PathBuf,
};

use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage},
        route::RouteMessage,
    },
};
use sluice_model::network::Parent;

use super::uplink;
use crate::kernel::{
    netlink::{Netlink, Request},
    netns::{self, ifindex},
    sysctl,
};

/// Where a device of an endpoint hangs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hang {
    /// On the datapath alone.
    Datapath,
    /// A veth whose host end is a port of this Linux bridge.
    Port(String),
    /// A device of another kind on a parent of the host: there is no host end.
    Child(Parent),
}

/// What a device of an endpoint is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The endpoint's id, for reports.
    pub endpoint: String,
    /// The name of the host's end.
    pub host_end: String,
    /// Its alias while it is being made.
    pub draft_alias: String,
    /// Its alias when it is ready.
    pub alias: String,
    /// Its MAC.
    pub gateway_mac: [u8; 6],
    /// The namespace of the container's end.
    pub sandbox: PathBuf,
    /// The name of the container's end.
    pub interface: String,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its addresses with the network's prefix.
    pub addresses: Vec<IpNet>,
    /// The way to everywhere else.
    pub gateways: Vec<IpAddr>,
    /// Bytes, both ends; 0: the parent's.
    pub mtu: u32,
    /// Where it hangs.
    pub hang: Hang,
    /// Settings of the container's end: names with `IFNAME` in place of the device's, and values.
    pub sysctls: Vec<(String, String)>,
}

/// Makes the pair, both ends down, and answers the index of the host's end.
pub fn make(netlink: &mut Netlink, wish: &Wish) -> io::Result<u32> {
    let sandbox = netns::open(&wish.sandbox)?;
    let bridge = match &wish.hang {
        Hang::Port(bridge) => ifindex(bridge)
            .map_err(|error| io::Error::new(error.kind(), format!("there is no bridge {bridge}: {error}")))?,
        Hang::Datapath | Hang::Child(_) => 0,
    };
    match netlink.carry_out(pair(wish, &sandbox, bridge))?.into_iter().collect() {
        Ok(()) => {}
        // A draft of an earlier life: the name is made of our endpoint's id.
        Err(error) if io::Error::raw_os_error(&error) == Some(libc::EEXIST) && ifindex(&wish.host_end).is_ok() => {
            remove(netlink, ifindex(&wish.host_end)?)?;
            netlink
                .carry_out(pair(wish, &sandbox, bridge))?
                .into_iter()
                .collect::<io::Result<()>>()?;
        }
        Err(error) => return Err(error),
    }
    sysctl::without_ipv6(&wish.host_end)?;
    // Should its program ever be torn off, what the container says ends at the host.
    sysctl::set("ipv4", &wish.host_end, "forwarding", "0")?;
    ifindex(&wish.host_end)
}

/// One queue each way, as a veth has it anyway. Left to itself the kernel makes room for one per CPU and then turns all but one off, for which it waits, for each
/// end and with the lock of all devices held, until none of its readers can know better.
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

fn pair(wish: &Wish, sandbox: &File, bridge: u32) -> Vec<Request> {
    let [transmit, receive] = ONE_QUEUE;
    let inner = LinkMessageBuilder::<LinkUnspec>::new()
        .append_extra_attribute(transmit)
        .append_extra_attribute(receive)
        .name(wish.interface.clone())
        .address(wish.mac.to_vec())
        .mtu(wish.mtu)
        .setns_by_fd(sandbox.as_raw_fd())
        .build();
    let [transmit, receive] = ONE_QUEUE;
    let outer = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .append_extra_attribute(transmit)
        .append_extra_attribute(receive)
        .name(wish.host_end.clone())
        .address(wish.gateway_mac.to_vec())
        .mtu(wish.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
        .build();
    let mut alias = LinkUnspec::new_with_name(&wish.host_end).alias(wish.draft_alias.clone());
    if bridge != 0 {
        alias = alias.controller(bridge);
    }
    vec![
        (RouteNetlinkMessage::NewLink(outer), NLM_F_CREATE | NLM_F_EXCL),
        (RouteNetlinkMessage::SetLink(alias.build()), 0),
    ]
}

/// Makes the host's end a port of a bridge.
pub fn attach(netlink: &mut Netlink, host_end: u32, bridge: u32) -> io::Result<()> {
    let port = LinkUnspec::new_with_index(host_end).controller(bridge).build();
    netlink.carry_out_one(RouteNetlinkMessage::SetLink(port), 0)
}

/// Gives both ends of a veth that stands another MTU; the host's end last, as what it has tells what was done.
pub fn resize(netlink: &mut Netlink, host_end: u32, wish: &Wish) -> io::Result<()> {
    let with_mtu = |index| RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).mtu(wish.mtu).build());
    let sandbox = netns::open(&wish.sandbox)?;
    netns::within(&sandbox, || {
        Netlink::open()?.carry_out_one(with_mtu(ifindex(&wish.interface)?), 0)
    })?;
    netlink.carry_out_one(with_mtu(host_end), 0)
}

/// Furnishes the container's end in its sandbox: addresses, up, the way out. The host's end is up already: the end that goes up last has its
/// queue at once, the other only hears of it a moment later.
pub fn furnish(wish: &Wish) -> io::Result<()> {
    let sandbox = netns::open(&wish.sandbox)?;
    netns::within(&sandbox, || furnish_here(wish))
}

/// The same, in the sandbox already.
pub fn furnish_here(wish: &Wish) -> io::Result<()> {
    let index = ifindex(&wish.interface)?;
    let (ipv4, ipv6): (Vec<IpNet>, Vec<IpNet>) = wish
        .addresses
        .iter()
        .partition(|address| matches!(address, IpNet::V4(_)));
    if ipv6.is_empty() {
        sysctl::without_ipv6(&wish.interface)?;
    } else {
        sysctl::with_ipv6(&wish.interface)?;
    }
    if wish.hang != Hang::Datapath {
        // others on the wire may remember who had the address before
        sysctl::set("ipv4", &wish.interface, "arp_notify", "1")?;
    }
    for (name, value) in &wish.sysctls {
        sysctl::set_by_name(name, &wish.interface, value)?;
    }
    let address = |address: &IpNet| {
        (
            RouteNetlinkMessage::NewAddress(address_message(index, *address)),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    };
    let mut requests: Vec<Request> = ipv4.iter().map(address).collect();
    requests.push((
        RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).up().build()),
        0,
    ));
    // IPv6 begins with a device that is up: what it is given before has no route until then.
    requests.extend(ipv6.iter().map(address));
    for gateway in &wish.gateways {
        // another device of the sandbox may have led out until now
        requests.push((
            RouteNetlinkMessage::NewRoute(way_out(index, *gateway)),
            NLM_F_CREATE | NLM_F_REPLACE,
        ));
    }
    let told = ["giving it its address", "bringing it up", "giving it its way out"];
    let steps = std::iter::repeat_n(told[0], ipv4.len())
        .chain([told[1]])
        .chain(std::iter::repeat_n(told[0], ipv6.len()))
        .chain(std::iter::repeat_n(told[2], wish.gateways.len()));
    for (outcome, step) in Netlink::open()?.carry_out(requests)?.into_iter().zip(steps) {
        outcome.map_err(|error| io::Error::new(error.kind(), format!("{step}: {error}")))?;
    }
    Ok(())
}

/// Gives the sandbox the ways out that are wished for by this device, and takes those away that are not.
pub fn turn(wish: &Wish) -> io::Result<()> {
    let sandbox = netns::open(&wish.sandbox)?;
    netns::within(&sandbox, || {
        let index = ifindex(&wish.interface)?;
        let mut netlink = Netlink::open()?;
        let mut present = Vec::new();
        for route in uplink::routes(&mut netlink)? {
            if route.destination.prefix_len() == 0 && route.ifindex == index {
                present.extend(route.gateway);
            }
        }
        let mut requests: Vec<Request> = Vec::new();
        for gateway in present.iter().filter(|gateway| !wish.gateways.contains(gateway)) {
            requests.push((RouteNetlinkMessage::DelRoute(way_out(index, *gateway)), 0));
        }
        for gateway in wish.gateways.iter().filter(|gateway| !present.contains(gateway)) {
            // what the container's owner has put in its place by hand gives way
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            requests.push((RouteNetlinkMessage::NewRoute(way_out(index, *gateway)), flags));
        }
        netlink.carry_out(requests)?.into_iter().collect()
    })
}

fn way_out(index: u32, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .build(),
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    match address {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build();
            without_waiting(&mut message);
            message
        }
    }
}

/// Nobody else can have an IPv6 address of ours: no second of waiting for duplicates.
pub fn without_waiting(message: &mut AddressMessage) {
    message.header.flags |= AddressHeaderFlags::Nodad;
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
}

/// Sets host ends up whose programs are attached and whose tables are written.
pub fn lift_all(netlink: &mut Netlink, host_ends: &[u32]) -> io::Result<()> {
    let up = |ifindex: &u32| {
        (
            RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(*ifindex).up().build()),
            0,
        )
    };
    netlink
        .carry_out(host_ends.iter().map(up).collect())?
        .into_iter()
        .collect()
}

/// Gives host ends their final alias. Only a device that is complete bears it: what a crash leaves half-made is made anew.
pub fn finish_all(netlink: &mut Netlink, host_ends: &[(u32, &Wish)]) -> io::Result<()> {
    let ready = |(ifindex, wish): &(u32, &Wish)| {
        let message = LinkUnspec::new_with_index(*ifindex).alias(wish.alias.clone()).build();
        (RouteNetlinkMessage::SetLink(message), 0)
    };
    netlink
        .carry_out(host_ends.iter().map(ready).collect())?
        .into_iter()
        .collect()
}

/// Removes a device with its other end; fine when it is gone.
pub fn remove(netlink: &mut Netlink, ifindex: u32) -> io::Result<()> {
    remove_all(netlink, &[ifindex])
}

/// Removes many.
pub fn remove_all(netlink: &mut Netlink, devices: &[u32]) -> io::Result<()> {
    let request = |ifindex: &u32| {
        let mut message = LinkMessage::default();
        message.header.index = *ifindex;
        (RouteNetlinkMessage::DelLink(message), 0)
    };
    for outcome in netlink.carry_out(devices.iter().map(request).collect())? {
        match outcome {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
