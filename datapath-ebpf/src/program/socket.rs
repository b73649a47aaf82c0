//! What processes do with their sockets: a connection to a published port is turned to the endpoint before its first packet exists, and an endpoint's
//! question for a name to the resolver. A port that is lent to a masqueraded conversation is told from the host's own (`stage/lent.rs`).

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_sock, bpf_sock_addr},
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
};
use sluice_datapath_common::{
    Family, Ipv4, Ipv4Address,
    publish::Publication,
    resolver::{ASKED_PORT, ASKED4, RESOLVER_PORT, Resolver},
    socket::{SocketPeer, SocketPeerKey},
};

use crate::{
    family::Tables,
    key::End,
    maps::{self, CONFIG, RESOLVERS, Table},
    packet::{TCP, UDP},
    stage::{lent, publish},
};

/// The call goes on.
pub const ALLOW: i32 = 1;
/// The call fails.
const REFUSE: i32 = 0;
/// `EADDRINUSE`
pub const IN_USE: i32 = -98;
/// `EADDRNOTAVAIL`: what `connect` says when another socket has the same two ends.
pub const NOT_AVAILABLE: i32 = -99;

/// `connect` and `sendmsg`: to a published port of any of the host's addresses, loopback included. The endpoint takes its place, and what the
/// process asked for is remembered.
#[inline(always)]
pub fn connect(call: *mut bpf_sock_addr) -> i32 {
    let Some((asked, protocol)) = asked_for(call) else {
        return ALLOW;
    };
    if is_question(asked.port) && asked.address == ASKED4 {
        if let Some(resolver) = resolver_of(call)
            && resolver.address4 != Ipv4::ANY
        {
            set_address(call, resolver.address4, RESOLVER_PORT.to_be());
            return ALLOW;
        }
    }
    if !is_ours(call) {
        return ALLOW;
    }
    let Some(publication) = publication_for(asked.address, asked.port, protocol) else {
        return speak(call, asked.address, asked.port, protocol);
    };
    let port = publication.inside(asked.port);
    let key = peer_key(call, publication.address, port);
    let _ = Ipv4::PEERS.insert(&key, &raw const asked, BPF_ANY);
    set_address(call, publication.address, port);
    ALLOW
}

/// The socket speaks to this address by its own port, unless that is lent to whoever speaks there already.
#[inline(always)]
pub fn speak(call: *mut bpf_sock_addr, address: Ipv4Address, port: u16, protocol: u8) -> i32 {
    let socket = socket(call);
    // SAFETY: `call` has a socket, whose fields the verifier turns into the real ones.
    let (own_port, own) = unsafe {
        (
            read_volatile(&raw const (*socket).src_port),
            read_volatile(&raw const (*socket).src_ip4),
        )
    };
    let peer = End { address, port };
    match lent::may_speak::<Ipv4>(Ipv4Address(own), own_port as u16, peer, protocol) {
        true => ALLOW,
        false => refuse(NOT_AVAILABLE),
    }
}

/// The socket that the call is about.
#[inline(always)]
pub fn socket(call: *mut bpf_sock_addr) -> *mut bpf_sock {
    // SAFETY: see `asked_for`.
    unsafe { read_volatile(&raw const (*call).__bindgen_anon_1.sk) }
}

/// `recvmsg` and `getpeername`: the process is shown whom it asked for.
#[inline(always)]
pub fn show_peer(call: *mut bpf_sock_addr) -> i32 {
    let Some((shown, _)) = asked_for(call) else {
        return ALLOW;
    };
    if may_be_answer(shown.port)
        && let Some(resolver) = resolver_of(call)
    {
        if shown.address == resolver.address4 && shown.address != Ipv4::ANY {
            set_address(call, ASKED4, ASKED_PORT.to_be());
        }
    } else if is_ours(call)
        && let Some(asked) = Ipv4::PEERS.get(&peer_key(call, shown.address, shown.port))
    {
        set_address(call, asked.address, asked.port);
    }
    ALLOW
}

/// `bind`: a published port is taken, though no socket holds it.
#[inline(always)]
pub fn bind(call: *mut bpf_sock_addr) -> i32 {
    if let Some((wanted, protocol)) = asked_for(call)
        && is_ours(call)
        && is_reserved(wanted.address, wanted.port, protocol)
    {
        return refuse(IN_USE);
    }
    ALLOW
}

/// The call fails with this error.
#[inline(always)]
pub fn refuse(error: i32) -> i32 {
    // SAFETY: integers only. Without it the process would see EPERM.
    unsafe { bpf_set_retval(error) };
    REFUSE
}

/// Address, port and protocol of the call. The fields are read one by one (volatile): the kernel translates each access by itself.
#[inline(always)]
fn asked_for(call: *mut bpf_sock_addr) -> Option<(SocketPeer<Ipv4>, u8)> {
    let (port, protocol) = port_and_protocol(call)?;
    // SAFETY: `call` is the program's context; the verifier turns the read into one of the real field.
    let address = unsafe { read_volatile(&raw const (*call).user_ip4) };
    Some((
        SocketPeer {
            address: Ipv4Address(address),
            port,
            padding: [0; 2],
        },
        protocol,
    ))
}

/// Port and protocol of the call, when it is of a protocol that can be published and names a port.
#[inline(always)]
pub fn port_and_protocol(call: *mut bpf_sock_addr) -> Option<(u16, u8)> {
    // SAFETY: see `asked_for`.
    let (port, protocol) = unsafe {
        (
            read_volatile(&raw const (*call).user_port),
            read_volatile(&raw const (*call).protocol),
        )
    };
    let protocol = match protocol as u8 {
        protocol @ (TCP | UDP) => protocol,
        _ => return None,
    };
    let port = port as u16;
    (port != 0).then_some((port, protocol))
}

/// Is it a port that questions for names are put to?
#[inline(always)]
pub fn is_question(port: u16) -> bool {
    port == ASKED_PORT.to_be()
}

/// Is it the port that answers come from?
#[inline(always)]
pub fn may_be_answer(port: u16) -> bool {
    port == RESOLVER_PORT.to_be()
}

/// Where the socket's namespace finds the resolver. None: it is no endpoint's, or of an endpoint without names.
#[inline(always)]
pub fn resolver_of(call: *mut bpf_sock_addr) -> Option<Resolver> {
    const TABLE: Table<u64, Resolver> = Table::of(&raw const RESOLVERS);
    // SAFETY: `call` is the program's context.
    TABLE.get(&unsafe { bpf_get_netns_cookie(call.cast()) })
}

/// Does the socket live in the namespace whose ports we publish?
#[inline(always)]
pub fn is_ours(call: *mut bpf_sock_addr) -> bool {
    // SAFETY: `call` is the program's context.
    unsafe { bpf_get_netns_cookie(call.cast()) == CONFIG.load().netns_cookie }
}

/// Who answers there, when it is an address of this host.
#[inline(always)]
pub fn publication_for(address: Ipv4Address, port: u16, protocol: u8) -> Option<Publication<Ipv4>> {
    // Connecting to 0.0.0.0 means the host itself, as 127.0.0.1 does.
    let address = if address == Ipv4::ANY {
        Ipv4Address::new([127, 0, 0, 1])
    } else {
        address
    };
    let is_local = address.octets()[0] == 127 || Ipv4::LOCAL.find(&address).is_some();
    if !is_local {
        return None;
    }
    publish::find::<Ipv4>(address, port, protocol)
}

/// Is the port published at this address, or at any when all are wanted?
#[inline(always)]
pub fn is_reserved(address: Ipv4Address, port: u16, protocol: u8) -> bool {
    maps::is_reserved(Ipv4::AF, protocol, port)
        && (address == Ipv4::ANY || publish::find::<Ipv4>(address, port, protocol).is_some())
}

/// The socket, by a number that no other ever has.
#[inline(always)]
pub fn cookie(call: *mut bpf_sock_addr) -> u64 {
    // SAFETY: `call` is the program's context.
    unsafe { bpf_get_socket_cookie(call.cast()) }
}

/// The key under which it is noted whom the socket asked for when it was sent to this endpoint.
#[inline(always)]
pub fn peer_key(call: *mut bpf_sock_addr, address: Ipv4Address, port: u16) -> SocketPeerKey<Ipv4> {
    SocketPeerKey {
        cookie: cookie(call),
        address,
        port,
        padding: [0; 2],
        filler: [],
    }
}

#[inline(always)]
fn set_address(call: *mut bpf_sock_addr, address: Ipv4Address, port: u16) {
    // SAFETY: `call` is the program's context; both fields are writable in these hooks.
    unsafe {
        (&raw mut (*call).user_ip4).write_volatile(address.0);
        (&raw mut (*call).user_port).write_volatile(u32::from(port));
    }
}
