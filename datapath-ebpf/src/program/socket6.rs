//! The same for sockets of AF_INET6, which speak IPv4 too: an IPv4-mapped address (`::ffff:a.b.c.d`) is one of IPv4, and a port of `[::1]` may belong
//! to an endpoint that has IPv4 only.
//!
//! The kernel asks these hooks where a socket connects, and where it receives; a datagram to a mapped address it hands to IPv4, whose hook is asked
//! then (`sendmsg4`).

use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use sluice_datapath_common::{
    Family, Ipv4, Ipv6, Ipv6Address,
    resolver::{ASKED_PORT, ASKED4, ASKED6, RESOLVER_PORT},
    socket::{SocketPeer, SocketPeerKey},
};

use super::socket::{self, ALLOW};
use crate::{
    family::Tables,
    key::End,
    maps,
    stage::{lent, publish},
};

/// An endpoint's address and port, as the socket is to see it.
struct Answerer {
    address: Ipv6Address,
    port: u16,
}

/// `connect`: see [`socket::connect`].
#[inline(always)]
pub fn connect(call: *mut bpf_sock_addr) -> i32 {
    let Some((asked, protocol)) = asked_for(call) else {
        return ALLOW;
    };
    if ask_resolver(call, &asked) || !socket::is_ours(call) {
        return ALLOW;
    }
    match answerer_for(asked.address, asked.port, protocol) {
        Some(answerer) => turn(call, &asked, &answerer),
        None => match asked.address.to_mapped() {
            Some(address) => return socket::speak(call, address, asked.port, protocol),
            None => return speak(call, &asked, protocol),
        },
    }
    ALLOW
}

/// `sendmsg`: the same, but the kernel cannot turn a datagram to IPv4 any more (it would say ENOTSUPP). It goes where it was sent, where nobody is.
#[inline(always)]
pub fn send(call: *mut bpf_sock_addr) -> i32 {
    let Some((asked, protocol)) = asked_for(call) else {
        return ALLOW;
    };
    if ask_resolver(call, &asked) || !socket::is_ours(call) || asked.address.to_mapped().is_some() {
        return ALLOW;
    }
    match answerer_for(asked.address, asked.port, protocol) {
        Some(answerer) if answerer.address.to_mapped().is_none() => turn(call, &asked, &answerer),
        Some(_) => {}
        None => return speak(call, &asked, protocol),
    }
    ALLOW
}

/// See [`socket::speak`].
#[inline(always)]
fn speak(call: *mut bpf_sock_addr, asked: &SocketPeer<Ipv6>, protocol: u8) -> i32 {
    let socket = socket::socket(call);
    // SAFETY: `call` has a socket, whose fields the verifier turns into the real ones.
    let (own_port, own) = unsafe {
        (
            read_volatile(&raw const (*socket).src_port),
            [
                read_volatile(&raw const (*socket).src_ip6[0]),
                read_volatile(&raw const (*socket).src_ip6[1]),
                read_volatile(&raw const (*socket).src_ip6[2]),
                read_volatile(&raw const (*socket).src_ip6[3]),
            ],
        )
    };
    let peer = End {
        address: asked.address,
        port: asked.port,
    };
    match lent::may_speak::<Ipv6>(Ipv6Address(own), own_port as u16, peer, protocol) {
        true => ALLOW,
        false => socket::refuse(socket::NOT_AVAILABLE),
    }
}

/// `recvmsg` and `getpeername`: see [`socket::show_peer`]. A datagram that went out by IPv4 was noted there.
#[inline(always)]
pub fn show_peer(call: *mut bpf_sock_addr) -> i32 {
    let Some((shown, _)) = asked_for(call) else {
        return ALLOW;
    };
    if socket::may_be_answer(shown.port) && show_resolver(call, shown.address) {
        return ALLOW;
    }
    if socket::is_ours(call) {
        if let Some(asked) = Ipv6::PEERS.get(&peer_key(call, shown.address, shown.port)) {
            set_address(call, asked.address, asked.port);
        } else if let Some(address) = shown.address.to_mapped()
            && let Some(asked) = Ipv4::PEERS.get(&socket::peer_key(call, address, shown.port))
        {
            set_address(call, Ipv6Address::mapped(asked.address), asked.port);
        }
    }
    ALLOW
}

/// `bind`: see [`socket::bind`]. All addresses are those of IPv4 too; whether the socket is for IPv6 alone cannot be seen from here.
#[inline(always)]
pub fn bind(call: *mut bpf_sock_addr) -> i32 {
    if let Some((wanted, protocol)) = asked_for(call)
        && socket::is_ours(call)
    {
        let (address, port) = (wanted.address, wanted.port);
        let is_taken = match address.to_mapped() {
            Some(address) => socket::is_reserved(address, port, protocol),
            None if address == Ipv6::ANY => {
                maps::is_reserved(Ipv6::AF, protocol, port) || maps::is_reserved(Ipv4::AF, protocol, port)
            }
            None => {
                maps::is_reserved(Ipv6::AF, protocol, port) && publish::find::<Ipv6>(address, port, protocol).is_some()
            }
        };
        if is_taken {
            return socket::refuse(socket::IN_USE);
        }
    }
    ALLOW
}

/// Turns a question for a name to the resolver. False: it is none, or nobody answers here.
#[inline(always)]
fn ask_resolver(call: *mut bpf_sock_addr, asked: &SocketPeer<Ipv6>) -> bool {
    if !socket::is_question(asked.port) {
        return false;
    }
    let by_ipv4 = asked.address == Ipv6Address::mapped(ASKED4);
    if !by_ipv4 && asked.address != ASKED6 {
        return false;
    }
    let Some(resolver) = socket::resolver_of(call) else {
        return false;
    };
    let address = match by_ipv4 {
        true if resolver.address4 == Ipv4::ANY => return false,
        true => Ipv6Address::mapped(resolver.address4),
        false if resolver.address6 == Ipv6::ANY => return false,
        false => resolver.address6,
    };
    set_address(call, address, RESOLVER_PORT.to_be());
    true
}

/// Shows where the process asked in place of the resolver. False: it is not the resolver that speaks.
#[inline(always)]
fn show_resolver(call: *mut bpf_sock_addr, shown: Ipv6Address) -> bool {
    let Some(resolver) = socket::resolver_of(call) else {
        return false;
    };
    let asked = if shown == resolver.address6 && shown != Ipv6::ANY {
        ASKED6
    } else if shown == Ipv6Address::mapped(resolver.address4) && resolver.address4 != Ipv4::ANY {
        Ipv6Address::mapped(ASKED4)
    } else {
        return false;
    };
    set_address(call, asked, ASKED_PORT.to_be());
    true
}

/// Address, port and protocol of the call, see [`socket::asked_for`].
#[inline(always)]
fn asked_for(call: *mut bpf_sock_addr) -> Option<(SocketPeer<Ipv6>, u8)> {
    let (port, protocol) = socket::port_and_protocol(call)?;
    // SAFETY: `call` is the program's context; the verifier turns each read into one of the real field.
    let address = unsafe {
        [
            read_volatile(&raw const (*call).user_ip6[0]),
            read_volatile(&raw const (*call).user_ip6[1]),
            read_volatile(&raw const (*call).user_ip6[2]),
            read_volatile(&raw const (*call).user_ip6[3]),
        ]
    };
    Some((
        SocketPeer {
            address: Ipv6Address(address),
            port,
            padding: [0; 2],
        },
        protocol,
    ))
}

/// Who answers there, when it is an address of this host.
#[inline(always)]
fn answerer_for(address: Ipv6Address, port: u16, protocol: u8) -> Option<Answerer> {
    if let Some(address) = address.to_mapped() {
        let publication = socket::publication_for(address, port, protocol)?;
        return Some(Answerer {
            address: Ipv6Address::mapped(publication.address),
            port: publication.inside(port),
        });
    }
    // Connecting to :: means the host itself.
    let address = if address == Ipv6::ANY {
        Ipv6Address::LOOPBACK
    } else {
        address
    };
    let is_local = address == Ipv6Address::LOOPBACK || Ipv6::LOCAL.find(&address).is_some();
    if !is_local {
        return None;
    }
    let publication = publish::find::<Ipv6>(address, port, protocol)?;
    Some(Answerer {
        address: publication.address,
        port: publication.inside(port),
    })
}

#[inline(always)]
fn turn(call: *mut bpf_sock_addr, asked: &SocketPeer<Ipv6>, answerer: &Answerer) {
    let key = peer_key(call, answerer.address, answerer.port);
    let _ = Ipv6::PEERS.insert(&key, &raw const *asked, BPF_ANY);
    set_address(call, answerer.address, answerer.port);
}

#[inline(always)]
fn peer_key(call: *mut bpf_sock_addr, address: Ipv6Address, port: u16) -> SocketPeerKey<Ipv6> {
    SocketPeerKey {
        cookie: socket::cookie(call),
        address,
        port,
        padding: [0; 2],
        filler: [0; 4],
    }
}

#[inline(always)]
fn set_address(call: *mut bpf_sock_addr, address: Ipv6Address, port: u16) {
    // SAFETY: `call` is the program's context; the fields are writable in these hooks.
    unsafe {
        (&raw mut (*call).user_ip6[0]).write_volatile(address.0[0]);
        (&raw mut (*call).user_ip6[1]).write_volatile(address.0[1]);
        (&raw mut (*call).user_ip6[2]).write_volatile(address.0[2]);
        (&raw mut (*call).user_ip6[3]).write_volatile(address.0[3]);
        (&raw mut (*call).user_port).write_volatile(u32::from(port));
    }
}
