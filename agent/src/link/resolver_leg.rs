//! The resolver's leg in the datapath: a veth pair from the host into a namespace where nothing is but the agent's sockets for questions of names.
//!
//! So a question meets no firewall of the host, asks for no address of it and takes no port, whatever rules the endpoint's network has. Every address is
//! the namespace's own for what comes in (the gateways of all networks, which come and go, without a word to it), and one neighbour leads to all others.
//! A file beside those of the sandboxes keeps the namespace: an agent that starts again finds all as it was.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::Path,
};

use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVeth},
        neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

use super::{listing::Device, sandbox, veth};
use crate::{
    AgentError, Tried,
    kernel::{
        netlink::{Netlink, Request},
        netns::{self, ifindex},
        sysctl,
    },
    names::Names,
};

/// The device in the namespace.
const INNER: &str = "eth0";
/// The table of routes for what comes in.
const INWARD: u32 = 100;
/// The one neighbour there. These addresses are known in the namespace alone.
const NEIGHBOUR4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The file of the namespace. No sandbox is called so: their names are ids.
pub const FILE: &str = "resolver";

/// The resolver's namespace, and the way into it.
#[derive(Debug)]
pub struct ResolverLeg {
    namespace: File,
    /// It was made just now: a way in that is there leads into an earlier one.
    fresh: bool,
}

impl ResolverLeg {
    /// Makes the namespace among the sandboxes', or opens the one that is there.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let fresh = !netns::exists(&path);
        sandbox::make(&path, &sandbox::Offers::default())?;
        Ok(Self {
            namespace: netns::open(&path)?,
            fresh,
        })
    }

    /// Does something in the namespace: sockets stay in the one that they were made in.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        netns::within(&self.namespace, work)
    }

    /// Sees to the way in, and answers the index of its end on the host. `present`: what bears its name there; `known`: what was answered before.
    pub fn ensure(
        &self,
        netlink: &mut Netlink,
        present: Option<&Device>,
        names: &Names,
        known: u32,
    ) -> Result<u32, AgentError> {
        let is_known = |device: &Device| device.ifindex == known || (known == 0 && !self.fresh);
        match present {
            Some(device) if device.alias == names.resolver_alias() && device.up && is_known(device) => {
                return Ok(device.ifindex);
            }
            // half made, or into an earlier namespace
            Some(device) if device.alias == names.resolver_alias() || device.alias.is_empty() => {
                veth::remove(netlink, device.ifindex)
                    .tried(|| format!("removing what is left of {}", names.resolver_leg))?;
            }
            Some(device) => {
                return Err(AgentError::Failed(format!(
                    "the device {} is in the way: it is not of this instance ({})",
                    device.name, device.alias
                )));
            }
            None => {}
        }
        self.make(netlink, names)
            .tried(|| format!("making the resolver's leg {}", names.resolver_leg))
    }

    fn make(&self, netlink: &mut Netlink, names: &Names) -> io::Result<u32> {
        let (outer, mac) = (names.resolver_leg.as_str(), names.gateway_mac().0.to_vec());
        let inner = LinkMessageBuilder::<LinkUnspec>::new()
            .name(INNER.to_owned())
            .address(mac.clone())
            .setns_by_fd(self.namespace.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(outer.to_owned())
            .address(mac.clone())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .build();
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        netlink.carry_out_one(RouteNetlinkMessage::NewLink(pair), flags)?;
        sysctl::without_ipv6(outer)?;
        sysctl::set("ipv4", outer, "forwarding", "0")?;
        self.within(|| furnish(&mac))?;
        // only one that is complete bears the alias
        let up = LinkUnspec::new_with_name(outer)
            .alias(names.resolver_alias())
            .up()
            .build();
        netlink.carry_out_one(RouteNetlinkMessage::SetLink(up), 0)?;
        ifindex(outer)
    }
}

fn furnish(mac: &[u8]) -> io::Result<()> {
    let (index, loopback) = (ifindex(INNER)?, ifindex("lo")?);
    sysctl::with_ipv6(INNER)?;
    for device in ["all", INNER] {
        sysctl::set("ipv4", device, "rp_filter", "0")?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let mut netlink = Netlink::open()?;
    netlink.carry_out_one(RouteNetlinkMessage::SetLink(up), 0)?;
    carry_out(&mut netlink, routes4(index, loopback, mac))?;
    match carry_out(&mut netlink, routes6(index, loopback, mac)) {
        // no IPv6 in this kernel
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(()),
        outcome => outcome,
    }
}

fn carry_out(netlink: &mut Netlink, requests: Vec<Request>) -> io::Result<()> {
    netlink.carry_out(requests)?.into_iter().collect()
}

fn routes4(index: u32, loopback: u32, mac: &[u8]) -> Vec<Request> {
    let out = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(NEIGHBOUR4)
        .output_interface(index)
        .onlink()
        .build();
    let inward = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(loopback)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .table_id(INWARD)
        .build();
    vec![
        neighbour(index, NEIGHBOUR4.into(), mac),
        route(out),
        rule(AddressFamily::Inet),
        route(inward),
    ]
}

fn routes6(index: u32, loopback: u32, mac: &[u8]) -> Vec<Request> {
    let out = RouteMessageBuilder::<Ipv6Addr>::new()
        .gateway(NEIGHBOUR6)
        .output_interface(index)
        .build();
    let inward = RouteMessageBuilder::<Ipv6Addr>::new()
        .output_interface(loopback)
        .kind(RouteType::Local)
        .table_id(INWARD)
        .build();
    vec![
        neighbour(index, NEIGHBOUR6.into(), mac),
        route(out),
        rule(AddressFamily::Inet6),
        route(inward),
    ]
}

fn route(message: rtnetlink::packet_route::route::RouteMessage) -> Request {
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}

fn neighbour(index: u32, address: IpAddr, mac: &[u8]) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(address.into()),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// What comes in is for the namespace, whatever its address.
fn rule(family: AddressFamily) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(1),
        RuleAttribute::Iifname(INNER.to_owned()),
        RuleAttribute::Table(INWARD),
    ];
    (RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL)
}
