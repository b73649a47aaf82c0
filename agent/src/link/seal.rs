//! The device behind which what hosts send each other is encrypted (WireGuard).
//!
//! A host has one, for all its encrypted networks. Its private key is made here and stands in the kernel alone; the public one is told to the others, with
//! an address that the host has behind this key and nowhere else. The VXLAN device sends to that address of another host, and the kernel's routes lead it
//! into the device; what comes from such an address has come out of it. That nobody can say so who has no key rests on two things: the device takes from
//! each key its own address only, and the addresses are chosen by chance out of 2⁶⁴ and told to hosts of the cluster alone, so that a packet in the clear
//! does not find a pair of them. While the device is away, no route leads to these addresses: nothing leaves in the clear.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkWireguard, RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        route::{RouteMessage, RouteType},
    },
};
use sluice_model::host::Seal;

use super::{
    listing::{self, Device},
    veth,
};
use crate::{
    AgentError, Tried,
    kernel::{
        genetlink::{Attributes, Generic, attributes},
        netlink::{Netlink, Request},
        netns::ifindex,
        sysctl,
    },
    names::Names,
};

/// Where the addresses behind keys are: unique local ones (RFC 4193), the rest of each by chance.
const ADDRESSES: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd73, 0x6c75, 0x6963, 0x6500, 0, 0, 0, 0), 64);
/// What stands behind the ways into the device, should it go: nothing may be sent there by any other. Larger is later.
const LAST_WAY: u32 = 1 << 30;

/// The kernel's family of commands, and what it understands (linux/wireguard.h).
const FAMILY: &str = "wireguard";
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_BITS: u16 = 3;
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
const UPDATE_ONLY: u32 = 4;

/// An attribute has at most 65,535 bytes: so many peers in one message.
const AT_A_TIME: usize = 200;

/// A key, public or private.
pub type Key = [u8; 32];

/// Another host, by its public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Where it is sent to on the underlay.
    pub endpoint: SocketAddr,
    /// The address it has behind its key.
    pub address: Ipv6Addr,
}

/// What a device says of itself.
#[derive(Default)]
struct Told {
    private: Key,
    public: Key,
    port: u16,
    /// The addresses of each peer.
    peers: BTreeMap<Key, Vec<IpAddr>>,
}

/// Sees to the device, and answers by what the others reach this host through it; none: this kernel has no WireGuard. `renew`: it is to have a new key.
pub fn ensure(netlink: &mut Netlink, names: &Names, port: u16, renew: bool) -> Result<Option<Seal>, AgentError> {
    let doing = || {
        format!(
            "making {}, the device that encrypts what goes to other hosts",
            names.seal
        )
    };
    let present = find(netlink, names).tried(doing)?;
    let is_ours = |device: &Device| device.alias == names.seal_alias();
    let ifindex = match present {
        Some(device) if is_ours(&device) && device.up => device.ifindex,
        Some(device) if !is_ours(&device) && !device.alias.is_empty() => {
            return Err(AgentError::Failed(format!(
                "the device {} is in the way: it is not of this instance ({})",
                device.name, device.alias
            )));
        }
        half_made => {
            if let Some(device) = half_made {
                veth::remove(netlink, device.ifindex).tried(doing)?;
            }
            match make(netlink, names, port) {
                Ok(made) => made,
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
                Err(error) => return Err(error).tried(doing),
            }
        }
    };
    let asking = || format!("asking for the key of {}", names.seal);
    // again, too: another instance of ours may have taken it away with its own device
    netlink
        .carry_out_one(RouteNetlinkMessage::NewRoute(nowhere()), NLM_F_CREATE | NLM_F_REPLACE)
        .tried(|| "making the route behind which nothing is sent in the clear".to_owned())?;
    let mut generic = open().tried(asking)?;
    let mut told = tell(&mut generic, ifindex).tried(asking)?;
    if renew || told.public == [0; 32] || told.port != port {
        let private = if renew || told.public == [0; 32] {
            by_chance()
        } else {
            Ok(told.private)
        };
        private
            .and_then(|private| give(&mut generic, ifindex, port, &private))
            .tried(|| format!("giving {} a key, and UDP port {port}", names.seal))?;
        told = tell(&mut generic, ifindex).tried(asking)?;
    }
    let addresses = listing::addresses(netlink).tried(asking)?;
    let address = addresses.iter().find_map(|address| match address.address.addr() {
        IpAddr::V6(bare) if address.ifindex == ifindex && is_behind_a_key(bare) => Some(bare),
        _ => None,
    });
    let address = address.ok_or_else(|| {
        AgentError::Failed(format!(
            "{} has no IPv6 address: IPv6 is off in this kernel, and encrypted networks need it between hosts",
            names.seal
        ))
    })?;
    Ok(Some(Seal {
        key: text_of(&told.public),
        address,
        port,
    }))
}

/// The private key that the device has: what puts an exchange back.
pub fn private_key(names: &Names) -> io::Result<Key> {
    Ok(tell(&mut open()?, ifindex(&names.seal)?)?.private)
}

/// Puts a private key back.
pub fn put_back(names: &Names, port: u16, private: &Key) -> io::Result<()> {
    give(&mut open()?, ifindex(&names.seal)?, port, private)
}

/// Takes the device away, and the key with it.
pub fn remove(netlink: &mut Netlink, names: &Names) -> io::Result<()> {
    if let Some(device) = find(netlink, names)?.filter(|device| device.alias == names.seal_alias()) {
        veth::remove(netlink, device.ifindex)?;
        // somebody may have been quicker
        let _ = netlink.carry_out_one(RouteNetlinkMessage::DelRoute(nowhere()), 0);
    }
    Ok(())
}

/// Makes the device know these hosts and no others, as large a packet, and the ways to them. `known`: what this has made of it before, as far as that is
/// known: a host that moves without a word of its own is followed by the kernel, and not sent back.
pub fn follow(
    netlink: &mut Netlink,
    device: &mut Device,
    mtu: u32,
    known: &BTreeMap<Key, Peer>,
    wanted: &BTreeMap<Key, Peer>,
) -> io::Result<()> {
    if device.mtu != mtu {
        let larger = LinkUnspec::new_with_index(device.ifindex).mtu(mtu).build();
        netlink.carry_out_one(RouteNetlinkMessage::SetLink(larger), 0)?;
        device.mtu = mtu;
    }
    let mut generic = open()?;
    let present = tell(&mut generic, device.ifindex)?.peers;
    let mut gone: Vec<(Key, Vec<IpAddr>)> = Vec::new();
    for (key, addresses) in &present {
        if !wanted.contains_key(key) {
            gone.push((*key, addresses.clone()));
        }
    }
    let has_changed = |key: &Key, peer: &Peer| {
        let allowed = present.get(key).map(Vec::as_slice);
        known.get(key) != Some(peer) || allowed != Some([IpAddr::V6(peer.address)].as_slice())
    };
    let changed: Vec<(Key, Peer)> = wanted
        .iter()
        .filter(|(key, peer)| has_changed(key, peer))
        .map(|(key, peer)| (*key, *peer))
        .collect();
    for some in gone.chunks(AT_A_TIME) {
        set(
            &mut generic,
            device.ifindex,
            some.iter().map(|(key, _)| *key),
            |_, peer| {
                peer.put(PEER_FLAGS, &REMOVE.to_ne_bytes());
            },
        )?;
    }
    for some in changed.chunks(AT_A_TIME) {
        let keys = || some.iter().map(|(key, _)| *key);
        set(&mut generic, device.ifindex, keys(), |index, attributes| {
            let (key, peer) = &some[index];
            attributes.put(PEER_FLAGS, &REPLACE_ALLOWED.to_ne_bytes());
            attributes.put(PEER_ENDPOINT, &socket_address(peer.endpoint));
            // Whoever is new is greeted at once: its first packet finds the way open, and one whose key is new hears of ours, which it may wait for.
            if !present.contains_key(key) {
                attributes.put(PEER_KEEPALIVE, &25u16.to_ne_bytes());
            }
            attributes.nest(PEER_ALLOWED, |all| {
                all.nest(0, |allowed| {
                    allowed.put(ALLOWED_FAMILY, &(libc::AF_INET6 as u16).to_ne_bytes());
                    allowed.put(ALLOWED_ADDRESS, &peer.address.octets());
                    allowed.put(ALLOWED_BITS, &[128]);
                });
            });
        })?;
        // a greeting was wanted, no more
        set(&mut generic, device.ifindex, keys(), |_, peer| {
            peer.put(PEER_FLAGS, &UPDATE_ONLY.to_ne_bytes());
            peer.put(PEER_KEEPALIVE, &0u16.to_ne_bytes());
        })?;
    }
    let wanted_addresses = || wanted.values().map(|peer| peer.address);
    let no_more = gone
        .iter()
        .flat_map(|(_, addresses)| addresses)
        .filter_map(|address| match address {
            IpAddr::V6(address) if wanted_addresses().all(|wanted| wanted != *address) => Some(*address),
            _ => None,
        });
    let mut requests: Vec<Request> = no_more
        .map(|address| (RouteNetlinkMessage::DelRoute(way(device.ifindex, address)), 0))
        .collect();
    let removals = requests.len();
    requests.extend(changed.iter().map(|(_, peer)| {
        (
            RouteNetlinkMessage::NewRoute(way(device.ifindex, peer.address)),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }));
    // a way that is gone already is none the less gone
    netlink.carry_out(requests)?.into_iter().skip(removals).collect()
}

/// The key that stands in a text; none: there is none in it.
pub fn key_of(text: &str) -> Option<Key> {
    let mut key = Key::default();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

fn text_of(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn find(netlink: &mut Netlink, names: &Names) -> io::Result<Option<Device>> {
    let devices = listing::devices(netlink)?;
    Ok(devices.into_iter().find(|device| device.name == names.seal))
}

fn make(netlink: &mut Netlink, names: &Names, port: u16) -> io::Result<u32> {
    let device = LinkMessageBuilder::<LinkWireguard>::new(&names.seal).build();
    netlink.carry_out_one(RouteNetlinkMessage::NewLink(device), NLM_F_CREATE | NLM_F_EXCL)?;
    let ifindex = ifindex(&names.seal)?;
    sysctl::set("ipv6", &names.seal, "addr_gen_mode", "1")?;
    sysctl::set("ipv6", &names.seal, "accept_ra", "0")?;
    sysctl::set("ipv6", &names.seal, "forwarding", "0")?;
    sysctl::set("ipv4", &names.seal, "forwarding", "0")?;
    sysctl::set("ipv6", &names.seal, "disable_ipv6", "0")?;
    give(&mut open()?, ifindex, port, &by_chance()?)?;
    let mut chance = [0; 8];
    fill_by_chance(&mut chance)?;
    let address = Ipv6Addr::from_bits(ADDRESSES.0.to_bits() | u128::from(u64::from_ne_bytes(chance)));
    let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
        .index(ifindex)
        .address(address, 128)
        .build();
    message.header.flags |= AddressHeaderFlags::Nodad;
    message.attributes.push(AddressAttribute::Flags(
        AddressFlags::Nodad | AddressFlags::Noprefixroute,
    ));
    // only one that is complete bears the alias
    let complete = LinkUnspec::new_with_index(ifindex)
        .alias(names.seal_alias())
        .up()
        .build();
    let requests: Vec<Request> = vec![
        (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL),
        (RouteNetlinkMessage::SetLink(complete), 0),
    ];
    netlink.carry_out(requests)?.into_iter().collect::<io::Result<()>>()?;
    Ok(ifindex)
}

/// Where what is sent to addresses behind keys ends when no way leads into the device.
fn nowhere() -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(ADDRESSES.0, ADDRESSES.1)
        .kind(RouteType::Unreachable)
        .priority(LAST_WAY)
        .build()
}

/// The way into the device to an address behind a key.
fn way(ifindex: u32, address: Ipv6Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(address, 128)
        .output_interface(ifindex)
        .build()
}

fn is_behind_a_key(address: Ipv6Addr) -> bool {
    address.to_bits() >> (128 - u32::from(ADDRESSES.1)) == ADDRESSES.0.to_bits() >> (128 - u32::from(ADDRESSES.1))
}

fn open() -> io::Result<Generic> {
    Generic::open(FAMILY)?.ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

fn give(generic: &mut Generic, ifindex: u32, port: u16, private: &Key) -> io::Result<()> {
    let mut attributes = Attributes::default();
    attributes.put(DEVICE_IFINDEX, &ifindex.to_ne_bytes());
    attributes.put(DEVICE_LISTEN_PORT, &port.to_ne_bytes());
    attributes.put(DEVICE_PRIVATE_KEY, private);
    generic.command(SET_DEVICE, &attributes)
}

fn set(
    generic: &mut Generic,
    ifindex: u32,
    keys: impl Iterator<Item = Key>,
    mut each: impl FnMut(usize, &mut Attributes),
) -> io::Result<()> {
    let mut attributes = Attributes::default();
    attributes.put(DEVICE_IFINDEX, &ifindex.to_ne_bytes());
    attributes.nest(DEVICE_PEERS, |peers| {
        for (index, key) in keys.enumerate() {
            peers.nest(0, |peer| {
                peer.put(PEER_PUBLIC_KEY, &key);
                each(index, peer);
            });
        }
    });
    generic.command(SET_DEVICE, &attributes)
}

fn tell(generic: &mut Generic, ifindex: u32) -> io::Result<Told> {
    let mut question = Attributes::default();
    question.put(DEVICE_IFINDEX, &ifindex.to_ne_bytes());
    let mut told = Told::default();
    generic.dump(GET_DEVICE, &question, |answer| {
        for (kind, value) in attributes(answer) {
            match kind {
                DEVICE_PRIVATE_KEY => told.private = value.try_into().unwrap_or_default(),
                DEVICE_PUBLIC_KEY => told.public = value.try_into().unwrap_or_default(),
                DEVICE_LISTEN_PORT => told.port = value.try_into().map(u16::from_ne_bytes).unwrap_or_default(),
                DEVICE_PEERS => attributes(value).for_each(|(_, peer)| told.take(peer)),
                _ => {}
            }
        }
    })?;
    Ok(told)
}

impl Told {
    /// One with many addresses may come in several pieces.
    fn take(&mut self, peer: &[u8]) {
        let key = attributes(peer).find(|(kind, _)| *kind == PEER_PUBLIC_KEY);
        let Some(key) = key.and_then(|(_, key)| Key::try_from(key).ok()) else {
            return;
        };
        let addresses = self.peers.entry(key).or_default();
        for (_, allowed) in attributes(peer).filter(|(kind, _)| *kind == PEER_ALLOWED) {
            for (_, one) in attributes(allowed) {
                let address = attributes(one).find(|(kind, _)| *kind == ALLOWED_ADDRESS);
                let address = address.map(|(_, address)| address);
                let v6 = address.and_then(|address| <[u8; 16]>::try_from(address).ok());
                let v4 = address.and_then(|address| <[u8; 4]>::try_from(address).ok());
                addresses.extend(v6.map(IpAddr::from).or(v4.map(IpAddr::from)));
            }
        }
    }
}

/// As the kernel's `sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    bytes.extend((family as u16).to_ne_bytes());
    bytes.extend(address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            bytes.extend(address.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(address) => {
            bytes.extend(address.flowinfo().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.extend(address.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn by_chance() -> io::Result<Key> {
    let mut key = Key::default();
    fill_by_chance(&mut key)?;
    Ok(key)
}

fn fill_by_chance(bytes: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key: Key = std::array::from_fn(|at| at as u8 * 7);
        assert_eq!(key_of(&text_of(&key)), Some(key));
        for wrong in ["", "0g", &"f".repeat(63), &"é".repeat(32)] {
            assert_eq!(key_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_have_the_kernels_shapes() {
        let v4 = socket_address("192.0.2.1:51820".parse().unwrap());
        assert_eq!((v4.len(), &v4[2..8]), (16, &[0xca, 0x6c, 192, 0, 2, 1][..]));
        let v6 = socket_address("[2001:db8::1]:51820".parse().unwrap());
        assert_eq!((v6.len(), v6[8], v6[23]), (28, 0x20, 1));
    }

    #[test]
    fn only_what_is_in_the_range_is_behind_a_key() {
        assert!(is_behind_a_key("fd73:6c75:6963:6500:1::1".parse().unwrap()));
        assert!(!is_behind_a_key("fd73:6c75:6963:6501::1".parse().unwrap()));
    }
}
