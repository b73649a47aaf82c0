//! Devices that were made to be the parents of networks' endpoints: a VLAN of a NIC, or one that leads nowhere.

use std::io;

use rtnetlink::{
    LinkDummy, LinkUnspec, LinkVlan,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::RouteNetlinkMessage,
};
use sluice_model::network::MadeParent;

use crate::kernel::{netlink::Netlink, netns::ifindex};

/// What a parent is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The network's id, for reports.
    pub network: String,
    /// The device's name.
    pub name: String,
    /// Its alias.
    pub alias: String,
    /// What it is made of.
    pub made_of: MadeParent,
}

/// Makes it, up, and answers its index.
pub fn make(netlink: &mut Netlink, wish: &Wish) -> io::Result<u32> {
    let message = match &wish.made_of {
        MadeParent::Vlan { of, tag } => {
            let on = ifindex(of)
                .map_err(|error| io::Error::new(error.kind(), format!("there is no device {of}: {error}")))?;
            LinkVlan::new(&wish.name, on, *tag).build()
        }
        MadeParent::Dummy => LinkDummy::new(&wish.name).build(),
    };
    let finish = LinkUnspec::new_with_name(&wish.name)
        .alias(wish.alias.clone())
        .up()
        .build();
    let requests = vec![
        (RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL),
        (RouteNetlinkMessage::SetLink(finish), 0),
    ];
    netlink.carry_out(requests)?.into_iter().collect::<io::Result<()>>()?;
    ifindex(&wish.name)
}
