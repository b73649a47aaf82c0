//! The VXLAN device: where the kernel wraps and unwraps what our programs cannot, and the reason for its receive path to put segments together before they
//! look at them (it does so for ports that somebody hears at).
//!
//! It is one for all networks (`external`): which network and which host a packet is for stands beside the packet.

use std::io;

use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVxlan,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::RouteNetlinkMessage,
};

use super::{listing::Device, veth};
use crate::{
    AgentError, Tried,
    kernel::{
        netlink::{Netlink, Request},
        netns::ifindex,
        sysctl,
    },
    names::Names,
};

/// Sees to the device that hears at this port (none: there is to be no device), and answers its index; 0: there is none. `present`: what bears its name.
pub fn ensure(
    netlink: &mut Netlink,
    present: Option<&Device>,
    names: &Names,
    port: Option<u16>,
) -> Result<u32, AgentError> {
    let wanted = port.map(|port| names.overlay_alias(port));
    match present {
        Some(device) if Some(&device.alias) == wanted.as_ref() && device.up => return Ok(device.ifindex),
        // for another port, half made, or wanted no more
        Some(device) if names.is_overlay(&device.alias) || (device.alias.is_empty() && wanted.is_some()) => {
            veth::remove(netlink, device.ifindex).tried(|| format!("removing what is left of {}", names.overlay))?;
        }
        Some(device) if wanted.is_some() => {
            return Err(AgentError::Failed(format!(
                "the device {} is in the way: it is not of this instance ({})",
                device.name, device.alias
            )));
        }
        _ => {}
    }
    match port {
        Some(port) => make(netlink, names, port).tried(|| {
            format!(
                "making the VXLAN device {} at UDP port {port} (does another device of its kind hear there?)",
                names.overlay
            )
        }),
        None => Ok(0),
    }
}

fn make(netlink: &mut Netlink, names: &Names, port: u16) -> io::Result<u32> {
    let device = LinkMessageBuilder::<LinkVxlan>::new(&names.overlay)
        .collect_metadata(true)
        .learning(false)
        .port(port)
        .udp_csum(false)
        .udp_zero_csum6_tx(true)
        .udp_zero_csum6_rx(true)
        .build();
    netlink.carry_out_one(RouteNetlinkMessage::NewLink(device), NLM_F_CREATE | NLM_F_EXCL)?;
    sysctl::without_ipv6(&names.overlay)?;
    sysctl::set("ipv4", &names.overlay, "forwarding", "0")?;
    // only one that is complete bears the alias
    let up: Request = (
        RouteNetlinkMessage::SetLink(
            LinkUnspec::new_with_name(&names.overlay)
                .alias(names.overlay_alias(port))
                .up()
                .build(),
        ),
        0,
    );
    netlink.carry_out(vec![up])?.into_iter().collect::<io::Result<()>>()?;
    ifindex(&names.overlay)
}
