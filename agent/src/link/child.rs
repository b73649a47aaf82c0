//! Devices of endpoints on a parent of the host (macvlan, ipvlan). They stand in the sandbox whole: there is no end on the host that a program of
//! ours could look at, so the datapath knows nothing of them.

use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rtnetlink::{
    LinkMessageBuilder, LinkUnspec,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{
            InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, IpVlanFlags, IpVlanMode as KernelIpvlan, MacVlanMode,
        },
    },
};
use sluice_model::network::{Hold, IpvlanFlag, IpvlanMode, MacvlanMode, Parent};

use super::{
    listing,
    veth::{self, Wish},
};
use crate::{
    kernel::{
        netlink::Netlink,
        netns::{self, ifindex},
    },
    names::{MadeOf, Names},
};

/// A device that stands in a sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Whose it is.
    pub endpoint: String,
    /// The namespace it is in.
    pub sandbox: PathBuf,
    /// Its name there.
    pub interface: String,
    /// What it was made from.
    pub made_of: MadeOf,
}

/// Makes the device in its sandbox, furnishes it, and gives it its alias last: what a crash leaves half-made bears none and is made anew.
///
/// It gets its name there: before Linux 6.15 a device could not be made for another namespace by a name that one of ours has, and `eth0` is one.
pub fn make(netlink: &mut Netlink, wish: &Wish, parent: &Parent) -> io::Result<()> {
    let sandbox = netns::open(&wish.sandbox)?;
    let on = ifindex(&parent.device)
        .map_err(|error| io::Error::new(error.kind(), format!("there is no device {}: {error}", parent.device)))?;
    let new = || -> io::Result<RouteNetlinkMessage> {
        let (kind, data) = kind(parent.hold)?;
        let mut message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
            .name(wish.host_end.clone())
            .link(on)
            .setns_by_fd(sandbox.as_raw_fd())
            .set_info_data(data);
        if matches!(parent.hold, Hold::Macvlan(_)) {
            message = message.address(wish.mac.to_vec());
        }
        if wish.mtu != 0 {
            message = message.mtu(wish.mtu);
        }
        Ok(RouteNetlinkMessage::NewLink(message.build()))
    };
    match netlink.carry_out_one(new()?, NLM_F_CREATE | NLM_F_EXCL) {
        // a draft of an earlier life
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            remove_from(&wish.sandbox, &wish.host_end)?;
            netlink.carry_out_one(new()?, NLM_F_CREATE | NLM_F_EXCL)?;
        }
        outcome => outcome?,
    }
    netns::within(&sandbox, || {
        rename_here(wish)?;
        veth::furnish_here(wish)?;
        name_here(wish)
    })
}

/// Gives the sandbox the ways out that are wished for by this device, and no others.
pub fn turn(wish: &Wish) -> io::Result<()> {
    veth::turn(wish)?;
    netns::within(&netns::open(&wish.sandbox)?, || name_here(wish))
}

fn rename_here(wish: &Wish) -> io::Result<()> {
    let rename = || -> io::Result<()> {
        let name = LinkUnspec::new_with_index(ifindex(&wish.host_end)?)
            .name(wish.interface.clone())
            .build();
        Netlink::open()?.carry_out_one(RouteNetlinkMessage::SetLink(name), 0)
    };
    match rename() {
        // a draft of an earlier life that had got so far
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            veth::remove(&mut Netlink::open()?, ifindex(&wish.interface)?)?;
            rename()
        }
        outcome => outcome,
    }
}

fn name_here(wish: &Wish) -> io::Result<()> {
    let alias = LinkUnspec::new_with_index(ifindex(&wish.interface)?)
        .alias(wish.alias.clone())
        .build();
    Netlink::open()?.carry_out_one(RouteNetlinkMessage::SetLink(alias), 0)
}

/// Removes the device; fine when it, or its sandbox, is gone.
pub fn remove(child: &Child) -> io::Result<()> {
    remove_from(&child.sandbox, &child.interface)
}

fn remove_from(sandbox: &Path, interface: &str) -> io::Result<()> {
    if !netns::exists(sandbox) {
        return Ok(());
    }
    netns::within(&netns::open(sandbox)?, || match ifindex(interface) {
        Ok(index) => veth::remove(&mut Netlink::open()?, index),
        Err(_) => Ok(()),
    })
}

/// Those that stand in these sandboxes.
pub fn list<'a>(names: &Names, sandboxes: impl Iterator<Item = &'a PathBuf>) -> io::Result<Vec<Child>> {
    let mut children = Vec::new();
    for path in sandboxes.filter(|path| netns::exists(path)) {
        let devices = netns::within(&netns::open(path)?, || listing::devices(&mut Netlink::open()?))?;
        for device in devices {
            if let Some((endpoint, made_of)) = names.read_alias(&device.alias) {
                children.push(Child {
                    endpoint: endpoint.to_owned(),
                    sandbox: path.clone(),
                    interface: device.name.clone(),
                    made_of,
                });
            }
        }
    }
    Ok(children)
}

/// A kind of devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Of endpoints.
    Child(Hold),
    /// VLANs.
    Vlan,
    /// Those that lead nowhere.
    Dummy,
}

/// A kind in the kernel's words.
fn kind(hold: Hold) -> io::Result<(InfoKind, InfoData)> {
    Ok(match hold {
        Hold::Macvlan(mode) => {
            let mode = match mode {
                MacvlanMode::Bridge => MacVlanMode::Bridge,
                MacvlanMode::Private => MacVlanMode::Private,
                MacvlanMode::Vepa => MacVlanMode::Vepa,
                MacvlanMode::Passthru => MacVlanMode::Passthrough,
            };
            (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]))
        }
        Hold::Ipvlan(mode, flag) => {
            let mode = match mode {
                IpvlanMode::L2 => KernelIpvlan::L2,
                IpvlanMode::L3 => KernelIpvlan::L3,
                IpvlanMode::L3s => KernelIpvlan::L3S,
            };
            let flags = match flag {
                IpvlanFlag::Bridge => IpVlanFlags::empty(),
                IpvlanFlag::Private => IpVlanFlags::Private,
                IpvlanFlag::Vepa => IpVlanFlags::Vepa,
            };
            let data = vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flags)];
            (InfoKind::IpVlan, InfoData::IpVlan(data))
        }
        Hold::Port => return Err(io::Error::other("a port of a bridge is a veth")),
    })
}

/// Does the kernel have devices of this kind? It is asked for one that cannot be (a group's MAC, on no device), and says by its answer whether it
/// knows the kind.
pub fn is_known(netlink: &mut Netlink, what: Kind) -> io::Result<bool> {
    let (kind, data) = match what {
        Kind::Child(hold) => kind(hold).map(|(kind, data)| (kind, Some(data)))?,
        Kind::Vlan => (InfoKind::Vlan, Some(InfoData::Vlan(vec![InfoVlan::Id(1)]))),
        Kind::Dummy => (InfoKind::Dummy, None),
    };
    let mut message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind).address(vec![1, 0, 0, 0, 0, 0]);
    if let Some(data) = data {
        message = message.set_info_data(data);
    }
    let message = message.build();
    match netlink.carry_out_one(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        _ => Ok(true),
    }
}
